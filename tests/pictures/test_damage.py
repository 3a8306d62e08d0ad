"""Random damage: whatever the bytes are, a sound picture or one line of error."""

from typing import Any

import cv2
import numpy as np
import pytest

from attnkit.pictures import DEPTHS, describe, encode_picture, read_picture, read_settings
from attnkit.runtime.errors import PictureError


def originals() -> dict[str, bytes]:
    display = np.kron(np.random.default_rng(0).random((4, 5, 3)), np.ones((8, 8, 1))).astype(np.float32)
    options: dict[str, Any] = {"alpha": display[..., 0], "settings": {"a": 1}, "space": "display-p3"}
    files = {
        f"{format}-{depth}": encode_picture(display, format=format, depth=depth, **options)
        for format in DEPTHS
        for depth in DEPTHS[format]
    }
    done, buffer = cv2.imencode(".hdr", display)
    assert done
    return {**files, "radiance": buffer.tobytes(), "pfm": b"PF\n40 32\n-1.0\n" + display.astype("<f4").tobytes()}


@pytest.mark.parametrize("name", originals())
@pytest.mark.filterwarnings("error")
def test_damaged_bytes_never_surprise(name: str, tmp_path, capfd) -> None:
    rng = np.random.default_rng(7)
    whole = originals()[name]
    capfd.readouterr()
    path = tmp_path / "a"
    outcomes = set()
    for _ in range(60):
        data = bytearray(whole)
        # half of the time only headers are hit
        reach = len(data) if rng.random() < 0.5 else min(len(data), 600)
        for place in rng.integers(0, reach, rng.integers(1, 6)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            picture = read_picture(path)
            assert np.isfinite(picture.pixels).all()
            assert picture.pixels.min() >= 0
            outcomes.add("read")
        except PictureError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
        try:
            describe(path)
        except PictureError as error:
            assert "\n" not in str(error)
        read_settings(path)
    assert "refused" in outcomes
    assert capfd.readouterr() == ("", "")
