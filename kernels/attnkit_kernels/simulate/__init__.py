"""What a sparse attention will cost, before anything runs: tile counts, operations, bytes, run time estimates.

numpy only: the counts of a neighborhood are products of counts per axis, so a canvas of a million tokens takes no mask.
"""

from .cost import CostModel, Counts, cost_named, shipped
from .counts import Simulation, count
from .endtoend import end_to_end, published_end_to_end
from .neighborhood import AxisCounts, axis_counts, simulate
from .sweep import AxisSweep, sweep_axis
from .tiles import TARGETS, tiles_of
from .traffic import Traffic, traffic
from .verify import Verification, verify

__all__ = [
    "TARGETS",
    "AxisCounts",
    "AxisSweep",
    "CostModel",
    "Counts",
    "Simulation",
    "Traffic",
    "Verification",
    "axis_counts",
    "cost_named",
    "count",
    "end_to_end",
    "published_end_to_end",
    "shipped",
    "simulate",
    "sweep_axis",
    "tiles_of",
    "traffic",
    "verify",
]
