"""What the parts of the default tone mapper are worth: each switched off in the trained weights, on the test scenes.

    python tests/bench/tonemap_ablation.py DATA [--views 8] [--size 640] [--model llf-lut] [--split test|val]
        [--strengths 1.176,0.824,0.588]

DATA holds the panoramas of `attnkit.tasks.tonemap.views.SPLIT`. The parts are switched off, not trained anew without:
"no map" leaves the bottom of the pyramid to the picture's own table, "no remap" leaves the bands alone, "LUT only" does
both; --strengths adds rows with more or less of the local part. Means over views of TMQI, its two parts, and the share
of edges turned round.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from attnkit.models import registry
from attnkit.models.llf_lut_fast import FastToneMapper
from attnkit.pictures import read_picture
from attnkit.tasks.tonemap.metrics import reversed_edges, tmqi
from attnkit.tasks.tonemap.views import SPLIT, views


def without(mapper: FastToneMapper, *, keep_map: bool, keep_remap: bool) -> FastToneMapper:
    """A copy of the mapper with parts of its parameter maps set to do nothing."""
    arrays = mapper.arrays()
    weight, bias = arrays["predictor.maps.weight"].copy(), arrays["predictor.maps.bias"].copy()
    if not keep_map:
        weight[:3] = bias[:3] = 0
    if not keep_remap:
        sizes = mapper.sizes
        low, high = sizes.strength_range
        start = np.log((sizes.initial_strength - low) / (high - sizes.initial_strength))
        weight[3:] = 0
        # the strength that this gives is 0: the band stays as it is
        bias[3:] = np.log(-low / high) - start
    arrays.update({"predictor.maps.weight": weight, "predictor.maps.bias": bias})
    return FastToneMapper(sizes=mapper.sizes, arrays=arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--model", default="llf-lut")
    parser.add_argument("--split", choices=list(SPLIT), default="test")
    parser.add_argument("--strengths", default="", help="comma list")
    options = parser.parse_args()
    mapper = registry.open_model(options.model, task="tonemap")
    scenes = [read_picture(options.data / f"{name}.exr").pixels for name in SPLIT[options.split]]
    pictures = [picture for scene in scenes for picture in views(scene, options.views, options.size, 0)]
    print("variant   TMQI    S       N       reversed edges (%)")
    variants = [
        ("full", mapper, 1.0),
        ("no map", without(mapper, keep_map=False, keep_remap=True), 1.0),
        ("no remap", without(mapper, keep_map=True, keep_remap=False), 1.0),
        ("LUT only", without(mapper, keep_map=False, keep_remap=False), 1.0),
    ]
    variants += [(f"x {text}", mapper, float(text)) for text in options.strengths.split(",") if text]
    for name, variant, strength in variants:
        rows = []
        for picture in pictures:
            shown = np.round(255 * variant.render(picture, strength=strength)).astype(np.uint8)
            rows.append((*tmqi(picture, shown), 100 * reversed_edges(picture, shown)))
        print(f"{name:8}  " + "  ".join(f"{value:.4f}" for value in np.nanmean(rows, axis=0)))


if __name__ == "__main__":
    main()
