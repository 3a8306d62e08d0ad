"""Biases: each against the dense table it stands for, with gradients to its own tensors."""

import numpy as np
import pytest
import torch
from attnkit_kernels.softmax import DenseBias, TableBias, TermsBias, attention, from_boxes, relative_table
from attnkit_kernels.softmax.bias import relative_terms
from cases import assert_close, brute_force, inputs, neighborhood_boxes, normal, order

CANVAS = (5, 6)
MAP = from_boxes(neighborhood_boxes(*CANVAS, 3), 8, 4, order(30, 8, 1, 0), order(30, 4, 3, 1))


def places():
    return np.indices(CANVAS).reshape(2, -1)


def table_by_loops(table, window):
    """Entry [key row - query row + w - 1, key column - query column + w - 1], 0 where the offset is wider."""
    dense = torch.zeros(1, len(table), 30, 30, dtype=table.dtype)
    for i, j in np.ndindex(30, 30):
        offset = places()[:, j] - places()[:, i] + window - 1
        if ((offset >= 0) & (offset < 2 * window - 1)).all():
            dense[0, :, i, j] = table[:, offset[0], offset[1]]
    return dense


def make(kind):
    """A bias that fits MAP with 2 samples and 4 heads, and its dense table made by loops."""
    if kind == "dense":
        tensor = normal(2, 4, 30, 30, dtype=torch.float64)
        return DenseBias(tensor.requires_grad_()), tensor
    if kind == "dense_shared":
        tensor = normal(1, 1, 30, 30, dtype=torch.float64)
        return DenseBias(tensor.requires_grad_()), tensor
    if kind == "table":
        table = normal(4, 5, 5, dtype=torch.float64).requires_grad_()
        return relative_table(table, CANVAS), table_by_loops(table.detach(), 3)
    if kind == "table_shared":
        table = normal(1, 5, 5, dtype=torch.float64).requires_grad_()
        return relative_table(table, CANVAS), table_by_loops(table.detach(), 3)
    terms = [normal(batch, 30, 4, 5, dtype=torch.float64, seed=batch).requires_grad_() for batch in (2, 1)]
    dense = torch.zeros(2, 4, 30, 30, dtype=torch.float64)
    for i, j in np.ndindex(30, 30):
        row, column = places()[:, j] - places()[:, i] + 2
        if 0 <= row < 5 and 0 <= column < 5:
            dense[:, :, i, j] = terms[0].detach()[:, i, :, row] + terms[1].detach()[:, i, :, column]
    return relative_terms(terms, CANVAS, (2, 2)), dense


KINDS = ["dense", "dense_shared", "table", "table_shared", "terms"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_bias_is_its_dense_table(kind):
    bias, dense = make(kind)
    tensors = inputs(MAP, dtype=torch.float64)
    got = attention(*tensors, block_map=MAP, bias=bias, impl="reference")
    assert_close(got, brute_force(*tensors, MAP.to_dense(), bias=dense), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_tensors_of_the_bias(kind):
    bias, _ = make(kind)
    tensors = [tensor.detach() for tensor in inputs(MAP, dtype=torch.float64, dim=2)]

    def both(*held):
        result = attention(*tensors, block_map=MAP, bias=bias.with_tensors(held), impl="reference")
        return result.output.square().sum(), result.lse.sum()

    held = tuple(tensor.detach().clone().requires_grad_() for tensor in bias.tensors())
    assert torch.autograd.gradcheck(both, held, fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_are_parts_of_the_table(kind):
    """Also several at once: leading axes of the token numbers stand before the last two."""
    bias, _ = make(kind)
    whole = bias.tile(torch.arange(30), torch.arange(30))
    queries, keys = torch.tensor([[3, 9], [29, 0]]), torch.tensor([[1, 5, 7], [2, 2, 28]])
    tiles = bias.tile(queries, keys)
    assert tiles.shape[2:] == (2, 2, 3)
    for at in range(2):
        assert torch.equal(tiles[:, :, at], whole[:, :, queries[at]][..., keys[at]])


def test_half_bias_is_added_in_float32():
    tensors = inputs(MAP)
    table = normal(4, 5, 5)
    got = attention(*tensors, block_map=MAP, bias=relative_table(table.half(), CANVAS), impl="reference")
    wide = attention(*tensors, block_map=MAP, bias=relative_table(table.half().float(), CANVAS), impl="reference")
    assert torch.equal(got.output, wide.output)


def test_a_constant_bias_only_moves_the_lse():
    tensors = inputs(MAP)
    plain = attention(*tensors, block_map=MAP, impl="reference")
    moved = attention(*tensors, block_map=MAP, bias=DenseBias(torch.full((1, 1, 30, 30), 2.5)), impl="reference")
    assert_close(moved, (plain.output, plain.lse + 2.5))


def test_dilated_positions_are_counted_inside_their_group():
    """Canvas of 7, dilation 2: tokens 1 and 5 are two steps apart."""
    table = torch.arange(7.0).view(1, 7)
    bias = relative_table(table, (7,), 2)
    assert bias.tile(torch.tensor([1]), torch.tensor([1, 3, 5])).flatten().tolist() == [3, 4, 5]
    assert bias.tile(torch.tensor([6]), torch.tensor([0, 2, 4])).flatten().tolist() == [0, 1, 2]


INDEX = torch.zeros(30, dtype=torch.int32)


@pytest.mark.parametrize(
    ("make_bias", "text"),
    [
        (
            lambda: TableBias(torch.zeros(3, 9), INDEX, INDEX, 0),
            r"bias.table: expected \[4 or 1, entries\], got shape \[3, 9\]",
        ),
        (
            lambda: TableBias(torch.zeros(4, 9), INDEX[:5], INDEX, 0),
            r"bias.query_index: expected int32 \[30\], got int32 \[5\]",
        ),
        (
            lambda: TableBias(torch.zeros(4, 9), INDEX, INDEX.long(), 0),
            r"bias.key_index: expected int32 \[30\], got int64 \[30\]",
        ),
        (
            lambda: TermsBias((torch.zeros(2, 29, 4, 5),), INDEX[None], INDEX[None], (0,)),
            r"bias.terms\[0\]: expected \[2 or 1, 30, 4, entries\], got shape \[2, 29, 4, 5\]",
        ),
        (
            lambda: TermsBias((torch.zeros(2, 30, 4, 5),), INDEX[None], INDEX[None], (0, 1)),
            "bias.offsets: expected one for each of 1 terms, got 2",
        ),
        (
            lambda: relative_table(torch.zeros(4, 5, 4), CANVAS),
            r"table: expected \[heads, 2w-1 for each of 2 axes\], got shape \[4, 5, 4\]",
        ),
        (lambda: relative_table(torch.zeros(4, 5, 5), CANVAS, (1,)), "dilation: .* each of 2 axes, got 1"),
        (
            lambda: relative_terms([torch.zeros(2, 30, 4, 5)], CANVAS, (2,)),
            "terms: expected a term and an offset for 2 axes, got 1 and 1",
        ),
    ],
)
def test_biases_that_do_not_fit_are_refused(make_bias, text):
    with pytest.raises(ValueError, match=text):
        attention(*inputs(MAP), block_map=MAP, bias=make_bias(), impl="reference")
