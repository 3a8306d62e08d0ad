"""The same from Python: read a picture, tone map it, write a PNG.

python examples/tonemap.py [FOLDER]
"""

import sys
from pathlib import Path

from attnkit.pictures import encode_picture, read_picture
from attnkit.tasks.tonemap.task import TonemapRequest, tonemap

here = Path(__file__).parent
out = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
out.mkdir(parents=True, exist_ok=True)

picture = read_picture(here / "hdr" / "sunset_view.hdr")
for method in ("llf-lut", "reinhard"):
    result = tonemap(TonemapRequest(picture.pixels, method=method))
    (out / f"sunset_{method}.png").write_bytes(encode_picture(result.display, format="png"))
    print(out / f"sunset_{method}.png", result.display.shape)
