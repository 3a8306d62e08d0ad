"""Scores of bright cubes against references: finished ones, and those that methods make of darkened references."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import ItemError

from .metrics import Sums, View, best_scale, block_numbers, masked_pixels, measures, sums_of, view_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .darkening import DarkModel
    from .task import EnhanceRequest

# key of a row -> (header with its unit, digits); also the order of columns
MEASURES: dict[str, tuple[str, int]] = {
    "mpsnr_db": ("MPSNR (dB)", 2),
    "mssim": ("MSSIM", 4),
    "sam_degrees": ("SAM (degrees)", 2),
    "ergas": ("ERGAS", 2),
}
AS_IT_IS, BEST_SCALE = "as it is", "best scalar"
# rows and columns of the cube that a method sees first, so that its imports are in nobody's time
WARM_UP = 48
Row = dict[str, Any]
# exposure, seed, name and bright values of every cube that is made on the way
Watch = Callable[[float, int, str, "NDArray[np.float32]"], None]


@dataclass(frozen=True)
class Scored:
    """One cube against its reference: the row of the table, and the sums that intervals are drawn from."""

    row: Row
    sums: Sums


def score_pair(
    row: Row,
    prediction: View,
    reference: View,
    *,
    blocks: int,
    scaled: bool,
    left_out: NDArray[np.bool_] | None = None,
) -> Iterator[Scored]:
    """A bright cube against its reference, and once more after the factor that fits best where `scaled` says so.

    row        fields that say what is scored; the measures are added
    left_out   pixels [rows, columns] to do without; None leaves out masked_pixels(reference)

    The row counts samples of the prediction that are no numbers; they are scored as 0. Raises ItemError for unequal
    shapes or a reference without a pixel to score.
    """
    import numpy as np

    if prediction.shape != reference.shape:
        raise ItemError(
            f"{row['item']}: got {size_text(prediction.shape)}, the reference is {size_text(reference.shape)}; "
            "give cubes of one size"
        )
    left_out = masked_pixels(reference) if left_out is None else left_out
    if left_out.all():
        raise ItemError(f"{row['item']}: its reference has no pixel to compare with: all are zero or no numbers")
    numbers = block_numbers(left_out, blocks)
    missing = sum(int((~np.isfinite(values[:, ~left_out])).sum()) for _, values in prediction.parts())
    counted = {
        "bands": reference.shape[0],
        "pixels": int((~left_out).sum()),
        "left_out_pixels": int(left_out.sum()),
        "blocks": int(numbers.max()) + 1,
        "missing_samples": missing,
    }
    factors = [(AS_IT_IS, 1.0)]
    if scaled:
        factors.append((BEST_SCALE, best_scale(prediction, reference, left_out)))
    for scaling, factor in factors:
        sums = sums_of(prediction, reference, numbers, factor)
        found = {key: float(value[0]) for key, value in measures(sums).items()}
        yield Scored({**row, "scaling": scaling, "factor": factor, **found, **counted}, sums)


def score_methods(
    item: str,
    clean: NDArray[np.float32],
    requests: Mapping[str, EnhanceRequest],
    *,
    models: Sequence[DarkModel],
    seeds: Sequence[int],
    blocks: int,
    wavelengths: tuple[float, ...] | None = None,
    watch: Watch | None = None,
) -> Iterator[Scored]:
    """Darken a bright cube, give every method the same dark cube and the same stated gain, score what it makes of it.

    clean      [bands, rows, columns], full exposure = 1; NaN where there is no measurement
    requests   method name -> how it is run; scale and gain are set here
    models     of the camera, one an exposure
    seeds      of the noise: one dark cube each
    watch      is shown every bright cube, and the dark one under the name "dark"
    """
    import numpy as np

    from .darkening import darken

    left_out = masked_pixels(view_of(clean))
    clean = np.where(left_out, np.float32(0), clean)
    reference = view_of(clean, wavelengths)
    warm: set[str] = set()
    for model in models:
        for seed in seeds:
            dark = darken(clean, seed=seed, model=model)
            # outside of the scene there is nothing to enhance
            dark[:, left_out] = 0
            if watch is not None:
                watch(model.exposure, seed, "dark", dark)
            for name, template in requests.items():
                request = replace(template, scale=1.0, gain=1 / model.exposure, bands=None, rows=None, columns=None)
                if name not in warm:
                    brighten(np.ascontiguousarray(dark[:, :WARM_UP, :WARM_UP]), request, wavelengths)
                    warm.add(name)
                started = time.perf_counter()
                bright = brighten(dark, request, wavelengths)
                seconds = time.perf_counter() - started
                if watch is not None:
                    watch(model.exposure, seed, name, bright)
                row: Row = {"item": item, "method": name, "exposure": model.exposure, "seed": seed}
                found = score_pair(
                    row, view_of(bright), reference, blocks=blocks, scaled=True, left_out=left_out
                )
                for scored in found:
                    scored.row["seconds_per_megasample"] = seconds / (clean.size / 1e6)
                    yield scored


def brighten(
    dark: NDArray[np.float32], request: EnhanceRequest, wavelengths: tuple[float, ...] | None
) -> NDArray[np.float32]:
    """The bright values [bands, rows, columns] of a dark cube in memory; 1 is full exposure."""
    import numpy as np

    from .task import ArrayReader, Enhancement

    enhancement = Enhancement(ArrayReader(dark, wavelengths), request)
    bright = np.empty(enhancement.source.shape, np.float32)
    for region, _, after in enhancement.tiles():
        bright[region.slices] = after
    return bright


def size_text(shape: tuple[int, int, int]) -> str:
    """A cube's size for a message."""
    bands, rows, columns = shape
    return f"{columns}x{rows} with {bands} bands"
