"""Files that name heads of a model: a JSON list with a list for each head, its layer first, or a record with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attnkit.runtime.errors import UsageError

# the heads of ACT in a model's own folder, for `--set act.heads=auto`
ACT_HEADS = "act_heads.json"


def read_heads(path: str, layers: int, heads: int, option: str, *, value: str = "") -> dict[tuple[int, int], float]:
    """The heads of a file as (layer, head), with the number behind each, 1 where the file has none.

    Parameters
    ----------
    layers, heads : how many the model has
    option : as the user gave it, for messages
    value : what the third number of each entry is called; without it entries are pairs, and the file may be what
        `attnkit models heads` wrote

    Raises UsageError for a file that cannot be read, and for a head that the model does not have.
    """
    form = f"[layer, head, {value}]" if value else "[layer, head]"
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{option}: cannot read {path} ({error.strerror}); expected a JSON file with [{form}, ...]"
        ) from None
    except ValueError as error:
        raise UsageError(f"{option}: {path} is no JSON ({error}); expected [{form}, ...]") from None
    if not value and isinstance(entries, dict) and "heads" in entries:
        entries = _chosen(path, entries, layers, heads, option)
    if not isinstance(entries, list):
        raise UsageError(f"{option}: {path} holds a {type(entries).__name__}, expected [{form}, ...]")
    found: dict[tuple[int, int], float] = {}
    for entry in entries:
        if not _fits(entry, bool(value)):
            raise UsageError(f"{option}: {path} has {json.dumps(entry)}, expected {form}")
        layer, head, *more = entry
        if not (0 <= layer < layers and 0 <= head < heads):
            raise UsageError(
                f"{option}: {path} names layer {layer}, head {head}; the model has {layers} layers with {heads} heads, "
                "counted from 0"
            )
        found[layer, head] = float(more[0]) if more else 1.0
    return found


def read_own_heads(folder: Path, layers: int, heads: int, option: str) -> dict[tuple[int, int], float]:
    """The heads in the folder of a model; UsageError with the way to make them where it has none."""
    path = folder / ACT_HEADS
    if not path.is_file():
        raise UsageError(
            f"{option}=auto: no {ACT_HEADS} in {folder}; make it with "
            f"'attnkit models heads MODEL --tasks FILE.jsonl --out {path}', or name another file"
        )
    return read_heads(str(path), layers, heads, f"{option}=auto")


def _chosen(path: str, record: dict[str, Any], layers: int, heads: int, option: str) -> Any:
    """The list of heads of a record, which must be whole and of a model of the same size."""
    if not record.get("finished", True):
        raise UsageError(
            f"{option}: {path} is unfinished, expected all heads tried; "
            "end it with 'attnkit models heads MODEL --resume'"
        )
    made_for = record.get("layers", layers), record.get("heads_per_layer", heads)
    if made_for != (layers, heads):
        raise UsageError(
            f"{option}: {path} is of a model with {made_for[0]} layers of {made_for[1]} heads, "
            f"this one has {layers} of {heads}; make one for it with 'attnkit models heads'"
        )
    return record["heads"]


def _fits(entry: Any, valued: bool) -> bool:
    if not isinstance(entry, list) or len(entry) != 2 + valued:
        return False
    numbers = all(type(one) is int for one in entry[:2])
    return numbers and (not valued or (type(entry[2]) in (int, float) and 0 <= entry[2] < float("inf")))
