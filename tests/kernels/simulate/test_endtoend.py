"""Amdahl's law with dense steps."""

from __future__ import annotations

import pytest
from attnkit_kernels.simulate import end_to_end, published_end_to_end


def test_limits() -> None:
    assert end_to_end(10.0, 0.0) == 1.0
    assert end_to_end(10.0, 1.0) == pytest.approx(10.0)
    assert end_to_end(1.0, 0.6, 50, 15) == pytest.approx(1.0)
    assert end_to_end(10.0, 0.6, 50, 50) == 1.0


def test_dense_steps_lower_the_share() -> None:
    assert end_to_end(4.0, 0.8, 10, 5) == pytest.approx(end_to_end(4.0, 0.4))


def test_published_rule_rounds_the_operation_first() -> None:
    assert published_end_to_end(11.14, 0.607) == end_to_end(11.1, 0.607)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((2.0, 1.2), "got 1.2"),
        ((2.0, -0.1), "got -0.1"),
        ((2.0, 0.5, 10, 11), "got 11 of 10"),
        ((2.0, 0.5, 0), "got 0 of 0"),
    ],
)
def test_values_that_are_refused(arguments: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        end_to_end(*arguments)
