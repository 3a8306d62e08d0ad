"""Radiance files: hand-made in every flavour, against cv2 and against numbers worked out by hand."""

import cv2
import numpy as np
import pytest

from attnkit.pictures import describe, read_picture
from attnkit.runtime.errors import PictureError


def scene(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random RGBE quads [rows, columns, 4] with long runs, so that every coding has both runs and literals."""
    rng = np.random.default_rng(seed)
    quads = rng.integers(2, 256, (rows, columns, 4), dtype=np.uint8)
    quads[..., 3] = rng.integers(120, 140, (rows, columns))
    quads[:, columns // 4 : columns // 2] = quads[:, columns // 4, None]
    return quads


def light(quads: np.ndarray) -> np.ndarray:
    """Mantissa times 2 to the exponent less 136, as the format says."""
    return (quads[..., :3] * np.exp2(quads[..., 3:].astype(np.float64) - 136)).astype(np.float32)


def header(resolution: str, *lines: str) -> bytes:
    return (
        "#?RADIANCE\n" + "".join(f"{line}\n" for line in ("FORMAT=32-bit_rle_rgbe", *lines)) + f"\n{resolution}\n"
    ).encode()


def new_runs(quads: np.ndarray) -> bytes:
    out = bytearray()
    for line in quads:
        out += bytes((2, 2, len(line) >> 8, len(line) & 255))
        for plane in line.T:
            at = 0
            while at < len(plane):
                run = 1
                while at + run < len(plane) and run < 127 and plane[at + run] == plane[at]:
                    run += 1
                if run > 2:
                    out += bytes((128 + run, plane[at]))
                    at += run
                else:
                    out += bytes((1, plane[at]))
                    at += 1
    return bytes(out)


def old_runs(quads: np.ndarray) -> bytes:
    out, flat = bytearray(), quads.reshape(-1, 4)
    at = 0
    while at < len(flat):
        run = 1
        while at + run < len(flat) and (flat[at + run] == flat[at]).all():
            run += 1
        out += bytes(flat[at])
        repeats = run - 1
        while repeats:
            out += bytes((1, 1, 1, repeats & 255))
            repeats >>= 8
        at += run
    return bytes(out)


CODINGS = {"flat": lambda quads: quads.tobytes(), "old": old_runs, "new": new_runs}


# the format has new run lengths from 8 pixels on only
SIZES = [(coding, columns) for coding in CODINGS for columns in (1, 7, 8, 40, 601) if coding != "new" or columns >= 8]


@pytest.mark.parametrize(("coding", "columns"), SIZES)
def test_every_coding_gives_the_same_light(coding: str, columns: int) -> None:
    quads = scene(5, columns)
    picture = read_picture(header(f"-Y 5 +X {columns}") + CODINGS[coding](quads))
    np.testing.assert_array_equal(picture.pixels, light(quads))
    assert (picture.kind, picture.hdr, picture.source_space, picture.space_source) == (
        "radiance",
        True,
        "rec709",
        "assumed",
    )


def test_an_old_run_longer_than_255_uses_two_marks() -> None:
    quads = np.tile(np.array([10, 20, 30, 136], np.uint8), (4, 200, 1))
    coded = old_runs(quads)
    assert len(coded) == 12
    np.testing.assert_array_equal(read_picture(header("-Y 4 +X 200") + coded).pixels, light(quads))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(
    ("resolution", "turned"),
    [
        ("-Y 9 +X 12", lambda a: a),
        ("+Y 9 +X 12", lambda a: a[::-1]),
        ("-Y 9 -X 12", lambda a: a[:, ::-1]),
        ("+Y 9 -X 12", lambda a: a[::-1, ::-1]),
        ("+X 9 -Y 12", lambda a: a.swapaxes(0, 1)),
        ("-X 9 -Y 12", lambda a: a.swapaxes(0, 1)[:, ::-1]),
        ("+X 9 +Y 12", lambda a: a.swapaxes(0, 1)[::-1]),
        ("-X 9 +Y 12", lambda a: a.swapaxes(0, 1)[::-1, ::-1]),
    ],
)
def test_all_orientations(coding: str, resolution: str, turned, tmp_path) -> None:
    quads = scene(9, 12)
    path = tmp_path / "a.hdr"
    path.write_bytes(header(resolution) + CODINGS[coding](quads))
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, turned(light(quads)))
    info = describe(path)
    assert (info.rows, info.columns) == picture.pixels.shape[:2]


def test_exposure_lines_multiply_and_are_divided_out() -> None:
    quads = scene(2, 3)
    picture = read_picture(header("-Y 2 +X 3", "EXPOSURE=2", "EXPOSURE= 4.0") + quads.tobytes())
    np.testing.assert_allclose(picture.pixels, light(quads) / 8, rtol=1e-6)


def test_xyze_is_converted_to_rec709() -> None:
    """XYZ of D65 white (0.95046, 1, 1.08906) must come out as equal R, G and B."""
    _, exponent = np.frexp(np.float32(1.08906))
    mantissa = np.rint(np.array([0.95046, 1.0, 1.08906]) * 256 / 2.0**exponent)
    quads = np.array([[[*mantissa, 128 + exponent]]], np.uint8)
    data = header("-Y 1 +X 1").replace(b"rgbe", b"xyze") + quads.tobytes()
    picture = read_picture(data)
    assert picture.source_space == "xyz"
    np.testing.assert_allclose(picture.pixels[0, 0], 1.0, atol=0.02)


def test_primaries_line_is_obeyed() -> None:
    quads = scene(2, 9)
    line = "PRIMARIES= 0.708 0.292 0.170 0.797 0.131 0.046 0.3127 0.3290"
    picture = read_picture(header("-Y 2 +X 9", line) + quads.tobytes())
    assert (picture.source_space, picture.space_source) == ("rec2020", "file")
    assert picture.outside_gamut > 0


def test_opencv_reads_the_same(tmp_path) -> None:
    rng = np.random.default_rng(1)
    scene_light = (rng.random((33, 47, 3)) ** 4 * 100).astype(np.float32)
    path = tmp_path / "a.hdr"
    assert cv2.imwrite(str(path), scene_light[..., ::-1])
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1])
    assert np.abs(picture.pixels - scene_light).max() <= scene_light.max() / 128


@pytest.mark.parametrize("coding", CODINGS)
def test_a_file_cut_anywhere_is_an_error(coding: str, capfd) -> None:
    head = header("-Y 12 +X 40")
    body = CODINGS[coding](scene(12, 40))
    cuts = [0, 3, len(body) // 3, len(body) // 2, len(body) - 200, len(body) - 5, len(body) - 1]
    for length in cuts:
        with pytest.raises(PictureError, match="truncated"):
            read_picture(head + body[:length])
    with pytest.raises(PictureError, match="truncated"):
        read_picture(head[:30])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\nhello\n", "resolution line"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 4 +Y 4\n", "resolution line"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 0 +X 4\n", "resolution line"),
        (b"#?RADIANCE\nFORMAT=ascii\n\n-Y 1 +X 1\n1111", "FORMAT"),
        (b"#?RADIANCE\nEXPOSURE=dark\n\n-Y 1 +X 1\n1111", "number"),
        (b"#?RADIANCE\nEXPOSURE=0\n\n-Y 1 +X 1\n1111", "EXPOSURE"),
        (b"#?RADIANCE\n\n-Y 1 +X 1\n\x01\x01\x01\x05", "repeat"),
    ],
)
def test_bad_headers_are_named(data: bytes, words: str) -> None:
    with pytest.raises(PictureError, match=words) as caught:
        read_picture(data)
    assert "\n" not in str(caught.value)
