"""Runs the operators of an installed pfstools beside ours, as a person would on the command line."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import AttnkitError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# operator -> whether its manual page asks for gamma correction after it
PFSTOOLS = {
    "reinhard02": True,
    "reinhard05": True,
    "drago03": True,
    "durand02": True,
    "fattal02": False,
    "mantiuk06": True,
    "mantiuk08": False,
    "mai11": False,
    "ferradans11": False,
    "pattanaik00": True,
}
_PATIENCE_SECONDS = 300


def pfstools_operators() -> list[str]:
    """Operators of pfstools that are installed here."""
    needed = ("pfsinpfm", "pfsgamma", "pfsoutppm")
    if any(shutil.which(program) is None for program in needed):
        return []
    return [operator for operator in PFSTOOLS if shutil.which(f"pfstmo_{operator}")]


def check_pfstools(operator: str) -> None:
    """Raise UsageError unless `operator` is one that is installed."""
    installed = pfstools_operators()
    if operator in installed:
        return
    if operator not in PFSTOOLS:
        raise UsageError(f"--methods: unknown pfstools operator {operator!r}, expected one of {', '.join(PFSTOOLS)}")
    raise UsageError(
        f"--methods: pfs:{operator} needs pfstmo_{operator}, which is not installed (apt install pfstools)"
    )


def pfstools_render(pixels: NDArray[Any], operator: str, gamma: float = 2.2) -> NDArray[Any]:
    """Tone-map linear light (rows, columns, 3) with pfstools' defaults; returns uint8 (rows, columns, 3), RGB.

    The picture goes in as PFM, so nothing is rounded on the way; gamma correction follows where the operator's manual
    page says that it is needed.
    """
    import cv2
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="attnkit-pfs-") as folder:
        source, target = Path(folder, "in.pfm"), Path(folder, "out.ppm")
        rows, columns = pixels.shape[:2]
        # PFM keeps its rows from the bottom up; a negative scale says little-endian
        body = np.ascontiguousarray(pixels[::-1], dtype="<f4").tobytes()
        source.write_bytes(f"PF\n{columns} {rows}\n-1.0\n".encode() + body)
        stages = [["pfsinpfm", str(source)], [f"pfstmo_{operator}"]]
        if PFSTOOLS[operator]:
            stages.append(["pfsgamma", "-g", f"{gamma:g}"])
        stages.append(["pfsoutppm", str(target)])
        _pipe(stages, operator)
        picture = cv2.imread(str(target), cv2.IMREAD_COLOR)
    if picture is None or picture.shape != pixels.shape:
        raise AttnkitError(
            f"pfstmo_{operator}: no picture came out of a {columns}x{rows} frame; run it by hand to see why"
        )
    return np.ascontiguousarray(picture[..., ::-1])


def _pipe(stages: list[list[str]], operator: str) -> None:
    running: list[subprocess.Popen[bytes]] = []
    try:
        for stage in stages:
            source = running[-1].stdout if running else subprocess.DEVNULL
            running.append(subprocess.Popen(stage, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
            if len(running) > 1 and running[-2].stdout:
                running[-2].stdout.close()
        try:
            running[-1].communicate(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AttnkitError(f"pfstmo_{operator}: no answer after {_PATIENCE_SECONDS} s, given up") from None
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
