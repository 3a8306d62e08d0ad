"""What an enhancement is good for: how well each pixel's spectrum tells its class, before and after.

The test that the abstract of "Low-Light Hyperspectral Image Enhancement" (Li, Li and Zhao, arXiv 2208.03042) speaks of;
its split and classifier are not published, those here are stated with the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from attnkit.runtime.errors import ItemError, UsageError

from .score_tables import interval, share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from attnkit.scoring.files import Shown

Classifier = Literal["svm", "lda"]
SplitBy = Literal["pixels", "squares"]
# side of the squares of pixels that are trained on, or tested on, as wholes
SQUARE = 12
# of a class in a training, however small its share; a class needs one pixel more, to be tested on
LEAST_TRAINING = 3
# of the support vectors; the width of the kernel is 1 / bands after standardisation
PENALTY = 100.0
# key of a row -> (header with its unit, digits)
ACCURACIES: dict[str, tuple[str, int]] = {
    "overall_accuracy_percent": ("overall accuracy (%)", 2),
    "average_accuracy_percent": ("average accuracy (%)", 2),
    "kappa": ("kappa", 4),
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Labelled pixels and how they are split: each split draws its own training pixels, at random in every class.

    labels       [rows, columns] class of each pixel, 0 for pixels without one
    classifier   "svm": support vectors with a Gaussian kernel; "lda": linear discriminant analysis with the shrinkage
                 of Ledoit and Wolf; both after standardisation by the training pixels
    train_share  of the pixels of each class that are trained on; the others are tested on
    splits       seeds of the splits
    split_by     "pixels", or "squares" of 12x12: no pixel is tested in a square in which its class was trained on, so
                 that a method cannot carry over what it has smoothed together
    """

    labels: NDArray[np.int64]
    classifier: Classifier = "svm"
    train_share: float = 0.1
    splits: Sequence[int] = (0,)
    split_by: SplitBy = "pixels"

    def split(self, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Flat numbers of training and test pixels; classes of too few pixels are in neither."""
        import numpy as np

        draw = np.random.default_rng(seed)
        train, test = [], []
        flat = self.labels.ravel()
        unit = self._units()
        order = draw.permutation(int(unit.max()) + 1)
        for name in np.unique(flat[flat > 0]):
            members = np.flatnonzero(flat == name)
            # whole units, in the order of the draw, until there are enough pixels
            members = members[np.argsort(order[unit[members]], kind="stable")]
            wanted = max(LEAST_TRAINING, round(self.train_share * len(members)))
            last = order[unit[members[min(wanted, len(members)) - 1]]]
            chosen = order[unit[members]] <= last
            if len(members) >= wanted and not chosen.all():
                train.append(members[chosen])
                test.append(members[~chosen])
        if len(train) < 2:
            raise ItemError(
                f"--labels: got {len(train)} classes that can be split, expected two or more, each of more than "
                f"{LEAST_TRAINING} pixels in more than one place; 0 is no class"
            )
        return np.concatenate(train), np.concatenate(test)

    def _units(self) -> NDArray[np.int64]:
        """Number of what each pixel is drawn with: its own, or that of its square."""
        import numpy as np

        if self.split_by == "pixels":
            return np.arange(self.labels.size)
        rows, columns = self.labels.shape
        across = -(-columns // SQUARE)
        return ((np.arange(rows) // SQUARE * across)[:, None] + np.arange(columns) // SQUARE).ravel()

    def accuracies(self, cube: NDArray[Any]) -> list[Row]:
        """Train and test on the spectra of a cube [bands, rows, columns], one row a split."""
        return [{"split": seed, **self._accuracy(cube, seed)} for seed in self.splits]

    def _accuracy(self, cube: NDArray[Any], seed: int) -> Row:
        import numpy as np

        train, test = self.split(seed)
        spectra = np.nan_to_num(cube.reshape(len(cube), -1).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0).T
        flat = self.labels.ravel()
        model = classifier_named(self.classifier)
        found = model.fit(spectra[train], flat[train]).predict(spectra[test])
        return {**agreement(flat[test], found), "train_pixels": len(train), "test_pixels": len(test)}


def classifier_named(name: Classifier) -> Any:
    """A classifier of scikit-learn behind a standardisation."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if name == "svm":
        return make_pipeline(StandardScaler(), SVC(C=PENALTY, gamma="scale"))
    return make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto"))


def agreement(expected: NDArray[Any], found: NDArray[Any]) -> Row:
    """Share of right pixels, mean share over classes, and Cohen's kappa: agreement beyond that of chance."""
    import numpy as np

    classes = np.unique(np.concatenate([expected, found]))
    right = found == expected
    overall = float(right.mean())
    average = float(np.mean([right[expected == one].mean() for one in np.unique(expected)]))
    chance = float(sum((expected == one).mean() * (found == one).mean() for one in classes))
    return {
        "overall_accuracy_percent": 100 * overall,
        "average_accuracy_percent": 100 * average,
        "kappa": (overall - chance) / (1 - chance) if chance < 1 else 0.0,
    }


def check_labels(labels: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Class numbers [rows, columns]; UsageError unless there is one band of whole numbers from 0."""
    import numpy as np

    if labels.shape[0] != 1:
        raise UsageError(f"{where}: got {labels.shape[0]} bands, expected one with the class of each pixel")
    whole = labels[0].astype(np.int64) if np.isfinite(labels).all() else None
    if whole is None or (whole != labels[0]).any() or whole.min() < 0:
        raise UsageError(f"{where}: expected whole numbers from 0 (no class), one a pixel")
    return whole


def summarise_accuracies(rows: Sequence[Row], first: str, seed: int) -> list[Row]:
    """One row per exposure and input: means, and 95 % bootstrap intervals over splits, with the difference to `first`.

    The noise seeds of one split are averaged before splits are drawn; differences are split by split. The clean cube
    stands first and knows no exposure.
    """
    from attnkit.scoring.bootstrap import bootstrap, scene_means

    def means(exposure: float | None, name: str, key: str) -> dict[str, float]:
        own = [row for row in rows if row.get("exposure") == exposure and row["input"] == name]
        return scene_means([row[key] for row in own], [str(row["split"]) for row in own])

    summary: list[Row] = []
    for exposure, name in dict.fromkeys((row.get("exposure"), row["input"]) for row in rows):
        own = [row for row in rows if row.get("exposure") == exposure and row["input"] == name]
        line: Row = {"exposure": exposure, "input": name, "splits": len({row["split"] for row in own})}
        line |= {key: round(sum(row[key] for row in own) / len(own)) for key in ("train_pixels", "test_pixels")}
        for key in ACCURACIES:
            found = means(exposure, name, key)
            line[key], line[f"{key}_low"], line[f"{key}_high"] = bootstrap(found, seed=seed)
            base = means(exposure, first, key) if name != first and exposure is not None else {}
            if base:
                gaps = {split: found[split] - base[split] for split in found if split in base}
                ends = (f"{key}_difference{end}" for end in ("", "_low", "_high"))
                line.update(zip(ends, bootstrap(gaps, seed=seed), strict=True))
        summary.append(line)
    return summary


def accuracy_table(summary: Sequence[Row], first: str, task: Task) -> Shown:
    """The table for people; its title says what was trained and tested on."""
    kind = {"svm": "SVM with a Gaussian kernel", "lda": "linear discriminant analysis"}[task.classifier]
    unit = "drawn at random" if task.split_by == "pixels" else f"in squares of {SQUARE}x{SQUARE} drawn at random"
    title = (
        f"accuracy of each pixel's class: {kind}, {summary[0]['train_pixels']} training pixels {unit} "
        f"in every class, {summary[0]['test_pixels']} test pixels, {len(task.splits)} splits"
    )
    several = len({row["exposure"] for row in summary if row["exposure"] is not None}) > 1
    overall = "overall_accuracy_percent"
    headers = ["exposure", "input"] if several else ["input"]
    headers += [*(f"{head}, 95 % interval" for head, _ in ACCURACIES.values()), f"overall minus {first}, paired"]
    cells = []
    for row in summary:
        line = [("-" if row["exposure"] is None else share(row["exposure"]))] if several else []
        line.append(row["input"])
        line += [interval(row, [key, f"{key}_low", f"{key}_high"], digits) for key, (_, digits) in ACCURACIES.items()]
        ends = [f"{overall}_difference{end}" for end in ("", "_low", "_high")]
        cells.append([*line, interval(row, ends, 2, "+")])
    return title, headers, cells
