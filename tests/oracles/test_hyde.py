"""lowrank against HyRes and FastHyDe of hyde-images 0.4.3; `.ci/oracles` has the environment.

FastHyDe denoises eigen-images by BM3D and is told that the noise is white, which it is in the synthetic cube.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from attnkit.tasks.hsi_enhance.darkening import darken
from attnkit.tasks.hsi_enhance.methods import run
from attnkit.tasks.hsi_enhance.source import ArraySource

sys.path.append(str(Path(__file__).parents[1] / "tasks" / "hsi_enhance"))
from low_rank_cubes import low_rank_cube, mpsnr, noisy, spectral_angle

hyde = pytest.importorskip("hyde", reason="hyde-images 0.4.3 is not installed: run .ci/oracles")


def scores(cube, truth):
    """MPSNR in dB and mean spectral angle in degrees of ours, HyRes and FastHyDe; written to the output of `-s`."""
    ours = np.empty_like(cube)
    for region, bright in run("lowrank", ArraySource(cube), settings={}, memory=10**9, facts={}):
        ours[region.slices] = bright
    planar = torch.from_numpy(cube.transpose(1, 2, 0).copy())
    theirs = (
        hyde.HyRes()(planar.clone()),
        hyde.FastHyDe()(planar.clone(), noise_type="additive", iid=True, k_subspace=10),
    )
    results = [ours, *(np.asarray(one).transpose(2, 0, 1) for one in theirs)]
    found = [(mpsnr(one, truth), spectral_angle(one, truth)) for one in results]
    for name, (decibels, degrees) in zip(("lowrank", "HyRes", "FastHyDe"), found, strict=True):
        print(f"{name} {decibels:.2f} dB {degrees:.2f} degrees")
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_a_synthetic_cube_of_rank_three_with_white_noise(seed):
    truth = low_rank_cube(3, (31, 64, 64), seed)
    ours, hyres, fasthyde = scores(noisy(truth, 0.1, seed + 10), truth)
    assert ours[0] > hyres[0] + 5 and ours[1] < hyres[1]
    assert ours[0] > fasthyde[0] and ours[1] < fasthyde[1]


@pytest.mark.parametrize("columns", [slice(0, 145), slice(112, 145)])
def test_indian_pines_darkened(shared, columns):
    stored = np.load(shared / "data/hsi/indian_pines/indian_pines.npz")
    cube = next(stored[name] for name in stored.files if stored[name].ndim == 3).astype(np.float32)
    truth = np.ascontiguousarray((cube / cube.max()).transpose(2, 0, 1)[:, :, columns])
    ours, hyres, fasthyde = scores(15 * darken(truth, seed=1), truth)
    assert ours[0] > hyres[0] + 1 and ours[1] < hyres[1]
    assert ours[0] > fasthyde[0] and ours[1] < fasthyde[1]
