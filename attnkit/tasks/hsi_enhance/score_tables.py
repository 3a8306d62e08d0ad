"""From scored cubes to the tables of an evaluation: means, intervals over blocks and noise, paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import median
from typing import TYPE_CHECKING

from .evaluate import MEASURES, Row, Scored
from .metrics import measures, per_band

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from attnkit.scoring.files import Shown

DRAWS = 2000
LEVELS = (0.025, 0.975)
ALL = "all"
Key = tuple[str, float, str, str]


def summarise(scored: Sequence[Scored], seed: int) -> list[Row]:
    """One row per cube, exposure, scaling and method: the mean over noise seeds and its 95 % bootstrap interval.

    Seeds and blocks of pixels are drawn again with replacement, the same ones for all methods of a cube; each choice of
    blocks has its own measures. Differences to the first method are of the same draws, so they are paired. With
    several cubes rows `all` follow: means over cubes, each with its own draws (which cubes there are is not drawn).
    """
    groups = _grouped(scored)
    drawn = {key: _draws(found, seed, _number_of(scored, key[0])) for key, found in groups.items()}
    items = list(dict.fromkeys(key[0] for key in groups))
    rows = []
    for key, found in groups.items():
        rows.append({**_head(key, found), **_estimates(drawn, [key], groups)})
    if len(items) > 1:
        for shared in dict.fromkeys(key[1:] for key in groups):
            keys = [(item, *shared) for item in items if (item, *shared) in groups]
            cubes = [one for key in keys for one in groups[key]]
            rows.append({**_head((ALL, *shared), cubes), "cubes": len(keys), **_estimates(drawn, keys, groups)})
    return rows


def band_rows(scored: Sequence[Scored], wavelengths: Mapping[str, Sequence[float] | None]) -> list[Row]:
    """PSNR and SSIM of each band, one row per cube, exposure, scaling, method and band: means over noise seeds."""
    import numpy as np

    rows: list[Row] = []
    for key, found in _grouped(scored).items():
        bands = [per_band(one.sums) for one in found]
        psnr = np.mean([one["psnr_db"] for one in bands], axis=0)
        ssim = np.mean([one["ssim"] for one in bands], axis=0)
        nm = wavelengths.get(key[0])
        for at in range(len(psnr)):
            row = {**_named(key), "band": at}
            if nm is not None:
                row["wavelength_nm"] = float(nm[at])
            rows.append({**row, "psnr_db": float(psnr[at]), "ssim": float(ssim[at])})
    return rows


def tables_of(summary: Sequence[Row], bands: Sequence[Row], first: str) -> list[Shown]:
    """What people see: the measures, the differences to the first method, and the bands where they are asked for."""
    tables: list[Shown] = [("", *_table(summary))]
    compared = [row for row in summary if any(f"{key}_difference" in row for key in MEASURES)]
    if compared:
        tables.append((f"minus {first}, paired", *_table(compared, "_difference")))
    if bands:
        keys = [key for key in ("band", "wavelength_nm", "psnr_db", "ssim") if any(key in row for row in bands)]
        head, cells = _heads(bands)
        names_of = {"band": "band", "wavelength_nm": "wavelength (nm)", "psnr_db": "PSNR (dB)", "ssim": "SSIM"}
        digits = {"band": 0, "wavelength_nm": 1, "psnr_db": 2, "ssim": 4}
        for line, row in zip(cells, bands, strict=True):
            line += [number(row.get(key), digits[key]) for key in keys]
        tables.append(("each band", [*head, *(names_of[key] for key in keys)], cells))
    return tables


def line_names(rows: Sequence[Row]) -> list[str]:
    """What each row is called where only method, cube and exposure tell lines apart."""
    _, cells = _heads([{**row, "scaling": None} for row in rows])
    return [" ".join([line[-1], *line[:-1]]) for line in cells]


def number(value: float | None, digits: int, sign: str = "") -> str:
    """A number for a cell; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:{sign}.{digits}f}"


def interval(row: Row, keys: Sequence[str], digits: int, sign: str = "") -> str:
    """A value and its interval in one cell."""
    value, low, high = (row.get(key) for key in keys)
    if value is None or not math.isfinite(value):
        return "-"
    shown = number(value, digits, sign)
    return shown if low is None else f"{shown} ({number(low, digits, sign)}..{number(high, digits, sign)})"


def share(value: float) -> str:
    """An exposure as people say it: 1/15."""
    found = Fraction(value).limit_denominator(10_000)
    return str(found) if math.isclose(float(found), value, rel_tol=1e-9) else f"{value:g}"


def _grouped(scored: Sequence[Scored]) -> dict[Key, list[Scored]]:
    groups: dict[Key, list[Scored]] = {}
    for one in scored:
        row = one.row
        key = (row["item"], row.get("exposure", 0.0), row["scaling"], row["method"])
        groups.setdefault(key, []).append(one)
    order = {name: at for at, name in enumerate(dict.fromkeys(key[2] for key in groups))}
    exposures = {value: at for at, value in enumerate(dict.fromkeys(key[1] for key in groups))}
    items = {name: at for at, name in enumerate(dict.fromkeys(key[0] for key in groups))}
    return dict(sorted(groups.items(), key=lambda pair: (items[pair[0][0]], exposures[pair[0][1]], order[pair[0][2]])))


def _number_of(scored: Sequence[Scored], item: str) -> int:
    return list(dict.fromkeys(one.row["item"] for one in scored)).index(item)


def _named(key: Key) -> Row:
    item, exposure, scaling, method = key
    return {"item": item, **({"exposure": exposure} if exposure else {}), "scaling": scaling, "method": method}


def _head(key: Key, found: Sequence[Scored]) -> Row:
    head = {**_named(key), "seeds": len({one.row.get("seed") for one in found})}
    head["blocks"] = sum({one.row["item"]: one.row["blocks"] for one in found}.values())
    head["factor"] = sum(one.row["factor"] for one in found) / len(found)
    head["missing_samples"] = sum(one.row["missing_samples"] for one in found)
    seconds = [one.row["seconds_per_megasample"] for one in found if "seconds_per_megasample" in one.row]
    return {**head, **({"seconds_per_megasample": median(seconds)} if seconds else {})}


def _draws(found: Sequence[Scored], seed: int, item: int) -> dict[str, NDArray[np.float64]]:
    """[DRAWS] values of each measure; the draws depend on seed, cube and the number of blocks and seeds only."""
    import numpy as np

    draw = np.random.default_rng((seed, item))
    blocks, seeds = len(found[0].sums.pixels), len(found)
    chosen = draw.multinomial(blocks, np.full(blocks, 1 / blocks), size=DRAWS)
    weights = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS) / seeds
    each = [measures(one.sums, chosen) for one in found]
    return {key: np.sum([weights[:, at] * one[key] for at, one in enumerate(each)], axis=0) for key in MEASURES}


def _estimates(
    drawn: Mapping[Key, Mapping[str, NDArray[np.float64]]], keys: Sequence[Key], groups: Mapping[Key, Sequence[Scored]]
) -> Row:
    import numpy as np

    first = {key[:3]: key for key in reversed(list(groups))}
    row: Row = {}
    for name in MEASURES:
        values = [_mean(groups[key], name) for key in keys]
        row[name] = float(np.mean(values))
        row[f"{name}_low"], row[f"{name}_high"] = _limits(np.mean([drawn[key][name] for key in keys], axis=0))
        pairs = [(key, first[key[:3]]) for key in keys if first[key[:3]] != key]
        if len(pairs) == len(keys):
            gaps = [_mean(groups[key], name) - _mean(groups[other], name) for key, other in pairs]
            row[f"{name}_difference"] = float(np.mean(gaps))
            apart = np.mean([drawn[key][name] - drawn[other][name] for key, other in pairs], axis=0)
            row[f"{name}_difference_low"], row[f"{name}_difference_high"] = _limits(apart)
    return row


def _mean(found: Sequence[Scored], name: str) -> float:
    return sum(one.row[name] for one in found) / len(found)


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    import numpy as np

    finite = values[np.isfinite(values)]
    return tuple(map(float, np.quantile(finite, LEVELS))) if finite.size else (math.nan, math.nan)  # type: ignore[return-value]


def _heads(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The first columns of a table: those that tell its rows apart, and always the method."""
    keys = [key for key in ("item", "exposure", "scaling") if len({row.get(key) for row in rows}) > 1]
    shown = [["cube" if key == "item" else key for key in keys] + ["method"]]
    for row in rows:
        cells = [share(row[key]) if key == "exposure" else str(row.get(key)) for key in keys]
        shown.append([*cells, row["method"]])
    return shown[0], shown[1:]


def _table(rows: Sequence[Row], what: str = "") -> tuple[list[str], list[list[str]]]:
    head, cells = _heads(rows)
    timed = not what and any("seconds_per_megasample" in row for row in rows)
    head += [f"{title}, 95 % interval" for title, _ in MEASURES.values()]
    head += ["s/megasample"] if timed else []
    for line, row in zip(cells, rows, strict=True):
        for key, (_, digits) in MEASURES.items():
            keys = [f"{key}{what}{end}" for end in ("", "_low", "_high")]
            line.append(interval(row, keys, digits, "+" if what else ""))
        line += [number(row.get("seconds_per_megasample"), 3)] if timed else []
    return head, cells
