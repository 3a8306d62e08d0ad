"""Pictures as files: readers, writers, colour spaces and metadata.

Names load on first use, so that sniffing and describing files (which planning and --dry-run do) import neither numpy
nor cv2.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnkit.pictures.detect import format_of_suffix, sniff
    from attnkit.pictures.headers import describe, read_settings
    from attnkit.pictures.picture import Picture, PictureInfo
    from attnkit.pictures.reading import read_picture
    from attnkit.pictures.scaling import parse_resize, resize, resize_picture, target_size
    from attnkit.pictures.writing import DEPTHS, check_output, encode_picture

_HOMES = {
    "sniff": "detect",
    "format_of_suffix": "detect",
    "describe": "headers",
    "read_settings": "headers",
    "Picture": "picture",
    "PictureInfo": "picture",
    "read_picture": "reading",
    "parse_resize": "scaling",
    "target_size": "scaling",
    "resize": "scaling",
    "resize_picture": "scaling",
    "DEPTHS": "writing",
    "check_output": "writing",
    "encode_picture": "writing",
}

__all__ = [
    "DEPTHS",
    "Picture",
    "PictureInfo",
    "check_output",
    "describe",
    "encode_picture",
    "format_of_suffix",
    "parse_resize",
    "read_picture",
    "read_settings",
    "resize",
    "resize_picture",
    "sniff",
    "target_size",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
