"""Attention maps of an answer as an .npz file, written without holding them in memory."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .observers import RowStream
    from .task import Answer

BLOCK = 1 << 20


def write_map(path: Path, rows: RowStream, answer: Answer, tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """Write what a stream of rows has taken as an .npz that `np.load` reads.

    attention       [tokens, layers, heads, prompt] float16: row t made token t of the answer, so it is the row of the
                    position before it
    layers, heads   their numbers
    prompt_tokens   [prompt] text; answer_tokens [tokens]
    image_mask      [prompt] bool; image tokens are counted in their order
    image_number    [image tokens], the picture that each belongs to; cells [image tokens, 4], what it saw of that
                    picture as x0, y0, x1, y1 in pixels
    settings        how it was made, as JSON
    """
    prompt = rows.prompt
    views = prompt.views[0]
    ids = prompt.input_ids[0].tolist()
    small = {
        "layers": np.array(sorted(rows.layers)),
        "heads": np.array(rows.chosen),
        "prompt_tokens": np.array([tokenizer.decode([one]) for one in ids], dtype=np.str_),
        "answer_tokens": np.array([token.text for token in answer.tokens], dtype=np.str_),
        "image_mask": prompt.image_mask[0].cpu().numpy(),
        "image_number": np.repeat(np.arange(len(views)), [view.tokens for view in views]),
        "cells": np.concatenate([view.cells() for view in views]) if views else np.zeros((0, 4)),
        "settings": np.array(json.dumps(settings, sort_keys=True)),
    }
    shape = (len(answer.tokens), len(rows.layers), len(rows.chosen), len(ids))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(zipfile.ZipInfo("attention.npy"), "w", force_zip64=True) as target:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(target, header)  # type: ignore[no-untyped-call]
            # the row that made the end of the answer, or what was beyond it, stays behind
            _copy(rows, target, 2 * int(np.prod(shape)))
        for name, values in small.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as target:
                np.lib.format.write_array(target, values, allow_pickle=False)  # type: ignore[no-untyped-call]


def _copy(rows: RowStream, target: Any, count: int) -> None:
    rows.stream.flush()
    rows.stream.seek(0)
    while count:
        block = rows.stream.read(min(BLOCK, count))
        if not block:
            raise ValueError(f"{count} bytes of attention rows are missing")
        target.write(block)
        count -= len(block)
