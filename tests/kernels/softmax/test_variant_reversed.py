"""Reversed attention: sent mass, transpose identities, hand case, gates, gradients, pruning, parents."""

import math

import numpy as np
import pytest
import torch
from attnkit_kernels.softmax import attention, causal, from_mask
from attnkit_kernels.softmax.variants.reversed import (
    dependency_parents,
    head_selector,
    keep_senders,
    lite_schedule,
    message,
    reversed_attention,
)
from cases import normal, random_mask

IMPLS = ["reference", "auto"]


def double(*shape, seed=0):
    return normal(*shape, dtype=torch.float64, seed=seed)


def inputs(tokens=37, heads=3, dim=8, batch=2, receivers=None):
    return (
        double(batch, tokens, heads, dim),
        double(batch, receivers or tokens, heads, dim, seed=1),
        double(batch, tokens, heads, dim, seed=2),
    )


def gates(tokens=37, heads=3, batch=2):
    return head_selector(double(batch, tokens, heads, seed=3), 0.5), message(double(batch, tokens, seed=4))


def naive(query, key, value, weight, log_message, mask=True):
    """The sheet's formula with the table of all pairs."""
    scores = torch.einsum("bihd,bjhd->bhij", query, key) * query.shape[-1] ** -0.5
    forward = scores.masked_fill(~torch.as_tensor(mask), -torch.inf).softmax(-1)
    return torch.einsum("bhij,bih,bi,bihd->bjhd", forward, weight, log_message.exp(), value)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("receivers", [37, 11])
def test_equals_the_formula(impl, receivers):
    query, key, value = inputs(receivers=receivers)
    weight, log_message = gates()
    output = reversed_attention(query, key, value, head_weight=weight, log_message=log_message, impl=impl)
    torch.testing.assert_close(output, naive(query, key, value, weight, log_message))


@pytest.mark.parametrize("impl", IMPLS)
def test_sent_mass_is_the_message(impl):
    """Values of 1 count the mass: summed over receivers and heads, M of each sender; 1 a head without gates."""
    query, key, _ = inputs()
    weight, log_message = gates()
    for i in (0, 17):
        one = torch.zeros(2, 37, 3, 1, dtype=torch.float64)
        one[:, i] = 1
        alone = reversed_attention(query, key, one, impl=impl)
        torch.testing.assert_close(alone.sum(1), torch.ones(2, 3, 1, dtype=torch.float64))
        gated = reversed_attention(query, key, one, head_weight=weight, log_message=log_message, impl=impl)
        torch.testing.assert_close(gated.sum((1, 2, 3)), log_message[:, i].exp())


def test_is_the_transpose_of_torchs_own_attention_weights():
    module = torch.nn.MultiheadAttention(24, 3, bias=False, batch_first=True, dtype=torch.float64)
    x = double(2, 10, 24, seed=5)
    with torch.no_grad():
        weights = module(x, x, x, average_attn_weights=False)[1]
        query, key, value = (part.unflatten(-1, (3, 8)) for part in (x @ module.in_proj_weight.T).chunk(3, -1))
        output = reversed_attention(query, key, value, impl="reference")
    torch.testing.assert_close(output, torch.einsum("bhij,bihd->bjhd", weights, value))


@pytest.mark.parametrize("impl", IMPLS)
def test_is_the_value_gradient_of_sdpa(impl):
    query, key, value = (x.float() for x in inputs(50))
    nothing = torch.zeros(2, 3, 50, 8, requires_grad=True)
    out = torch.nn.functional.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), nothing)
    out.backward(value.transpose(1, 2))
    output = reversed_attention(query, key, value, impl=impl)
    torch.testing.assert_close(output, nothing.grad.transpose(1, 2), rtol=1e-5, atol=1e-6)


def test_equal_scores_send_the_same_to_everyone():
    query, key, value = inputs()
    weight, log_message = gates()
    output = reversed_attention(query * 0, key, value, head_weight=weight, log_message=log_message, impl="reference")
    each = torch.einsum("bih,bi,bihd->bhd", weight, log_message.exp(), value) / 37
    torch.testing.assert_close(output, each[:, None].expand_as(output))


@pytest.mark.parametrize("impl", IMPLS)
def test_hand_case(impl):
    query = torch.tensor([1.0, 0.0], dtype=torch.float64).reshape(1, 2, 1, 1)
    key = torch.tensor([0.0, math.log(3)], dtype=torch.float64).reshape(1, 2, 1, 1)
    value = torch.tensor([4.0, 8.0], dtype=torch.float64).reshape(1, 2, 1, 1)
    log_message = torch.tensor([[1.0, 0.5]], dtype=torch.float64).log()
    output = reversed_attention(query, key, value, log_message=log_message, impl=impl)
    torch.testing.assert_close(output.flatten(), torch.tensor([3.0, 5.0], dtype=torch.float64))
    # ordinary attention gives something else
    forward = attention(query, key, value, impl=impl).output
    torch.testing.assert_close(forward.flatten(), torch.tensor([7.0, 6.0], dtype=torch.float64))


def test_even_with_shared_query_and_key_it_is_not_ordinary_attention():
    query, _, value = inputs()
    output = reversed_attention(query, query, value, impl="reference")
    assert (output - attention(query, query, value, impl="reference").output).abs().max() > 0.1


def test_gates():
    weight, log_message = gates()
    torch.testing.assert_close(weight.sum(-1), torch.ones(2, 37, dtype=torch.float64))
    deeper = message(double(2, 37, seed=6), log_message)
    assert (deeper < log_message).all()
    assert (log_message < 0).all()
    torch.testing.assert_close(
        deeper.exp(), torch.sigmoid(double(2, 37, seed=4)) * torch.sigmoid(double(2, 37, seed=6))
    )
    # a hundred layers of sigmoid(-10) are e^-1000 and more: nothing in a product, a number as a logarithm
    log = None
    for _ in range(100):
        log = message(torch.full((1, 1), -10.0), log)
    assert -1001 < log.item() < -1000
    assert message(torch.zeros(1, 1, dtype=torch.bfloat16)).dtype == torch.float32
    assert head_selector(torch.zeros(1, 1, 2, dtype=torch.float16)).dtype == torch.float32


@pytest.mark.parametrize("impl", IMPLS)
def test_a_silent_token_has_no_say(impl):
    query, key, value = inputs()
    _, log_message = gates()
    log_message = log_message.clone()
    log_message[:, 5] = -torch.inf
    other = value.clone()
    other[:, 5] = 100
    one, two = (reversed_attention(query, key, v, log_message=log_message, impl=impl) for v in (value, other))
    assert torch.equal(one, two)
    # and still receives
    assert (one[:, 5] != 0).all()


def test_removing_a_silent_token_makes_the_others_louder():
    """Each message grows by exactly 1 / (1 - A_ip), so the output does change."""
    query, key, value = inputs(9, heads=1, batch=1)
    log_message = torch.zeros(1, 9, dtype=torch.float64)
    log_message[0, 4] = -torch.inf
    rest = [0, 1, 2, 3, 5, 6, 7, 8]
    forward = (torch.einsum("bihd,bjhd->bhij", query, key) * 8**-0.5).softmax(-1)[0, 0]
    pruned = reversed_attention(query[:, rest], key[:, rest], value[:, rest], impl="reference")
    factor = 1 / (1 - forward[rest, 4])
    louder = reversed_attention(
        query, key, value * torch.zeros(9).double().index_copy(0, torch.tensor(rest), factor)[:, None, None]
    )
    torch.testing.assert_close(pruned, louder[:, rest])
    full = reversed_attention(query, key, value, log_message=log_message, impl="reference")
    assert (pruned - full[:, rest]).abs().max() > 1e-3


def test_permuted_tokens_permute_the_output():
    query, key, value = inputs()
    weight, log_message = gates()
    order = torch.randperm(37, generator=torch.Generator().manual_seed(7))
    one = reversed_attention(query, key, value, head_weight=weight, log_message=log_message)
    other = reversed_attention(
        *(x[:, order] for x in (query, key, value)), head_weight=weight[:, order], log_message=log_message[:, order]
    )
    torch.testing.assert_close(one[:, order], other)


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_through_gates_messages_and_attention(impl):
    query, key, value = (x.requires_grad_() for x in inputs(5, heads=3, dim=2, batch=1))
    logits, control = double(1, 5, 3, seed=3).requires_grad_(), double(1, 5, seed=4).requires_grad_()

    def run(query, key, value, logits, control):
        return reversed_attention(
            query, key, value, head_weight=head_selector(logits, 0.5), log_message=message(control), impl=impl
        )

    assert torch.autograd.gradcheck(run, (query, key, value, logits, control))


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_equal_those_of_the_formula(impl):
    tensors = [*inputs(receivers=21), *gates()]
    tensors = [x.detach().requires_grad_() for x in tensors]
    up = double(2, 21, 3, 8, seed=9)
    got, expected = (
        torch.autograd.grad(output, tensors, up)
        for output in (
            reversed_attention(*tensors[:3], head_weight=tensors[3], log_message=tensors[4], impl=impl),
            naive(*tensors),
        )
    )
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("impl", IMPLS)
def test_over_a_block_map(impl):
    query, key, value = inputs()
    weight, log_message = gates()
    mask = random_mask(1, 3, 37, 37, share=0.3, seed=1)
    mask[..., 0] = True
    for block_map, seen in (
        (causal(37, 16, 16), torch.ones(37, 37, dtype=torch.bool).tril()),
        (from_mask(mask, 16, 16), torch.from_numpy(mask)),
    ):
        output = reversed_attention(
            query, key, value, head_weight=weight, log_message=log_message, block_map=block_map, impl=impl
        )
        torch.testing.assert_close(output, naive(query, key, value, weight, log_message, seen))


def test_half_inputs():
    query, key, value = inputs(12)
    weight, log_message = gates(12)
    exact = naive(query.half().double(), key.half().double(), value.half().double(), weight, log_message)
    output = reversed_attention(
        query.half(), key.half(), value.half(), head_weight=weight, log_message=log_message, impl="reference"
    )
    assert output.dtype == torch.float16
    torch.testing.assert_close(output.double(), exact, rtol=5e-3, atol=5e-3)


def test_schedule_of_the_lite_models():
    assert lite_schedule(196) == [165, 133, 102, 71]
    assert lite_schedule(196, ratio=0.0) == [196] * 4


def test_keeping_all_changes_nothing_and_ties_go_to_the_earlier():
    log_message = torch.tensor([[-1.0, -0.5, -0.5, -2.0, -0.5]])
    assert keep_senders(log_message, 2).tolist() == [[1, 2]]
    assert keep_senders(log_message, 4).tolist() == [[0, 1, 2, 4]]
    assert keep_senders(log_message, 5).tolist() == [[0, 1, 2, 3, 4]]


def test_parents_are_where_most_goes():
    query, key, _ = inputs()
    weight, _ = gates()
    forward = (torch.einsum("bihd,bjhd->bhij", query, key) * 8**-0.5).softmax(-1)
    dependency = torch.einsum("bhij,bih->bji", forward, weight)
    parents, shares = dependency_parents(query, key, weight)
    assert torch.equal(parents, dependency.argmax(1))
    torch.testing.assert_close(shares, dependency.amax(1))
    assert np.array_equal(dependency_parents(query, key)[0], forward.sum(1).argmax(-1))


def test_nothing_in_nothing_out():
    empty = torch.zeros(1, 0, 2, 4)
    assert reversed_attention(empty, empty, empty).shape == (1, 0, 2, 4)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda q, k, v: reversed_attention(q, k, v[:, :5]),
            r"agree in batch, tokens and heads, got \[2, 37, 3, 8\] and \[2, 5, 3, 8\]",
        ),
        (lambda q, k, v: reversed_attention(q, k[:, :, :1], v), "query and key must have as many heads, got 3 and 1"),
        (
            lambda q, k, v: reversed_attention(q, k, v, head_weight=q[:, :, 0]),
            r"head_weight: expected \[2, 37, 3\] as query, got shape \[2, 37, 8\]",
        ),
        (lambda q, k, v: reversed_attention(q, k, v, impl="numba"), "has no impl 'numba'; works here"),
        (lambda q, k, v: head_selector(q, 0), "temperature must be above 0, got 0"),
        (lambda q, k, v: keep_senders(torch.zeros(1, 3), 4), r"count: expected 0..3 tokens, got 4"),
        (lambda q, k, v: lite_schedule(196, 7), r"ratio \* prunings must be in \[0, 1\), got 0.16 and 7"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call(*inputs())
