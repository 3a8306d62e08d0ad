"""Block maps: every builder against the mask it stands for, the counts, the lists, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest
from attnkit_kernels.softmax import (
    BlockMap,
    Boxes,
    Tiles,
    causal,
    dense,
    from_blocks,
    from_boxes,
    from_mask,
    from_predicate,
    sliding,
)
from attnkit_kernels.softmax import builders as builders_module
from attnkit_kernels.softmax import pairs as pairs_module
from cases import maps, odd_maps, order, random_mask

MAPS = maps() | odd_maps()


@pytest.fixture(params=["one chunk", "many chunks"])
def chunks(request, monkeypatch):
    """Small chunks, as a large map has them."""
    if request.param == "many chunks":
        monkeypatch.setattr(pairs_module, "CHUNK_PAIRS", 100)
        monkeypatch.setattr(builders_module, "CHUNK_PAIRS", 100)


def shapes(seed):
    """Token counts from 0, small blocks, and orders with padding or none."""
    rng = np.random.default_rng(seed)
    tokens, blocks = rng.integers(0, 24, 2), rng.integers(1, 10, 2)
    orders = [
        None if rng.random() < 0.4 else order(int(n), int(block), int(rng.integers(4)), seed)
        for n, block in zip(tokens, blocks, strict=True)
    ]
    return rng, tokens.tolist(), [*blocks.tolist(), *orders]


def check_lists(block_map):
    """Lists by key block hold what the lists by query block hold."""
    lists = block_map.transpose_lists()
    blocks = block_map.blocks().reshape(-1, block_map.query_blocks, block_map.key_blocks)
    at = 0
    for grid in range(len(blocks)):
        for column in range(block_map.key_blocks):
            start, end = lists.starts[grid * block_map.key_blocks + column :][:2]
            assert start == at
            assert (lists.columns[start:end] == np.flatnonzero(blocks[grid, :, column])).all()
            listed = lists.listed[start:end]
            assert (block_map.columns[listed] == column).all()
            assert (block_map.rows[listed] == grid * block_map.query_blocks + lists.columns[start:end]).all()
            assert (block_map.full[listed] == lists.full[start:end]).all()
            at = end
    assert at == block_map.visited == len(lists.columns)


@pytest.mark.parametrize("seed", range(12))
def test_a_mask_is_kept(seed, chunks):
    rng, (queries, keys), layout = shapes(seed)
    mask = rng.random((2, 3, queries, keys)) < rng.choice([0.05, 0.5, 0.97, 1])
    found = from_mask(mask, *layout)
    assert (found.to_dense() == mask).all()
    assert found.visible_pairs() == mask.sum()
    assert found.full_count * layout[0] * layout[1] <= mask.sum()
    check_lists(found)
    rest = found.complement()
    assert (rest.blocks() ^ found.blocks()).all()
    assert not (rest.to_dense() & mask).any()
    assert rest.visible_pairs() == rest.to_dense().sum()


@pytest.mark.parametrize("seed", range(12))
def test_boxes_and_predicates_give_the_map_of_their_mask(seed, chunks):
    """The same listed and the same full blocks as from the mask itself: exact, not only sufficient."""
    rng, (queries, keys), layout = shapes(seed + 100)
    low = rng.integers(0, 6, (2, queries))
    boxes = Boxes(low, low + rng.integers(0, 5, low.shape), rng.integers(0, 8, (2, keys)))
    at = boxes.coordinate[:, None]
    mask = ((boxes.low[:, :, None] <= at) & (at < boxes.high[:, :, None])).all(0)
    expected = from_mask(mask, *layout)
    padded = np.pad(mask, (0, 1))
    for found in (
        from_boxes(boxes, *layout),
        from_predicate(lambda query, key: padded[query, key], queries, keys, *layout),
        from_predicate(
            lambda query, key: padded[query, key], queries, keys, *layout, candidates=expected.blocks()[0, 0]
        ),
    ):
        assert (found.to_dense()[0, 0] == mask).all()
        for name in ("starts", "columns", "full"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name
        assert found.visible_pairs() == mask.sum()


def test_named_maps_are_what_they_say():
    query, key = np.arange(45)[:, None], np.arange(45)
    assert dense(45, 30).to_dense().all() and dense(45, 30).to_dense().shape == (1, 1, 45, 30)
    assert (causal(45, 16, 32).to_dense()[0, 0] == (key <= query)).all()
    near = abs(query - key) < 7
    assert (sliding(45, 7, query_block=16, key_block=16).to_dense()[0, 0] == near).all()
    assert (sliding(45, 7, 3, False, 16, 16).to_dense()[0, 0] == (near | (key < 3))).all()
    assert (sliding(45, 7, 3, True, 16, 8).to_dense()[0, 0] == ((near | (key < 3)) & (key <= query))).all()
    assert [found.kind for found in (dense(3), causal(3), sliding(3, 1))] == ["dense", "causal", "sliding"]


def test_counts_of_a_causal_map():
    found = causal(16384)
    assert found.counts() == {"visited": 8256, "full": 8128, "partial": 128, "total": 16384, "density": 8256 / 16384}
    assert found.visible_pairs() == 16384 * 16385 // 2


def test_a_row_of_a_shared_map_answers_for_every_sample_and_head():
    shared, own = causal(48, 16, 16), MAPS["mask_all"]
    columns, full = shared.row(1, 3, 2)
    assert columns.tolist() == [0, 1, 2] and full.tolist() == [True, True, False]
    assert (own.row(1, 3, 2)[0] == np.flatnonzero(own.blocks()[1, 3, 2])).all()


def test_tails_see_and_are_seen_by_everything():
    found = causal(5, 4, 4, tail_queries=2, tail_keys=3)
    visible = found.to_dense()[0, 0]
    assert visible.shape == (7, 8) and visible[5:].all() and visible[:, 5:].all()
    assert (visible[:5, :5] == np.tri(5, dtype=bool)).all()
    assert found.visible_pairs() == 15
    assert found.mapped.tail_queries == found.mapped.tail_keys == 0 and found.mapped.kind == "causal"


def test_equal_tiles_are_stored_once():
    found = from_predicate(lambda query, key: (query + key) % 2 == 0, 64, 64, 8, 8)
    assert isinstance(found.rule, Tiles) and found.rule.bits.shape == (1, 8, 1)
    assert found.partial_count == 64


def test_boxes_never_make_a_table_of_pairs():
    """A million tokens: the table would take 10^12 bytes."""
    tokens = 2**20
    found = sliding(tokens, 1000, query_block=4096, key_block=4096)
    assert found.visited == 3 * 256 - 2
    assert found.full_count == 0


@pytest.mark.parametrize("name", MAPS)
def test_lists_by_key_of_every_kind(name):
    check_lists(MAPS[name])


def plain(**changed):
    """A valid map of 5 queries and 7 keys in blocks of 4, with changes."""
    arguments = dict(
        query_tokens=5,
        key_tokens=7,
        query_block=4,
        key_block=4,
        starts=np.array([0, 2, 3]),
        columns=np.array([0, 1, 1]),
        full=np.array([True, False, False]),
    )
    return BlockMap(**{**arguments, **changed})


BOXES = Boxes(np.zeros((1, 5), int), np.ones((1, 5), int), np.zeros((1, 7), int))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"starts": np.array([0, 3])}, "starts: expected 3 entries for 2 rows, got 2"),
        ({"starts": np.array([0, 2, 4])}, "starts: expected to rise from 0 to the 3 listed blocks, got 0 to 4"),
        ({"columns": np.array([0, 2, 1])}, r"columns: expected 0\.\.1 for 2 key blocks, got 0\.\.2"),
        ({"columns": np.array([1, 0, 1])}, "columns: expected to rise within a row, got 1 before 0"),
        ({"columns": np.array([0.0, 1, 1])}, "columns: expected integers, got float64"),
        ({"full": np.array([1, 0, 0])}, r"full: expected bool \[3\], got int64 \[3\]"),
        ({"full": np.array([True, True, False])}, "full: a block with padding slots is partial, got 1 full ones"),
        ({"query_block": 0}, "query_block: expected 1 or more, got 0"),
        ({"kind": "banded"}, "kind: expected one of map, dense, causal, sliding, got 'banded'"),
        ({"kind": "dense"}, "dense map lists every block and has no rule, got 3 of 4 blocks"),
        ({"window": 3}, "window: only a sliding map has one, got 3 for kind 'map'"),
        ({"query_order": np.arange(5)}, "query_order: expected a multiple of 4 slots, got 5"),
        (
            {"query_order": np.array([0, 1, 2, 3, 3, -1, -1, -1])},
            "query_order: expected each of 5 tokens once, got 5 tokens, 4 different",
        ),
        ({"key_order": np.arange(8)}, "key_order: expected each of 7 tokens once, got 8 tokens, 8 different"),
        ({"key_order": np.full(8, -2)}, "key_order: expected tokens from 0 or -1 for padding, got -2"),
        ({"rule": Boxes(BOXES.low[:, :4], BOXES.high[:, :4], BOXES.coordinate)}, "boxes.low: expected 5 tokens, got 4"),
        ({"rule": Boxes(BOXES.low, BOXES.high, BOXES.low)}, "boxes.coordinate: expected 7 tokens, got 5"),
        (
            {"rule": Tiles(np.zeros((1, 4, 2), np.uint8), np.array([-1, 0, 0]))},
            r"tiles.bits: expected tiles of \[4, 1\] bytes, got \[4, 2\]",
        ),
        (
            {"rule": Tiles(np.zeros((1, 4, 1), np.uint8), np.array([0, 0]))},
            "tiles.index: expected 3 listed blocks, got 2",
        ),
        (
            {"rule": Tiles(np.zeros((1, 4, 1), np.uint8), np.array([0, 0, 0]))},
            "tiles.index: expected -1 at the 1 full blocks, got 0",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed, text):
    assert plain().visited == 3
    with pytest.raises(ValueError, match=text):
        plain(**changed)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: sliding(8, 0), "window: expected 1 or more tokens, got 0"),
        (lambda: dense(8, query_block=0), "query_block: expected 1 or more, got 0"),
        (lambda: from_mask(np.ones((4, 4)), 2, 2), r"mask: expected bool .* got float64 \[4, 4\]"),
        (
            lambda: from_blocks(random_mask(2, 3, share=1, seed=0), 8, 8, 4, 4),
            r"blocks: expected \[\.\.\., 2, 2\] blocks, got shape \[2, 3\]",
        ),
        (lambda: Boxes(BOXES.low, BOXES.low[:, :2], BOXES.low), r"one shape, got \[1, 5\] and \[1, 2\]"),
        (lambda: Boxes(BOXES.low, BOXES.high, np.zeros((2, 7), int)), "same axes, 1 or more, got 1 and 2"),
        (
            lambda: Boxes(BOXES.low, np.full((1, 5), 2**31), BOXES.coordinate),
            r"boxes.high: expected values in -2147483648\.\.2147483647, got 2147483648",
        ),
        (
            lambda: Tiles(np.zeros((1, 4, 1)), np.zeros(3, int)),
            r"tiles.bits: expected uint8 .* got float64 \[1, 4, 1\]",
        ),
        (
            lambda: Tiles(np.zeros((1, 4, 1), np.uint8), np.ones(3, int)),
            r"tiles.index: expected -1\.\.0 for 1 tiles, got 1\.\.1",
        ),
    ],
)
def test_builders_refuse_with_both_values(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_maps_import_neither_torch_nor_triton():
    code = (
        "import sys\n"
        "import attnkit_kernels.softmax as softmax\n"
        "assert softmax.causal(100).visible_pairs() == 5050\n"
        "assert not {'torch', 'triton', 'numba'} & set(sys.modules), 'heavy import'\n"
        "assert callable(softmax.attention) and 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
