"""A folder to train on, made up: a library, pictures, and cubes of the names that the split knows."""

from pathlib import Path

import cv2
import numpy as np

MATERIALS = ("soil", "road", "canopy", "paint", "sand")


def write_material(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    wavelengths = np.linspace(0.4, 2.45, 40, dtype=np.float32)
    curves = 0.3 + 0.2 * np.sin(wavelengths * draw.uniform(1, 6, (30, 1)) + draw.uniform(0, 6, (30, 1)))
    np.savez(
        folder / "library.npz",
        reflectance=curves.astype(np.float16),
        wavelength_um=wavelengths,
        level3=np.array([MATERIALS[index % len(MATERIALS)] for index in range(30)]),
    )
    (folder / "images").mkdir()
    for number in (1001, 1400, 1401):
        noise = cv2.resize(draw.integers(0, 255, (12, 16, 3), dtype=np.uint8), (128, 112))
        cv2.imwrite(str(folder / "images" / f"{number}.jpg"), noise)
    (folder / "photo").mkdir()
    cv2.imwrite(str(folder / "photo" / "coffee.png"), np.full((100, 100, 3), 9, np.uint8))
    cube = np.ones((100, 145, 20), np.uint16)
    cube[:, :96] = draw.integers(1, 5000, (100, 96, 20))
    cube[:, 96:] = 60_000
    np.savez(folder / "indian_pines.npz", cube=cube, labels=np.zeros((100, 145), np.uint8))
    (folder / "image.hdr").write_text(
        "ENVI\nsamples = 100\nlines = 100\nbands = 2\ndata type = 1\ninterleave = bsq\nbyte order = 0\n"
    )
    (folder / "image.dat").write_bytes(bytes(20_000))
    return folder
