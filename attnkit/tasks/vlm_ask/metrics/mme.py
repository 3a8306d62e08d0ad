"""MME: two questions about each image, one to be answered yes and one no; a pair counts once more if both are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .pope import share

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("right", "questions", "both_right", "images")
MEASURES = {
    "accuracy_percent": ("accuracy (%)", 2),
    "accuracy_plus_percent": ("accuracy+ (%)", 2),
    "score": ("score", 2),
}
PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
# their scores are sums over subtasks: at most 2000, 800 and 800
TOTALS: Mapping[str, tuple[str, ...]] = {
    "perception": PERCEPTION,
    "cognition": COGNITION,
    "hallucination": PERCEPTION[:4],
}


def count(right: tuple[bool, bool]) -> tuple[int, ...]:
    """The counts of one image, by which of its two answers are right."""
    return (sum(right), 2, int(all(right)), 1)


def measures(sums: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Accuracy over questions and accuracy+ over images in percent, and their sum, the score of a subtask (0 to 200).

    Notes:
        Fu et al., "MME: a comprehensive evaluation benchmark for multimodal large language models".
    """
    accuracy = 100 * share(sums[..., 0], sums[..., 1])
    plus = 100 * share(sums[..., 2], sums[..., 3])
    return {"accuracy_percent": accuracy, "accuracy_plus_percent": plus, "score": accuracy + plus}
