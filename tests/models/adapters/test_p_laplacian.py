"""Message passing of the p-adapter: closed forms, invariances, and a twin written edge by edge."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attnkit.models.adapters.p_laplacian import (
    PAdapter,
    PAdapterSettings,
    edge_gradients,
    edge_weights,
    node_scales,
    propagate,
)
from attnkit.runtime.errors import UsageError

P_VALUES = (1.25, 1.5, 2.0, 2.5, 3.0)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def graph(queries: int = 5, keys: int = 6, heads: int = 4, size: int = 2, dtype: torch.dtype = torch.float64):
    """Attention rows that sum to 1, and distinct features of both sides."""
    draw = draws()
    attention = torch.randn(2, heads, queries, keys, generator=draw, dtype=dtype).softmax(-1)
    receivers = torch.randn(2, heads, queries, size, generator=draw, dtype=dtype)
    senders = torch.randn(2, heads, keys, size, generator=draw, dtype=dtype)
    return attention, receivers, senders


def by_edges(attention: Tensor, receivers: Tensor, senders: Tensor, p: float, mu: float) -> Tensor:
    """The published step over the whole graph [[0, A], [A^T, 0]]: every pair's difference, matrices of alpha and beta.

    The inner epsilon of the published norm is kept as it is there.
    """
    queries, keys = attention.shape[-2:]
    nodes = torch.cat([receivers, senders], 2)
    whole = attention.new_zeros(*attention.shape[:2], queries + keys, queries + keys)
    whole[:, :, :queries, queries:] = attention
    whole[:, :, queries:, :queries] = attention.mT
    difference = nodes[:, :, None, :, :] - nodes[:, :, :, None, :]
    gradients = (torch.sqrt(whole + 1e-8)[..., None] * difference + 1e-8).norm(dim=-1)
    weights = whole * gradients ** (p - 2)
    alpha = torch.diag_embed(1 / (weights.sum(-1) + 2 * mu / p))
    beta = alpha * (2 * mu / p)
    block = (alpha @ weights)[:, :, :queries, queries:]
    return block @ senders + beta[:, :, :queries, queries:] @ senders


@pytest.mark.parametrize("p", P_VALUES)
def test_the_step_is_that_of_the_whole_graph_edge_by_edge(p: float) -> None:
    attention, receivers, senders = graph()
    own = propagate(attention, receivers, senders, p=p, mu=0.1)
    torch.testing.assert_close(own, by_edges(attention, receivers, senders, p, 0.1), rtol=1e-6, atol=1e-6)


def test_the_module_is_the_formula_written_out() -> None:
    torch.manual_seed(1)
    width, heads, mu0 = 32, 4, 0.1
    adapter = PAdapter(width, heads, PAdapterSettings(reduction=4, p=1.5, mu=mu0, zero_start=False))
    projection = nn.Linear(width, width)
    nn.init.constant_(adapter.m, 0.3)
    context, queries, values = torch.randn(2, 5, width), torch.randn(2, 5, width), torch.randn(2, 6, width)
    attention = torch.randn(2, heads, 5, 6).softmax(-1)
    hidden = projection(context)
    own = adapter(hidden, attention, adapter.nodes(projection(queries)), adapter.nodes(projection(values)))

    def by_heads(inputs: Tensor) -> Tensor:
        return adapter.down(projection(inputs)).view(2, -1, heads, width // 4 // heads).permute(0, 2, 1, 3)

    mu = 2 * mu0 + mu0 * math.tanh(0.3)
    passed = by_edges(attention, by_heads(queries), by_heads(values), 1.5, mu).permute(0, 2, 1, 3).reshape(2, 5, 8)
    wanted = adapter.up(functional.gelu(adapter.gate(hidden)) * passed)
    torch.testing.assert_close(own, wanted, rtol=1e-5, atol=2e-6)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 3 * width * 8 + 2 * 8 + width + 2


def test_p_of_two_is_attention_damped_by_mu() -> None:
    attention, features, _ = graph(6, 6)
    for mu in (0.1, 0.7):
        own = propagate(attention, features, p=2.0, mu=mu)
        torch.testing.assert_close(own, (attention @ features + mu * features) / (1 + mu))
    torch.testing.assert_close(propagate(attention, features, p=2.0, mu=1e-12), attention @ features)


def test_p_of_two_on_two_sides_keeps_one_part_in_one_plus_mu() -> None:
    attention, receivers, senders = graph()
    own = propagate(attention, receivers, torch.ones_like(senders), p=2.0, mu=0.2)
    torch.testing.assert_close(own, torch.full_like(own, 1 / 1.2))
    assert own[0, 0, 0, 0] == pytest.approx(0.8333, abs=1e-4)


@pytest.mark.parametrize("p", P_VALUES)
def test_what_a_node_takes_and_keeps_sums_to_one(p: float) -> None:
    attention, receivers, senders = graph()
    attention = 3 * attention * torch.rand(attention.shape, generator=draws(4), dtype=attention.dtype)
    weights = edge_weights(attention, edge_gradients(attention, receivers, senders), p)
    alpha, beta = node_scales(weights, 0.1, p)
    torch.testing.assert_close((alpha[..., None] * weights).sum(-1) + beta, torch.ones_like(beta))


@pytest.mark.parametrize("p", P_VALUES)
def test_equal_features_stay_and_have_finite_gradients(p: float) -> None:
    attention = graph(6, 6)[0]
    features = torch.full((2, 4, 6, 2), 0.7, dtype=torch.float64, requires_grad=True)
    exponent = torch.tensor(p, dtype=torch.float64, requires_grad=True)
    own = propagate(attention, features, p=exponent, mu=0.1)
    torch.testing.assert_close(own, features)
    own.pow(2).sum().backward()
    assert torch.isfinite(features.grad).all() and torch.isfinite(exponent.grad)


@pytest.mark.parametrize("p", P_VALUES)
def test_scaled_features_scale_the_result_where_mu_scales_along(p: float) -> None:
    attention, receivers, senders = graph()
    scale = 3.0
    before = edge_weights(attention, edge_gradients(attention, receivers, senders), p)
    after = edge_weights(attention, edge_gradients(attention, scale * receivers, scale * senders), p)
    torch.testing.assert_close(after, before * scale ** (p - 2), rtol=1e-5, atol=0)
    plain = propagate(attention, receivers, senders, p=p, mu=0.1)
    scaled = propagate(attention, scale * receivers, scale * senders, p=p, mu=0.1 * scale ** (p - 2))
    torch.testing.assert_close(scaled / scale, plain, rtol=1e-5, atol=1e-6)
    unscaled = propagate(attention, scale * receivers, scale * senders, p=p, mu=0.1) / scale
    assert torch.allclose(unscaled, plain, rtol=1e-5) == (p == 2)


def test_both_sides_see_an_edge_alike() -> None:
    attention, receivers, senders = graph()
    one = edge_weights(attention, edge_gradients(attention, receivers, senders), 1.5)
    other = edge_weights(attention.mT, edge_gradients(attention.mT, senders, receivers), 1.5)
    torch.testing.assert_close(one, other.mT)


def test_receivers_exchange_nothing_among_themselves() -> None:
    attention, receivers, senders = graph()
    changed = receivers.clone()
    changed[:, :, 1:] += 5
    one, other = (propagate(attention, side, senders, p=1.5, mu=0.1) for side in (receivers, changed))
    torch.testing.assert_close(one[:, :, 0], other[:, :, 0], rtol=0, atol=0)
    assert not torch.allclose(one[:, :, 1:], other[:, :, 1:])


def test_the_order_of_the_senders_does_not_matter() -> None:
    attention, receivers, senders = graph()
    order = torch.randperm(senders.shape[2], generator=draws())
    own = propagate(attention[..., order], receivers, senders[:, :, order], p=1.5, mu=0.1)
    torch.testing.assert_close(own, propagate(attention, receivers, senders, p=1.5, mu=0.1))


@pytest.mark.parametrize("p", [1.25, 2.0, 2.5])
def test_gradients_of_features_p_and_mu_are_right(p: float) -> None:
    torch.manual_seed(0)
    adapter = PAdapter(8, 2, PAdapterSettings(reduction=2, p=p, zero_start=False)).double()
    context, sending = torch.randn(1, 3, 8, dtype=torch.float64), torch.randn(1, 4, 8, dtype=torch.float64)
    attention = torch.randn(1, 2, 3, 4, dtype=torch.float64).softmax(-1)

    def run(down: Tensor, exponent: Tensor, m: Tensor) -> Tensor:
        replaced = {"down.weight": down, "p": exponent, "m": m}
        return torch.func.functional_call(_Whole(adapter), {f"adapter.{k}": v for k, v in replaced.items()}, (
            context, attention, sending,
        ))  # fmt: skip

    given = [adapter.down.weight, adapter.p, adapter.m]
    assert torch.autograd.gradcheck(run, [value.detach().clone().requires_grad_() for value in given])


class _Whole(nn.Module):
    """Nodes and step in one call."""

    def __init__(self, adapter: PAdapter) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, context: Tensor, attention: Tensor, sending: Tensor) -> Tensor:
        adapter = self.adapter
        return adapter(context, attention, adapter.nodes(context), adapter.nodes(sending))


def test_two_nodes_by_hand() -> None:
    attention = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]], dtype=torch.float64)
    features = torch.tensor([[[[0.0], [3.0]]]], dtype=torch.float64)
    gradients = edge_gradients(attention, features, features)
    assert gradients[0, 0, 0, 1].item() == pytest.approx(3)
    assert edge_weights(attention, gradients, 1.0)[0, 0, 0, 1].item() == pytest.approx(1 / 3)
    own = propagate(attention, features, p=1.0, mu=0.5)
    assert own.flatten().tolist() == pytest.approx([0.75, 2.25], abs=1e-6)


def test_p_stays_within_its_bounds_and_mu_within_one_to_three_times_its_strength() -> None:
    torch.manual_seed(0)
    adapter = PAdapter(8, 2, PAdapterSettings(reduction=2, zero_start=False))
    inputs = torch.randn(1, 3, 8), torch.full((1, 2, 3, 3), 1 / 3)
    nodes = adapter.nodes(inputs[0])
    with torch.no_grad():
        results = []
        for p in (0.2, 1.0, 7.0, 4.0):
            adapter.p.fill_(p)
            results.append(adapter(*inputs, nodes))
        torch.testing.assert_close(results[0], results[1])
        torch.testing.assert_close(results[2], results[3])
        adapter.p.fill_(9.0)
        adapter.constrain()
        assert adapter.p.item() == 4.0
        for m, wanted in ((-50.0, 0.1), (0.0, 0.2), (50.0, 0.3)):
            adapter.m.fill_(m)
            assert adapter.mu.item() == pytest.approx(wanted)


def test_settings_that_cannot_be_are_refused_with_what_would_fit() -> None:
    with pytest.raises(UsageError, match=r"reduction 7 makes 9 of a hidden size of 64.*the nearest that fits is 8"):
        PAdapter(64, 4, PAdapterSettings(reduction=7))
    with pytest.raises(UsageError, match=r"p is 0.5, expected 1 to 4"):
        PAdapterSettings(p=0.5)
    with pytest.raises(UsageError, match="mu is 0, expected more than 0"):
        PAdapterSettings(mu=0)
