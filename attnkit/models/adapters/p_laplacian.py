"""One step of p-Laplacian message passing over an attention map, and the adapter made of it.

Source: Wu, Y. et al.: p-Laplacian Adaptation for Generative Pre-trained Vision-Language Models (AAAI 2024), as its
published code computes it; the message passing goes back to Fu, G., Zhao, P., Bian, Y.: p-Laplacian Based Graph Neural
Networks (ICML 2022). Unlike there, nothing is normalised by degrees and there is one step only.

Where this departs from the published code, on purpose:

- epsilon stands under the root of the edge gradient and not inside the norm, so that equal features give finite
  gradients for p < 2;
- the squared distance is |F_i|^2 + |F_j|^2 - 2 F_i.F_j, which needs no [.., n, n, features] array;
- p is held within 1..4 (below 0 the source term would change its sign);
- the up-projection may begin at zero, so that an untrained adapter changes nothing (the default).

With p < 2 on a self graph an edge from a node to itself has the smallest gradient that there is and takes nearly the
whole row; a bipartite graph has no such edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnkit.runtime.errors import UsageError

EPSILON = 1e-8
LOWEST_P, HIGHEST_P = 1.0, 4.0


def edge_gradients(attention: Tensor, receivers: Tensor, senders: Tensor) -> Tensor:
    """Length of the feature difference along each edge, sqrt((A + eps) |F_i - F_j|^2 + eps), [B, H, Q, K].

    attention   [B, H, Q, K], weights of the edges, not negative
    receivers   [B, H, Q, s] and senders [B, H, K, s], features of the nodes at both ends
    """
    products = receivers @ senders.mT
    squares = (receivers**2).sum(-1)[..., :, None] + (senders**2).sum(-1)[..., None, :] - 2 * products
    return torch.sqrt((attention + EPSILON) * squares.clamp(min=0) + EPSILON)


def edge_weights(attention: Tensor, gradients: Tensor, p: Tensor | float) -> Tensor:
    """W_ij = A_ij g_ij^(p - 2), [B, H, Q, K]: p < 2 favours like nodes, p > 2 unlike ones, p = 2 leaves the map."""
    return attention * gradients ** (p - 2)


def node_scales(weights: Tensor, mu: Tensor | float, p: Tensor | float) -> tuple[Tensor, Tensor]:
    """alpha_i = 1 / (sum_j W_ij + 2 mu / p) and beta_i = alpha_i 2 mu / p, both [B, H, Q].

    alpha_i sum_j W_ij + beta_i = 1: what a node takes from others and what it keeps of its own.
    """
    source = 2 * mu / p
    alpha = 1 / (weights.sum(-1) + source)
    return alpha, alpha * source


def propagate(
    attention: Tensor, receivers: Tensor, senders: Tensor | None = None, *, p: Tensor | float, mu: Tensor | float
) -> Tensor:
    """Features of the receiving nodes after one step, [B, H, Q, s].

    attention   [B, H, Q, K]; without `senders` the graph is a self graph, K = Q
    receivers   [B, H, Q, s]
    senders     [B, H, K, s]: the graph is bipartite, [[0, A], [A^T, 0]] over receivers and senders; the rows of the
                receivers are all that is computed

    A self graph gives alpha W F + beta F. A bipartite one gives alpha W F_senders: the source term is dead there, as
    in the published code, which keeps the block of beta's diagonal matrix that holds zeros. So the mass of a row is
    1 - beta.
    """
    others = receivers if senders is None else senders
    weights = edge_weights(attention, edge_gradients(attention, receivers, others), p)
    alpha, beta = node_scales(weights, mu, p)
    gathered = alpha[..., None] * (weights @ others)
    return gathered if senders is not None else gathered + beta[..., None] * receivers


@dataclass(frozen=True)
class PAdapterSettings:
    """What a p-adapter is built from; the defaults are those published for VQA v2.

    reduction      hidden size over the adapter's size; also of the bottleneck beside the feed-forward network
    p              exponent that training begins with; trained where `learn_p`
    mu             strength of the source term; what is trained moves it within mu..3 mu
    image_tokens   to which the image tokens of a prompt are averaged; fewer are left as they are
    keep_mass      an averaged image token gets the sum of the attention that its tokens had. Else the mean, as
                   published, which makes the step weaker the more tokens a picture has
    zero_start     begin as the identity; else with torch's own initialisation, as published
    """

    reduction: int = 8
    p: float = 1.25
    mu: float = 0.1
    image_tokens: int = 16
    learn_p: bool = True
    keep_mass: bool = True
    zero_start: bool = True

    def __post_init__(self) -> None:
        if self.reduction < 1:
            raise UsageError(f"p-adapter: reduction is {self.reduction}, expected at least 1")
        if not LOWEST_P <= self.p <= HIGHEST_P:
            raise UsageError(f"p-adapter: p is {self.p}, expected {LOWEST_P:g} to {HIGHEST_P:g}")
        if not self.mu > 0:
            raise UsageError(f"p-adapter: mu is {self.mu}, expected more than 0")
        if self.image_tokens < 1:
            raise UsageError(f"p-adapter: image_tokens is {self.image_tokens}, expected at least 1")


class PAdapter(nn.Module):
    """The adapter behind one attention block of hidden size `width` with `heads` heads.

    y = W_up (GELU(W_gate h) * F'), to be added to h, the output of the block's projection.
    """

    def __init__(self, width: int, heads: int, settings: PAdapterSettings) -> None:
        super().__init__()
        inner = width // settings.reduction
        if inner == 0 or inner % heads:
            fitting = [reduction for reduction in range(1, width + 1) if width % (reduction * heads) == 0]
            nearest = min(fitting, key=lambda reduction: abs(reduction - settings.reduction), default=None)
            raise UsageError(
                f"p-adapter: reduction {settings.reduction} makes {inner} of a hidden size of {width}, expected a "
                f"multiple of its {heads} heads; the nearest that fits is {nearest}"
            )
        self.heads = heads
        self.strength = settings.mu
        self.down = nn.Linear(width, inner)
        self.gate = nn.Linear(width, inner)
        self.up = nn.Linear(inner, width)
        self.p = nn.Parameter(torch.tensor(float(settings.p)), requires_grad=settings.learn_p)
        self.m = nn.Parameter(torch.zeros(()))
        if settings.zero_start:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    @property
    def mu(self) -> Tensor:
        """mu0 (2 + tanh m), within mu0..3 mu0."""
        return self.strength * (2 + torch.tanh(self.m))

    def nodes(self, projected: Tensor) -> Tensor:
        """Features of nodes [B, n, width], projected by the block's own W^O, as [B, H, n, inner / H]."""
        return self.down(projected).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, hidden: Tensor, attention: Tensor, receivers: Tensor, senders: Tensor | None = None) -> Tensor:
        """What to add to `hidden` [B, Q, width]; the others as `propagate` takes them, features from `nodes`."""
        p = self.p.clamp(LOWEST_P, HIGHEST_P)
        passed = propagate(attention, receivers, senders, p=p, mu=self.mu).transpose(1, 2).flatten(2)
        return self.up(functional.gelu(self.gate(hidden)) * passed)

    def constrain(self) -> None:
        """Bring p back within its bounds, outside of which it would have no gradient; after a training step."""
        with torch.no_grad():
            self.p.clamp_(LOWEST_P, HIGHEST_P)
