"""Planning over cube files must load neither numpy nor what decodes them."""

import json
import subprocess
import sys

import numpy as np

HEAVY = ("numpy", "spectral", "scipy", "h5py", "tifffile", "torch", "cv2")
SCRIPT = """
import json, sys
from pathlib import Path
import attnkit.cubes as cubes
from attnkit.cubes import create_cube, open_cube, preview, read_settings, resumable
cubes.CubeInfo, cubes.CubeReader, cubes.SUFFIXES
for path in map(Path, sys.argv[1:]):
    with path.open("rb") as stream:
        cubes.identify(path, stream.read(512))
print(json.dumps([name for name in HEAVY if name in sys.modules]))
"""


def test_the_package_and_looking_at_files_load_no_library(tmp_path) -> None:
    values = np.zeros((2, 3, 4), np.float32)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", values)
    (tmp_path / "b.hdr").write_text("ENVI\nsamples = 4\nlines = 3\nbands = 2\ndata type = 4\n")
    (tmp_path / "b.img").write_bytes(bytes(96))
    (tmp_path / "c.tif").write_bytes(b"II*\0" + bytes(60))
    script = f"HEAVY = {HEAVY!r}\n{SCRIPT}"
    paths = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    assert done.stderr == ""
