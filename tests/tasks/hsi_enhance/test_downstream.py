"""Classes told from spectra: splits, classifiers, accuracies and their intervals."""

import numpy as np
import pytest

from attnkit.runtime.errors import ItemError, UsageError
from attnkit.tasks.hsi_enhance.downstream import (
    LEAST_TRAINING,
    Task,
    accuracy_table,
    agreement,
    check_labels,
    summarise_accuracies,
)

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def fields(noise, seed=0):
    """Three classes in bands of rows, [6, 30, 20], and their labels; the first two columns have none."""
    draw = np.random.default_rng(seed)
    labels = np.repeat([1, 2, 3], 10)[:, None] * np.ones((1, 20), np.int64)
    labels[:, :2] = 0
    spectra = np.array([[0, 0, 0, 0, 0, 0], [1, 2, 3, 2, 1, 1], [1, 2, 3, 2, 2, 1], [3, 2, 1, 1, 1, 1]]) / 4
    clean = spectra[np.repeat([1, 2, 3], 10)].T[:, :, None] * np.ones((1, 1, 20))
    return clean + noise * draw.standard_normal(clean.shape), labels


def test_a_split_is_fixed_by_its_seed_and_keeps_every_class():
    _, labels = fields(0)
    task = Task(labels, train_share=0.1)
    train, test = task.split(3)
    assert len(train) == 3 * 18
    assert sorted(np.concatenate([train, test])) == np.flatnonzero(labels).tolist()
    assert np.bincount(labels.ravel()[train]).tolist() == [0, 18, 18, 18]
    assert (task.split(3)[0] == train).all()
    assert set(task.split(4)[0]) != set(train)


def test_squares_keep_training_and_test_of_a_class_apart():
    labels = np.ones((60, 50), np.int64)
    labels[:, 25:] = 2
    train, test = Task(labels, train_share=0.2, split_by="squares").split(0)
    square = (np.mgrid[:60, :50][0] // 12 * 10 + np.mgrid[:60, :50][1] // 12).ravel()
    flat = labels.ravel()
    for name in (1, 2):
        inside = {part: set(square[part_of][flat[part_of] == name]) for part, part_of in (("a", train), ("b", test))}
        assert not inside["a"] & inside["b"]
        assert 0.2 * 60 * 25 <= (flat[train] == name).sum() < 0.4 * 60 * 25
    assert len(train) + len(test) == labels.size


def test_small_classes_are_trained_on_a_few_pixels_and_tiny_ones_left_out():
    labels = np.zeros((20, 20), np.int64)
    labels[:10], labels[10, :5], labels[11, :LEAST_TRAINING] = 1, 2, 3
    train, test = Task(labels, train_share=0.1).split(0)
    assert np.bincount(labels.ravel()[train]).tolist() == [0, 20, LEAST_TRAINING]
    assert 3 not in labels.ravel()[test]
    with pytest.raises(ItemError, match="got 1 classes that can be split"):
        Task(np.where(labels == 1, 1, 0)).split(0)


@pytest.mark.parametrize("classifier", ["svm", "lda"])
def test_noise_makes_classes_harder_to_tell(classifier):
    found = []
    for noise in (0.01, 0.15, 3.0):
        cube, labels = fields(noise)
        (row,) = Task(labels, classifier).accuracies(cube)
        found.append(row["overall_accuracy_percent"])
    assert found[0] > 99
    assert 60 < found[1] < 99
    # chance is a third
    assert 25 < found[2] < 55


def test_brightness_alone_changes_nothing():
    cube, labels = fields(0.3)
    task = Task(labels, "svm", splits=(0, 1))
    for one, other in zip(task.accuracies(cube), task.accuracies(15 * cube), strict=True):
        assert one == pytest.approx(other)


def test_agreement_as_scikit_learn_has_it():
    draw = np.random.default_rng(0)
    expected = draw.integers(1, 5, 300)
    found = np.where(draw.random(300) < 0.6, expected, draw.integers(1, 5, 300))
    row = agreement(expected, found)
    assert row["overall_accuracy_percent"] == pytest.approx(100 * sklearn_metrics.accuracy_score(expected, found))
    balanced = sklearn_metrics.balanced_accuracy_score(expected, found)
    assert row["average_accuracy_percent"] == pytest.approx(100 * balanced)
    assert row["kappa"] == pytest.approx(sklearn_metrics.cohen_kappa_score(expected, found))


def test_labels_must_be_whole_numbers_of_one_band():
    assert check_labels(np.array([[[0.0, 3.0]]]), "--labels x").tolist() == [[0, 3]]
    for labels, message in (
        (np.zeros((2, 4, 4)), "got 2 bands, expected one"),
        (np.full((1, 2, 2), 0.5), "expected whole numbers"),
        (np.full((1, 2, 2), np.nan), "expected whole numbers"),
        (np.full((1, 2, 2), -1), "expected whole numbers"),
    ):
        with pytest.raises(UsageError, match=message):
            check_labels(labels, "--labels x")


def test_differences_are_paired_split_by_split():
    rows = [{"input": "clean", "split": split, **_row(90 + split)} for split in range(4)]
    for seed in (0, 1):
        for split in range(4):
            rows.append({"input": "gain", "exposure": 0.1, "seed": seed, "split": split, **_row(50 + 5 * split)})
            rows.append({"input": "mnf", "exposure": 0.1, "seed": seed, "split": split, **_row(52 + 5 * split)})
    clean, gain, mnf = summarise_accuracies(rows, "gain", 0)
    key = "overall_accuracy_percent"
    assert (clean[key], gain[key], mnf[key]) == (91.5, 57.5, 59.5)
    assert gain[f"{key}_low"] < 57.5 < gain[f"{key}_high"]
    assert [mnf[f"{key}_difference{end}"] for end in ("", "_low", "_high")] == [2, 2, 2]
    assert f"{key}_difference" not in clean
    title, headers, cells = accuracy_table([clean, gain, mnf], "gain", Task(fields(0)[1], splits=range(4)))
    assert "10 training pixels drawn at random in every class, 90 test pixels, 4 splits" in title
    assert headers[0] == "input" and headers[-1] == "overall minus gain, paired"
    assert [line[0] for line in cells] == ["clean", "gain", "mnf"]
    assert cells[2][-1] == "+2.00 (+2.00..+2.00)"


def _row(overall):
    return {
        "overall_accuracy_percent": float(overall), "average_accuracy_percent": float(overall),
        "kappa": overall / 100, "train_pixels": 10, "test_pixels": 90,
    }  # fmt: skip


def test_indian_pines(shared):
    path = shared / "data/hsi/indian_pines/indian_pines.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    arrays = np.load(path)
    cube = arrays["cube"].transpose(2, 0, 1)[::4]
    (row,) = Task(arrays["labels"].astype(np.int64), "lda").accuracies(cube)
    # labels that lie anywhere but over their pixels give 40 %
    assert row["overall_accuracy_percent"] > 60
    assert row["train_pixels"] + row["test_pixels"] == 10249
