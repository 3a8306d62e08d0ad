"""Scored cubes and methods, and the intervals over blocks and noise."""

import numpy as np
import pytest

from attnkit.runtime.errors import ItemError, UsageError
from attnkit.tasks.hsi_enhance.darkening import DarkModel, darken
from attnkit.tasks.hsi_enhance.evaluate import AS_IT_IS, BEST_SCALE, score_methods, score_pair
from attnkit.tasks.hsi_enhance.evaluation_run import exposures_of
from attnkit.tasks.hsi_enhance.metrics import scores, view_of
from attnkit.tasks.hsi_enhance.score_tables import band_rows, share, summarise, tables_of
from attnkit.tasks.hsi_enhance.task import EnhanceRequest


def scene(bands=8, rows=24, columns=20, seed=0):
    """A smooth cube of three materials."""
    draw = np.random.default_rng(seed)
    spectra = np.cumsum(draw.uniform(0, 0.1, (3, bands)), axis=1) + 0.1
    row, column = np.mgrid[:rows, :columns] / 10
    shares = np.stack([np.sin(row) ** 2, np.cos(row) ** 2 * np.sin(column) ** 2, np.cos(column) ** 2])
    return np.einsum("mb,mrc->brc", spectra, shares / shares.sum(axis=0)).astype(np.float32)


def pairs(prediction, clean, name="x", item="cube", **row):
    return list(
        score_pair(
            {"item": item, "method": name, **row}, view_of(prediction), view_of(clean), blocks=6, scaled=True
        )
    )


def test_gain_is_the_dark_cube_times_the_stated_gain():
    clean = scene()
    model = DarkModel(exposure=1 / 15)
    requests = {"gain": EnhanceRequest(method="gain")}
    found = list(score_methods("c", clean, requests, models=[model], seeds=[4], blocks=4))
    expected = scores(15 * darken(clean, seed=4, model=model), clean)
    assert [one.row["scaling"] for one in found] == [AS_IT_IS, BEST_SCALE]
    for key, value in expected.items():
        assert found[0].row[key] == pytest.approx(value, rel=1e-5)
    assert found[1].row["mpsnr_db"] >= found[0].row["mpsnr_db"]
    assert found[1].row["sam_degrees"] == pytest.approx(found[0].row["sam_degrees"])
    assert found[0].row["seconds_per_megasample"] > 0


def test_every_method_sees_the_same_dark_cube_and_less_light_is_worse():
    clean = scene(12)
    seen = []
    found = list(
        score_methods(
            "c", clean, {name: EnhanceRequest(method=name) for name in ("gain", "mnf")},
            models=[DarkModel(exposure=share) for share in (1 / 15, 1 / 3)], seeds=[0, 1], blocks=4,
            watch=lambda *what: seen.append(what),
        )
    )  # fmt: skip
    assert [what[:3] for what in seen][:4] == [(1 / 15, 0, name) for name in ("dark", "gain", "mnf")] + [
        (1 / 15, 1, "dark")
    ]
    assert seen[1][3] == pytest.approx(15 * seen[0][3], rel=1e-5)
    summary = {(row["exposure"], row["method"]): row for row in summarise(found, 0) if row["scaling"] == AS_IT_IS}
    assert summary[1 / 15, "gain"]["mpsnr_db"] < summary[1 / 3, "gain"]["mpsnr_db"]
    assert summary[1 / 15, "mnf"]["mpsnr_db_difference_low"] > 0
    assert "mpsnr_db_difference" not in summary[1 / 15, "gain"]
    assert summary[1 / 15, "mnf"]["seeds"] == 2


def test_pixels_outside_of_the_scene_stay_dark_and_unscored():
    clean = scene()
    clean[:, :3] = 0
    clean[2, 10, 10] = np.nan
    seen = []
    found = list(
        score_methods(
            "c", clean, {"gain": EnhanceRequest(method="gain")}, models=[DarkModel()], seeds=[0], blocks=4,
            watch=lambda *what: seen.append(what),
        )
    )  # fmt: skip
    assert found[0].row["left_out_pixels"] == 3 * 20 + 1
    assert (seen[0][3][:, :3] == 0).all()
    assert np.isfinite(found[0].row["mpsnr_db"])


def test_summary_of_one_cube_is_the_mean_over_seeds_with_an_interval_around_it():
    clean = scene()
    draw = np.random.default_rng(1)
    scored = [
        one
        for seed in range(4)
        for one in pairs(clean + 0.05 * draw.standard_normal(clean.shape), clean, seed=seed)
        if one.row["scaling"] == AS_IT_IS
    ]
    (row,) = summarise(scored, 0)
    assert row["mpsnr_db"] == pytest.approx(np.mean([one.row["mpsnr_db"] for one in scored]))
    for key in ("mpsnr_db", "mssim", "sam_degrees", "ergas"):
        assert row[f"{key}_low"] < row[key] < row[f"{key}_high"]
    assert summarise(scored, 0) == [row]
    assert summarise(scored, 1) != [row]


def test_a_uniform_error_has_no_interval_and_a_paired_difference_is_sharp():
    clean = scene()
    noise = 0.05 * np.random.default_rng(2).standard_normal(clean.shape)
    scored = [
        one
        for name, error in (("a", noise), ("b", 2 * noise), ("c", np.full(clean.shape, 0.1)))
        for one in pairs(clean + error, clean, name)
        if one.row["scaling"] == AS_IT_IS
    ]
    first, second, third = summarise(scored, 0)
    assert third["mpsnr_db_low"] == pytest.approx(20, abs=1e-4)
    assert third["mpsnr_db_high"] == pytest.approx(20, abs=1e-4)
    # twice the error is 6 dB in every block, whichever blocks are drawn
    assert first["mpsnr_db_low"] < first["mpsnr_db_high"] - 0.1
    for end in ("", "_low", "_high"):
        assert second[f"mpsnr_db_difference{end}"] == pytest.approx(-20 * np.log10(2), abs=1e-4)


def test_rows_of_all_cubes_follow_those_of_each():
    scored = [
        one
        for item, error in (("one", 0.1), ("two", 0.01))
        for one in pairs(scene() + np.float32(error), scene(), item=item)
        if one.row["scaling"] == AS_IT_IS
    ]
    summary = summarise(scored, 0)
    assert [row["item"] for row in summary] == ["one", "two", "all"]
    assert [row["mpsnr_db"] for row in summary] == pytest.approx([20, 40, 30], abs=1e-3)
    assert summary[2]["cubes"] == 2
    tables = tables_of(summary, band_rows(scored, {"one": [400.0 + at for at in range(8)]}), "x")
    assert tables[0][1][:2] == ["cube", "method"]
    assert len(tables) == 2
    title, headers, cells = tables[1]
    assert (title, headers[:4]) == ("each band", ["cube", "method", "band", "wavelength (nm)"])
    assert cells[1][:4] == ["one", "x", "1", "401.0"] and cells[9][:4] == ["two", "x", "1", "-"]


def test_no_numbers_in_the_prediction_are_counted():
    clean = scene()
    broken = clean + np.float32(0.1)
    broken[2, 3, 4:6] = np.nan, np.inf
    found = pairs(broken, clean)
    assert [one.row["missing_samples"] for one in found] == [2, 2]
    zeroed = clean + np.float32(0.1)
    zeroed[2, 3, 4:6] = 0
    assert found[0].row["mpsnr_db"] == pytest.approx(scores(zeroed, clean)["mpsnr_db"])


def test_unequal_shapes_and_empty_references_are_refused():
    with pytest.raises(ItemError, match="got 20x24 with 8 bands, the reference is 19x24 with 8 bands"):
        pairs(scene(), scene()[:, :, 1:])
    with pytest.raises(ItemError, match="no pixel to compare with"):
        pairs(scene(), 0 * scene())


def test_exposures():
    assert exposures_of(["1/15,.2", "1/15"]) == (1 / 15, 0.2)
    assert [share(value) for value in exposures_of(["1/15", "0.2", "1"])] == ["1/15", "1/5", "1"]
    for text in ("0", "2", "a", "1/0", ""):
        with pytest.raises(UsageError, match=f"--exposure: got '{text}'"):
            exposures_of([text])


def test_indian_pines(shared):
    path = shared / "data/hsi/indian_pines/indian_pines.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    clean = np.load(path)["cube"].transpose(2, 0, 1)[::8, :40, 112:].astype(np.float32) / 1e4
    requests = {name: EnhanceRequest(method=name) for name in ("gain", "mnf")}
    found = list(score_methods("p", clean, requests, models=[DarkModel()], seeds=[0], blocks=4))
    gain, mnf = (row for row in summarise(found, 0) if row["scaling"] == AS_IT_IS)
    assert 24 < gain["mpsnr_db"] < 30
    assert mnf["mpsnr_db_difference_low"] > 3
    assert mnf["sam_degrees_difference_high"] < 0
