"""Quality measures of a tone-mapped picture: the score, the guards beside it, and fidelity to a reference."""

from attnkit.scoring.bootstrap import bootstrap, scene_means

from .fidelity import psnr, ssim
from .guards import add_noise, dark_noise_gain, hue_error, noise_gain_between, reversed_edges
from .tmqi import Tmqi, tmqi

__all__ = [
    "Tmqi",
    "add_noise",
    "bootstrap",
    "dark_noise_gain",
    "hue_error",
    "noise_gain_between",
    "psnr",
    "reversed_edges",
    "scene_means",
    "ssim",
    "tmqi",
]
