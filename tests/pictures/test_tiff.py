"""TIFF in and out, against tifffile, Pillow and cv2."""

import io
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from attnkit.pictures import describe, encode_picture, read_picture, spaces
from attnkit.runtime.errors import PictureError

RNG = np.random.default_rng(0)
LIGHT = (RNG.random((40, 53, 3)) ** 3 * 20).astype(np.float32)
DEEP = RNG.integers(0, 65536, (40, 53, 3), dtype=np.uint16)
EIGHT = (DEEP >> 8).astype(np.uint8)


def tiff(values: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    photometric = "rgb" if values.ndim == 3 else "minisblack"
    tifffile.imwrite(stream, values, **{"photometric": photometric, "metadata": None, **options})
    return stream.getvalue()


def by_opencv(values: np.ndarray, compression: int) -> bytes:
    stored = cv2.cvtColor(values, cv2.COLOR_RGB2BGR)
    done, buffer = cv2.imencode(".tiff", stored, [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    assert done
    return buffer.tobytes()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "layout", [{}, {"tile": (16, 32)}, {"bigtiff": True}, {"compression": "deflate", "rowsperstrip": 7}]
)
def test_floating_point_light(kind: type, order: str, layout: dict[str, Any], tmp_path) -> None:
    stored = LIGHT.astype(kind)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(stored, byteorder=order, **layout))
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, stored.astype(np.float32))
    assert (picture.hdr, picture.transfer, picture.space_source) == (True, "linear", "assumed")
    info = describe(path)
    assert (info.kind, info.rows, info.columns, info.hdr) == ("tiff", 40, 53, True)


def test_planes_stored_apart() -> None:
    data = tiff(LIGHT.transpose(2, 0, 1), planarconfig="separate")
    np.testing.assert_array_equal(read_picture(data).pixels, LIGHT)


@pytest.mark.parametrize("stored", [DEEP, EIGHT])
def test_integers_are_srgb_where_nothing_is_said(stored: np.ndarray) -> None:
    picture = read_picture(tiff(stored))
    np.testing.assert_array_equal(picture.pixels, spaces.srgb_decode(stored))
    assert (picture.hdr, picture.transfer) == (False, "srgb")
    grey = read_picture(tiff(stored[..., 0]))
    np.testing.assert_array_equal(grey.pixels[..., 2], spaces.srgb_decode(stored[..., 0]))
    assert grey.grey


def test_a_named_space_means_linear_16_bit_samples() -> None:
    picture = read_picture(tiff(DEEP), input_space="xyz")
    expected = (DEEP / 65535) @ spaces.matrix("xyz", "rec709").T
    np.testing.assert_allclose(picture.pixels, np.maximum(expected, 0), atol=2e-6)


def test_white_is_zero_and_palette() -> None:
    inverted = read_picture(tiff(255 - EIGHT[..., 0], photometric="miniswhite"))
    np.testing.assert_array_equal(inverted.pixels[..., 0], spaces.srgb_decode(EIGHT[..., 0]))
    colours = RNG.integers(0, 65536, (3, 256), dtype=np.uint16)
    palette = read_picture(tiff(EIGHT[..., 0], photometric="palette", colormap=colours))
    np.testing.assert_array_equal(palette.pixels, spaces.srgb_decode(np.moveaxis(colours[:, EIGHT[..., 0]], 0, -1)))


@pytest.mark.parametrize(("extra", "premultiplied"), [("unassalpha", False), ("assocalpha", True)])
def test_alpha_straight_and_premultiplied(extra: str, premultiplied: bool) -> None:
    alpha = np.linspace(0.25, 1, 40 * 53, dtype=np.float32).reshape(40, 53)
    stored = LIGHT * alpha[..., None] if premultiplied else LIGHT
    picture = read_picture(tiff(np.dstack([stored, alpha]), extrasamples=[extra]))
    np.testing.assert_allclose(picture.pixels, LIGHT, rtol=1e-6)
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, alpha)


def test_premultiplied_integers() -> None:
    stored = np.full((4, 4, 4), (50, 100, 0, 128), np.uint8)
    picture = read_picture(tiff(stored, extrasamples=["assocalpha"]))
    np.testing.assert_array_equal(picture.pixels, spaces.srgb_decode(np.full((4, 4, 3), (100, 199, 0), np.uint8)))


@pytest.mark.parametrize("compression", [5, 8, 32773, 32946])
@pytest.mark.parametrize("values", [LIGHT, DEEP, EIGHT], ids=["float", "16", "8"])
def test_codings_that_tifffile_alone_lacks(compression: int, values: np.ndarray) -> None:
    """LZW and predicted floats go through OpenCV."""
    picture = read_picture(by_opencv(values, compression))
    np.testing.assert_array_equal(picture.pixels, values if values is LIGHT else spaces.srgb_decode(values))


@pytest.mark.parametrize(("compression", "tolerance"), [(34676, 0.03), (34677, 0.08)])
def test_logluv_to_its_precision(compression: int, tolerance: float, tmp_path) -> None:
    values = np.linspace(0.05, 10, 40 * 52, dtype=np.float32).reshape(40, 52, 1) * np.array([1, 0.8, 0.6], np.float32)
    path = tmp_path / "a.tif"
    path.write_bytes(by_opencv(values, compression))
    picture = read_picture(path)
    np.testing.assert_allclose(picture.pixels, values, rtol=tolerance, atol=0.01)
    assert picture.hdr
    assert describe(path).hdr


@pytest.mark.parametrize(
    "data",
    [tiff(LIGHT), tiff(LIGHT, compression="deflate", rowsperstrip=8), by_opencv(DEEP, 5), by_opencv(LIGHT, 34676)],
    ids=["plain", "deflate", "lzw", "logluv"],
)
def test_a_file_cut_anywhere_is_an_error(data: bytes, capfd) -> None:
    capfd.readouterr()
    for length in (8, 100, 250, len(data) // 2, len(data) - 2000, len(data) - 100, len(data) - 1):
        with pytest.raises(PictureError, match="truncated"):
            read_picture(data[:length])
    assert capfd.readouterr() == ("", "")


def test_damaged_strips_are_an_error() -> None:
    data = bytearray(tiff(LIGHT, compression="deflate"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(PictureError, match="damaged"):
        read_picture(bytes(data))


def test_strange_samples_are_named() -> None:
    with pytest.raises(PictureError, match="int16"):
        read_picture(tiff(DEEP.astype(np.int16)))
    with pytest.raises(PictureError, match="colour model"):
        read_picture(tiff(np.dstack([EIGHT, EIGHT[..., :1]]), photometric="separated"))
    with pytest.raises(PictureError, match="5 samples"):
        read_picture(tiff(np.dstack([DEEP, DEEP[..., :2]]), photometric="minisblack", planarconfig="contig"))


@pytest.mark.parametrize("depth", [8, 16, 32])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("grey", [False, True])
def test_tifffile_reads_what_we_write(depth: int, alpha: bool, grey: bool) -> None:
    display = RNG.random((900, 301, 3)).astype(np.float32)
    coverage = RNG.random((900, 301)).astype(np.float32) if alpha else None
    data = encode_picture(display, format="tiff", depth=depth, alpha=coverage, grey=grey, settings={"a": 1})
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        assert len(page.dataoffsets) > 1
        stored = page.asarray()
        assert tuple(page.extrasamples) == ((2,) if alpha else ())
    scale = {8: 255, 16: 65535, 32: 1}[depth]
    colours = display[..., 1:2] if grey else display
    expected = colours if coverage is None else np.dstack([colours, coverage])
    np.testing.assert_allclose(stored.reshape(expected.shape), expected * scale, atol=0.51 if depth < 32 else 0)


@pytest.mark.parametrize("depth", [8, 16, 32])
def test_opencv_and_pillow_read_what_we_write(depth: int) -> None:
    stored = RNG.random((50, 61, 3)).astype(np.float32)
    data = encode_picture(stored, format="tiff", depth=depth)
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[..., ::-1]
    scale = {8: 255, 16: 65535, 32: 1}[depth]
    np.testing.assert_allclose(read, stored * scale, atol=0.51 if depth < 32 else 0)
    if depth == 8:
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), read)
