"""3-D look-up tables: lookup, mixing, and the regularisers that keep learned tables smooth and monotone."""

from .api import INTERPOLATIONS, fuse, identity, lookup, monotonicity, total_variation

__all__ = ["INTERPOLATIONS", "fuse", "identity", "lookup", "monotonicity", "total_variation"]
