"""Radial attention: the published code's map and the paper's mask, their published numbers, and text."""

import time
import tracemalloc

import numpy as np
import pytest
import torch
from attnkit_kernels.patterns.radial import Radial
from attnkit_kernels.softmax import attention
from pattern_checks import assert_attends_as, assert_map_shows, qkv


def published_blocks(frames, per_frame, block, decay, model, near="full", text=0):
    """Section 2b of the definition, with a token mask of each pair of frames; a last block cut short is seen whole."""
    video = frames * per_frame
    blocks = -(-(video + text) // block)
    seen = np.zeros((blocks, blocks), np.bool_)
    power = 2 ** per_frame.bit_length()
    place = np.arange(per_frame)
    for i in range(frames):
        for j in range(frames):
            distance = abs(i - j)
            shown = np.abs(place[:, None] - place)
            if j == 0 and model == "wan":
                mask = shown >= 0
            else:
                length = power / 2 ** distance.bit_length()
                width = max(length * decay, block)
                if distance < 2:
                    width = per_frame // 2 if distance and near == "half" else per_frame
                kept = length >= 128 or distance % int(128 / length) == 0
                mask = (shown <= width) & kept
            side = (per_frame - 1) // block + 1
            offsets = [index * per_frame % block for index in (i, j)]
            canvas = np.zeros([offset + side * block for offset in offsets], np.bool_)
            canvas[offsets[0] : offsets[0] + per_frame, offsets[1] : offsets[1] + per_frame] = mask
            shares = canvas[: side * block, : side * block].reshape(side, block, side, block).mean(1)
            many, some = (shares > 1 / 3).sum(-1), (shares > 0).sum(-1)
            row, column = i * per_frame // block, j * per_frame // block
            room = seen[row : row + side, column : column + side]
            room |= (many / np.maximum(some, 1) > 0.6)[: room.shape[0], : room.shape[1]]
    seen[video // block :] = True
    seen[:, video // block :] = True
    return seen


def paper_mask(frames, per_frame, sink):
    """Eq. 4, in whole numbers."""
    frame, place = np.divmod(np.arange(frames * per_frame), per_frame)
    distance, inside = np.abs(frame[:, None] - frame), np.abs(place[:, None] - place)
    group = 2 ** np.floor(np.log2(np.maximum(distance, 1))).astype(np.int64)
    mask = ((group <= per_frame) & ((inside + 1) * group <= per_frame)) | (
        (distance % -(-group // per_frame) == 0) & (inside == 0)
    )
    return mask | (frame == 0) if sink else mask


@pytest.mark.parametrize(
    ("frames", "per_frame", "block", "decay", "model", "text"),
    [
        (6, 256, 128, 1, "wan", 0),
        (12, 384, 128, 0.2, "wan", 0),
        (12, 384, 128, 0.95, "hunyuan", 256),
        (9, 1024, 128, 0.2, "wan", 0),
        (8, 208, 128, 1, "wan", 0),
        (16, 400, 128, 0.5, "hunyuan", 128),
        # the literal 128 of the decimation does not follow the block
        (24, 256, 64, 0.5, "hunyuan", 64),
        # frames shorter than a block
        (32, 44, 64, 0.7, "wan", 0),
        # frames that skip their neighbours
        (16, 40, 32, 1, "hunyuan", 32),
    ],
)
@pytest.mark.parametrize("near", ["full", "half"])
def test_block_map_is_that_of_the_published_code(frames, per_frame, block, decay, model, text, near):
    radial = Radial(decay=decay, model=model, near=near, text=text, text_blocks=True)
    got = radial.block_map((frames, per_frame), block)
    expected = published_blocks(frames, per_frame, block, decay, model, near, text)
    np.testing.assert_array_equal(got.blocks()[0, 0], expected)
    assert got.full_count == got.visited


def test_block_map_of_odd_frames_is_that_of_the_published_code():
    generator = np.random.default_rng(7)
    for _ in range(60):
        frames, per_frame, block, text = generator.integers((1, 5, 3, 0), (14, 300, 70, 40)).tolist()
        decay, sink = float(generator.choice([0, 0.3, 1, 1.7])), bool(generator.integers(2))
        near, model = str(generator.choice(["half", "full"])), "wan" if sink else "hunyuan"
        radial = Radial(decay=decay, model=model, near=near, text=text, text_blocks=True)
        got = radial.block_map((frames, per_frame), block)
        expected = published_blocks(frames, per_frame, block, decay, model, near, text)
        np.testing.assert_array_equal(got.blocks()[0, 0], expected)
        whole = len(expected) - bool((frames * per_frame + text) % block)
        np.testing.assert_array_equal(got.full, (got.rows < whole) & (got.columns < whole))


# kept to the last digit that was published or printed
@pytest.mark.parametrize(
    ("frames", "per_frame", "settings", "sparsity", "digits"),
    [
        # a user's log, 720x960, 81 frames, padded to 443 blocks: "0.735"
        (21, 2700, {"decay": 0.2, "near": "half"}, 0.73515, 5),
        # the paper's Table 2, HunyuanVideo 253 and 509 frames: 80.8 % and 88.3 %
        (64, 3600, {"model": "hunyuan", "sink": True}, 0.80831, 5),
        (128, 3600, {"model": "hunyuan", "sink": True}, 0.88372, 5),
        (64, 3600, {"model": "hunyuan"}, 0.82242, 5),
        (128, 3600, {"model": "hunyuan"}, 0.89119, 5),
        (18, 3840, {"decay": 0.2}, 0.7128669410, 10),
        (18, 3840, {"decay": 0}, 0.7128669410, 10),
        (18, 3840, {}, 0.5690809328, 10),
        (20, 3840, {"decay": 0.8}, 0.6474666667, 10),
        (30, 3840, {"decay": 0.95, "model": "hunyuan"}, 0.7253679012, 10),
    ],
)
def test_published_sparsities_come_out_to_the_last_digit(frames, per_frame, settings, sparsity, digits):
    block_map = Radial(**settings).block_map((frames, per_frame))
    assert round(1 - block_map.density, digits) == round(sparsity, digits)


# a user's log, bit for bit: 768x1280, 69 frames, Wan, before the code's last change
def test_the_logged_mask_holds_76798_of_540_squared_blocks():
    block_map = Radial(decay=0.2, near="half").block_map((18, 48, 80))
    assert (block_map.visited, block_map.total) == (76798, 540**2)
    assert np.float32(1 - block_map.density) == np.float32(0.7366323471069336)


def test_a_token_count_that_is_no_multiple_keeps_the_published_part():
    # 442 whole blocks; the rest is a block of its own, visible, with masked padding
    block_map = Radial(decay=0.2, near="half").block_map((21, 2700))
    blocks = block_map.blocks()[0, 0]
    assert len(blocks) == 443 and blocks[442].all() and blocks[:, 442].all()
    assert round(1 - blocks[:442, :442].mean(), 7) == 0.7384830
    assert block_map.partial_count == 2 * 443 - 1


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("model", ["wan", "hunyuan"])
@pytest.mark.parametrize("rule", ["code", "paper"])
def test_two_frames_are_dense(frames, model, rule):
    radial = Radial(rule, model=model) if rule == "code" else Radial(rule)
    block_map = radial.block_map((frames, 256))
    assert block_map.full_count == block_map.total


def test_more_decay_keeps_more_and_the_diagonal_and_the_sink_are_kept():
    kept = None
    for decay in (0.05, 0.2, 0.5, 0.8, 0.95, 1.0, 1.5):
        blocks = Radial(decay=decay).block_map((14, 640)).blocks()[0, 0]
        assert blocks.diagonal().all() and blocks[:, :5].all()
        assert kept is None or (blocks | ~kept).all()
        kept = blocks


def test_no_block_of_queries_is_left_without_keys():
    generator = np.random.default_rng(5)
    for _ in range(60):
        canvas = int(generator.integers(1, 20)), int(generator.integers(20, 700))
        blocks = Radial(decay=float(generator.random()), model="hunyuan").block_map(canvas).blocks()[0, 0]
        assert blocks.any(1).all(), canvas


@pytest.mark.parametrize(
    ("canvas", "with_sink", "without"),
    [((4, 4), 232, 220), ((8, 8), 3024, 2816), ((16, 16), 35872, 33424), ((32, 8), 21264, 19648)],
)
def test_visible_pairs_of_the_papers_mask(canvas, with_sink, without):
    frames, per_frame = canvas
    for sink, pairs in ((None, with_sink), (False, without)):
        assert Radial("paper", sink=sink).block_map(canvas, 16).visible_pairs() == pairs
    assert with_sink <= 4 * per_frame**2 * frames * np.log2(frames)


def test_the_papers_map_shows_its_mask():
    generator = np.random.default_rng(6)
    for _ in range(60):
        frames, per_frame, query, key = (int(number) for number in generator.integers(1, (30, 20, 40, 40)))
        sink = bool(generator.integers(2))
        block_map = Radial("paper", sink=sink).block_map((frames, per_frame), query, key)
        assert_map_shows(block_map, paper_mask(frames, per_frame, sink))


def test_the_papers_mask_without_sink_is_symmetric_and_the_same_in_every_frame():
    mask = Radial("paper", sink=False).block_map((12, 3, 2), 8).to_dense()[0, 0]
    np.testing.assert_array_equal(mask, mask.T)
    np.testing.assert_array_equal(mask[6:, 6:], mask[:-6, :-6])


def test_equal_tiles_are_stored_once():
    rule = Radial("paper").block_map((18, 384), 64).rule
    assert len(rule.bits) == len(np.unique(rule.bits.reshape(len(rule.bits), -1), axis=0)) < 30
    assert (rule.index >= 0).sum() > 500


@pytest.mark.parametrize("radial", [Radial(decay=0.3), Radial("paper")])
def test_attention_over_the_map_is_masked_attention(radial):
    block_map = radial.block_map((6, 5, 5), 16)
    assert_attends_as(block_map, block_map.to_dense()[0, 0])


def test_text_in_a_tail_and_in_blocks_gives_the_same_attention():
    video, text = 8 * 32, 16
    query, key, value = qkv(video + text)
    tail = Radial(model="hunyuan", text=text).block_map((8, 32), 16)
    inside = Radial(model="hunyuan", text=text, text_blocks=True).block_map((8, 32), 16)
    assert (tail.tail_queries, tail.tail_keys, tail.query_tokens) == (text, text, video)
    assert (inside.tail_queries, inside.tail_keys, inside.query_tokens) == (0, 0, video + text)
    assert tail.density < 0.7
    np.testing.assert_array_equal(tail.to_dense(), inside.to_dense())
    results = [attention(query, key, value, block_map=one, impl="reference") for one in (tail, inside)]
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", ["code", "paper"])
@pytest.mark.parametrize("canvas", [(16, 4096), (127, 517), (2048, 32)])
def test_64k_tokens_are_mapped_in_no_time(rule, canvas):
    started = time.process_time()
    assert Radial(rule).block_map(canvas).density < 1
    # 10 to 200 ms of this process; the limit leaves room for slow machines
    assert time.process_time() - started < 4


def test_a_million_tokens_of_odd_frames_are_mapped_in_little_memory():
    tracemalloc.start()
    started = time.process_time()
    density = Radial().block_map((16, 250, 250)).density
    seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # .4 s and .4 GB alone; frames of whole blocks are nearly the same map
    assert seconds < 8 and peak < 8e8
    assert density == pytest.approx(Radial().block_map((16, 256, 250)).density, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "canvas", "tiles", "text"),
    [
        ({"rule": "eq4"}, (4, 4), (), "rule must be one of code, paper, got 'eq4'"),
        ({"model": "mochi"}, (4, 4), (), "got 'mochi'"),
        ({"near": "both"}, (4, 4), (), "got 'both'"),
        ({"decay": -1.0}, (4, 4), (), "got -1.0 and 0"),
        ({"decay": float("nan")}, (4, 4), (), "got nan and 0"),
        ({"decay": float("inf")}, (4, 4), (), "got inf and 0"),
        ({"rule": "paper", "decay": 0.5}, (4, 4), (), "decay 0.5 with 'paper'"),
        ({}, (16,), (), "got (16,)"),
        ({}, (4, 4), (8, 4), "got 8 and 4"),
        ({}, (4, 4, 4), ((2, 2, 2),), "got (2, 2, 2)"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_values(settings, canvas, tiles, text):
    with pytest.raises(ValueError) as error:
        Radial(**settings).block_map(canvas, *tiles)
    assert text in str(error.value)
