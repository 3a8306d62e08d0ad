"""The block map that the published code of Radial Attention runs. numpy only.

A band of a pair of frames is rounded to blocks by its own rule. In a row of blocks the columns that the band touches
are one range, and those that it touches in over a third of their rows are another, so a row of a pair of frames keeps
one range of blocks: its ends are all that has to be found.
"""

from __future__ import annotations

import numpy as np

from ..softmax.blockmap import BlockMap
from .axes import Ints
from .runs import range_lists

__all__ = ["band", "block_map"]

# bands narrower than this skip frames; the published code has it as a literal, whatever the block
DECIMATION = 128
# rows of pairs of frames that are looked at in one go
CHUNK_ROWS = 1 << 19


def band(distance: int, per_frame: int, block: int, decay: float, half: bool) -> int | None:
    """Largest visible |k - l| in frames at this distance; None when the pair is skipped."""
    power, halvings = 1 << per_frame.bit_length(), 1 << distance.bit_length()
    if power < DECIMATION * halvings and distance % int(DECIMATION * halvings / power):
        return None
    if distance < 2:
        return per_frame // 2 if half and distance else per_frame
    # token positions are whole numbers, so the fraction of a width shows nothing more
    return int(max(power / halvings * decay, block))


def block_map(
    frames: int, per_frame: int, block: int, decay: float, half: bool, sink: bool, text: int, text_blocks: bool
) -> BlockMap:
    """The map of `frames` frames of `per_frame` tokens, in runs of `block`, the text in blocks or as the dense tail."""
    video = frames * per_frame
    tokens = video + (text if text_blocks else 0)
    blocks = -(-tokens // block)
    side = -(-per_frame // block)
    widths = [band(distance, per_frame, block, decay, half) for distance in range(frames)]
    width = np.array([-1 if one is None else one for one in widths])
    kept = np.flatnonzero(width >= 0)
    apart = np.union1d(-kept, kept)
    parts = []
    step = max(1, CHUNK_ROWS // ((len(apart) + 1) * side))
    for start in range(0, frames, step):
        query = np.arange(start, min(start + step, frames))
        i, j = (table.ravel() for table in np.broadcast_arrays(query[:, None], query[:, None] + apart))
        inside = (j >= int(sink)) & (j < frames)
        i, j = i[inside], j[inside]
        parts.append(_rows(i, j, width[np.abs(i - j)], per_frame, block, side))
        if sink:
            parts.append(_rows(query, np.zeros_like(query), np.full_like(query, per_frame), per_frame, block, side))
    # the blocks with text or padding
    whole, every = video // block, np.arange(blocks)
    parts.append((every[whole:], np.zeros_like(every[whole:]), np.full_like(every[whole:], blocks)))
    parts.append((every, np.full_like(every, whole), np.full_like(every, blocks)))
    row, first, stop = (np.concatenate(values) for values in zip(*parts, strict=True))
    starts, columns = range_lists(row, first, np.minimum(stop, blocks), blocks, blocks)
    full = np.ones(len(columns), np.bool_)
    if tokens % block:
        full[starts[-2] :] = False
        full[columns == blocks - 1] = False
    tail = 0 if text_blocks else text
    return BlockMap(tokens, tokens, block, block, starts, columns, full, tail_queries=tail, tail_keys=tail)


def _rows(i: Ints, j: Ints, width: Ints, per_frame: int, block: int, side: int) -> tuple[Ints, Ints, Ints]:
    """Block row, and the block columns [first, stop) that it keeps, for each row of the pairs of frames (i, j)."""
    row, row_offset = np.divmod(i[:, None] * per_frame, block)
    column, offset = np.divmod(j[:, None] * per_frame, block)
    width = width[:, None]
    at = np.arange(side) * block - row_offset
    low, high = np.clip(at, 0, per_frame), np.clip(at + block, 0, per_frame)
    # a column k is seen by min(high, k + width + 1) - max(low, k - width) rows
    third = block // 3 + 1
    touched = np.maximum(low - width, 0), np.minimum(high + width, per_frame)
    dense = np.maximum(low - width + third - 1, 0), np.minimum(high + width - third + 1, per_frame)
    some = (high - low >= third) & (2 * width + 1 >= third) & (dense[0] < dense[1])
    first, last = (dense[0] + offset) // block, np.minimum((dense[1] - 1 + offset) // block, side - 1)
    some &= first <= last

    def keeps(number: Ints) -> np.ndarray:
        """Dense columns are over 0.6 of those touched in the block; it is so between the first and the last one."""
        start = number * block - offset
        seen, many = (
            np.minimum(np.minimum(start + block, per_frame), stop) - np.maximum(start, begin)
            for begin, stop in (touched, dense)
        )
        return 5 * many > 3 * seen

    first, stop = first + ~keeps(first), last + keeps(last)
    some &= first < stop
    return (row + np.arange(side))[some], (column + first)[some], (column + stop)[some]
