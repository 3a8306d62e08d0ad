"""The real files of the shared test material."""

from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
from PIL import Image

from attnkit.pictures import describe, read_picture, spaces
from attnkit.runtime.errors import PictureError


def files(shared: Path, pattern: str, least: int) -> list[Path]:
    found = sorted((shared / "data").glob(pattern))
    assert len(found) >= least
    return found


def test_every_light_probe_is_what_openexr_says(shared: Path) -> None:
    for path in files(shared, "hdr/*/*.exr", 26):
        stored = OpenEXR.File(str(path)).channels()["RGB"].pixels.astype(np.float32)
        picture = read_picture(path)
        info = describe(path)
        assert (info.rows, info.columns, info.hdr) == (*stored.shape[:2], True)
        assert picture.repaired == {"nan": 0, "inf": 0, "negative": int((stored < 0).any(axis=2).sum())}
        tolerance = 2e-3 if picture.space_source == "file" else 0
        np.testing.assert_allclose(
            picture.pixels, np.maximum(stored, 0), rtol=tolerance, atol=tolerance, err_msg=str(path)
        )
        assert picture.pixels.min() >= 0


def test_one_probe_carries_srgb_primaries_seen_under_d50(shared: Path) -> None:
    picture = read_picture(shared / "data/hdr/blender/city.exr")
    assert (picture.source_space, picture.space_source) == ("custom", "file")


def test_every_radiance_view_is_what_opencv_says(shared: Path) -> None:
    for path in files(shared, "hdr/radiance/*.hdr", 6):
        picture = read_picture(path)
        np.testing.assert_array_equal(picture.pixels, cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1])
        assert (describe(path).rows, describe(path).columns) == (256, 384)


def test_every_photograph_is_what_pillow_says(shared: Path) -> None:
    """To two codes where the profile is sRGB; one photograph has a profile of its own."""
    for path in files(shared, "photo/*.[pj][np]g", 6):
        picture = read_picture(path)
        assert not picture.hdr
        assert describe(path).hdr is False
        if picture.source_space == "rec709":
            expected = np.asarray(Image.open(path).convert("RGB"))
            assert np.abs(spaces.srgb_encode(picture.pixels) * 255 - expected).max() < 3


@pytest.mark.parametrize(
    "name", ["hdr/radiance/night_view.hdr", "hdr/pmndrs/studio.exr", "photo/chelsea.png", "photo/flower.jpg"]
)
def test_real_files_cut_at_any_place(shared: Path, name: str, capfd) -> None:
    data = (shared / "data" / name).read_bytes()
    read_picture(data)
    capfd.readouterr()
    for length in [*range(1, len(data), len(data) // 20), len(data) - 900, len(data) - 1]:
        with pytest.raises(PictureError) as caught:
            read_picture(data[:length])
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_envi_header_is_not_a_picture(shared: Path) -> None:
    with pytest.raises(PictureError, match="an ENVI header"):
        describe(shared / "data/hsi/fenix_envi/image.hdr")
