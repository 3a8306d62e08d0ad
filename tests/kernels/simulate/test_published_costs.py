"""The shipped cost files: what the repository's own command makes of published times, and labelled so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from attnkit_kernels.patterns.neighborhood import Neighborhood
from attnkit_kernels.simulate import CostModel, cost_named, shipped, simulate
from attnkit_kernels.simulate.published import fit_published, published_samples


def test_two_files_are_shipped() -> None:
    assert list(shipped()) == ["gna-b200", "gna-h100"]


@pytest.mark.parametrize("name", ["gna-b200", "gna-h100"])
def test_files_are_what_the_fit_gives(name: str) -> None:
    model = cost_named(name)
    assert model == fit_published(name)
    assert model.source.startswith("not measured by attnkit: fitted to the profiler samples")
    assert model.torch == ""


def test_the_command_writes_them_anew(tmp_path: Path) -> None:
    line = [sys.executable, "-W", "error", "-m", "attnkit_kernels.simulate.published", str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "gna-b200.json: median error 2.4%, worst 5.3%" in done.stdout
    assert "gna-h100.json: median error 6.2%, worst 22.3%" in done.stdout
    for name, path in shipped().items():
        assert (tmp_path / f"{name}.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("name", "samples"), [("gna-b200", 6), ("gna-h100", 10)])
def test_stated_errors_are_those_of_the_samples(name: str, samples: int) -> None:
    model = cost_named(name)
    errors = sorted(abs(model.predict(counts) / seconds - 1) for counts, seconds in published_samples(name))
    assert len(errors) == samples == model.samples
    assert errors[-1] == pytest.approx(model.worst_error, abs=1e-4)
    assert (errors[samples // 2] + errors[samples // 2 - 1]) / 2 == pytest.approx(model.median_error, abs=1e-4)


def test_prediction_of_the_best_case() -> None:
    """HunyuanVideo, 18x24x24, stride 16x8x8: the manual says 13.0 ms on a B200."""
    found = simulate((30, 48, 80), Neighborhood((18, 24, 24), (16, 8, 8)), (4, 8, 8), (2, 8, 8))
    assert cost_named("gna-b200").predict(found.work(24, 128)) == pytest.approx(13.0e-3, rel=0.06)


def test_a_path_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = CostModel(1.0, 2.0, 3.0, 4.0, 5, 6, 7)
    own.save("gna-b200")
    assert cost_named("gna-b200") == own
    assert json.loads(Path("gna-b200").read_text())["full_ns"] == 3.0


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing: no such file.*gna-b200, gna-h100"):
        cost_named("nothing")
