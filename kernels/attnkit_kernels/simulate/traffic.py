"""Operations and bytes of an attention: what its arithmetic intensity leaves to hope for."""

from __future__ import annotations

from dataclasses import dataclass

from .counts import Simulation

__all__ = ["ITEM_BYTES", "Traffic", "traffic"]

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1}


@dataclass(frozen=True)
class Traffic:
    """Of a forward pass over all heads.

    flops : operations of the visited tiles, computed whole. visible_flops : those of visible pairs alone
    least_bytes : query, key, value and output once each
    tile_bytes : query and output once, key and value once for every visit: what a kernel moves without a cache
    """

    flops: int
    visible_flops: int
    least_bytes: int
    tile_bytes: int


def traffic(simulation: Simulation, heads: int = 1, dim: int = 128, dtype: str = "bfloat16") -> Traffic:
    """The operations and bytes of `heads` heads of head dimension `dim`. ValueError for an unknown dtype."""
    if dtype not in ITEM_BYTES:
        raise ValueError(f"dtype: got {dtype!r}, expected one of {', '.join(ITEM_BYTES)}")
    element = heads * dim * ITEM_BYTES[dtype]
    own = 2 * simulation.query_tokens * element
    return Traffic(
        flops=simulation.work(heads, dim).flops,
        visible_flops=4 * simulation.visible_pairs * dim * heads,
        least_bytes=own + 2 * simulation.key_tokens * element,
        tile_bytes=own + 2 * simulation.run_tiles_visited * simulation.key_block * element,
    )
