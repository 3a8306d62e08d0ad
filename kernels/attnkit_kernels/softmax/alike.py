"""Query blocks that see the same key blocks in the same way: one call of the CPU's path. numpy only."""

from __future__ import annotations

from .blockmap import BlockMap

__all__ = ["MOST_BLOCKS", "alike"]

# query blocks of one call: more make its scratch grow and its ends uneven
MOST_BLOCKS = 64


def alike(block_map: BlockMap, batch: int, head: int) -> list[list[int]]:
    """The query blocks of one sample and head of the map, at most `MOST_BLOCKS` with equal lists together."""
    base = (batch * block_map.heads + head) * block_map.query_blocks
    starts = block_map.starts
    found: dict[tuple[bytes, bytes], list[list[int]]] = {}
    for block in range(block_map.query_blocks):
        low, high = int(starts[base + block]), int(starts[base + block + 1])
        chunks = found.setdefault((block_map.columns[low:high].tobytes(), block_map.full[low:high].tobytes()), [[]])
        if len(chunks[-1]) == MOST_BLOCKS:
            chunks.append([])
        chunks[-1].append(block)
    return [rows for chunks in found.values() for rows in chunks]
