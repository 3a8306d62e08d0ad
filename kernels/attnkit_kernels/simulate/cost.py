"""What a map costs in time: a linear model of its counts, fitted to measured times of one device.

    seconds = launch + rows * row + full tiles * full + partial tiles * partial
              + lists * list + gathered tiles * gather + masked tiles * mask + moved slots * move

Each term has a cause: the launch of the kernel, what every query tile pays however little it sees (loading queries,
writing outputs), a tile that needs no mask, a tile that needs one. The second line is what a GPU's kernel does not pay
and the CPU's does: a call for the query tiles of one list (shared by the heads of a map, so heads do not multiply it),
keys copied together where the list has gaps, a mask over the whole list where one of its tiles is partial, tokens put
into the order of the map and back. All are at least zero.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..softmax.alike import MOST_BLOCKS, alike
from ..softmax.blockmap import BlockMap

KIND = "attnkit cost model"
SCHEMA = 1
_NS = 1e9
TERMS = ("launch_ns", "row_ns", "full_ns", "partial_ns", "list_ns", "gather_ns", "mask_ns", "move_ns")
# cost files that come with the package
_COSTS = Path(__file__).with_name("costs")


@dataclass(frozen=True)
class Counts:
    """The work of one attention over a map: all of its heads and samples together.

    full_tiles, partial_tiles: visited pairs of a query tile and a key tile, without and with a mask.
    rows: query tiles. query_block, key_block: slots of a tile. dim: head dimension.
    lists: calls, one for at most 64 query tiles that see the same key tiles, once for all heads that share a map.
    gathered: key tiles copied together for a call. masked: full tiles in lists that have partial ones.
    moved: slots of queries and keys that are put into the order of a map, and of queries back.
    """

    full_tiles: int
    partial_tiles: int
    rows: int
    query_block: int
    key_block: int
    dim: int
    lists: int = 0
    gathered: int = 0
    masked: int = 0
    moved: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 1 if field.name in ("query_block", "key_block", "dim") else 0
            if value < least:
                raise ValueError(f"{field.name}: got {value}, expected at least {least}")

    @property
    def tile_flops(self) -> int:
        """Floating point operations of one whole tile, forward: two products of 2 * q * k * dim."""
        return 4 * self.query_block * self.key_block * self.dim

    @property
    def flops(self) -> int:
        """Operations that a tiled kernel does, forward: partial tiles are computed whole."""
        return self.tile_flops * (self.full_tiles + self.partial_tiles)

    @classmethod
    def of(cls, block_map: BlockMap, heads: int, dim: int, batch: int = 1) -> Counts:
        """The work of a map for so many heads and samples, all terms counted; dense tails are left out."""
        shared = (batch // block_map.batch) * (heads // block_map.heads)
        lengths = np.diff(block_map.starts)
        lists, gathered = _calls(block_map)
        partial = np.bincount(block_map.rows[~block_map.full], minlength=len(lengths))
        with_partial = lengths[partial > 0].sum() - partial.sum()
        ordered = block_map.query_order is not None or block_map.key_order is not None
        slots = 2 * (len(block_map.query_slots()) + len(block_map.key_slots()))
        return cls(
            block_map.full_count * shared,
            block_map.partial_count * shared,
            len(lengths) * shared,
            block_map.query_block,
            block_map.key_block,
            dim,
            lists=lists,
            gathered=gathered * shared,
            masked=int(with_partial) * shared,
            moved=slots * batch * heads if ordered else 0,
        )

    @classmethod
    def dense(cls, tokens: int, keys: int, query_block: int, key_block: int, heads: int, dim: int) -> Counts:
        """The work of dense attention, side by side along the tokens; only the ends can hold padding."""
        rows, columns = -(-tokens // query_block), -(-keys // key_block)
        whole_rows, whole_columns = tokens // query_block, keys // key_block
        full = whole_rows * whole_columns
        padded = keys % key_block > 0
        return cls(
            full * heads,
            (rows * columns - full) * heads,
            rows * heads,
            query_block,
            key_block,
            dim,
            lists=-(-whole_rows // MOST_BLOCKS) + rows - whole_rows,
            masked=full * heads if padded else 0,
        )


@dataclass(frozen=True)
class CostModel:
    """Nanoseconds of each term at tiles of query_block x key_block and head dimension dim, and where they come from.

    Other tiles and dimensions are scaled: a tile by its operations, a row by its elements. `exact`: nothing is scaled,
    the model holds for the tiles, the dimension and the type that it was measured with.
    """

    launch_ns: float
    row_ns: float
    full_ns: float
    partial_ns: float
    query_block: int
    key_block: int
    dim: int
    device: str = ""
    torch: str = ""
    dtype: str = ""
    direction: str = "fwd"
    impl: str = ""
    source: str = ""
    samples: int = 0
    median_error: float | None = None
    worst_error: float | None = None
    list_ns: float = 0.0
    gather_ns: float = 0.0
    mask_ns: float = 0.0
    move_ns: float = 0.0
    exact: bool = False

    def __post_init__(self) -> None:
        for name in TERMS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"{name}: got {value!r}, expected a number of at least 0")
        for name in ("query_block", "key_block", "dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: got {value!r}, expected a whole number of at least 1")
        if not isinstance(self.exact, bool):
            raise ValueError(f"exact: got {self.exact!r}, expected true or false")

    @property
    def needs_lists(self) -> bool:
        """Whether it asks for more of a map than its numbers of tiles: `Counts.of` has it."""
        return any((self.list_ns, self.gather_ns, self.mask_ns, self.move_ns))

    def predict(self, counts: Counts) -> float:
        """Seconds that an attention with these counts takes on the device of the fit.

        ValueError where an exact model is asked for other tiles or another dimension.
        """
        own, asked = (self.query_block, self.key_block, self.dim), (counts.query_block, counts.key_block, counts.dim)
        if self.exact and own != asked:
            raise ValueError(
                f"cost model: got tiles of {asked[0]} x {asked[1]} slots and dim {asked[2]}, "
                f"expected {own[0]} x {own[1]} and dim {own[2]}, which it was measured with"
            )
        return float(_terms(counts, *own) @ [getattr(self, name) for name in TERMS]) / _NS

    @classmethod
    def fit(cls, samples: Sequence[tuple[Counts, float]], **about: Any) -> CostModel:
        """The model that is nearest to measured (counts, seconds), by relative error in the sense of least squares.

        The reference tile is the first sample's. `about` fills the fields that say where the times come from (device,
        torch, dtype, direction, impl, source). ValueError without samples, or with a time that is not above zero.
        """
        if not samples:
            raise ValueError("samples: got none, expected at least one (counts, seconds)")
        for _, seconds in samples:
            if not 0 < seconds < float("inf"):
                raise ValueError(f"samples: got a time of {seconds} s, expected one above 0")
        first = samples[0][0]
        shape = (first.query_block, first.key_block, first.dim)
        terms = np.stack([_terms(counts, *shape) for counts, _ in samples])
        times = np.array([seconds for _, seconds in samples]) * _NS
        costs = _non_negative_least_squares(terms / times[:, None], np.ones(len(samples)))
        errors = np.abs(terms @ costs / times - 1)
        return cls(
            **dict(zip(TERMS, costs.tolist(), strict=True)),
            query_block=first.query_block,
            key_block=first.key_block,
            dim=first.dim,
            samples=len(samples),
            median_error=float(np.median(errors)),
            worst_error=float(errors.max()),
            **about,
        )

    def to_json(self) -> str:
        """The text of a cost file; terms that only some devices pay are left out where they are zero."""
        told = {key: value for key, value in asdict(self).items() if value or key not in (*TERMS[4:], "exact")}
        return json.dumps({"kind": KIND, "schema": SCHEMA, **told}, ensure_ascii=False, indent=1) + "\n"

    def save(self, path: str | Path) -> None:
        """Write a cost file, replacing what was there."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> CostModel:
        """The model of a cost file. ValueError for a file that is none; OSError for one that cannot be read."""
        try:
            content = json.loads(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error}), expected a cost file") from None
        if not isinstance(content, dict) or content.get("kind") != KIND:
            got = content.get("kind") if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"{path}: got kind {got!r}, expected {KIND!r}")
        if content.pop("schema", None) != SCHEMA:
            raise ValueError(f"{path}: schema of a cost file must be {SCHEMA}")
        content.pop("kind")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(content) - known):
            raise ValueError(f"{path}: got the unknown key {unknown[0]!r}, expected some of {', '.join(sorted(known))}")
        try:
            return cls(**content)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None


def shipped() -> dict[str, Path]:
    """The cost files that come with the package, by name."""
    return {path.stem: path for path in sorted(_COSTS.glob("*.json"))}


def cost_named(name: str) -> CostModel:
    """The model of a cost file, by its path or by the name of a shipped one.

    ValueError for a file that is no cost file, FileNotFoundError where there is none.
    """
    path = Path(name)
    known = shipped()
    if name in known and not path.exists():
        path = known[name]
    elif not path.exists():
        raise FileNotFoundError(f"{name}: no such file, and no shipped one of that name ({', '.join(known)})")
    return CostModel.load(path)


def _terms(counts: Counts, query_block: int, key_block: int, dim: int) -> NDArray[np.float64]:
    """What each of the costs of `TERMS` is multiplied by, in units of the reference tile."""
    tile = counts.tile_flops / (4 * query_block * key_block * dim)
    row = counts.query_block * counts.dim / (query_block * dim)
    keys = counts.key_block * counts.dim / (key_block * dim)
    return np.array(
        [
            1.0,
            counts.rows * row,
            counts.full_tiles * tile,
            counts.partial_tiles * tile,
            counts.lists,
            counts.gathered * keys,
            counts.masked * tile,
            counts.moved * counts.dim / dim,
        ]
    )


def _calls(block_map: BlockMap) -> tuple[int, int]:
    """Calls of the CPU's path over a map, and the key tiles that they copy together because a list has gaps."""
    calls = gathered = 0
    for batch in range(block_map.batch):
        for head in range(block_map.heads):
            base = (batch * block_map.heads + head) * block_map.query_blocks
            for rows in alike(block_map, batch, head):
                columns = block_map.columns[block_map.starts[base + rows[0]] : block_map.starts[base + rows[0] + 1]]
                calls += 1
                if len(columns) and columns[-1] - columns[0] + 1 != len(columns):
                    gathered += len(columns)
    return calls, gathered


def _non_negative_least_squares(matrix: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x >= 0 with the least |matrix x - wanted|: exact, by trying every set of non-zero entries.

    The least squares solution over the right set is itself non-negative, and with eight columns there are 255 sets.
    """
    columns = matrix.shape[1]
    # columns differ by many powers of ten, which would cost lstsq its small ones
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    scaled = matrix / scale
    best, least = np.zeros(columns), float(wanted @ wanted)
    used = np.flatnonzero(matrix.any(0))
    for size in range(1, columns + 1):
        for chosen in itertools.combinations(used, size):
            found, _, rank, _ = np.linalg.lstsq(scaled[:, chosen], wanted, rcond=None)
            residual = scaled[:, chosen] @ found - wanted
            left = float(residual @ residual)
            # a larger set must earn its place: equal fits keep the fewer terms
            if rank == size and (found >= 0).all() and left < least * (1 - 1e-9) - 1e-18:
                best, least = np.zeros(columns), left
                best[list(chosen)] = found
    return best / scale
