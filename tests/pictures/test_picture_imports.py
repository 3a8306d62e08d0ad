"""Looking at files must not load what decodes them."""

import json
import subprocess
import sys

import numpy as np

from attnkit.pictures import encode_picture

HEAVY = ("numpy", "cv2", "OpenEXR", "tifffile", "PIL", "torch", "numba", "scipy")
SCRIPT = """
import json, sys
import attnkit.pictures as pictures
for path in sys.argv[1:]:
    with open(path, "rb") as stream:
        pictures.sniff(stream.read(64), path)
    pictures.describe(path)
    pictures.read_settings(path)
    pictures.format_of_suffix(path)
pictures.target_size("50%", 10, 10)
light = [name for name in HEAVY if name in sys.modules]
for path in sys.argv[1:]:
    picture = pictures.read_picture(path)
    pictures.encode_picture(picture.pixels, format="png")
print(json.dumps([light, [name for name in ("torch", "numba", "scipy") if name in sys.modules]]))
"""


def test_planning_loads_no_library_and_pictures_load_no_torch(tmp_path) -> None:
    display = np.zeros((4, 4, 3), np.float32)
    paths = []
    for format in ("png", "jpeg", "tiff", "exr"):
        path = tmp_path / f"a.{format}"
        path.write_bytes(encode_picture(display, format=format))
        paths.append(str(path))
    for name, data in (
        ("a.pfm", b"Pf\n1 1\n-1.0\n" + bytes(4)),
        ("a.hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n" + bytes(4)),
    ):
        (tmp_path / name).write_bytes(data)
        paths.append(str(tmp_path / name))
    script = f"HEAVY = {HEAVY!r}\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], []]
    assert done.stderr == ""
