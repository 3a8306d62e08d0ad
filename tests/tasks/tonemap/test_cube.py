""".cube files: what other programs write, what we write, and the global part of the default method in one."""

import numpy as np
import pytest
from frames import ordinary

from attnkit.runtime.errors import UsageError
from attnkit.tasks.tonemap.cube import Cube, LogShaper, parse_cube, read_cube, write_cube
from attnkit.tasks.tonemap.learned import CUBE_NOTES
from attnkit.tasks.tonemap.task import TonemapRequest, tonemap

IDENTITY_2 = "0 0 0\n1 0 0\n0 1 0\n1 1 0\n0 0 1\n1 0 1\n0 1 1\n1 1 1\n"


def picture(rows=9, columns=7):
    return np.random.default_rng(0).random((rows, columns, 3)).astype(np.float32)


@pytest.mark.parametrize("interpolation", ["trilinear", "tetrahedral"])
def test_red_runs_fastest(interpolation):
    cube = parse_cube('# made elsewhere\nTITLE "plain"\n\nLUT_3D_SIZE 2\n' + IDENTITY_2)
    assert cube.title == "plain"
    assert not cube.takes_linear
    assert cube.apply(picture(), interpolation) == pytest.approx(picture(), abs=1e-6)


def test_domain_and_values_beyond_it():
    text = "LUT_3D_SIZE 2\nDOMAIN_MIN -1 -1 -1\nDOMAIN_MAX 3 1 1\n" + IDENTITY_2
    got = parse_cube(text).apply(np.array([[[1.0, 0.0, 0.5], [9.0, -5.0, 1.0]]], np.float32))
    assert got == pytest.approx(np.array([[[0.5, 0.5, 0.75], [1.0, 0.0, 1.0]]]), abs=1e-6)


def test_one_dimensional_file():
    text = "LUT_1D_SIZE 3\nDOMAIN_MAX 2 2 2\n0 0 0\n.25 .5 .75\n1 1 1\n"
    got = parse_cube(text).apply(np.array([[[1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [5.0, -1.0, 2.0]]], np.float32))
    expected = [[[0.25, 0.5, 0.75], [0.125, 0.25, 0.375], [1.0, 0.0, 1.0]]]
    assert got == pytest.approx(np.array(expected), abs=1e-6)


def test_shaper_before_the_table():
    # the form of grading programs: curves over 0..4, then a table that inverts
    inverted = "\n".join(" ".join(str(1 - int(v)) for v in row.split()) for row in IDENTITY_2.splitlines())
    text = f"LUT_1D_SIZE 2\nLUT_1D_INPUT_RANGE 0 4\nLUT_3D_SIZE 2\nLUT_3D_INPUT_RANGE 0 1\n0 0 0\n1 1 1\n{inverted}\n"
    got = parse_cube(text).apply(np.array([[[1.0, 2.0, 4.0]]], np.float32))
    assert got == pytest.approx(np.array([[[0.75, 0.5, 0.0]]]), abs=1e-6)


def test_windows_line_ends_byte_order_mark_and_comments_between_rows(tmp_path):
    file = tmp_path / "a.cube"
    body = IDENTITY_2.replace("\n", "\r\n").replace("0 1 0\r\n", "0 1 0\r\n# half way\r\n\r\n", 1)
    file.write_bytes(b"\xef\xbb\xbfLUT_3D_SIZE\t2\r\n" + body.encode())
    assert read_cube(file).apply(picture()) == pytest.approx(picture(), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.cube:1: no LUT_3D_SIZE or LUT_1D_SIZE line"),
        ("0 0 0\n", "x.cube:1: no LUT_3D_SIZE or LUT_1D_SIZE line"),
        ("LUT_3D_SIZE 2\n0 0 0\n", r"x.cube:2: got 1 rows of numbers, expected 8 \(LUT_3D_SIZE 2\)"),
        ("LUT_3D_SIZE 2\n" + IDENTITY_2 + "1 1 1\n", "x.cube:10: got 9 rows of numbers, expected 8"),
        ("LUT_3D_SIZE 2\n" + IDENTITY_2.replace("0 1 1", "0 x 1"), "x.cube:8: got '0 x 1', expected three finite"),
        ("LUT_3D_SIZE 2\n" + IDENTITY_2.replace("0 1 1", "0 1"), "x.cube:8: got '0 1', expected three finite"),
        ("LUT_3D_SIZE 2\n" + IDENTITY_2.replace("0 1 1", "nan 1 1"), "x.cube:8: got 'nan 1 1'"),
        ("LUT_3D_SIZE 2\nnan 0 0\n", "x.cube:2: got 'nan 0 0'"),
        ("LUT_3D_SIZE 1\n", "x.cube:1: LUT_3D_SIZE: got 1, expected a whole number 2 to 256"),
        ("LUT_3D_SIZE 300\n", "got 300, expected a whole number 2 to 256"),
        ("LUT_1D_SIZE big\n", "got big, expected a whole number 2 to 65536"),
        ("LUT_3D_SIZE 2\nDOMAIN_MIN 0 0\n", "x.cube:2: DOMAIN_MIN: got 0 0, expected 3 numbers"),
        ("LUT_3D_SIZE 2\nDOMAIN_MIN 1 0 0\n", "DOMAIN_MIN 1 0 0 must be below DOMAIN_MAX 1 1 1"),
        ("LUT_3D_SIZE 2\nLUT_3D_INPUT_RANGE 1 0\n", "x.cube:2: LUT_3D_INPUT_RANGE: got 1 0, expected the smaller"),
        ("LUT_3D_SIZE 2\nLUT_IN_VIDEO_RANGE\n", "x.cube:2: unknown keyword 'LUT_IN_VIDEO_RANGE'"),
        ("# attnkit shaper: log2 gain=1\nLUT_3D_SIZE 2\n", "x.cube:1: attnkit shaper: got log2 gain=1"),
        ("# attnkit shaper: log2 gain=0 offset=0 slope=1 shift=0\n", "gain and slope must be above 0"),
    ],
)
def test_damaged_files_are_refused_with_their_line(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_cube(text, "x.cube")
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_cube(tmp_path / "none.cube")
    (tmp_path / "picture.cube").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    with pytest.raises(UsageError, match="got a binary file"):
        read_cube(tmp_path / "picture.cube")


def test_shaper_formula_and_its_inverse():
    shaper = LogShaper(gain=4.0, offset=2.0**-8, slope=1 / 18, shift=8 / 18)
    light = np.array([[0.0, 0.25, 16.0, 1e9]], np.float32)
    got = shaper.encode(light)
    assert got[0, :3] == pytest.approx(np.log2(4 * light[0, :3] + 2.0**-8) / 18 + 8 / 18, abs=1e-5)
    assert got[0, 0] == pytest.approx(0.0, abs=1e-6)
    assert got[0, 3] == 1.0
    assert shaper.linear_at(float(got[0, 2])) == pytest.approx(16.0, rel=1e-4)


def test_written_file_reads_back():
    table = np.random.default_rng(1).normal(0.5, 1.0, (3, 5, 5, 5)).astype(np.float32)
    cube = Cube(table, shaper=LogShaper(1.7, 0.004, 1 / 18, 0.44), takes_linear=True, title='a "b" c')
    text = write_cube(cube, ("one note", "another"))
    back = parse_cube(text)
    assert back.table == pytest.approx(table, abs=1e-6)
    assert (back.shaper, back.takes_linear, back.title) == (cube.shaper, True, "a 'b' c")
    assert text == write_cube(cube, ("one note", "another"))
    lines = text.splitlines()
    assert lines[1:3] == ["# one note", "# another"]
    assert any("log2(1.7 * x + 0.004)" in line for line in lines)
    linear = Cube(table, takes_linear=True)
    assert parse_cube(write_cube(linear)).takes_linear


def test_only_plain_tables_can_be_written():
    with pytest.raises(ValueError, match="no curves"):
        write_cube(parse_cube("LUT_1D_SIZE 2\n0 0 0\n1 1 1\n"))


@pytest.mark.parametrize("interpolation", ["trilinear", "tetrahedral"])
@pytest.mark.parametrize("exposure", [0.0, 1.5])
def test_exported_table_gives_the_global_part_back(tmp_path, interpolation, exposure):
    scene = ordinary(60, 80)
    options = {"exposure": exposure, "lut_interp": interpolation}
    exported = tonemap(TonemapRequest(scene, want_lut=True, strength=0.0, **options))
    file = tmp_path / "look.cube"
    file.write_text(write_cube(exported.lut, CUBE_NOTES))
    # the exposure is inside the table: another program has no such option
    applied = tonemap(TonemapRequest(scene, lut=read_cube(file), lut_interp=interpolation))
    assert np.abs(applied.display - exported.display).max() <= 1 / 255
    assert applied.record["method"] == "lut"
    text = file.read_text()
    assert "cannot carry" in text
    assert "sRGB-encoded" in text


def test_table_of_another_program_is_applied_to_the_finished_picture():
    inverted = "\n".join(" ".join(str(1 - int(v)) for v in row.split()) for row in IDENTITY_2.splitlines())
    cube = parse_cube("LUT_3D_SIZE 2\n" + inverted + "\n")
    scene = ordinary()
    got = tonemap(TonemapRequest(scene, method="drago", lut=cube))
    assert got.display == pytest.approx(1 - tonemap(TonemapRequest(scene, method="drago")).display, abs=1e-5)
    assert got.record["lut_input"] == "display values of the method"
