"""Builders of `BlockMap`: from blocks, masks, boxes or a predicate; dense, causal and sliding maps. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .blockmap import BlockMap, compress
from .pairs import CHUNK_PAIRS
from .rules import Bools, Boxes, Int64s, Integers, pack_tiles, range_bits

__all__ = ["causal", "dense", "from_blocks", "from_boxes", "from_mask", "from_predicate", "sliding"]

Predicate = Callable[[Int64s, Int64s], Bools]


def from_blocks(
    blocks: NDArray[np.bool_],
    query_tokens: int,
    key_tokens: int,
    query_block: int,
    key_block: int,
    query_order: Int64s | None = None,
    key_order: Int64s | None = None,
    rule: Boxes | None = None,
    **named: Any,
) -> BlockMap:
    """The map that lists the blocks set in `blocks` [(batch,) (heads,) query_blocks, key_blocks].

    Without a `rule` every real pair of a listed block is visible. With one, every listed block is held for partial
    (`from_boxes` finds out which are full). `named`: tail_queries, tail_keys, kind, window.
    """
    table, batch, heads = _leading(np.asarray(blocks), "blocks")
    empty = BlockMap(
        query_tokens,
        key_tokens,
        query_block,
        key_block,
        *_nothing(query_tokens, query_block, query_order, batch * heads),
        batch=batch,
        heads=heads,
        query_order=query_order,
        key_order=key_order,
    )
    expected = (empty.query_blocks, empty.key_blocks)
    if table.shape[1:] != expected:
        raise ValueError(f"blocks: expected [..., {expected[0]}, {expected[1]}] blocks, got shape {list(blocks.shape)}")
    rows = table.reshape(batch * heads * expected[0], expected[1])
    full = empty.whole(len(rows)) if rule is None else np.zeros(rows.shape, np.bool_)
    starts, columns, whole = compress(rows, full)
    return replace(empty, starts=starts, columns=columns, full=whole, rule=rule, **named)


def from_mask(
    mask: NDArray[np.bool_],
    query_block: int,
    key_block: int,
    query_order: Int64s | None = None,
    key_order: Int64s | None = None,
    **named: Any,
) -> BlockMap:
    """The map of an explicit mask [(batch,) (heads,) queries, keys] in token order; partial blocks become `Tiles`."""
    table, batch, heads = _leading(np.asarray(mask), "mask")
    queries, keys = table.shape[1:]
    shown = from_blocks(
        np.ones((batch, heads, *_grid(queries, keys, query_block, key_block, query_order, key_order)), np.bool_),
        queries,
        keys,
        query_block,
        key_block,
        query_order,
        key_order,
    )
    # a row of padding behind the tokens, so that slot -1 reads False
    padded = np.pad(table, ((0, 0), (0, 1), (0, 1)))

    def tiles(listed: Int64s) -> Bools:
        row = shown.rows[listed]
        query = shown.query_slots().reshape(-1, query_block)[row % shown.query_blocks]
        key = shown.key_slots().reshape(-1, key_block)[shown.columns[listed]]
        return padded[(row // shown.query_blocks)[:, None, None], query[:, :, None], key[:, None, :]]

    return _refined(shown, tiles, named)


def from_predicate(
    predicate: Predicate,
    query_tokens: int,
    key_tokens: int,
    query_block: int,
    key_block: int,
    query_order: Int64s | None = None,
    key_order: Int64s | None = None,
    candidates: NDArray[np.bool_] | None = None,
    **named: Any,
) -> BlockMap:
    """The map of `predicate(query [n, queries, 1], key [n, 1, keys]) -> bool [n, queries, keys]` over token numbers.

    It is asked block by block and only where `candidates` [query_blocks, key_blocks] is set (default everywhere), in
    chunks of 16 million pairs; partial blocks become `Tiles`. Shared by all samples and heads.
    """
    grid = _grid(query_tokens, key_tokens, query_block, key_block, query_order, key_order)
    asked = np.ones(grid, np.bool_) if candidates is None else candidates
    shown = from_blocks(asked, query_tokens, key_tokens, query_block, key_block, query_order, key_order)

    def tiles(listed: Int64s) -> Bools:
        query = shown.query_slots().reshape(-1, query_block)[shown.rows[listed] % max(shown.query_blocks, 1), :, None]
        key = shown.key_slots().reshape(-1, key_block)[shown.columns[listed], None, :]
        seen = predicate(np.maximum(query, 0), np.maximum(key, 0))
        return np.asarray(seen & (query >= 0) & (key >= 0))

    return _refined(shown, tiles, named)


def _refined(shown: BlockMap, tiles: Callable[[Int64s], Bools], named: dict[str, Any]) -> BlockMap:
    """`shown` without its empty blocks, full where all is visible, the rest as stored tiles."""
    step = max(1, CHUNK_PAIRS // (shown.query_block * shown.key_block))
    kept, full, partial = [], [], []
    for start in range(0, shown.visited, step):
        listed = np.arange(start, min(start + step, shown.visited))
        seen = tiles(listed)
        some, every = np.any(seen, axis=(1, 2)), np.all(seen, axis=(1, 2))
        kept.append(listed[some])
        full.append(every[some])
        partial.append(np.packbits(seen[some & ~every], axis=-1, bitorder="little"))
    listed = np.concatenate(kept) if kept else np.zeros(0, np.int64)
    whole = np.concatenate(full) if full else np.zeros(0, np.bool_)
    starts = np.searchsorted(shown.rows[listed], np.arange(len(shown.starts)))
    return BlockMap(
        shown.query_tokens,
        shown.key_tokens,
        shown.query_block,
        shown.key_block,
        starts,
        shown.columns[listed],
        whole,
        batch=shown.batch,
        heads=shown.heads,
        query_order=shown.query_order,
        key_order=shown.key_order,
        rule=pack_tiles(partial, whole, shown.query_block, shown.key_block),
        **named,
    )


def from_boxes(
    boxes: Boxes,
    query_block: int,
    key_block: int,
    query_order: Int64s | None = None,
    key_order: Int64s | None = None,
    **named: Any,
) -> BlockMap:
    """The exact map of `boxes`, shared by all samples and heads, without a table of token pairs.

    Bounds of each block show the full blocks and the candidates; only candidates are looked at pair by pair.
    """
    queries, keys = boxes.low.shape[1], boxes.coordinate.shape[1]
    grid = _grid(queries, keys, query_block, key_block, query_order, key_order)
    shown = from_blocks(np.zeros(grid, np.bool_), queries, keys, query_block, key_block, query_order, key_order)
    query = shown.query_slots().reshape(-1, query_block)
    key = shown.key_slots().reshape(-1, key_block)
    some = np.full(grid, queries > 0 and keys > 0)
    every = shown.whole(grid[0])
    if queries and keys:
        for low, high, coordinate in zip(boxes.low, boxes.high, boxes.coordinate, strict=True):
            lowest, highest = _extent(low, query)
            least, most = _extent(high, query)
            first, last = _extent(coordinate, key)
            some &= (lowest[:, None] <= last) & (first < most[:, None])
            every &= (highest[:, None] <= first) & (last < least[:, None])
    row, column = np.divmod(np.flatnonzero(some & ~every), max(1, grid[1]))
    seen = _touched(boxes, query, key, row, column)
    some[row, column] = seen
    return BlockMap(
        queries,
        keys,
        query_block,
        key_block,
        *compress(some, every),
        query_order=query_order,
        key_order=key_order,
        rule=boxes,
        **named,
    )


def _extent(values: Integers, slots: Int64s) -> tuple[Int64s, Int64s]:
    """Smallest and largest value over the real slots of each block [blocks]; an empty block gives (large, small)."""
    real, wide = slots >= 0, np.int64(2**40)
    at = values[slots].astype(np.int64)
    return np.where(real, at, wide).min(1), np.where(real, at, -wide).max(1)


def _touched(boxes: Boxes, query: Int64s, key: Int64s, row: Int64s, column: Int64s) -> Bools:
    """Whether any pair of the blocks (row, column) is visible."""
    touched = np.zeros(len(row), np.bool_)
    # a few queries of a block settle nearly all of them
    few = np.unique(np.linspace(0, query.shape[1] - 1, 5).astype(np.int64)) if query.size else np.zeros(0, np.int64)
    for chosen in (few, slice(None)):
        left = np.flatnonzero(~touched)
        width = len(few) if chosen is few else query.shape[1]
        step = max(1, CHUNK_PAIRS // max(1, width * key.shape[1]))
        for start in range(0, len(left), step):
            at = left[start : start + step]
            queries, keys = query[row[at]][:, chosen], key[column[at]]
            seen = boxes.visible(queries, keys)
            seen &= (queries >= 0)[:, :, None] & (keys >= 0)[:, None, :]
            touched[at] = seen.any((1, 2))
    return touched


def dense(
    query_tokens: int, key_tokens: int | None = None, query_block: int = 128, key_block: int = 128, **named: Any
) -> BlockMap:
    """The map that shows everything; key_tokens defaults to query_tokens."""
    key_tokens = query_tokens if key_tokens is None else key_tokens
    blocks = np.ones(_grid(query_tokens, key_tokens, query_block, key_block, None, None), np.bool_)
    return from_blocks(blocks, query_tokens, key_tokens, query_block, key_block, kind="dense", **named)


def causal(tokens: int, query_block: int = 128, key_block: int = 128, **named: Any) -> BlockMap:
    """The map where a query sees itself and the keys before it."""
    at = np.arange(tokens)[None]
    return from_boxes(Boxes(np.zeros_like(at), at + 1, at), query_block, key_block, kind="causal", **named)


def sliding(
    tokens: int,
    window: int,
    sink: int = 0,
    causal: bool = False,
    query_block: int = 128,
    key_block: int = 128,
    **named: Any,
) -> BlockMap:
    """The map where a query sees the keys nearer than `window` tokens, and the first `sink` keys.

    Causal: none after the query itself, so `window` keys with its own. ValueError for a window below 1.

    >>> sliding(5, 2, causal=True).to_dense()[0, 0].sum(1).tolist()
    [1, 2, 2, 2, 2]
    >>> sliding(512, 129, query_block=128, key_block=128).counts()["visited"]
    10
    """
    settings = dict(kind="sliding", window=window, sink=sink, causal=causal, **named)
    first, end = np.zeros(tokens, np.int64), np.full(tokens, tokens)
    return sliding_within(first, end, window, sink, causal, query_block, key_block, **settings)


def sliding_within(
    first: Integers,
    end: Integers,
    window: int,
    sink: int,
    causal: bool,
    query_block: int,
    key_block: int,
    /,
    **named: Any,
) -> BlockMap:
    """As `sliding`, each token inside its own sequence [first, end) given per token; `named` says the kind."""
    if window < 1:
        raise ValueError(f"window: expected 1 or more tokens, got {window}")
    at = np.arange(len(first))
    low, high = np.maximum(first, at - window + 1), at + 1 if causal else np.minimum(end, at + window)
    if not sink:
        return from_boxes(Boxes(low[None], high[None], at[None]), query_block, key_block, **named)
    head = np.minimum(first + sink, at + 1 if causal else end)
    return _from_ranges(((low, high), (first, head)), query_block, key_block, **named)


def _from_ranges(ranges: Sequence[tuple[Int64s, Integers]], query_block: int, key_block: int, **named: Any) -> BlockMap:
    """The map where query i sees the keys [low[i], high[i]) of every (low, high) in `ranges`, as many as queries."""
    tokens = len(ranges[0][0])
    at = np.arange(tokens)[None]
    grid = _grid(tokens, tokens, query_block, key_block, None, None)
    some, every = np.zeros(grid, np.bool_), np.zeros(grid, np.bool_)
    for low, high in ranges:
        one = from_boxes(Boxes(low[None], high[None], at), query_block, key_block)
        some[one.rows, one.columns] = True
        every[one.rows[one.full], one.columns[one.full]] = True
    # a row of padding behind the tokens, so that slot -1 sees nothing
    edges = [(np.append(low, 0), np.append(high, 0)) for low, high in ranges]
    slots = np.append(at, np.full(grid[0] * query_block - tokens, -1)).reshape(grid[0], query_block)
    row, column = np.divmod(np.flatnonzero(some & ~every), max(1, grid[1]))
    step = max(1, CHUNK_PAIRS // (16 * query_block))
    tiles = []
    for start in range(0, len(row), step):
        query, key = slots[row[start : start + step]], column[start : start + step, None] * key_block
        seen: NDArray[np.uint8] = np.zeros((*query.shape, -(-key_block // 8)), np.uint8)
        for low, high in edges:
            first, stop = (np.clip(edge[query] - key, 0, key_block) for edge in (low, high))
            seen |= range_bits(first, stop, key_block)
        # ranges that meet may fill a block together
        whole = np.bitwise_count(seen).sum(axis=(1, 2), dtype=np.int64) == query_block * key_block
        every[row[start : start + step], column[start : start + step]] = whole
        tiles.append(seen[~whole])
    lists = compress(some, every)
    rule = pack_tiles(tiles, lists[2], query_block, key_block)
    return BlockMap(tokens, tokens, query_block, key_block, *lists, rule=rule, **named)


def prefixes(
    lengths: Int64s, query_tokens: int, key_tokens: int, query_block: int = 128, key_block: int = 128
) -> BlockMap:
    """The map where the queries of sample b see the first lengths[b] keys; `dense` when these are all of them."""
    if (lengths == key_tokens).all():
        return dense(query_tokens, key_tokens, query_block, key_block)
    blocks = _grid(query_tokens, key_tokens, query_block, key_block, None, None)
    queries = np.clip(query_tokens - np.arange(blocks[0]) * query_block, 0, query_block)
    keys = np.clip(lengths[:, None] - np.arange(blocks[1]) * key_block, 0, key_block)
    seen = np.broadcast_to(keys[:, None, :], (len(lengths), *blocks)).reshape(-1, blocks[1])
    real = np.tile(queries, len(lengths))[:, None]
    lists = compress(seen > 0, (seen == key_block) & (real == query_block))
    partial = ~lists[2]
    # few kinds of tiles: so many real queries by so many visible keys
    kinds = (real * (key_block + 1) + seen)[seen > 0][partial]
    rows, columns = np.divmod(kinds, key_block + 1)
    tiles = (np.arange(query_block) < rows[:, None])[:, :, None] & (np.arange(key_block) < columns[:, None])[:, None]
    packed = np.packbits(tiles, axis=-1, bitorder="little")
    rule = pack_tiles([packed], lists[2], query_block, key_block)
    return BlockMap(query_tokens, key_tokens, query_block, key_block, *lists, batch=len(lengths), rule=rule)


def _grid(
    queries: int, keys: int, query_block: int, key_block: int, query_order: Int64s | None, key_order: Int64s | None
) -> tuple[int, int]:
    for name, block in (("query_block", query_block), ("key_block", key_block)):
        if block < 1:
            raise ValueError(f"{name}: expected 1 or more, got {block}")
    rows = queries if query_order is None else len(query_order)
    columns = keys if key_order is None else len(key_order)
    return -(-rows // query_block), -(-columns // key_block)


def _nothing(queries: int, query_block: int, order: Int64s | None, copies: int) -> tuple[Int64s, Any, Bools]:
    rows = copies * _grid(queries, 0, query_block, 1, order, None)[0]
    return np.zeros(rows + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.bool_)


def _leading(table: NDArray[Any], name: str) -> tuple[NDArray[Any], int, int]:
    """[batch * heads, rows, columns], batch and heads of a bool array of 2 to 4 dimensions."""
    if table.dtype != np.bool_ or not 2 <= table.ndim <= 4:
        raise ValueError(
            f"{name}: expected bool [(batch,) (heads,) rows, columns], got {table.dtype} {list(table.shape)}"
        )
    batch, heads = (1, 1, *table.shape)[-4:-2]
    return table.reshape(batch * heads, *table.shape[-2:]), batch, heads
