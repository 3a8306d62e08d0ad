"""The tiny models of the tests of attnkit/models/vlm."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "vlm"))
