"""The embedded tone mapper: configuration and encoding shared by training and the torch-free runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from attnkit.models.verbs import check_arrays, wave_picture
from attnkit.models.weights import read_weights
from attnkit.runtime.errors import UsageError

LUMA = (0.2126, 0.7152, 0.0722)


def depth_for(rows: int, columns: int) -> int:
    """Number of pyramid levels, so that the thumbnail's long side is about 64 pixels; 0 for tiny pictures."""
    return max(0, round(np.log2(max(rows, columns) / 64))) if min(rows, columns) >= 8 else 0


@dataclass(frozen=True)
class FastConfig:
    """Sizes of the network, and the encoding that brings unbounded light into the tables' domain 0..1.

    Encoding: e = (log2(x / anchor + 2^-toe) + toe) / (toe + head), so that black is 0 and `head` stops above the
    anchor is 1. The anchor is the mean log luminance of the picture (values clipped to 8 stops around the median).
    """

    table_size: int = 33
    widths: tuple[int, int, int, int] = (16, 24, 32, 48)
    histogram_bins: int = 8
    references: int = 4
    band_groups: int = 3
    toe: float = 8.0
    head: float = 10.0
    strength_range: tuple[float, float] = (-0.9, 2.1)
    initial_strength: float = 0.2
    sigma_range: tuple[float, float] = (0.03, 0.3)
    # share of the trained local part that `strength` 1 gives
    local_amount: float = 1.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FastConfig:
        """Configuration of a weight file, whose JSON has lists for tuples."""
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        chosen: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in given.items()}
        return cls(**chosen)

    def band(self, depth: int, level: int) -> tuple[int, float]:
        """Which group of parameter maps a band uses, and the share of its strength.

        Groups count from the coarsest band. Bands finer than those trained on use the last group with a falling share,
        or large sharp pictures would be sharpened in every octave.
        """
        above_thumbnail = depth - 1 - level
        group = min(above_thumbnail, self.band_groups - 1)
        return group, 1 / (1 + above_thumbnail - group)

    @property
    def map_channels(self) -> int:
        return 3 + self.band_groups * (self.references + 1)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all arrays of the weight file."""
        a, b, c, d = self.widths
        layers = {
            "stem": (3, a), "down1": (a, b), "down2": (b, c), "down3": (c, d),
            "up2": (d + c, c), "up1": (c + b, b), "up0": (b + a, a), "maps": (a, self.map_channels),
        }  # fmt: skip
        dense = {"context": (2 * d + self.histogram_bins, d), "point": (d, 3)}
        size = self.table_size
        shapes: dict[str, tuple[int, ...]] = {"tables": (3, 3, size, size, size)}
        for name, (inputs, outputs) in {**layers, **dense}.items():
            shapes[f"predictor.{name}.weight"] = (outputs, inputs, 3, 3) if name in layers else (outputs, inputs)
            shapes[f"predictor.{name}.bias"] = (outputs,)
        return shapes

    def encode(self, pixels: np.ndarray, anchor: float) -> np.ndarray:
        """Linear light (any shape) to the tables' domain."""
        black = 2.0**-self.toe
        return np.clip((np.log2(pixels / anchor + black) + self.toe) / (self.toe + self.head), 0, 1).astype(np.float32)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Inverse of `encode`, relative to the anchor."""
        return np.exp2(encoded * (self.toe + self.head) - self.toe) - 2.0**-self.toe

    def initial_tables(self) -> np.ndarray:
        """Renderings that keep hue: dark key, bright key, low contrast; [3, 3, N, N, N] indexed [k, c, b, g, r]."""
        axis = self.decode(np.linspace(0, 1, self.table_size))
        blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
        light = np.stack([red, green, blue])
        luminance = np.maximum(0.2126 * red + 0.7152 * green + 0.0722 * blue, 1e-9)
        tables = []
        for centre, contrast in ((1.5, 0.85), (-1.5, 0.85), (0.0, 0.45)):
            display = 1 / (1 + np.exp2(-contrast * (np.log2(luminance) - centre)))
            floor = 1 / (1 + np.exp2(contrast * (self.toe + 2 + centre)))
            display = np.maximum(display - floor, 0) / (1 - floor)
            tables.append(render_light(light, luminance, display))
        return np.stack(tables).astype(np.float32)


def render_light(light: np.ndarray, luminance: np.ndarray, display: np.ndarray, saturation: float = 0.9) -> np.ndarray:
    """Colour of `light` [3, ...] at a display value: ratios kept, mixed with grey only where the gamut ends."""
    target = srgb_decode(display)
    colour = target * (light / luminance) ** saturation
    now = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
    colour = colour * target / np.maximum(now, 1e-12)
    peak = colour.max(0)
    keep = np.minimum(1.0, (1 - target) / np.maximum(peak - target, 1e-9))
    return srgb_encode(np.clip(target + (colour - target) * keep, 0, 1))


def srgb_encode(light: np.ndarray) -> np.ndarray:
    """Linear 0..1 to sRGB-encoded 0..1 (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-12) ** (1 / 2.4) - 0.055)


def srgb_decode(display: np.ndarray) -> np.ndarray:
    """sRGB-encoded 0..1 to linear 0..1 (IEC 61966-2-1)."""
    return np.where(display <= 0.04045, display / 12.92, ((np.maximum(display, 0) + 0.055) / 1.055) ** 2.4)


def anchor_of(luminance: np.ndarray) -> float:
    """Mean log luminance, values clipped to 8 stops around the median of the lit pixels; 1 for a black picture."""
    lit = luminance[luminance > 0]
    if lit.size == 0:
        return 1.0
    middle = float(np.median(lit))
    return float(np.exp(np.mean(np.log(np.clip(luminance.astype(np.float64), middle / 256, middle * 256)))))


def convolve(image: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1) -> np.ndarray:
    """3 x 3 convolution, the border repeated: [c, h, w] with weight [d, c, 3, 3] -> [d, ceil(h / stride), ...]."""
    channels, rows, columns = image.shape
    high, wide = -(-rows // stride), -(-columns // stride)
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    # one shifted copy a tap: long contiguous lines, where a window view would copy three values at a time
    taps = np.empty((3, 3, channels, high, wide), image.dtype)
    for row in range(3):
        for column in range(3):
            taps[row, column] = padded[:, row : row + rows : stride, column : column + columns : stride]
    kernel = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
    return (kernel @ taps.reshape(-1, high * wide) + bias[:, None]).reshape(-1, high, wide)


def leaky(values: np.ndarray) -> np.ndarray:
    """Leaky rectifier with slope 0.1."""
    return np.maximum(values, np.float32(0.1) * values)


def stretch(maps: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Bilinear enlargement of [c, h, w] that keeps the corners."""
    for axis, size in ((1, rows), (2, columns)):
        old = maps.shape[axis]
        position = np.arange(size) * ((old - 1) / max(size - 1, 1))
        left = np.minimum(position.astype(int), max(old - 2, 0))
        share = (position - left).astype(np.float32).reshape((-1, 1) if axis == 1 else (1, -1))
        maps = maps.take(left, axis) * (1 - share) + maps.take(np.minimum(left + 1, old - 1), axis) * share
    return maps


def thumbnail_of(encoded: np.ndarray, rows: int, columns: int, depth: int) -> np.ndarray:
    """Block means around the samples of pyramid level `depth`: [3, rows >> depth, columns >> depth], rounded up.

    `encoded` [r, c, 3] holds every `thumbnail_stride(depth)`-th sample of a picture of `rows` x `columns`.
    """
    block = (1 << depth) // thumbnail_stride(depth)
    high, wide, channels = encoded.shape
    # rows first and as one product: the samples lie in memory as they are for that
    low = _block_means(high, -(-rows >> depth), block) @ encoded.reshape(high, -1)
    low = _block_means(wide, -(-columns >> depth), block) @ low.reshape(-1, wide, channels)
    return np.ascontiguousarray(low.transpose(2, 0, 1))


def _block_means(length: int, size: int, block: int) -> np.ndarray:
    """Weights [size, length] float32 of the means of blocks of samples centred on every `block`-th."""
    # the last block ends where the next would begin, which may be before the end of the picture
    edges = np.clip(np.arange(size + 1) * block - block // 2, 0, length)[:, None]
    place = np.arange(length)
    inside = (place >= edges[:-1]) & (place < edges[1:])
    return (inside / np.diff(edges, axis=0)).astype(np.float32)


def thumbnail_stride(depth: int) -> int:
    """Distance of the samples that the thumbnail and the anchor are made of: 8 x 8 samples a thumbnail pixel."""
    return max(1, (1 << depth) // 8)


@dataclass(frozen=True)
class Survey:
    """What is found out about a whole picture before its pixels are rendered.

    parameters: exposure anchor, point weights of the tables and context vector, as plain numbers;
    low [3, h, w]: the encoded thumbnail; features: the predictor's levels of it, finest first.
    """

    parameters: dict[str, Any]
    low: np.ndarray
    features: list[np.ndarray]


class FastToneMapper:
    """Torch-free runtime of the embedded tone mapper.

    Parameters
    ----------
    sizes : sizes and encoding
    arrays : tables [3, 3, N, N, N] and the predictor's weights, by the names of `llf_lut_fast_torch.FastLlfLut`
    """

    dtypes: tuple[str, ...] = ("float32",)

    def __init__(self, sizes: FastConfig, arrays: Mapping[str, np.ndarray]):
        self.sizes = sizes
        self.config: dict[str, Any] = asdict(sizes)
        self.load_arrays(arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FastToneMapper:
        """Mapper of a weight file."""
        weights = read_weights(path)
        return cls(FastConfig.from_dict(weights.config), weights.arrays)

    @classmethod
    def fresh(cls, sizes: FastConfig) -> FastToneMapper:
        """Mapper before training: the initial tables, and a predictor of small seeded weights."""
        random = np.random.default_rng(0)
        arrays = {name: 0.05 * random.standard_normal(shape) for name, shape in sizes.shapes().items()}
        arrays["tables"] = sizes.initial_tables()
        arrays["predictor.point.bias"] = np.full(3, 1 / 3)
        return cls(sizes, {name: values.astype(np.float32) for name, values in arrays.items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """All that the weight file holds, by name."""
        return dict(self._arrays)

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take the arrays of a weight file; missing or unknown names and wrong shapes are a UsageError."""
        check_arrays(self.sizes.shapes(), arrays, model="llf-lut")
        self._arrays = {name: np.ascontiguousarray(values, np.float32) for name, values in arrays.items()}

    def example(self, rows: int = 48, columns: int = 64) -> np.ndarray:
        """Linear picture by formula, with highlights 6 stops above its middle."""
        return (wave_picture(rows, columns) ** 3 * 8).astype(np.float32)

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The display picture and the point weights of a linear picture."""
        parameters = self.parameters(inputs)
        return {"display": self.render(inputs, parameters), "point": np.asarray(parameters["point"], np.float32)}

    def as_dtype(self, dtype: str) -> FastToneMapper:
        """The mapper itself; it computes in float32 alone."""
        if dtype not in self.dtypes:
            raise UsageError(f"llf-lut: dtype {dtype!r}, expected one of {', '.join(self.dtypes)}")
        return self

    def count_parameters(self) -> int:
        """Numbers that training may change."""
        return sum(values.size for values in self._arrays.values())

    def count_flops(self, rows: int, columns: int) -> int:
        """Operations of one picture: the predictor's products, and per pixel encoding, look-up, pyramid and remap."""
        low = -(-rows >> depth_for(rows, columns)) * (-(-columns >> depth_for(rows, columns)))
        shares = {"stem": 1, "down1": 4, "down2": 16, "down3": 64, "up2": 16, "up1": 4, "up0": 1, "maps": 1}
        predictor = sum(
            2 * self._arrays[f"predictor.{name}.weight"].size * low // share for name, share in shares.items()
        )
        # 3 logarithms of 19, 3 interpolations of 21, luma 5; pyramid 20 and remap 45 over all levels; recolouring 15
        return predictor + rows * columns * (3 * 19 + 3 * 21 + 5 + (20 + 45) * 4 // 3 + 15)

    def parameters(self, pixels: np.ndarray) -> dict[str, Any]:
        """What is decided once for the whole picture: exposure anchor, point weights of the tables and context vector.

        `pixels` is [rows, columns, 3] float32 linear light. The values may be averaged over the frames of a sequence.
        """
        return self.survey(pixels).parameters

    def survey(self, pixels: np.ndarray, parameters: dict[str, Any] | None = None) -> Survey:
        """Look at a picture [rows, columns, 3] once; given `parameters` take the place of its own."""
        rows, columns = pixels.shape[:2]
        depth = depth_for(rows, columns)
        stride = thumbnail_stride(depth)
        samples = np.ascontiguousarray(pixels[::stride, ::stride])
        anchor = anchor_of(samples @ np.array(LUMA, np.float32)) if parameters is None else parameters["anchor"]
        low = thumbnail_of(self.sizes.encode(samples, anchor), rows, columns, depth)
        features = self._features(low)
        if parameters is None:
            context = self._context(low, features[-1])
            point = self._arrays["predictor.point.weight"] @ context + self._arrays["predictor.point.bias"]
            parameters = {
                "anchor": anchor,
                "point": point.astype(float).tolist(),
                "context": context.astype(float).tolist(),
            }
        return Survey(parameters, low, features)

    def cube(self, parameters: dict[str, Any]) -> np.ndarray:
        """The picture's own table [3, N, N, N]: encoded light (see `FastConfig`) to sRGB display values."""
        return np.tensordot(np.asarray(parameters["point"], np.float32), self._arrays["tables"], axes=1)

    def render(
        self,
        pixels: np.ndarray,
        parameters: dict[str, Any] | Survey | None = None,
        strength: float = 1.0,
        interpolation: str = "trilinear",
    ) -> np.ndarray:
        """Display picture [rows, columns, 3] float32, sRGB-encoded 0..1, of [rows, columns, 3] float32 linear light.

        `parameters` are those of another picture or smoothed ones, or the `survey` of these pixels where it is at hand.
        `strength` scales the local part: 0 leaves the picture's own table alone, 1 is the model's own
        amount (`FastConfig.local_amount` of the trained one).
        """
        from attnkit_kernels.image import fused, laplacian

        config = self.sizes
        pixels = np.ascontiguousarray(pixels, np.float32)
        rows, columns = pixels.shape[:2]
        depth = depth_for(rows, columns)
        seen = parameters if isinstance(parameters, Survey) else self.survey(pixels, parameters)
        anchor, table = seen.parameters["anchor"], self.cube(seen.parameters)
        full, luma = fused.encode_lookup(
            pixels, table, anchor=anchor, toe=config.toe, head=config.head, interpolation=interpolation
        )
        strength *= config.local_amount
        if strength == 0:
            # clipped as any program clips what a table gives, so that the exported table is this very picture
            return np.clip(full, 0, 1, out=full)
        maps = self._maps(seen.features, np.asarray(seen.parameters["context"], np.float32))
        levels = laplacian.gaussian(luma[None, None], depth, impl="numba")
        guides = [level[0, 0] for level in levels]
        result = guides[-1] + np.float32(strength) * self._bottom_change(seen.low, maps[:3])
        if depth == 0:
            return fused.recolour(full, luma, result)
        for level in range(depth - 1, -1, -1):
            group, share = config.band(depth, level)
            curve = self._curve(maps, group, strength * share)
            if level:
                result = fused.remap_level(guides[level], guides[level + 1], result, curve)
        return fused.remap_recolour(guides[0], guides[1], result, curve, full)

    def _features(self, low: np.ndarray) -> list[np.ndarray]:
        features = [leaky(self._layer("stem", low))]
        for name in ("down1", "down2", "down3"):
            features.append(leaky(self._layer(name, features[-1], 2)))
        return features

    def _context(self, low: np.ndarray, coarsest: np.ndarray) -> np.ndarray:
        """The picture in one vector: statistics of the coarsest features and the histogram of the luma."""
        bins = self.sizes.histogram_bins
        brightness = np.tensordot(np.array(LUMA, np.float32), low, axes=1)
        centres = np.linspace(0, 1, bins, dtype=np.float32).reshape(-1, 1, 1)
        histogram = np.maximum(1 - np.abs(brightness - centres) * (bins - 1), 0).mean((1, 2))
        pooled = np.concatenate([coarsest.mean((1, 2)), np.sqrt(coarsest.var((1, 2)) + 1e-6), histogram])
        weight, bias = self._arrays["predictor.context.weight"], self._arrays["predictor.context.bias"]
        return leaky(weight @ pooled + bias)

    def _maps(self, features: list[np.ndarray], context: np.ndarray) -> np.ndarray:
        x0, x1, x2, x3 = features
        y = x3 + context[:, None, None]
        for name, skip in (("up2", x2), ("up1", x1), ("up0", x0)):
            y = leaky(self._layer(name, np.concatenate([stretch(y, *skip.shape[1:]), skip])))
        return self._layer("maps", y)

    def _layer(self, name: str, image: np.ndarray, stride: int = 1) -> np.ndarray:
        return convolve(image, self._arrays[f"predictor.{name}.weight"], self._arrays[f"predictor.{name}.bias"], stride)

    def _bottom_change(self, low: np.ndarray, weights: np.ndarray) -> np.ndarray:
        from attnkit_kernels.image import lut3d

        change = np.zeros(low.shape[1:], np.float32)
        for table, weight in zip(self._arrays["tables"], weights, strict=True):
            looked_up = lut3d.lookup(low[None], table, impl="numba")[0]
            change += weight * np.tensordot(np.array(LUMA, np.float32), looked_up, axes=1)
        return change

    def _curve(self, maps: np.ndarray, group: int, strength: float) -> np.ndarray:
        config = self.sizes
        start = 3 + group * (config.references + 1)
        raw = maps[start : start + config.references + 1]
        low, high = config.strength_range
        thin, wide = config.sigma_range
        offset = np.log((config.initial_strength - low) / (high - config.initial_strength))
        curve = np.empty_like(raw)
        change = strength * (low + (high - low) / (1 + np.exp(-(raw[:-1] + offset))))
        # beyond 2.24 the curve would fold over and turn slopes round
        curve[:-1] = np.clip(change, -1.0, 2.2)
        curve[-1] = thin + (wide - thin) / (1 + np.exp(-raw[-1]))
        return np.ascontiguousarray(curve, np.float32)
