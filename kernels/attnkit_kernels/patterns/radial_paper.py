"""The token mask of Radial Attention's Eq. 4 as a block map with stored tiles. numpy only.

Within a pair of frames the mask is a band |k - l| <= width that depends on the distance of the frames alone, so a
block's mask depends on where it starts within its frames and on the few widths that it meets: each such case is made
once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..softmax.blockmap import BlockMap
from ..softmax.rules import Tiles, pack_tiles, range_bits
from .axes import Ints
from .runs import cut, run_lists

__all__ = ["bands", "block_map"]

# rows of tiles whose masks are made in one go
CHUNK_ROWS = 1 << 16


def bands(distances: Ints, per_frame: int) -> Ints:
    """Largest visible |k - l| of frames at these distances, -1 where nothing is visible (Eq. 4)."""
    group = np.left_shift(1, np.frexp(np.maximum(distances, 1))[1].astype(np.int64) - 1)
    diagonal = np.where(distances % -(-group // per_frame) == 0, 0, -1)
    return np.where(group <= per_frame, per_frame // group - 1, diagonal)


def block_map(frames: int, per_frame: int, query_block: int, key_block: int, sink: bool, **named: Any) -> BlockMap:
    """The map of `frames` frames of `per_frame` tokens; `named` goes to the `BlockMap` (tails)."""
    tokens = frames * per_frame
    queries, keys = cut(tokens, per_frame, query_block), cut(tokens, per_frame, key_block)
    # blocks with padding reach past the last frame
    past = (query_block + key_block) // per_frame + 2
    widths = bands(np.arange(frames + past), per_frame)
    # half the width, twice the speed
    short = widths.astype(np.int32)
    key_row, key_start, key_stop = (part.astype(np.int32) for part in keys[1:])

    def seen(first: int, stop: int) -> tuple[Ints, Ints, np.ndarray]:
        row, start, end = (part[first:stop, None].astype(np.int32) for part in queries[1:])
        width = short.take(np.abs(row - key_row))
        if sink:
            width[:, key_row == 0] = per_frame
        gap = np.maximum(key_start - end, start - key_stop) + 1
        reach = np.maximum(key_stop - start, end - key_start) - 1
        query, key = np.nonzero((gap <= width) & (width >= 0))
        return query + first, key, (reach <= width)[query, key]

    pairs = len(queries.block) * len(keys.block)
    starts, columns, full = run_lists(queries, keys, tokens, (query_block, key_block), seen, pairs)
    partial = np.flatnonzero(~full)
    rows = np.searchsorted(starts, partial, side="right") - 1
    rule = _tiles(
        rows * query_block, columns[partial].astype(np.int64) * key_block, full, per_frame, widths, sink,
        (query_block, key_block),
    )  # fmt: skip
    return BlockMap(
        tokens, tokens, query_block, key_block, starts, columns, full, rule=rule if len(partial) else None, **named
    )


def _tiles(
    query: Ints, key: Ints, full: np.ndarray, per_frame: int, widths: Ints, sink: bool, blocks: tuple[int, int]
) -> Tiles:
    """The tiles of the partial blocks, whose first tokens are query, key [partial]; one mask is made for each case."""
    frame, place = np.divmod(query, per_frame)
    key_frame, key_place = np.divmod(key, per_frame)
    met = [(at + block - 1) // per_frame for at, block in zip((place, key_place), blocks, strict=True)]
    case, cases = _meeting(frame - key_frame, met, per_frame, widths, blocks)
    in_sink = (key_frame == 0) & sink
    # a block within one pair of frames is the same wherever it starts, but for the difference
    single = (met[0] == 0) & (met[1] == 0)
    place, key_place = np.where(single, place - key_place + per_frame, place), np.where(single, 0, key_place)
    code = ((place * per_frame + key_place) * cases + case) * 4 + 2 * single + in_sink
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    chunks = []
    step = max(1, CHUNK_ROWS // blocks[0])
    for at in range(0, len(first), step):
        chosen = first[at : at + step]
        chunks.append(_bits(query[chosen], key[chosen], per_frame, widths, sink, blocks))
    stored = pack_tiles(chunks, np.zeros(len(first), np.bool_), *blocks)
    index = np.full(len(full), -1, np.int32)
    index[~full] = stored.index[inverse]
    return Tiles(stored.bits, index)


def _meeting(
    difference: Ints, met: list[Ints], per_frame: int, widths: Ints, blocks: tuple[int, int]
) -> tuple[Ints, int]:
    """A number for the widths that each block meets, and how many there are.

    difference : of the first frames of its queries and keys. met : frames that these reach past their first ones
    """
    least, most = ([(block - 1 + place) // per_frame for block in blocks] for place in (0, per_frame - 1))
    limit = int(np.abs(difference).max(initial=0))
    apart = np.arange(-most[1], most[0] + 1)
    # [query reach, key reach, difference, apart]
    query, key = (np.arange(low, high + 1)[:, None, None] for low, high in zip(least, most, strict=True))
    table = widths[np.abs(np.arange(-limit, limit + 1)[:, None] + apart)]
    table = np.where((-key <= apart) & (apart <= query[:, None]), table, -1)
    kinds, number = np.unique(table.reshape(-1, len(apart)), axis=0, return_inverse=True)
    return number.reshape(table.shape[:-1])[met[0] - least[0], met[1] - least[1], difference + limit], len(kinds)


def _bits(query: Ints, key: Ints, per_frame: int, widths: Ints, sink: bool, blocks: tuple[int, int]) -> np.ndarray:
    """Packed masks [cases, query_block, bytes] of the blocks whose first tokens are query, key [cases].

    In each frame that a block of keys meets, a query sees one range of its slots.
    """
    frame, place = np.divmod((query % per_frame)[:, None] + np.arange(blocks[0]), per_frame)
    frame, place = frame + (query // per_frame)[:, None], place.astype(np.int32)
    key_frame, key_place = np.divmod(key[:, None], per_frame)
    key_place = key_place.astype(np.int32)
    widths = widths.astype(np.int32)
    bits = np.zeros((*frame.shape, -(-blocks[1] // 8)), np.uint8)
    for met in range((blocks[1] - 1) // per_frame + 2):
        width = widths.take(np.abs(frame - key_frame - met))
        if sink:
            width[(key_frame[:, 0] == 0) & (met == 0)] = per_frame
        # slot of the frame's first token, which may lie before the block
        slot = met * per_frame - key_place
        first, last = np.clip(slot, 0, blocks[1]), np.clip(slot + per_frame, 0, blocks[1])
        place_here = place + slot
        start, stop = np.maximum(place_here - width, first), np.minimum(place_here + width + 1, last)
        bits |= range_bits(np.minimum(start, last), np.maximum(stop, first), blocks[1])
    return bits
