"""The real cubes of the shared test material."""

import numpy as np
import spectral
import spectral.io.envi as spy

from attnkit.cubes import create_cube, identify, open_cube
from attnkit.cubes.preview import preview_bands


def test_the_fenix_pair_is_what_spy_says_and_its_header_comes_back(shared, tmp_path) -> None:
    header, data = (shared / "data/hsi/fenix_envi" / name for name in ("image.hdr", "image.dat"))
    for path in (header, data):
        found = identify(path, path.read_bytes()[:512])
        assert (found.path, found.companions) == (header, (data,))
    image = spectral.open_image(str(header))
    with open_cube(header) as reader:
        info, values = reader.info, reader.read()
        np.testing.assert_array_equal(values, image.open_memmap(interleave="bsq"))
        np.testing.assert_array_equal(reader.read([7, 300], slice(5, 9), slice(2, 20)), values[[7, 300], 5:9, 2:20])
    assert info.wavelengths_nm == tuple(image.bands.centers)
    assert (info.ignore_value, info.reflectance_scale) == (0, 65535)
    shown = [info.wavelengths_nm[band] for band in preview_bands(info.bands, info.wavelengths_nm)]
    assert np.abs(np.subtract(shown, (640, 550, 460))).max() < 2
    part = info.cut(range(100, 300), (4, 30), (3, 20))
    more = {"dtype": values.dtype, "settings": {}, "history": "h", "data_path": tmp_path / "b.dat"}
    writer = create_cube(tmp_path / "b.hdr", part, format="envi", **more)
    writer.write(values[100:300, 4:30, 3:20], slice(0, 200), slice(0, 26), slice(0, 17))
    writer.close()
    np.testing.assert_array_equal(
        spectral.open_image(str(tmp_path / "b.hdr")).open_memmap(interleave="bsq"), values[100:300, 4:30, 3:20]
    )
    before, after = spy.read_envi_header(str(header)), spy.read_envi_header(str(tmp_path / "b.hdr"))
    assert after["fwhm"] == before["fwhm"][100:300]
    assert list(map(float, after["wavelength"])) == list(map(float, before["wavelength"][100:300]))
    assert after["default bands"] == [str(int(band) - 100) for band in before["default bands"]]
    assert (after["x start"], after["y start"]) == ("250", "429")
    assert after["description"] == before["description"] + "\nh"
    changed = {"fwhm", "wavelength", "default bands", "x start", "y start", "description", "samples", "lines", "bands"}
    numbers = {"reflectance scale factor", "data ignore value"}
    for name in before.keys() - changed - numbers:
        assert after[name] == before[name], name
    assert after.keys() - before.keys() == {"attnkit settings"}


def test_indian_pines_is_found_among_its_labels(shared) -> None:
    path = shared / "data/hsi/indian_pines/indian_pines.npz"
    with open_cube(path) as reader, np.load(path) as stored:
        assert (reader.info.key, reader.info.bands, reader.info.dtype) == ("cube", 200, np.uint16)
        np.testing.assert_array_equal(
            reader.read([3, 90], slice(10, 20), slice(0, 145)), stored["cube"][10:20, :, [3, 90]].transpose(2, 0, 1)
        )
