"""ICC profiles, against LittleCMS through Pillow."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from attnkit.pictures import encode_picture, read_picture, spaces
from attnkit.pictures.icc import decode, profile
from attnkit.runtime.errors import PictureError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def littlecms(values: np.ndarray, source: bytes) -> np.ndarray:
    """uint8 sRGB that LittleCMS makes of values, relative colorimetric."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(source))
    turned = ImageCms.profileToProfile(
        Image.fromarray(values),
        opened,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    return np.asarray(turned)


def with_curve(curve: bytes) -> bytes:
    """Our sRGB profile with its curves replaced by one of the same place."""
    base = profile("srgb")
    at = base.index(b"para")
    assert len(curve) <= 32
    changed = bytearray(base)
    changed[at : at + 32] = curve.ljust(32, b"\0")
    return bytes(changed)


@pytest.mark.parametrize("space", ["srgb", "display-p3", "grey"])
def test_littlecms_accepts_what_we_write(space: str) -> None:
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile(space)))
    assert (
        ImageCms.getProfileDescription(opened).strip()
        == {"srgb": "sRGB", "display-p3": "Display P3", "grey": "sRGB grey"}[space]
    )
    assert len(profile(space)) == struct.unpack(">I", profile(space)[:4])[0]


def test_our_srgb_profile_is_littlecms_srgb() -> None:
    assert np.abs(littlecms(RGB, profile("srgb")).astype(int) - RGB).max() <= 1


def test_display_p3_agrees_with_littlecms() -> None:
    """Where the colour fits into sRGB; a saturated P3 red does not."""
    linear, name = decode(RGB, profile("display-p3"))
    assert name == "display-p3"
    expected = spaces.convert(spaces.srgb_decode(RGB), "display-p3", "rec709")
    np.testing.assert_allclose(linear, expected, atol=3e-4)
    fits = ((linear > 0) & (linear < 1)).all(axis=-1)
    assert 0.3 < fits.mean() < 1
    difference = np.abs(spaces.srgb_encode(linear)[fits] * 255 - littlecms(RGB, profile("display-p3"))[fits])
    assert difference.max() < 1.5


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (b"curv" + bytes(8), lambda v: v),
        (b"curv" + bytes(4) + struct.pack(">IH", 1, round(1.8 * 256)), lambda v: v ** (round(1.8 * 256) / 256)),
        (
            b"curv" + bytes(4) + struct.pack(">I3H", 3, 0, 16384, 65535),
            lambda v: np.interp(v, [0, 0.5, 1], [0, 16384 / 65535, 1]),
        ),
        (
            b"para" + bytes(4) + struct.pack(">HHi", 0, 0, round(2.2 * 65536)),
            lambda v: v ** (round(2.2 * 65536) / 65536),
        ),
        (
            b"para" + bytes(4) + struct.pack(">HH3i", 1, 0, 131072, 81920, -16384),
            lambda v: np.maximum(1.25 * v - 0.25, 0) ** 2,
        ),
        (
            b"para" + bytes(4) + struct.pack(">HH4i", 2, 0, 131072, 81920, -16384, 6554),
            lambda v: np.maximum(1.25 * v - 0.25, 0) ** 2 + 6554 / 65536,
        ),
    ],
    ids=["identity", "gamma", "table", "para 0", "para 1", "para 2"],
)
def test_curves(curve: bytes, expected) -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    linear, _ = decode(grey, with_curve(curve))
    np.testing.assert_allclose(linear[0, :, 1], expected(np.arange(256) / 255), atol=1e-3)
    sixteen, _ = decode(grey.astype(np.uint16) * 257, with_curve(curve))
    np.testing.assert_allclose(sixteen, linear, atol=1e-6)


def test_float_light_above_one_survives_a_linear_profile() -> None:
    values = np.array([[[0.5, 2, 8]]], np.float32)
    linear, _ = decode(values, with_curve(b"curv" + bytes(8)))
    np.testing.assert_allclose(linear, values, rtol=2e-3)


def test_grey_profile() -> None:
    linear, _ = decode(RGB[..., 0], profile("grey"))
    np.testing.assert_allclose(linear, spaces.srgb_decode(RGB[..., 0]), atol=1e-4)


def test_a_profile_of_tables_goes_through_littlecms() -> None:
    """Pillow's Lab profile has none of the matrix tags; as an RGB source it does not fit, which is said."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with pytest.raises(PictureError, match="cannot be applied to RGB"):
        decode(RGB, lab)


@pytest.mark.parametrize("damaged", [b"", b"x" * 200, profile("srgb")[:140], profile("srgb")[:300]])
def test_damaged_profiles(damaged: bytes) -> None:
    with pytest.raises(PictureError, match="ICC profile"):
        decode(RGB, damaged)


@pytest.mark.parametrize("format", ["png", "tiff", "exr"])
def test_display_p3_round_trip(format: str) -> None:
    light = RNG.random((8, 9, 3)).astype(np.float32)
    display = spaces.srgb_encode(spaces.convert(light, "rec709", "display-p3"))
    data = encode_picture(display, format=format, depth=16, space="display-p3")
    picture = read_picture(data)
    assert (picture.source_space, picture.space_source) == ("display-p3", "file")
    np.testing.assert_allclose(picture.pixels, light, atol=2e-3)


def test_pillow_sees_display_p3_as_we_do() -> None:
    """A P3 picture of ours, turned to sRGB by LittleCMS, is the sRGB picture."""
    light = cv2.GaussianBlur(RNG.random((20, 20, 3)).astype(np.float32), (0, 0), 2)
    display = spaces.srgb_encode(spaces.convert(light, "rec709", "display-p3"))
    image = Image.open(io.BytesIO(encode_picture(display, format="png", space="display-p3")))
    turned = littlecms(np.asarray(image), image.info["icc_profile"])
    assert np.abs(turned / 255 - spaces.srgb_encode(light)).max() < 1.6 / 255
