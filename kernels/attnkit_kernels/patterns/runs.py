"""Block lists over runs of the row-major index, from rows of the canvas cut where the blocks are cut. numpy only.

A block of 128 tokens of a canvas with rows of 80 is three segments of rows at most. A pattern answers for pairs of
segments (seen, full); a pair of blocks is seen when one of its pairs of segments is, and full when all are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .axes import Ints
from .separable import Lists

__all__ = ["Segments", "cut", "range_lists", "run_lists"]

Bools = NDArray[np.bool_]
# pairs of segments that are looked at in one go
CHUNK_SEGMENTS = 1 << 21
# (query segment, key segment, full) of the seen pairs, for query segments [first, stop)
Pairs = Callable[[int, int], tuple[Ints, Ints, Bools]]


class Segments(NamedTuple):
    """Pieces of rows, in order: block and row of each, and its positions [start, stop) within the row."""

    block: Ints
    row: Ints
    start: Ints
    stop: Ints


def cut(tokens: int, row: int, block: int) -> Segments:
    """The segments of `tokens` tokens in rows of `row`, in blocks of `block`."""
    first = np.union1d(np.arange(0, tokens, block), np.arange(0, tokens, row))
    length = np.diff(np.append(first, tokens))
    start = first % row
    return Segments(first // block, first // row, start, start + length)


def run_lists(
    queries: Segments, keys: Segments, tokens: int, blocks: tuple[int, int], seen: Pairs, pairs: int
) -> Lists:
    """starts, columns, full for blocks of `blocks` = (query_block, key_block) slots; `seen` looks at `pairs` in all."""
    query_blocks, key_blocks = int(queries.block[-1]) + 1, int(keys.block[-1]) + 1
    per_query, per_key = np.bincount(queries.block), np.bincount(keys.block)
    # padding makes a block partial
    query_whole = np.arange(1, query_blocks + 1) * blocks[0] <= tokens
    key_whole = np.arange(1, key_blocks + 1) * blocks[1] <= tokens
    counts, columns, full = [], [], []
    step = max(1, CHUNK_SEGMENTS * query_blocks // pairs)
    for first in range(0, query_blocks, step):
        stop = min(first + step, query_blocks)
        query, key, whole = seen(*np.searchsorted(queries.block, (first, stop)).tolist())
        code = (queries.block[query] - first) * key_blocks + keys.block[key]
        shape = (stop - first, key_blocks)
        listed = np.bincount(code, minlength=shape[0] * shape[1]).reshape(shape) > 0
        every = np.bincount(code[whole], minlength=shape[0] * shape[1]).reshape(shape)
        full_here = every == per_query[first:stop, None] * per_key
        full_here &= query_whole[first:stop, None] & key_whole
        counts.append(listed.sum(1))
        columns.append(np.nonzero(listed)[1].astype(np.int32))
        full.append(full_here[listed])
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return starts, np.concatenate(columns), np.concatenate(full)


def range_lists(row: Ints, first: Ints, stop: Ints, rows: int, columns: int) -> tuple[Ints, NDArray[np.int32]]:
    """starts, columns of the table [rows, columns] whose row[n] lists the columns [first[n], stop[n]).

    Ranges come in any order, may overlap and may be empty.
    """
    # a range of the table read row by row, with a column between rows that no range reaches
    order = np.argsort(row * (columns + 1) + first, kind="stable")
    begin = (row * (columns + 1) + first)[order]
    end = np.maximum.accumulate((row * (columns + 1) + stop)[order])
    apart = np.append(True, begin[1:] > end[:-1])
    begin, end = begin[apart], end[np.append(apart[1:], True)]
    length = end - begin
    row, first = np.divmod(begin, columns + 1)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, length, rows).astype(np.int64))])
    listed = np.arange(starts[-1], dtype=np.int32)
    listed += np.repeat((first - np.cumsum(length) + length).astype(np.int32), length)
    return starts, listed
