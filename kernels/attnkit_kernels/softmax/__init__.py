"""Softmax attention over a `BlockMap`: one engine; the patterns are beside it. The import loads no torch, no triton."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .blockmap import BlockMap, KeyLists
from .builders import causal, dense, from_blocks, from_boxes, from_mask, from_predicate, sliding
from .rules import Boxes, Tiles

LAZY = {
    "AttentionResult": "result",
    "attention": "api",
    "resolve_impl": "api",
    "merge": "result",
    "DenseBias": "bias",
    "TableBias": "bias",
    "TermsBias": "bias",
    "relative_table": "bias",
    "pack": "packed",
}

__all__ = [
    "AttentionResult",
    "BlockMap",
    "Boxes",
    "DenseBias",
    "KeyLists",
    "TableBias",
    "TermsBias",
    "Tiles",
    "attention",
    "causal",
    "dense",
    "from_blocks",
    "from_boxes",
    "from_mask",
    "from_predicate",
    "merge",
    "pack",
    "relative_table",
    "resolve_impl",
    "sliding",
]


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{LAZY[name]}"), name)
