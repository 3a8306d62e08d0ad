"""Bright cubes put together from a library of measured spectra and the shapes of a photograph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attnkit.runtime.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# materials that no training cube holds
HELD_OUT_MATERIALS = ("paint", "sand", "tile", "asphalt")
BAND_COUNTS = (31, 48, 64, 100, 128, 180, 200)
# visible and near infrared sensors see the first range, others all of it; micrometres
RANGES = ((0.4, 1.0), (0.4, 2.45), (0.95, 2.45))
# smooth changes of the spectrum that no library has: water films, grain, moods of the light
MODES = 8


@dataclass(frozen=True)
class Library:
    """Reflectance spectra [spectra, bands] over wavelengths in micrometres, with the material of each."""

    reflectance: NDArray[np.float32]
    wavelengths: NDArray[np.float32]
    materials: NDArray[np.str_]

    def part(self, held_out: bool) -> Library:
        """The spectra of materials held out for tests, or all others."""
        import numpy as np

        chosen = np.isin(self.materials, HELD_OUT_MATERIALS) == held_out
        return Library(self.reflectance[chosen], self.wavelengths, self.materials[chosen])


def read_library(path: Path) -> Library:
    """A library from an .npz with reflectance, wavelength_um and level3. UsageError for another file."""
    import numpy as np

    try:
        with np.load(path) as stored:
            return Library(
                np.clip(stored["reflectance"].astype(np.float32), 0.0, 1.5), stored["wavelength_um"], stored["level3"]
            )
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(f"{path}: expected an .npz with reflectance, wavelength_um and level3 ({error})") from error


def random_field(draw: np.random.Generator, rows: int, columns: int, slope: float) -> NDArray[np.float32]:
    """A random plane of mean 0 and deviation 1 whose amplitude falls as frequency to the power -slope; periodic."""
    import numpy as np

    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(draw.standard_normal((rows, columns))) * frequency**-slope
    plane = np.fft.irfft2(spectrum, s=(rows, columns))
    return ((plane - plane.mean()) / plane.std()).astype(np.float32)


def smooth_spectrum(draw: np.random.Generator, bands: int) -> NDArray[np.float32]:
    """A random curve [bands] of mean square 1 whose features are a twentieth to a half of the range wide."""
    import numpy as np

    width = draw.uniform(0.05, 0.5)
    centres = np.linspace(-0.5, 1.5, int(4 / width) + 2)
    position = np.linspace(0.0, 1.0, bands)[:, None]
    curve = np.exp(-(((position - centres) / width) ** 2)) @ draw.standard_normal(len(centres))
    return (curve / np.sqrt((curve**2).mean() + 1e-12)).astype(np.float32)


def abundances(
    draw: np.random.Generator, picture: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Shares of `count` materials [count, rows, columns], and shading [rows, columns], from the shapes of a picture.

    picture  [rows, columns, 3] in 0..1; every pixel belongs to the materials whose colours are nearest, more or less
             softly, disturbed by random fields
    """
    import numpy as np

    rows, columns, _ = picture.shape
    colours = picture.reshape(-1, 3)
    centres = colours[draw.integers(0, len(colours), count)] + 0.05 * draw.standard_normal((count, 3))
    distance = ((picture[None] - centres[:, None, None]) ** 2).sum(axis=-1)
    logits = -distance / 10 ** draw.uniform(-3.2, -1.0)
    rough = 10 ** draw.uniform(-2.0, 0.4)
    logits += rough * np.stack([random_field(draw, rows, columns, draw.uniform(0.4, 1.8)) for _ in range(count)])
    logits -= logits.max(axis=0)
    shares = np.exp(logits)
    shares /= shares.sum(axis=0)
    light = picture.mean(axis=-1) ** draw.uniform(0.3, 1.2)
    light = light + 0.1
    light *= np.exp(draw.uniform(0.0, 0.1) * random_field(draw, rows, columns, draw.uniform(0.0, 1.2)))
    return shares.astype(np.float32), light.astype(np.float32)


def synthesise(
    draw: np.random.Generator, library: Library, picture: NDArray[np.float32], bands: int | None = None
) -> NDArray[np.float32]:
    """A bright cube [bands, rows, columns], full scale 1, of the shapes of a picture [rows, columns, 3] in 0..1.

    Linear mixing: every material is two spectra of its class whose balance drifts over the scene. MODES small smooth
    factors, each with a random field of its own, stand for all that makes real spectra vary.
    """
    import numpy as np

    rows, columns, _ = picture.shape
    bands = bands or int(draw.choice(BAND_COUNTS))
    low, high = RANGES[int(draw.integers(len(RANGES)))]
    wanted = np.linspace(low, high, bands)
    names = np.unique(library.materials)
    count = int(draw.integers(3, 16))
    shares, light = abundances(draw, picture, count)
    cube = np.zeros((bands, rows, columns), np.float32)
    for share, name in zip(shares, draw.choice(names, count), strict=True):
        pool = np.flatnonzero(library.materials == name)
        first, second = (
            np.interp(wanted, library.wavelengths, library.reflectance[index]).astype(np.float32)
            for index in draw.choice(pool, 2)
        )
        drift = 0.5 + 0.25 * random_field(draw, rows, columns, draw.uniform(0.3, 1.5))
        cube += first[:, None, None] * (share * (1 - drift)) + second[:, None, None] * (share * drift)
    for _ in range(MODES):
        strength = 10 ** draw.uniform(-2.8, -1.3)
        field = random_field(draw, rows, columns, draw.uniform(0.4, 1.6))
        cube *= 1 + strength * smooth_spectrum(draw, bands)[:, None, None] * field
    cube *= light
    white = float(np.percentile(cube, 99.5))
    return np.clip(cube * (draw.uniform(0.3, 0.95) / max(white, 1e-6)), 0.0, 1.0)
