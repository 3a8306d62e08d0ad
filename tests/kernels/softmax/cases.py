"""Small block maps of every kind, inputs for them, and the brute-force definition of attention."""

import numpy as np
import torch
from attnkit_kernels.softmax import (
    BlockMap,
    Boxes,
    causal,
    dense,
    from_blocks,
    from_boxes,
    from_mask,
    from_predicate,
    pack,
    sliding,
)


def order(tokens: int, block: int, padding: int, seed: int) -> np.ndarray:
    """A random order of `tokens` with at least `padding` padding slots strewn in."""
    generator = np.random.default_rng(seed)
    slots = -(-(tokens + padding) // block) * block
    places = generator.permutation(slots)[:tokens]
    found = np.full(slots, -1)
    found[places] = generator.permutation(tokens)
    return found


def neighborhood_boxes(rows: int, columns: int, window: int) -> Boxes:
    """Two axes: a window of `window` rows and columns around each token of a canvas, pushed back at its borders."""
    coordinate = np.indices((rows, columns)).reshape(2, -1)
    extents = np.array([[rows], [columns]])
    low = np.clip(coordinate - window // 2, 0, extents - window)
    return Boxes(low, low + window, coordinate)


def windows_by_id(rows: int, columns: int, side: int) -> tuple[Boxes, np.ndarray]:
    """Windows of side x side tokens that see themselves, and the order that puts each in a row."""
    row, column = np.indices((rows, columns)).reshape(2, -1)
    window = (row // side) * (columns // side) + column // side
    return Boxes(window[None], window[None] + 1, window[None]), np.argsort(window, kind="stable")


def random_mask(*shape: int, share: float, seed: int) -> np.ndarray:
    """A bool mask with this share of visible pairs."""
    return np.random.default_rng(seed).random(shape) < share


def with_blind_queries() -> BlockMap:
    """Tokens 0..15 (a whole block of queries), and single ones further on, see nothing."""
    mask = random_mask(45, 50, share=0.5, seed=1)
    mask[:16] = False
    mask[[20, 37, 44]] = False
    return from_mask(mask, 16, 16)


def maps(block: int = 16, heads: int = 4) -> dict[str, BlockMap]:
    """Named maps for up to 2 samples and `heads` heads, 37 to 64 tokens; `block` is the size of most blocks."""
    both = random_mask(2, heads, 40, 45, share=0.3, seed=2)
    # some blocks full, some empty
    both[:, 1, :16, :32] = True
    both[0, :, 16:, :16] = False
    grid = neighborhood_boxes(6, 8, 3)
    windows, in_windows = windows_by_id(8, 8, 4)
    return {
        "dense": dense(64, 64, block, block),
        "dense_padded": dense(37, 50, block, block),
        "causal": causal(45, block, block),
        "causal_unequal_blocks": causal(45, block, 2 * block),
        "sliding": sliding(50, 11, query_block=block, key_block=block),
        "sliding_sink_causal": sliding(50, 7, 3, True, 2 * block, block),
        "boxes": from_boxes(grid, block, block),
        "boxes_permuted": from_boxes(grid, block, block, order(48, block, 5, 3), order(48, block, 9, 4)),
        "boxes_tiles_differ": from_boxes(grid, block, 2 * block, order(48, block, 5, 3), order(48, 2 * block, 0, 4)),
        "boxes_full_permuted": from_boxes(windows, block, block, in_windows, in_windows),
        "mask": from_mask(random_mask(37, 53, share=0.4, seed=5), block, block),
        "mask_each_head": from_mask(both[:1], block, block),
        "mask_each_sample": from_mask(both[:, :1], block, 2 * block),
        "mask_all": from_mask(both, block, block),
        "mask_permuted": from_mask(both, block, block, order(40, block, 3, 6), order(45, block, 7, 7)),
        "blocks": from_blocks(random_mask(1, heads, 4, 3, share=0.6, seed=8), 4 * block, 3 * block, block, block),
        "complement": from_blocks(
            random_mask(4, 3, share=0.6, seed=9), 4 * block - 3, 3 * block - 3, block, block
        ).complement(),
        "predicate": from_predicate(lambda query, key: (query + key) % 3 == 0, 41, 43, block, block),
        "packed_causal": pack(causal(50, block, block), [0, 7, 7, 30, 50]),
        "blind_queries": with_blind_queries(),
        "nothing": from_blocks(np.zeros((3, 3), np.bool_), 40, 40, 16, 16),
        "one_token": dense(1, 1, block, block),
    }


def odd_maps() -> dict[str, BlockMap]:
    """Maps whose block sizes are no powers of two."""
    grid = neighborhood_boxes(4, 6, 3)
    return {
        "odd_boxes": from_boxes(grid, 7, 5, order(24, 7, 2, 10), order(24, 5, 1, 11)),
        "odd_mask": from_mask(random_mask(2, 1, 23, 31, share=0.3, seed=12), 9, 11),
        "odd_dense": dense(20, 23, 7, 9),
    }


def inputs(
    block_map: BlockMap,
    batch: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    dim: int = 16,
    dtype: torch.dtype = torch.float32,
    seed: int = 42,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normal query, key and value for the map and its tails, recording gradients."""
    queries = block_map.query_tokens + block_map.tail_queries
    keys = block_map.key_tokens + block_map.tail_keys
    return tuple(
        normal(batch, tokens, count, dim, dtype=dtype, seed=seed + at).requires_grad_()
        for at, (tokens, count) in enumerate(((queries, heads), (keys, kv_heads), (keys, kv_heads)))
    )


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Normal numbers of a seed of their own."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def brute_force(query, key, value, visible, scale=None, bias=None):
    """(output, lse) in numpy float64, row by row; visible and bias broadcast to [batch, heads, queries, keys]."""
    query, key, value = (np.asarray(tensor.detach().double()) for tensor in (query, key, value))
    batch, queries, heads, dim = query.shape
    keys, group = key.shape[1], heads // key.shape[2]
    scale = dim**-0.5 if scale is None else scale
    visible = np.broadcast_to(visible, (batch, heads, queries, keys))
    bias = np.broadcast_to(0.0 if bias is None else np.asarray(bias.detach().double()), visible.shape)
    output, lse = np.zeros((batch, queries, heads, value.shape[-1])), np.full((batch, queries, heads), -np.inf)
    for b, h, i in np.ndindex(batch, heads, queries):
        seen = np.flatnonzero(visible[b, h, i])
        if len(seen):
            scores = key[b, seen, h // group] @ query[b, i, h] * scale + bias[b, h, i, seen]
            lse[b, i, h] = np.logaddexp.reduce(scores)
            output[b, i, h] = np.exp(scores - lse[b, i, h]) @ value[b, seen, h // group]
    return torch.from_numpy(output), torch.from_numpy(lse)


def assert_close(got, expected, tolerance=1e-5):
    """Both of an (output, lse) pair within `tolerance` absolute and relative; infinities at the same places."""
    for name, left, right in zip(("output", "lse"), got, expected, strict=True):
        torch.testing.assert_close(
            left.detach().double(),
            right.detach().double(),
            rtol=tolerance,
            atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def gradients(result, tensors, seed=7):
    """Gradients to `tensors` from random upstream gradients to output and to the finite lse."""
    output, lse = result
    up = normal(*output.shape, dtype=output.dtype, seed=seed), normal(*lse.shape, dtype=lse.dtype, seed=seed + 1)
    finite = lse.isfinite()
    total = (output * up[0]).sum() + (lse.where(finite, 0) * up[1]).sum()
    return torch.autograd.grad(total, tensors)
