"""A small cube of each type, and its facts."""

import numpy as np
import pytest

from attnkit.cubes import CubeInfo

SHAPE = (5, 7, 6)


@pytest.fixture
def cube():
    """Values [bands, rows, columns] that are all different, of the type asked for."""

    def make(dtype: str, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
        values = np.random.default_rng(7).permutation(np.prod(shape)).reshape(shape)
        # whole numbers that float16 and int8 hold too
        if np.dtype(dtype).itemsize == 1:
            return (values % 127).astype(dtype)
        return (values - (0 if dtype[0] == "u" else 50)).astype(dtype)

    return make


@pytest.fixture
def info():
    """The facts of such a cube, as an ENVI header would tell them."""

    def make(values: np.ndarray, **more) -> CubeInfo:
        bands, rows, columns = values.shape
        facts = {
            "kind": "made",
            "wavelengths": tuple(400.5 + 50 * band for band in range(bands)),
            "wavelength_units": "Nanometers",
            "bad_bands": tuple(band == 1 for band in range(bands)),
            "ignore_value": -9999.0,
            "description": "taken at noon\nby a balloon",
            "extra": {"fwhm": [str(5 + band) for band in range(bands)], "sensor type": "Fenix"},
        }
        return CubeInfo(rows=rows, columns=columns, bands=bands, dtype=values.dtype, **{**facts, **more})

    return make
