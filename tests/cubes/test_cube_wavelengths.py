"""--wavelengths FILE."""

import numpy as np
import pytest

from attnkit.cubes import CubeError, open_cube
from attnkit.cubes.wavelengths import read_wavelengths

NM = (400.0, 512.5, 600.0, 712.25)


@pytest.mark.parametrize(
    "text",
    [
        "400\n512.5\n600\n712.25\n",
        "# by the maker\n400\n\n512.5\r\n600\n712.25",
        "0.4\n0.5125\n0.6\n0.71225\n",
        "\ufeff400\n512.5\n600\n712.25\n",
        "400, 512.5, 600, 712.25\n",
        "400 512.5 600 712.25\n",
        "band,wavelength (nm),fwhm\n1,400,5\n2,512.5,5\n3,600,5\n4,712.25,5\n",
        "band;fwhm_um;wavelength_um\n1;0.1;0.4\n2;0.2;0.5125\n3;0.3;0.6\n4;0.4;0.71225\n",
        '"Wavelength"\t"Name"\n400\tviolet\n512.5\tgreen\n600\torange\n712.25\tred\n',
        "1 400 3.1\n2 512.5 3.2\n3 600 3.3\n4 712.25 3.4\n",
        "0,400\n1,512.5\n2,600\n3,712.25\n",
        "400,5\n512.5,4\n600,4\n712.25,5\n",
        "400,\n512.5,\n600,\n712.25,\n",
        "centre [um]\n0.4\n0.5125\n0.6\n0.71225\n",
    ],
)
def test_a_column_or_a_line_of_numbers(tmp_path, text) -> None:
    path = tmp_path / "w.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_wavelengths(path, 4) == pytest.approx(NM)


def test_falling_numbers_and_a_large_unit_that_is_named(tmp_path) -> None:
    path = tmp_path / "w.txt"
    path.write_text("b,x\n5,900\n7,800\n6,700\n")
    assert read_wavelengths(path, 3) == (900.0, 800.0, 700.0)
    path.write_text("wavelength_nm\n50\n60\n")
    assert read_wavelengths(path, 2) == (50.0, 60.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("400\n500\n600\n", "has 3 numbers, the cube 4 bands"),
        ("", "holds no numbers, expected 4"),
        ("wavelength\n", "holds no numbers"),
        ("400\nred\n600\n700\n", "line 2: got 'red', expected a number above 0"),
        ("400\n-5\n600\n700\n", "line 2: got '-5'"),
        ("# sensor\nwavelength\n\n400\n-5\n600\n700\n", "line 5: got '-5'"),
        ("400\nnan\n600\n700\n", "line 2: got 'nan'"),
        ("5,5\n5,5\n4,4\n5,5\n", "none of its 2 columns rises or falls all the way"),
    ],
)
def test_what_is_wrong_with_it_is_told(tmp_path, text, message) -> None:
    path = tmp_path / "w.csv"
    path.write_text(text)
    with pytest.raises(CubeError, match=rf"--wavelengths .*w\.csv: {message}"):
        read_wavelengths(path, 4)


def test_it_takes_the_place_of_what_the_cube_says(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3, 4)), wavelengths=np.arange(4) + 1000)
    (tmp_path / "w.txt").write_text("\n".join(map(str, NM)))
    with open_cube(tmp_path / "a.npz", wavelengths=tmp_path / "w.txt") as reader:
        assert (reader.info.wavelengths, reader.info.wavelength_units) == (NM, "Nanometers")
    (tmp_path / "w.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CubeError, match="not a text file"):
        open_cube(tmp_path / "a.npz", wavelengths=tmp_path / "w.txt")
    with pytest.raises(CubeError, match="cannot be read"):
        open_cube(tmp_path / "a.npz", wavelengths=tmp_path / "absent.txt")
