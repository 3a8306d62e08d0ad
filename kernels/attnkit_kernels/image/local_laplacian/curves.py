"""Detail curves of the local Laplacian filter: r(i) for a reference value g, in the units of the image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GaussianCurve:
    """r(i) = i + strength (i - g) exp(-(i - g)^2 / (2 sigma^2)).

    strength > 0 raises detail, < 0 lowers it, 0 changes nothing; the curve rises everywhere for -1 < strength < 2.24.
    Source: Aubry et al. 2014, section on the fast filter's remapping functions; LLF-LUT, equation of the local filter.
    """

    sigma: float
    strength: float

    def __post_init__(self) -> None:
        """Raise ValueError for a sigma that is not positive."""
        if not self.sigma > 0:
            raise ValueError(f"sigma: expected more than 0, got {self.sigma}")


@dataclass(frozen=True)
class PowerCurve:
    """Detail |i - g| <= sigma is raised to `alpha`, edges beyond it are scaled by `beta`.

    r(i) = g + sgn(i - g) sigma (|i - g| / sigma)^alpha within sigma,
    r(i) = g + sgn(i - g) (beta (|i - g| - sigma) + sigma) beyond.
    alpha < 1 raises detail, > 1 smooths it; beta < 1 compresses edges (tone mapping), > 1 expands them.
    Source: Paris, Hasinoff and Kautz 2011, equations 2 and 3.
    """

    sigma: float
    alpha: float = 1.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for values outside sigma > 0, alpha > 0, beta >= 0."""
        if not self.sigma > 0:
            raise ValueError(f"sigma: expected more than 0, got {self.sigma}")
        if not self.alpha > 0:
            raise ValueError(f"alpha: expected more than 0, got {self.alpha}")
        if not self.beta >= 0:
            raise ValueError(f"beta: expected 0 or more, got {self.beta}")


Curve = GaussianCurve | PowerCurve
