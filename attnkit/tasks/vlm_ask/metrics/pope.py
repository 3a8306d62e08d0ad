"""POPE: is there such an object in the image? Accuracy, precision, recall, F1, and how often yes is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .yes_no import Said

COLUMNS = ("true_yes", "false_yes", "true_no", "false_no", "other")
# key -> (header, digits)
MEASURES = {
    "accuracy_percent": ("accuracy (%)", 2),
    "precision_percent": ("precision (%)", 2),
    "recall_percent": ("recall (%)", 2),
    "f1_percent": ("F1 (%)", 2),
    "yes_ratio_percent": ("yes ratio (%)", 2),
}


def count(label: str, said: Said) -> tuple[int, ...]:
    """The counts of one question whose answer should be `label`, yes or no."""
    at = 4 if said == "other" else {("yes", "yes"): 0, ("no", "yes"): 1, ("no", "no"): 2, ("yes", "no"): 3}[label, said]
    return tuple(int(at == column) for column in range(len(COLUMNS)))


def measures(sums: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Measures in percent; yes is the positive class, and precision and F1 are 0 where yes is never said.

    Answers that are neither count as wrong in the accuracy and are in no other measure. The yes ratio is that of the
    answers, of all questions.

    Notes:
        Li et al., "Evaluating object hallucination in large vision-language models".
    """
    true_yes, false_yes, true_no, false_no, other = (sums[..., at] for at in range(len(COLUMNS)))
    every = true_yes + false_yes + true_no + false_no + other
    precision = share(true_yes, true_yes + false_yes, empty=0.0)
    recall = share(true_yes, true_yes + false_no, empty=0.0)
    return {
        "accuracy_percent": 100 * share(true_yes + true_no, every),
        "precision_percent": 100 * precision,
        "recall_percent": 100 * recall,
        "f1_percent": 100 * share(2 * precision * recall, precision + recall, empty=0.0),
        "yes_ratio_percent": 100 * share(true_yes + false_yes, every),
    }


def right(counts: NDArray[Any]) -> NDArray[Any]:
    """Which of the questions [questions, columns] were answered rightly."""
    return counts[:, 0] + counts[:, 2] > 0


def share(part: NDArray[Any], whole: NDArray[Any], empty: float = float("nan")) -> NDArray[Any]:
    """part / whole, and `empty` where whole is 0."""
    import numpy as np

    return np.divide(part, whole, out=np.full(np.shape(whole), empty), where=np.asarray(whole) != 0)
