"""The linear cost model: what it recovers, what it refuses, and that a file gives the same model back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attnkit_kernels.simulate import CostModel, Counts

TRUE = CostModel(4000.0, 150.0, 900.0, 1300.0, 128, 128, 64)


def some_counts(samples: int, seed: int = 0) -> list[Counts]:
    generator = np.random.default_rng(seed)
    rows = generator.integers(1, 1000, samples)
    full = generator.integers(0, 20000, samples)
    partial = generator.integers(0, 5000, samples)
    return [Counts(int(f), int(p), int(r), 128, 128, 64) for f, p, r in zip(full, partial, rows, strict=True)]


def test_fit_recovers_the_terms() -> None:
    fitted = CostModel.fit([(one, TRUE.predict(one)) for one in some_counts(12)], device="a", torch="b")
    for name in ("launch_ns", "row_ns", "full_ns", "partial_ns"):
        assert getattr(fitted, name) == pytest.approx(getattr(TRUE, name), rel=1e-6)
    assert (fitted.device, fitted.torch, fitted.samples) == ("a", "b", 12)
    assert fitted.worst_error == pytest.approx(0, abs=1e-9)


def test_prediction_is_the_sum_of_the_terms() -> None:
    seconds = TRUE.predict(Counts(10, 3, 7, 128, 128, 64))
    assert seconds == pytest.approx((4000 + 7 * 150 + 10 * 900 + 3 * 1300) * 1e-9)


def test_other_tiles_are_scaled_by_their_operations_and_rows_by_their_elements() -> None:
    counts = Counts(10, 3, 7, 64, 256, 32)
    assert TRUE.predict(counts) == pytest.approx((4000 + 7 * 150 / 4 + (10 * 900 + 3 * 1300) / 2) * 1e-9)
    assert counts.tile_flops == 4 * 64 * 256 * 32
    assert counts.flops == 13 * counts.tile_flops


def test_terms_are_never_negative() -> None:
    """Times that fall with the partial tiles would ask for a negative cost of them."""
    samples = [(one, (1e5 + one.full_tiles * 900 - one.partial_tiles * 3) * 1e-9) for one in some_counts(30)]
    fitted = CostModel.fit(samples)
    assert fitted.partial_ns == 0
    assert min(fitted.launch_ns, fitted.row_ns, fitted.full_ns) >= 0


def test_fit_is_the_best_of_all_non_negative_models() -> None:
    scipy = pytest.importorskip("scipy.optimize")
    generator = np.random.default_rng(3)
    for seed in range(20):
        counts = some_counts(9, seed)
        times = np.array([TRUE.predict(one) for one in counts]) * generator.uniform(0.3, 2, 9)
        fitted = CostModel.fit(list(zip(counts, times.tolist(), strict=True)))
        matrix = np.array([[1, one.rows, one.full_tiles, one.partial_tiles] for one in counts]) * 1e-9 / times[:, None]
        mine = np.array([fitted.launch_ns, fitted.row_ns, fitted.full_ns, fitted.partial_ns])
        scale = np.linalg.norm(matrix, axis=0)
        _, best = scipy.nnls(matrix / scale, np.ones(9))
        assert np.linalg.norm(matrix @ mine - 1) == pytest.approx(best, rel=1e-6)


def test_equal_samples_give_one_term_and_no_error() -> None:
    one = Counts(10, 0, 1, 128, 128, 64)
    fitted = CostModel.fit([(one, 1e-3)] * 3)
    assert fitted.predict(one) == pytest.approx(1e-3)
    assert sum(value > 0 for value in (fitted.launch_ns, fitted.row_ns, fitted.full_ns, fitted.partial_ns)) == 1


def test_errors_of_the_fit_are_stated() -> None:
    samples = [(one, TRUE.predict(one) * factor) for one, factor in zip(some_counts(3), (1, 1, 1.2), strict=True)]
    two = [(Counts(10, 0, 1, 128, 128, 64), 1e-3), (Counts(10, 0, 1, 128, 128, 64), 2e-3)]
    fitted = CostModel.fit(two)
    # the relative least squares mean of t and 2 t is 1.2 t
    assert fitted.worst_error == pytest.approx(0.4)
    assert fitted.median_error == pytest.approx(0.3)
    assert CostModel.fit(samples).worst_error < 0.2


def test_file_gives_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    model = replace(TRUE, device="a box", torch="2.13", dtype="float32", source="here", samples=3, worst_error=0.1)
    model.save(path)
    assert CostModel.load(path) == model
    assert json.loads(path.read_text())["kind"] == "attnkit cost model"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "cake"}, ["got kind 'cake'", "expected 'attnkit cost model'"]),
        ({"schema": 2}, ["schema"]),
        ({"wobble": 2}, ["'wobble'", "launch_ns"]),
        ({"row_ns": -1}, ["row_ns", "-1", "at least 0"]),
        ({"row_ns": "1"}, ["row_ns", "'1'"]),
        ({"row_ns": float("nan")}, ["row_ns", "nan"]),
        ({"dim": 0}, ["dim", "got 0"]),
    ],
)
def test_files_that_are_refused(change: dict, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    path.write_text(json.dumps({**json.loads(TRUE.to_json()), **change}))
    with pytest.raises(ValueError, match=r"cost\.json") as refused:
        CostModel.load(path)
    assert all(word in str(refused.value) for word in words)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_no_cost_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "cost.json").write_text(text)
    with pytest.raises(ValueError, match=r"cost\.json"):
        CostModel.load(tmp_path / "cost.json")


def test_a_file_that_lacks_a_term(tmp_path: Path) -> None:
    content = json.loads(TRUE.to_json())
    del content["full_ns"]
    (tmp_path / "cost.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="full_ns"):
        CostModel.load(tmp_path / "cost.json")


def test_values_that_are_refused() -> None:
    with pytest.raises(ValueError, match="rows: got -1, expected at least 0"):
        Counts(1, 1, -1, 128, 128, 64)
    with pytest.raises(ValueError, match="dim: got 0, expected at least 1"):
        Counts(1, 1, 1, 128, 128, 0)
    with pytest.raises(ValueError, match="samples: got none"):
        CostModel.fit([])
    with pytest.raises(ValueError, match=r"got a time of 0\.0 s"):
        CostModel.fit([(some_counts(1)[0], 0.0)])
