"""Scores of methods, and of finished pictures, over many scenes: what `attnkit eval tonemap` tabulates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import ItemError, UsageError

from .methods import METHODS, method_named
from .task import TonemapRequest, check_request, tonemap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attnkit.pictures import Picture

PFSTOOLS_PREFIX = "pfs:"
# key of a row -> (header with its unit, digits); also the order of columns
MEASURES: dict[str, tuple[str, int]] = {
    "tmqi": ("TMQI", 4),
    "s": ("S", 4),
    "n": ("N", 4),
    "reversed_edges_percent": ("reversed edges (%)", 3),
    "hue_error_degrees": ("hue error (degrees)", 2),
    "dark_noise_gain": ("dark noise gain (codes)", 1),
    "psnr_db": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 4),
    "seconds_per_megapixel": ("s/MP", 3),
}
Row = dict[str, Any]
Render = Callable[["NDArray[Any]"], "NDArray[Any]"]


def check_methods(names: Sequence[str]) -> None:
    """Raise UsageError for a method that does not exist or is not installed."""
    from .external import check_pfstools

    if not names:
        raise UsageError(f"--methods: got none, expected some of {', '.join(METHODS)} or pfs:OPERATOR")
    for name in names:
        if name.startswith(PFSTOOLS_PREFIX):
            check_pfstools(name.removeprefix(PFSTOOLS_PREFIX))
        elif name not in METHODS:
            raise UsageError(f"--methods: got {name!r}, expected some of {', '.join(METHODS)} or pfs:OPERATOR")


def renderer(name: str, template: TonemapRequest) -> Render:
    """A function from linear light to an 8-bit display picture; all are measured as 8-bit files."""
    from dataclasses import replace

    if name.startswith(PFSTOOLS_PREFIX):
        from .external import pfstools_render

        operator = name.removeprefix(PFSTOOLS_PREFIX)
        return lambda pixels: pfstools_render(pixels, operator)
    model = template.model if method_named(name).has_model else None
    settings = {key: value for key, value in template.settings.items() if key.startswith(f"{name}.")}
    request = replace(template, method=name, model=model, settings=settings, depth=8)
    check_request(request, pixels=False)
    return lambda pixels: tonemap(replace(request, pixels=pixels)).display


def scenes_of(pixels: NDArray[Any], count: int, size: int, seed: int) -> list[NDArray[Any]]:
    """What is scored of a picture: perspective views of a panorama, an ordinary picture as it is."""
    from .views import is_panorama, views

    if count and is_panorama(*pixels.shape[:2]):
        return views(pixels, count, size, seed)
    return [pixels]


def score_scene(
    item: str, scene: str, pixels: NDArray[Any], renderers: dict[str, Render], seed: int, reference: NDArray[Any] | None
) -> Iterator[Row]:
    """One row per method for one scene; `reference` is a display picture to compare with, or None."""
    from .metrics import add_noise, hue_error, noise_gain_between, psnr, reversed_edges, ssim, tmqi

    noisy = add_noise(pixels, seed)
    for name, render in renderers.items():
        started = time.perf_counter()
        shown = render(pixels)
        seconds = time.perf_counter() - started
        score = tmqi(pixels, shown)
        row: Row = {"item": item, "scene": scene, "method": name, "tmqi": score.q, "s": score.s, "n": score.n}
        row["reversed_edges_percent"] = 100 * reversed_edges(pixels, shown)
        row["hue_error_degrees"] = hue_error(pixels, shown)
        row["dark_noise_gain"] = noise_gain_between(pixels, noisy, shown, render(noisy))
        if reference is not None:
            row["psnr_db"], row["ssim"] = psnr(shown, reference), ssim(shown, reference)
        row["seconds_per_megapixel"] = seconds / (pixels.shape[0] * pixels.shape[1] / 1e6)
        yield row


def score_prediction(item: str, shown: NDArray[Any], references: Sequence[Picture]) -> Row:
    """A finished picture (rows, columns, 3) uint8 against a display picture, the linear scene, or both."""
    from .metrics import hue_error, psnr, reversed_edges, ssim, tmqi

    row: Row = {"item": item, "scene": item, "method": "prediction"}
    for picture in references:
        if picture.pixels.shape != shown.shape:
            got, expected = (f"{shape[1]}x{shape[0]}" for shape in (shown.shape, picture.pixels.shape))
            raise ItemError(f"{item}: got a picture of {got}, expected {expected} as its reference is")
        if picture.hdr:
            score = tmqi(picture.pixels, shown)
            row.update(tmqi=score.q, s=score.s, n=score.n)
            row["reversed_edges_percent"] = 100 * reversed_edges(picture.pixels, shown)
            row["hue_error_degrees"] = hue_error(picture.pixels, shown)
        else:
            reference = display_of(picture)
            row["psnr_db"], row["ssim"] = psnr(shown, reference), ssim(shown, reference)
    return row


def display_of(picture: Picture) -> NDArray[Any]:
    """The sRGB codes (rows, columns, 3) uint8 that a picture file shows."""
    import numpy as np

    from attnkit.pictures import spaces

    return np.rint(np.clip(spaces.srgb_encode(picture.pixels), 0.0, 1.0) * 255.0).astype(np.uint8)


def references_of(prediction: Path, folder: Path) -> list[Path]:
    """Files of `folder` that show the same thing: the same stem, with or without a `_tonemap` ending, at most one of
    each sort (display, scene).

    Raises ItemError where there is none, or several of one sort.
    """
    from attnkit.pictures import describe, sniff

    stems = {prediction.stem, prediction.stem.removesuffix("_tonemap")}
    found: dict[bool, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.stem not in stems or not path.is_file() or path.resolve() == prediction.resolve():
            continue
        with path.open("rb") as stream:
            kind = sniff(stream.read(512), path)
        if kind is None or kind == "raw":
            continue
        hdr = describe(path).hdr
        if hdr in found:
            raise ItemError(f"{prediction}: both {found[hdr].name} and {path.name} could be its reference; keep one")
        found[hdr] = path
    if not found:
        raise ItemError(f"{prediction}: no reference named {prediction.stem}.* in {folder}")
    return list(found.values())


def summarise(rows: Sequence[Row], seed: int) -> list[Row]:
    """One row per method: means over scenes, 95 % bootstrap intervals of TMQI, and its difference to the first method.

    The difference is paired: scene by scene, with scenes drawn again as wholes.
    """
    from .metrics import bootstrap, scene_means

    methods = list(dict.fromkeys(row["method"] for row in rows))
    summary: list[Row] = []
    first: dict[str, float] = {}
    for name in methods:
        own = [row for row in rows if row["method"] == name]
        scenes = [row["scene"] for row in own]
        result: Row = {"method": name, "scenes": len(set(scenes)), "pictures": len(own)}
        for key in MEASURES:
            means = scene_means([row.get(key, math.nan) for row in own], scenes)
            if means:
                result[key] = sum(means.values()) / len(means)
            if key == "tmqi" and means:
                _, result["tmqi_low"], result["tmqi_high"] = bootstrap(means, seed=seed)
                if name == methods[0]:
                    first = means
                else:
                    paired = {scene: means[scene] - first[scene] for scene in means if scene in first}
                    gap, low, high = bootstrap(paired, seed=seed)
                    result.update(tmqi_difference=gap, tmqi_difference_low=low, tmqi_difference_high=high)
        summary.append(result)
    return summary


def table_of(summary: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of a summary, for people; columns without a value in any row are left out."""
    keys = [key for key in MEASURES if any(key in row for row in summary)]
    compared = any("tmqi_difference" in row for row in summary)
    headers, cells = ["method", "scenes", "pictures"], []
    for key in keys:
        headers.append(MEASURES[key][0])
        if key == "tmqi":
            headers.append("95 % interval")
            headers += [f"minus {summary[0]['method']} (95 % interval)"] if compared else []
    for row in summary:
        line = [str(row[key]) for key in ("method", "scenes", "pictures")]
        for key in keys:
            line.append(_number(row.get(key), MEASURES[key][1]))
            if key == "tmqi":
                line.append(_interval(row, "tmqi_low", "tmqi_high"))
                if compared:
                    gap = f"{row['tmqi_difference']:+.4f} " if "tmqi_difference" in row else ""
                    line.append(gap + _interval(row, "tmqi_difference_low", "tmqi_difference_high"))
        cells.append(line)
    return headers, cells


def _number(value: float | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return "-"
    return "inf" if math.isinf(value) else f"{value:.{digits}f}"


def _interval(row: Row, low: str, high: str) -> str:
    return f"{row[low]:.4f}..{row[high]:.4f}" if low in row else "-"
