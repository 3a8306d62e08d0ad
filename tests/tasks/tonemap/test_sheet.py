import numpy as np
import pytest
from frames import broken, ordinary

from attnkit.tasks.tonemap.sheet import contact_sheet, sheet_of_methods
from attnkit.tasks.tonemap.task import METHODS, TonemapRequest


def test_pictures_are_in_the_grid_with_labels():
    red, blue = np.zeros((80, 130, 3), np.uint8), np.zeros((80, 130, 3))
    red[..., 0], blue[..., 2] = 255, 1.0
    sheet = contact_sheet([("one", red), ("two", blue)], columns=2)
    assert sheet.dtype == np.uint8
    assert (sheet == [255, 0, 0]).all(2).sum() == 80 * 130
    assert (sheet == [0, 0, 255]).all(2).sum() == 80 * 130
    # the labels: light ink, above each of the two pictures
    bar = sheet[: np.argmax((sheet == [255, 0, 0]).all(2).any(1))]
    ink = (bar > 150).all(2)
    half = sheet.shape[1] // 2
    assert ink[:, :half].sum() > 10
    assert ink[:, half:].sum() > 10


def test_large_pictures_are_shrunk_and_tiny_ones_kept():
    sheet = contact_sheet([("wide", np.full((100, 2000, 3), 255, np.uint8)), ("dot", np.zeros((1, 1, 3)))], tile=200)
    assert (sheet == 255).all(2).sum() == 200 * 10


def test_no_picture_is_an_error():
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([])


@pytest.mark.parametrize("frame", ["ordinary", "black", "one pixel"])
def test_all_methods_on_one_sheet(frame):
    scene = ordinary(100, 150) if frame == "ordinary" else broken()[frame]
    request = TonemapRequest(scene, strength=0.5, want_lut=True, exposure=0.5)
    sheet = sheet_of_methods(request, tile=64)
    assert sheet.ndim == 3
    assert np.array_equal(sheet, sheet_of_methods(request, METHODS, tile=64))
