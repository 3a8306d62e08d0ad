"""A dark scan made of a bright cube: how examples/hsi/outcrop.hdr was made of examples/hsi/reference/outcrop.hdr.

python examples/darken_cube.py [FOLDER]
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from attnkit.cubes import create_cube, open_cube
from attnkit.tasks.hsi_enhance.darkening import DarkModel, darken

here = Path(__file__).parent
out = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
out.mkdir(parents=True, exist_ok=True)

with open_cube(here / "hsi/reference/outcrop.hdr") as reader:
    info = reader.info
    bright = reader.read().astype(np.float32) / 65535

model = DarkModel(exposure=1 / 15)
codes = np.rint(darken(bright, seed=0, model=model) * 4095).astype(np.int16)

described = replace(
    info,
    dtype=codes.dtype,
    reflectance_scale=None,
    ignore_value=None,
    description="Specim Fenix outcrop, darkened to 1/15 by attnkit's model of a push-broom camera, codes of 12 bits",
)
header, data = out / "outcrop.hdr", out / "outcrop.dat"
writer = create_cube(
    header, described, format="envi", dtype=codes.dtype, settings={}, history="", data_path=data, resume=False
)
writer.write(codes, slice(None), slice(None), slice(None))
writer.close()
print(header, codes.shape, f"{codes.min()}..{codes.max()}")
