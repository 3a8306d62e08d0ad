"""Perspective views of HDR panoramas, and the split of the panorama scenes into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# one place appears in one part only: both `sunrise` are one scene, `studio` one room, `sunset` and `venice` one city
SPLIT: dict[str, tuple[str, ...]] = {
    "train": (
        "blender/city", "blender/courtyard", "blender/forest", "blender/interior", "blender/night", "blender/studio",
        "blender/sunrise", "pmndrs/apartment", "pmndrs/bridge", "pmndrs/dawn", "pmndrs/esplanade", "pmndrs/hall",
        "pmndrs/lobby", "pmndrs/park", "pmndrs/sky", "pmndrs/studio", "pmndrs/sunrise", "pmndrs/warehouse",
    ),
    "val": ("pmndrs/city", "pmndrs/forest", "pmndrs/lab"),
    "test": ("blender/sunset", "pmndrs/sunset", "pmndrs/venice", "pmndrs/night", "pmndrs/workshop"),
}  # fmt: skip


@dataclass(frozen=True)
class Camera:
    """Where a view looks: yaw and pitch (0, 0 is the panorama's centre) and horizontal field of view, in degrees."""

    yaw: float
    pitch: float
    field_of_view: float


def is_panorama(rows: int, columns: int) -> bool:
    """Whether a picture has the 2:1 shape of an equirectangular panorama."""
    return columns == 2 * rows and rows >= 64


def cameras(count: int, seed: int) -> list[Camera]:
    """Draw cameras: yaws spread evenly from a random start, pitch within 25 degrees, 60 to 100 degrees wide."""
    import numpy as np

    random = np.random.default_rng(seed)
    start = random.uniform(0.0, 360.0)
    return [
        Camera((start + 360.0 * k / count) % 360.0, random.uniform(-25.0, 25.0), random.uniform(60.0, 100.0))
        for k in range(count)
    ]


def view(panorama: np.ndarray, camera: Camera, rows: int, columns: int) -> np.ndarray:
    """Render what a pin-hole camera sees inside a panorama.

    `panorama` is [rows, columns, 3] float32 linear light, equirectangular; the result is [rows, columns, 3] of the size
    asked for. Sampling is bilinear and wraps around horizontally. Values below 0 (resampling rings) are set to 0.
    """
    import cv2
    import numpy as np

    height, width = panorama.shape[:2]
    focal = 0.5 * columns / np.tan(np.radians(camera.field_of_view) / 2)
    x = (np.arange(columns, dtype=np.float32) + 0.5 - columns / 2) / focal
    y = (np.arange(rows, dtype=np.float32) + 0.5 - rows / 2) / focal
    right, down = np.meshgrid(x, y)
    pitch = np.radians(camera.pitch)
    ahead_turned = np.cos(pitch) + down * np.sin(pitch)
    down_turned = down * np.cos(pitch) - np.sin(pitch)
    longitude = np.arctan2(right, ahead_turned) + np.radians(camera.yaw)
    latitude = np.arctan2(down_turned, np.hypot(right, ahead_turned))
    map_x = ((longitude / (2 * np.pi) + 0.5) % 1.0) * width - 0.5
    map_y = (latitude / np.pi + 0.5) * height - 0.5
    wrapped = np.concatenate([panorama[:, -1:], panorama, panorama[:, :1]], axis=1)
    sampled = cv2.remap(
        wrapped,
        (map_x + 1).astype(np.float32),
        np.clip(map_y, 0, height - 1).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.maximum(sampled, 0.0)


def views(panorama: np.ndarray, count: int, size: int, seed: int) -> list[np.ndarray]:
    """Cut `count` views, `size` pixels wide and 3/4 as high, out of a panorama; the same seed gives the same views."""
    rows = max(1, round(size * 3 / 4))
    return [view(panorama, camera, rows, size) for camera in cameras(count, seed)]
