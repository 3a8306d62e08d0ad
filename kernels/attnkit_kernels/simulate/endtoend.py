"""From the speed-up of attention to that of the model it works in."""

from __future__ import annotations

__all__ = ["end_to_end", "published_end_to_end"]


def end_to_end(speedup: float, share: float, steps: int = 1, dense_steps: int = 0) -> float:
    """Speed-up of a whole run when its attention becomes `speedup` times faster (Amdahl's law).

    share : the part of the run time that attention takes, 0..1
    steps, dense_steps : diffusion steps, and how many of them keep dense attention

    ValueError for a share outside 0..1, or dense steps outside 0..steps.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    if steps < 1 or not 0 <= dense_steps <= steps:
        raise ValueError(f"dense steps must lie between 0 and the steps, got {dense_steps} of {steps}")
    sped = share * (steps - dense_steps) / steps
    return 1 / (1 - sped + sped / speedup)


def published_end_to_end(speedup: float, share: float, steps: int = 1, dense_steps: int = 0) -> float:
    """`end_to_end` as the paper of generalized neighborhood attention does it: of the speed-up to one decimal."""
    return end_to_end(round(speedup, 1), share, steps, dense_steps)
