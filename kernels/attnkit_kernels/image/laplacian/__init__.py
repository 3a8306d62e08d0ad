"""Laplacian pyramid with the binomial 5 x 5 kernel, exact for any size, odd ones too."""

from .api import decompose, down, gaussian, reconstruct, up

__all__ = ["decompose", "down", "gaussian", "reconstruct", "up"]
