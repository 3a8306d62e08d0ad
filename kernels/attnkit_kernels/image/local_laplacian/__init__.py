"""Local Laplacian remapping: per-pixel detail curves on a pyramid band, and the canonical fast filter."""

from .api import FORMS, filter, remap
from .curves import GaussianCurve, PowerCurve

__all__ = ["FORMS", "GaussianCurve", "PowerCurve", "filter", "remap"]
