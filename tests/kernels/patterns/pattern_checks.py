"""What every static pattern's map is held against: a mask of token pairs that a test wrote down by the definition."""

import numpy as np
import torch
from attnkit_kernels.softmax import attention

torch.set_num_threads(1)


def assert_map_shows(block_map, mask):
    """The map shows exactly `mask` [queries, keys]; it lists no empty block and calls full what is, slots included."""
    np.testing.assert_array_equal(block_map.to_dense()[0, 0], mask)
    # a row of padding behind the tokens, which slot -1 reads
    padded = np.pad(mask, ((0, 1), (0, 1)))
    slots = padded[np.ix_(block_map.query_slots(), block_map.key_slots())]
    tiles = slots.reshape(-1, block_map.query_block, slots.shape[1] // block_map.key_block, block_map.key_block)
    np.testing.assert_array_equal(block_map.blocks()[0, 0], tiles.any((1, 3)))
    full = np.zeros(tiles.shape[::2], np.bool_)
    full[block_map.rows, block_map.columns] = block_map.full
    np.testing.assert_array_equal(full, tiles.all((1, 3)))
    assert block_map.visible_pairs() == mask.sum()


def qkv(queries, keys=None, heads=2, dim=8, seed=0, dtype=torch.float64):
    """Normal query, key and value [1, tokens, heads, dim]."""
    generator = torch.Generator().manual_seed(seed)
    counts = (queries, queries if keys is None else keys, queries if keys is None else keys)
    return [torch.randn(1, count, heads, dim, generator=generator, dtype=dtype) for count in counts]


def assert_attends_as(block_map, mask, seed=0):
    """attention over the map equals masked scaled_dot_product_attention, output to 1e-12 in float64."""
    query, key, value = qkv(*mask.shape, seed=seed)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(tensor.transpose(1, 2) for tensor in (query, key, value)), attn_mask=torch.from_numpy(mask)
    ).transpose(1, 2)
    got = attention(query, key, value, block_map=block_map, impl="reference").output
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
