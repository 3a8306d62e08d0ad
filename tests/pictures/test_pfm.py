"""PFM files, hand-made."""

import cv2
import numpy as np
import pytest

from attnkit.pictures import describe, read_picture
from attnkit.runtime.errors import PictureError


def pfm(values: np.ndarray, order: str, scale: float = 1.0) -> bytes:
    kind = "PF" if values.ndim == 3 else "Pf"
    sign = "-" if order == "<" else ""
    return (
        f"{kind}\n{values.shape[1]} {values.shape[0]}\n{sign}{scale}\n".encode()
        + values[::-1].astype(f"{order}f4").tobytes()
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("shape", [(3, 5, 3), (3, 5), (1, 1, 3), (7, 2)])
def test_both_byte_orders_grey_and_colour(order: str, shape: tuple[int, ...], tmp_path) -> None:
    values = np.random.default_rng(0).random(shape).astype(np.float32) * 9
    path = tmp_path / "a.pfm"
    path.write_bytes(pfm(values, order))
    picture = read_picture(path)
    expected = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert picture.grey == (values.ndim == 2)
    assert picture.hdr
    info = describe(path)
    assert (info.rows, info.columns, info.hdr) == (*shape[:2], True)


def test_the_scale_is_the_light_of_one() -> None:
    values = np.full((2, 2, 3), 0.5, np.float32)
    np.testing.assert_array_equal(read_picture(pfm(values, "<", 4.0)).pixels, values * 4)


def test_opencv_writes_what_we_read(tmp_path) -> None:
    values = np.random.default_rng(0).random((6, 5, 3)).astype(np.float32)
    path = tmp_path / "a.pfm"
    assert cv2.imwrite(str(path), values[..., ::-1])
    np.testing.assert_array_equal(read_picture(path).pixels, values)


@pytest.mark.parametrize("cut", [1, 4, 61, 300])
def test_a_cut_file_says_how_many_rows_it_holds(cut: int) -> None:
    whole = pfm(np.ones((10, 5, 3), np.float32), "<")
    with pytest.raises(PictureError, match=rf"truncated: it holds {(600 - cut) // 60} of 10 rows"):
        read_picture(whole[:-cut])


@pytest.mark.parametrize("data", [b"PF\n", b"PF\n5 0\n-1.0\n", b"PF\n5 5\n0\n", b"PF\nfive 5\n-1\n"])
def test_bad_headers(data: bytes) -> None:
    with pytest.raises(PictureError, match="PFM header"):
        read_picture(data)
