"""The block map that the published code of Radial Attention runs. numpy only.

A band of a pair of frames is rounded to blocks by its own rule; the rounded tile depends on the band's width and on
where the two frames start within a block, and the counts behind it on the first of these only, so both are kept.
"""

from __future__ import annotations

import numpy as np

from ..softmax.blockmap import BlockMap
from ..softmax.builders import from_blocks
from .axes import Ints

__all__ = ["band", "block_map"]

# bands narrower than this skip frames; the published code has it as a literal, whatever the block
DECIMATION = 128


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
    # room for the pairs that reach past the last block
    seen = np.zeros((blocks + side, blocks + side), np.bool_)
    widths = [band(distance, per_frame, block, decay, half) for distance in range(frames)]
    columns = _column_edges(frames, per_frame, block, side)
    counts: dict[tuple[int, int], Ints] = {}
    tiles: dict[tuple[int, int, int], np.ndarray] = {}
    for i in range(frames):
        row, row_offset = divmod(i * per_frame, block)
        for j in range(frames):
            width = per_frame if sink and j == 0 else widths[abs(i - j)]
            if width is None:
                continue
            column, column_offset = divmod(j * per_frame, block)
            key = (width, row_offset, column_offset)
            if key not in tiles:
                if key[:2] not in counts:
                    counts[key[:2]] = _column_counts(width, row_offset, per_frame, block, side)
                touched, dense = np.diff(counts[key[:2]][:, :, columns[j]], axis=2)
                # dense / touched > 0.6
                tiles[key] = 5 * dense > 3 * touched
            seen[row : row + side, column : column + side] |= tiles[key]
    seen = seen[:blocks, :blocks]
    seen[video // block :] = True
    seen[:, video // block :] = True
    tail = 0 if text_blocks else text
    return from_blocks(seen, tokens, tokens, block, block, tail_queries=tail, tail_keys=tail)


def _column_edges(frames: int, per_frame: int, block: int, side: int) -> Ints:
    """Positions [frames, side + 1] within each frame, as a frame of keys, where its blocks begin and end."""
    offset = np.arange(frames) * per_frame % block
    return np.clip(np.arange(side + 1) * block - offset[:, None], 0, per_frame)


def _column_counts(width: int, offset: int, per_frame: int, block: int, side: int) -> Ints:
    """Running numbers [2, side, per_frame + 1], along columns, of those touched in a block row, and by over a third."""
    column = np.arange(per_frame)
    edges = np.clip(np.arange(side + 1)[:, None] * block - offset, 0, per_frame)
    low, high = np.maximum(column - width, edges[:-1]), np.minimum(column + width + 1, edges[1:])
    visible = np.maximum(high - low, 0)
    sums = np.zeros((2, side, per_frame + 1), np.int64)
    np.cumsum(visible > 0, axis=1, out=sums[0, :, 1:])
    np.cumsum(3 * visible > block, axis=1, out=sums[1, :, 1:])
    return sums
