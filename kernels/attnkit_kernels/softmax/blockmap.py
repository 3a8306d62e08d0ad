"""`BlockMap`: which blocks of keys a block of queries sees, and which pairs inside them. numpy only.

The engine runs it, the simulator and the benchmark count it. Builders: `builders.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .pairs import CHUNK_PAIRS, chunks, partial_pairs
from .rules import Bools, Boxes, Int32s, Int64s, Tiles, as_integers

__all__ = ["KINDS", "BlockMap", "KeyLists"]

KINDS = ("map", "dense", "causal", "sliding")


class KeyLists(NamedTuple):
    """The same lists by key block: row = (batch_index * heads + head_index) * key_blocks + key_block.

    starts : int64 [rows + 1]; columns : int32 [listed], query blocks, ascending; full : bool [listed];
    listed : int32 [listed], place of each block in the lists by query block (for the rule's tiles)
    """

    starts: Int64s
    columns: Int32s
    full: Bools
    listed: Int32s


@dataclass(frozen=True, eq=False)
class BlockMap:
    """Block structure of one sparse attention, in compressed rows.

    Parameters
    ----------
    query_tokens, key_tokens : tokens on the mapped canvas, without the tails
    query_block, key_block : slots of a block
    starts : int64 [batch * heads * query_blocks + 1]; row = (batch_index * heads + head_index) * query_blocks + block
    columns : int32 [listed], the key blocks that a row sees, ascending within it
    full : bool [listed]; a full block has only real slots and every pair visible: no mask is needed
    batch, heads : 1 is shared by all samples or heads; heads are query heads
    query_order, key_order : int64 [slots], the token of each slot, -1 for a padding slot; every token once.
        None is the identity with padding at the end
    rule : visible pairs of the partial blocks; None when they are partial only because of padding slots
    tail_queries, tail_keys : tokens after the mapped ones that see everything, and that everything sees (text).
        They are in no block; their length per sample is an argument of `attention`
    kind : "dense", "causal" and "sliding" maps can be cut into packed sequences; every other is "map"
    window, sink, causal : settings of a sliding map: a query sees keys with |query - key| < window and the first
        `sink` keys; none after itself if `causal`

    Raises
    ------
    ValueError for arrays that do not fit together, with both values.

    Notes
    -----
    A pair of a partial block is visible iff its two slots are real and the rule shows it.
    """

    query_tokens: int
    key_tokens: int
    query_block: int
    key_block: int
    starts: Int64s
    columns: Int32s
    full: Bools
    batch: int = 1
    heads: int = 1
    query_order: Int64s | None = None
    key_order: Int64s | None = None
    rule: Boxes | Tiles | None = None
    tail_queries: int = 0
    tail_keys: int = 0
    kind: str = "map"
    window: int | None = None
    sink: int = 0
    causal: bool = False

    def __post_init__(self) -> None:
        for name, dtype in (("starts", np.int64), ("columns", np.int32)):
            object.__setattr__(self, name, as_integers(getattr(self, name), dtype, name, 1))
        for name in ("query_order", "key_order"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_integers(getattr(self, name), np.int64, name, 1))
        _check_numbers(self)
        _check_order("query_order", self.query_order, self.query_tokens, self.query_block)
        _check_order("key_order", self.key_order, self.key_tokens, self.key_block)
        _check_lists(self)
        _check_rule(self)

    @cached_property
    def mapped(self) -> BlockMap:
        """The same map without its tails."""
        if not (self.tail_queries or self.tail_keys):
            return self
        return replace(self, tail_queries=0, tail_keys=0)

    @property
    def query_blocks(self) -> int:
        """Blocks along the queries."""
        return _blocks(self.query_order, self.query_tokens, self.query_block)

    @property
    def key_blocks(self) -> int:
        """Blocks along the keys."""
        return _blocks(self.key_order, self.key_tokens, self.key_block)

    @property
    def visited(self) -> int:
        """Listed blocks over all samples and heads of the map."""
        return len(self.columns)

    @cached_property
    def full_count(self) -> int:
        """Listed blocks that need no mask."""
        return int(self.full.sum())

    @property
    def partial_count(self) -> int:
        """Listed blocks with a mask."""
        return self.visited - self.full_count

    @property
    def total(self) -> int:
        """Blocks of a dense map of the same shape."""
        return self.batch * self.heads * self.query_blocks * self.key_blocks

    @property
    def density(self) -> float:
        """visited / total, partial blocks counted whole; 0 for an empty map."""
        return self.visited / self.total if self.total else 0.0

    def counts(self) -> dict[str, int | float]:
        """visited, full, partial, total and density, for records."""
        return {
            "visited": self.visited,
            "full": self.full_count,
            "partial": self.partial_count,
            "total": self.total,
            "density": self.density,
        }

    def row(self, batch: int, head: int, query_block: int) -> tuple[Int32s, Bools]:
        """(columns, full) of one block of queries; a shared axis answers to every index."""
        at = ((batch if self.batch > 1 else 0) * self.heads + (head if self.heads > 1 else 0)) * self.query_blocks
        start, end = self.starts[at + query_block : at + query_block + 2]
        return self.columns[start:end], self.full[start:end]

    @cached_property
    def rows(self) -> Int32s:
        """int32 [listed], the row of each listed block."""
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.int32), np.diff(self.starts))

    def query_slots(self) -> Int64s:
        """int64 [query_blocks * query_block], the token of each slot, -1 for padding."""
        return _slots(self.query_order, self.query_tokens, self.query_block)

    def key_slots(self) -> Int64s:
        """int64 [key_blocks * key_block], the token of each slot, -1 for padding."""
        return _slots(self.key_order, self.key_tokens, self.key_block)

    def tiles(self, listed: Int64s) -> Bools:
        """bool [some, query_block, key_block], the visible pairs of these listed blocks."""
        queries = self.query_slots().reshape(-1, self.query_block)[self.rows[listed] % max(self.query_blocks, 1)]
        keys = self.key_slots().reshape(-1, self.key_block)[self.columns[listed]]
        seen = (queries >= 0)[:, :, None] & (keys >= 0)[:, None, :]
        if self.rule is not None and self.query_tokens and self.key_tokens:
            seen &= self.rule.visible(queries, keys, listed) | self.full[listed][:, None, None]
        return seen

    def visible_pairs(self) -> int:
        """Visible pairs over all samples and heads of the map, exact, without the tails."""
        return self.full_count * self.query_block * self.key_block + self._partial_pairs

    @cached_property
    def _partial_pairs(self) -> int:
        return partial_pairs(self)

    def blocks(self) -> Bools:
        """bool [batch, heads, query_blocks, key_blocks], the listed blocks."""
        listed = np.zeros((len(self.starts) - 1, self.key_blocks), np.bool_)
        listed[self.rows, self.columns] = True
        return listed.reshape(self.batch, self.heads, self.query_blocks, self.key_blocks)

    def to_dense(self) -> Bools:
        """bool [batch, heads, queries, keys] in token order, tails included (whole, whatever their lengths)."""
        shape = (self.query_tokens + self.tail_queries, self.key_tokens + self.tail_keys)
        dense = np.zeros((self.batch * self.heads, *shape), np.bool_)
        queries = self.query_slots().reshape(-1, self.query_block)
        keys = self.key_slots().reshape(-1, self.key_block)
        for part, seen in chunks(self, np.arange(self.visited)):
            at, query, key = np.nonzero(seen)
            grid, block = np.divmod(self.rows[part][at], max(self.query_blocks, 1))
            dense[grid, queries[block, query], keys[self.columns[part][at], key]] = True
        dense[:, self.query_tokens :] = True
        dense[:, :, self.key_tokens :] = True
        return dense.reshape(self.batch, self.heads, *shape)

    def complement(self) -> BlockMap:
        """The map of the blocks that this one does not list, every real pair of them visible; without tails."""
        unlisted = ~self.blocks().reshape(len(self.starts) - 1, self.key_blocks)
        return BlockMap(
            self.query_tokens,
            self.key_tokens,
            self.query_block,
            self.key_block,
            *compress(unlisted, self.whole(unlisted.shape[0])),
            batch=self.batch,
            heads=self.heads,
            query_order=self.query_order,
            key_order=self.key_order,
        )

    def whole(self, rows: int) -> Bools:
        """bool [rows, key_blocks], where a block of the grid has real slots only; rows repeat every query_blocks."""
        queries, keys = self.real_blocks()
        return np.asarray(np.tile(queries, rows // max(len(queries), 1))[:, None] & keys)

    def real_blocks(self) -> tuple[Bools, Bools]:
        """bool [query_blocks] and [key_blocks], the blocks without padding slots."""
        queries = np.all(self.query_slots().reshape(-1, self.query_block) >= 0, axis=1)
        return queries, np.all(self.key_slots().reshape(-1, self.key_block) >= 0, axis=1)

    def transpose_lists(self) -> KeyLists:
        """The lists by key block, for the backward pass; made once."""
        return self._transposed

    @cached_property
    def _transposed(self) -> KeyLists:
        grid, block = np.divmod(self.rows, max(self.query_blocks, 1))
        row = grid.astype(np.int64) * self.key_blocks + self.columns
        # stable: within a row the blocks of queries stay ascending
        listed = np.argsort(row, kind="stable").astype(np.int32)
        counts = np.bincount(row, minlength=self.batch * self.heads * self.key_blocks)
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return KeyLists(starts, block[listed].astype(np.int32), self.full[listed], listed)


def compress(listed: Bools, full: Bools) -> tuple[Int64s, Int32s, Bools]:
    """(starts, columns, full) of bool tables [rows, key_blocks]."""
    starts = np.concatenate([[0], np.cumsum(listed.sum(1))]).astype(np.int64)
    columns = np.empty(starts[-1], np.int32)
    # some rows at a time: every block found is an int64 first; and one axis is searched faster than two
    step = max(1, CHUNK_PAIRS // max(1, listed.shape[1]))
    for first in range(0, len(listed), step):
        part = listed[first : first + step]
        columns[starts[first] : starts[first + len(part)]] = np.flatnonzero(part) % listed.shape[1]
    return starts, columns, full[listed]


def _blocks(order: Int64s | None, tokens: int, block: int) -> int:
    return -(-tokens // block) if order is None else len(order) // block


def _slots(order: Int64s | None, tokens: int, block: int) -> Int64s:
    if order is not None:
        return order
    slots = np.arange(-(-tokens // block) * block, dtype=np.int64)
    slots[tokens:] = -1
    return slots


def _check_numbers(block_map: BlockMap) -> None:
    least = {"query_tokens": 0, "key_tokens": 0, "query_block": 1, "key_block": 1, "batch": 1, "heads": 1}
    for name, low in (least | {"tail_queries": 0, "tail_keys": 0, "sink": 0}).items():
        if getattr(block_map, name) < low:
            raise ValueError(f"{name}: expected {low} or more, got {getattr(block_map, name)}")
    if block_map.kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {block_map.kind!r}")
    if (block_map.kind == "sliding") != (block_map.window is not None):
        raise ValueError(f"window: only a sliding map has one, got {block_map.window} for kind {block_map.kind!r}")


def _check_order(name: str, order: Int64s | None, tokens: int, block: int) -> None:
    if order is None:
        return
    if len(order) % block:
        raise ValueError(f"{name}: expected a multiple of {block} slots, got {len(order)}")
    real = order[order >= 0]
    if len(order) and order.min() < -1:
        raise ValueError(f"{name}: expected tokens from 0 or -1 for padding, got {order.min()}")
    if len(real) != tokens or (tokens and (real.max() >= tokens or np.bincount(real, minlength=tokens).max() > 1)):
        raise ValueError(
            f"{name}: expected each of {tokens} tokens once, got {len(real)} tokens, {len(np.unique(real))} different"
        )


def _check_lists(block_map: BlockMap) -> None:
    rows = block_map.batch * block_map.heads * block_map.query_blocks
    starts, columns, full = block_map.starts, block_map.columns, block_map.full
    if len(starts) != rows + 1:
        raise ValueError(f"starts: expected {rows + 1} entries for {rows} rows, got {len(starts)}")
    if starts[0] != 0 or starts[-1] != len(columns) or (np.diff(starts) < 0).any():
        raise ValueError(
            f"starts: expected to rise from 0 to the {len(columns)} listed blocks, got {starts[0]} to {starts[-1]}"
        )
    if full.dtype != np.bool_ or full.shape != columns.shape:
        raise ValueError(f"full: expected bool [{len(columns)}], got {full.dtype} {list(full.shape)}")
    if not len(columns):
        return
    if columns.min() < 0 or columns.max() >= block_map.key_blocks:
        raise ValueError(
            f"columns: expected 0..{block_map.key_blocks - 1} for {block_map.key_blocks} key blocks, "
            f"got {columns.min()}..{columns.max()}"
        )
    falls = np.flatnonzero(np.diff(columns) <= 0) + 1
    inside = falls[~np.isin(falls, starts)]
    if len(inside):
        before, after = columns[inside[0] - 1 : inside[0] + 1]
        raise ValueError(f"columns: expected to rise within a row, got {before} before {after}")
    queries, keys = block_map.real_blocks()
    if queries.all() and keys.all():
        return
    padded = np.repeat(np.tile(~queries, rows // len(queries)), np.diff(starts)) | ~keys[columns]
    wrong = int((padded & full).sum())
    if wrong:
        raise ValueError(f"full: a block with padding slots is partial, got {wrong} full ones with padding")


def _check_rule(block_map: BlockMap) -> None:
    rule = block_map.rule
    if block_map.kind == "dense" and (rule is not None or block_map.visited != block_map.total):
        raise ValueError(
            f"kind: a dense map lists every block and has no rule, got {block_map.visited} of {block_map.total} blocks "
            f"and rule {type(rule).__name__}"
        )
    if isinstance(rule, Boxes):
        for name, array, tokens in (
            ("low", rule.low, block_map.query_tokens),
            ("coordinate", rule.coordinate, block_map.key_tokens),
        ):
            if array.shape[1] != tokens:
                raise ValueError(f"boxes.{name}: expected {tokens} tokens, got {array.shape[1]}")
    if isinstance(rule, Tiles):
        expected = (block_map.query_block, -(-block_map.key_block // 8))
        if len(rule.bits) and rule.bits.shape[1:] != expected:
            raise ValueError(f"tiles.bits: expected tiles of {list(expected)} bytes, got {list(rule.bits.shape[1:])}")
        if len(rule.index) != block_map.visited:
            raise ValueError(f"tiles.index: expected {block_map.visited} listed blocks, got {len(rule.index)}")
        if not np.array_equal(rule.index < 0, block_map.full):
            missing = int((rule.index < 0).sum())
            raise ValueError(f"tiles.index: expected -1 at the {block_map.full_count} full blocks, got {missing}")
