"""What a sparse attention will cost, before anything runs: tile counts, operations, bytes, run time estimates.

numpy only: the counts of a neighborhood are products of counts per axis, so a canvas of a million tokens takes no mask.
"""

from .cost import CostModel, Counts

__all__ = ["CostModel", "Counts"]
