"""OpenEXR files, against the OpenEXR package in both directions; luminance/chroma and damage are made by hand."""

import io
import struct
from typing import Any

import numpy as np
import OpenEXR
import pytest

from attnkit.pictures import describe, encode_picture, read_picture, spaces
from attnkit.runtime.errors import PictureError

RNG = np.random.default_rng(0)
LIGHT = (RNG.random((22, 34, 3)) ** 3 * 50).astype(np.float32)
PLANE = LIGHT[..., 0].copy()


def exr(channels: dict[str, Any], **header: Any) -> bytes:
    stream = io.BytesIO()
    OpenEXR.File({"type": OpenEXR.scanlineimage, **header}, channels).write(stream)
    return stream.getvalue()


def parts(*listed: tuple[str, dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    made = [OpenEXR.Part({"name": name, "type": OpenEXR.scanlineimage}, channels) for name, channels in listed]
    OpenEXR.File(made).write(stream)
    return stream.getvalue()


def message(data: bytes, **options: Any) -> str:
    with pytest.raises(PictureError) as caught:
        read_picture(data, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("compression", ["NO", "RLE", "ZIPS", "ZIP", "PIZ"])
def test_lossless_codings(kind: type, compression: str) -> None:
    stored = LIGHT.astype(kind)
    picture = read_picture(exr({"RGB": stored}, compression=getattr(OpenEXR, f"{compression}_COMPRESSION")))
    np.testing.assert_array_equal(picture.pixels, stored.astype(np.float32))
    assert (picture.kind, picture.hdr, picture.alpha, picture.layer) == ("exr", True, None, None)
    assert (picture.source_space, picture.space_source) == ("rec709", "assumed")


@pytest.mark.parametrize(("compression", "tolerance"), [("DWAA", 0.05), ("DWAB", 0.05), ("PXR24", 1e-3), ("B44", 0.1)])
def test_lossy_codings(compression: str, tolerance: float) -> None:
    smooth = np.linspace(0.5, 2, 22 * 34, dtype=np.float32).reshape(22, 34, 1) * np.array([1, 0.5, 0.25], np.float32)
    picture = read_picture(exr({"RGB": smooth}, compression=getattr(OpenEXR, f"{compression}_COMPRESSION")))
    np.testing.assert_allclose(picture.pixels, smooth, rtol=tolerance)


@pytest.mark.parametrize("mode", ["ONE_LEVEL", "MIPMAP_LEVELS"])
def test_tiles(mode: str) -> None:
    tiles = OpenEXR.TileDescription()
    tiles.xSize, tiles.ySize = 16, 8
    data = exr({"RGB": LIGHT}, type=OpenEXR.tiledimage, tiles=tiles)
    np.testing.assert_array_equal(read_picture(data).pixels, LIGHT)


def test_premultiplied_alpha_is_divided_out() -> None:
    alpha = np.linspace(0, 1, 22 * 34, dtype=np.float32).reshape(22, 34)
    picture = read_picture(exr({"RGBA": np.dstack([LIGHT * alpha[..., None], alpha])}))
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, alpha)
    np.testing.assert_allclose(picture.pixels[alpha > 0], LIGHT[alpha > 0], rtol=1e-6)


def test_a_glow_without_alpha_stays() -> None:
    picture = read_picture(exr({"RGBA": np.dstack([LIGHT, np.zeros_like(PLANE)])}))
    np.testing.assert_array_equal(picture.pixels, LIGHT)


def test_grey() -> None:
    picture = read_picture(exr({"Y": PLANE}))
    assert picture.grey
    np.testing.assert_array_equal(picture.pixels, np.repeat(PLANE[..., None], 3, axis=2))


@pytest.mark.parametrize("space", ["rec2020", "acescg", "aces2065", "display-p3"])
def test_chromaticities_are_read(space: str) -> None:
    """A colour inside Rec.709, stored in the other primaries, comes back."""
    stored = spaces.convert(LIGHT, "rec709", space)
    picture = read_picture(exr({"RGB": stored}, chromaticities=spaces.PRIMARIES[space]))
    assert (picture.source_space, picture.space_source) == (space, "file")
    np.testing.assert_allclose(picture.pixels, LIGHT, atol=2e-4)


def test_custom_chromaticities_and_the_option_that_overrides_them() -> None:
    numbers = (0.62, 0.34, 0.28, 0.62, 0.14, 0.05, 0.3127, 0.329)
    data = exr({"RGB": LIGHT}, chromaticities=numbers)
    picture = read_picture(data)
    assert (picture.source_space, picture.space_source) == ("custom", "file")
    expected = np.maximum(LIGHT @ spaces.matrix(tuple(np.float32(numbers).tolist()), "rec709").T, 0)
    np.testing.assert_allclose(picture.pixels, expected, atol=1e-4)
    forced = read_picture(data, input_space="acescg")
    assert (forced.source_space, forced.space_source) == ("acescg", "option")
    np.testing.assert_allclose(forced.pixels, np.maximum(LIGHT @ spaces.matrix("acescg", "rec709").T, 0), atol=1e-4)
    assert forced.outside_gamut == int((LIGHT @ spaces.matrix("acescg", "rec709").T < -1e-6).any(axis=2).sum())


def test_layers_of_one_part(tmp_path) -> None:
    channels = {
        name: PLANE * (index + 1) for index, name in enumerate(["R", "G", "B", "A", "glow.R", "glow.G", "glow.B", "Z"])
    }
    # the package replaces the arrays of the dictionary that it is given
    data = exr(dict(channels))
    path = tmp_path / "a.exr"
    path.write_bytes(data)
    assert describe(path).layers == ("main", "glow")
    assert read_picture(data).alpha is not None
    glow = read_picture(data, layer="glow")
    np.testing.assert_array_equal(glow.pixels, np.dstack([channels["glow.R"], channels["glow.G"], channels["glow.B"]]))
    assert (glow.layer, glow.alpha) == ("glow", None)
    depth = read_picture(data, layer="Z")
    np.testing.assert_array_equal(depth.pixels[..., 0], channels["Z"])
    assert depth.grey
    text = message(data, layer="diffuse")
    assert "'diffuse'" in text
    assert "main, glow" in text


def test_layers_of_several_parts(tmp_path) -> None:
    data = parts(
        ("beauty", {"RGB": LIGHT}),
        ("depth", {"Z": PLANE}),
        (
            "light",
            {
                "light.R": PLANE,
                "light.G": PLANE * 2,
                "light.B": PLANE * 3,
                "rim.R": PLANE,
                "rim.G": PLANE,
                "rim.B": PLANE,
            },
        ),
    )
    path = tmp_path / "a.exr"
    path.write_bytes(data)
    assert describe(path).layers == ("beauty", "light", "light.rim")
    np.testing.assert_array_equal(read_picture(data).pixels, LIGHT)
    np.testing.assert_array_equal(read_picture(data, layer="light").pixels[..., 1], PLANE * 2)
    np.testing.assert_array_equal(read_picture(data, layer="light.rim").pixels[..., 1], PLANE)
    np.testing.assert_array_equal(read_picture(data, layer="depth.Z").pixels[..., 1], PLANE)


def test_without_colours_the_channels_are_named() -> None:
    assert "Z; name one with --layer" in message(exr({"Z": PLANE}))


def test_the_display_window_is_what_is_shown(tmp_path) -> None:
    """Data at x 5..38, y -3..18, shown x 0..29, y 0..24: cropped above and at the right, else black."""
    data = exr({"RGB": LIGHT}, dataWindow=((5, -3), (38, 18)), displayWindow=((0, 0), (29, 24)))
    expected = np.zeros((25, 30, 3), np.float32)
    expected[0:19, 5:30] = LIGHT[3:22, 0:25]
    np.testing.assert_array_equal(read_picture(data).pixels, expected)
    path = tmp_path / "a.exr"
    path.write_bytes(data)
    info = describe(path)
    assert (info.rows, info.columns) == (25, 30)


def test_what_lies_outside_the_data_is_transparent() -> None:
    layers = np.dstack([LIGHT, np.ones_like(PLANE)])
    data = exr({"RGBA": layers}, dataWindow=((1, 0), (34, 21)), displayWindow=((0, 0), (34, 21)))
    alpha = read_picture(data).alpha
    assert alpha is not None
    assert alpha[:, 0].max() == 0
    assert alpha[:, 1:].min() == 1


def test_windows_that_do_not_meet_are_an_error() -> None:
    data = exr({"RGB": LIGHT}, dataWindow=((100, 0), (133, 21)), displayWindow=((0, 0), (29, 24)))
    assert "outside its display window" in message(data)


def luminance_chroma(luminance: np.ndarray, red: np.ndarray, blue: np.ndarray) -> bytes:
    """An uncompressed scan-line file with chroma on every second row and column; the package cannot write these."""

    def attribute(name: str, kind: str, content: bytes) -> bytes:
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(content)) + content

    rows, columns = luminance.shape
    listed = ((b"BY", 2), (b"RY", 2), (b"Y", 1))
    channels = b"".join(name + b"\0" + struct.pack("<4i", 2, 0, step, step) for name, step in listed) + b"\0"
    window = struct.pack("<4i", 0, 0, columns - 1, rows - 1)
    head = struct.pack("<II", 20000630, 2)
    head += attribute("channels", "chlist", channels) + attribute("compression", "compression", b"\0")
    head += attribute("dataWindow", "box2i", window) + attribute("displayWindow", "box2i", window)
    head += attribute("lineOrder", "lineOrder", b"\0") + attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    head += attribute("screenWindowCenter", "v2f", bytes(8)) + attribute(
        "screenWindowWidth", "float", struct.pack("<f", 1)
    )
    head += b"\0"
    chunks = []
    for row in range(rows):
        line = b"" if row % 2 else blue[row // 2].tobytes() + red[row // 2].tobytes()
        line += luminance[row].tobytes()
        chunks.append(struct.pack("<ii", row, len(line)) + line)
    offsets = np.cumsum([len(head) + 8 * rows, *map(len, chunks[:-1])]).astype("<u8")
    return head + offsets.tobytes() + b"".join(chunks)


def test_luminance_chroma_of_one_colour_is_that_colour() -> None:
    colour = np.array([3.0, 1.0, 0.5])
    y = float(spaces.to_xyz("rec709")[1] @ colour)
    level = np.linspace(0.1, 2, 8 * 12, dtype=np.float32).reshape(8, 12)
    chroma = [np.full((4, 6), (colour[index] - y) / y, np.float32) for index in (0, 2)]
    picture = read_picture(luminance_chroma(level * np.float32(y), *chroma))
    np.testing.assert_allclose(picture.pixels, level[..., None] * colour, rtol=1e-5)
    assert not picture.grey


def test_chroma_is_interpolated_between_its_samples() -> None:
    """RY rises by 0.1 a chroma column: 0, .05, .1 ... over the picture, held at the last; R = (RY + 1) Y."""
    ramp = np.tile(np.arange(4, dtype=np.float32) * 0.1, (3, 1))
    picture = read_picture(luminance_chroma(np.ones((6, 8), np.float32), ramp, np.zeros((3, 4), np.float32)))
    np.testing.assert_allclose(picture.pixels[2, :, 0], [1, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.3], rtol=1e-6)


@pytest.mark.parametrize("compression", ["NO", "ZIP", "PIZ", "DWAB"])
@pytest.mark.parametrize("tiled", [False, True])
def test_a_file_cut_anywhere_is_an_error_and_the_library_stays_quiet(compression: str, tiled: bool, capfd) -> None:
    header: dict[str, Any] = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION")}
    if tiled:
        tiles = OpenEXR.TileDescription()
        tiles.xSize = tiles.ySize = 16
        header |= {"type": OpenEXR.tiledimage, "tiles": tiles}
    data = exr({"RGB": LIGHT}, **header)
    capfd.readouterr()
    for length in (4, 8, 60, 200, 340, len(data) // 2, len(data) - 300, len(data) - 20, len(data) - 1):
        assert message(data[:length]).startswith("cannot read the standard input (exr): ")
    assert capfd.readouterr() == ("", "")


def test_damaged_pixels_are_an_error() -> None:
    # noise would be stored as it is, where nothing can tell
    data = bytearray(exr({"RGB": LIGHT.round()}, compression=OpenEXR.ZIP_COMPRESSION))
    for at in range(len(data) // 2, len(data) // 2 + 50):
        data[at] ^= 0x5A
    assert "damaged" in message(bytes(data))


def test_a_damaged_second_part_does_not_hide_behind_the_first() -> None:
    data = parts(("one", {"RGB": LIGHT}), ("two", {"RGB": LIGHT}))
    assert "truncated or damaged" in message(data[:-200], layer="two")


@pytest.mark.parametrize("depth", [16, 32])
@pytest.mark.parametrize("space", ["srgb", "display-p3"])
def test_openexr_reads_what_we_write(depth: int, space: str) -> None:
    display = RNG.random((9, 13, 3)).astype(np.float32)
    alpha = RNG.random((9, 13)).astype(np.float32)
    data = encode_picture(display, format="exr", depth=depth, space=space, alpha=alpha, settings={"a": 1})
    file = OpenEXR.File(io.BytesIO(data))
    pixels = file.channels()["RGBA"].pixels
    assert pixels.dtype == (np.float16 if depth == 16 else np.float32)
    tolerance = 1e-3 if depth == 16 else 1e-6
    np.testing.assert_allclose(pixels[..., 3], alpha, rtol=tolerance)
    np.testing.assert_allclose(
        pixels[..., :3], spaces.srgb_decode(display) * alpha[..., None], rtol=tolerance, atol=1e-6
    )
    named = spaces.PRIMARIES["rec709" if space == "srgb" else space]
    np.testing.assert_allclose(file.header()["chromaticities"], named, atol=1e-6)
    assert file.header()["attnkit-settings"] == '{"a": 1}'


def test_grey_is_written_as_one_channel() -> None:
    display = np.repeat(RNG.random((5, 6, 1)), 3, axis=2).astype(np.float32)
    data = encode_picture(display, format="exr", grey=True)
    assert list(OpenEXR.File(io.BytesIO(data)).channels()) == ["Y"]
    assert read_picture(data).grey
