"""From a file of questions with answers to a file of heads for ACT: what is tried, kept, and taken up again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import AttnkitError, ItemError, UsageError
from attnkit.runtime.items import Item, sha256_of

from .settings import ActSettings, settings_for

if TYPE_CHECKING:
    from PIL.Image import Image

    from attnkit.models.vlm.opening import VisionLanguageModel
    from attnkit.runtime.progress import Talk

    from .act_heads import Choice, HeadScore, HeadTrial, Labelled

# questions that cannot be asked are named one by one up to here
_NAMED = 5
# the same heads have been tried whatever is chosen of them
_FREE = frozenset({"choose"})


@dataclass(frozen=True)
class Selection:
    """What to choose heads by, and where they go.

    tasks       JSON lines with image, question and label, as `vlm-ask --tasks` reads them
    held_out    share of the pictures whose questions do not choose and only measure what was chosen
    choice      keep heads that help, or also those that cost nothing
    out         the file of heads, written after each head; resume takes up one that is there
    """

    model: str
    tasks: Path
    image_root: Path | None = None
    limit: int | None = None
    held_out: float = 0.25
    choice: Choice = "helps"
    own_settings: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = 16
    batch_size: int = 8
    out: Path | None = None
    resume: bool = False
    overwrite: bool = False
    device: str = "auto"
    dtype: str = "auto"
    offline: bool = False

    def validate(self) -> ActSettings:
        """The settings of ACT; UsageError for what does not go together."""
        if not self.tasks.is_file():
            raise UsageError(f"--tasks {self.tasks}: no such file")
        if self.image_root is not None and not self.image_root.is_dir():
            raise UsageError(f"--image-root {self.image_root}: no such folder")
        if self.resume and (self.out is None or self.overwrite):
            raise UsageError("--resume: needs --out FILE to go on with, and no --overwrite")
        if self.out is not None and not self.out.parent.is_dir():
            raise UsageError(f"--out {self.out}: no folder {self.out.parent}; make it first")
        if self.out is not None and self.out.exists() and (self.out.is_dir() or not (self.overwrite or self.resume)):
            raise UsageError(f"--out {self.out}: exists; use --overwrite, --resume, or name another file")
        settings: ActSettings = settings_for("act", self.own_settings)
        if settings.keep == 1:
            raise UsageError("--set act.keep: got 1, which changes nothing, expected less")
        return settings


@dataclass(frozen=True)
class Chosen:
    """The record of a selection, and why some questions could not be asked."""

    record: dict[str, Any]
    lost: list[str]

    def told(self) -> list[str]:
        """The outcome in words."""
        record, together = self.record, self.record["together"]
        measured = record["measured"]
        idle = sum(not one["changed"] for one in measured)
        lines = [f"{len(record['heads'])} of {len(measured)} heads chosen; {idle} have no sink in any question"]
        if all(one["gained"] == one["lost"] == 0 for one in measured):
            lines.append("no head alone changes whether an answer is right; more questions tell heads apart")
        for key, count, where in (
            ("right", record["questions"], "questions that chose"),
            ("held_out_right", record["held_out_questions"], "held-out questions"),
        ):
            if count:
                plain, chosen, every = (together[name][key] for name in ("plain", "chosen", "all"))
                lines.append(f"right of {count} {where}: plain model {plain}, chosen heads {chosen}, all heads {every}")
        return lines


def choose_heads(selection: Selection, talk: Talk) -> Chosen:
    """Try every head of a model alone, keep those that help, and write the file of heads.

    Raises UsageError before the model is opened where the options cannot be, and for a file to resume that was made of
    other questions or settings; ItemError where no question can be asked.
    """
    settings = selection.validate()
    questions, lost = read_labelled(selection)
    for line in lost[:_NAMED]:
        talk.error(line)
    if len(lost) > _NAMED:
        talk.error(f"{len(lost) - _NAMED} more questions cannot be asked")
    if not questions:
        raise ItemError(f"--tasks {selection.tasks}: no question in it has pictures and a label to compare with")
    from .act_heads import HeadTrial, hold_out

    choosing, kept = hold_out(questions, selection.held_out)
    vlm = _open(selection)
    header = _header(selection, settings, vlm, len(choosing), len(kept))
    known = _known(selection.out, header, vlm.path) if selection.resume and selection.out else []
    size = {"batch_size": selection.batch_size, "max_tokens": selection.max_tokens}
    trial = HeadTrial(vlm, choosing, settings, **size)
    record = _tried(selection, trial, header, known, talk)
    apart = HeadTrial(vlm, kept, settings, **size)
    arms = {"plain": [], "chosen": record["heads"], "all": list(trial.candidates())}
    record["together"] = {
        name: {"right": trial.right_with(heads), "held_out_right": apart.right_with(heads)}
        for name, heads in arms.items()
    }
    _write(selection, {**record, "finished": True})
    return Chosen({**record, "finished": True}, lost)


def read_labelled(selection: Selection) -> tuple[list[Labelled], list[str]]:
    """The questions of the file with their pictures and labels, and why others cannot be asked."""
    from attnkit.tasks.vlm_ask.jobs import read_tasks

    found: list[Labelled] = []
    lost: list[str] = []
    # several questions about one picture hold it once
    pictures: dict[Any, Image] = {}
    for item in read_tasks(selection.tasks, selection.image_root, None)[: selection.limit]:
        try:
            found.append(_labelled(item, pictures))
        except AttnkitError as error:
            lost.append(str(error))
    return found, lost


def _labelled(item: Item, pictures: dict[Any, Image]) -> Labelled:
    from attnkit.tasks.vlm_ask.pictures import read_rgb
    from attnkit.tasks.vlm_ask.task import Request

    from .act_heads import Labelled

    if item.problem is not None:
        raise ItemError(item.problem)
    job = item.payload
    label = job.carried.get("label")
    if not isinstance(label, str) or not label.strip():
        raise ItemError(f"{item.name}: label is {label!r}, expected a text at 'label' or 'answer'")
    for source, name in zip(job.sources, job.images, strict=True):
        if source not in pictures:
            pictures[source] = read_rgb(source, name)[0]
    return Labelled(Request(tuple(pictures[source] for source in job.sources), job.question), label, tuple(job.images))


def _open(selection: Selection) -> VisionLanguageModel:
    import torch

    from attnkit.models import registry
    from attnkit.tasks.vlm_ask.worker import SMALL_MODEL

    vlm: VisionLanguageModel = registry.open_model(
        selection.model,
        task="vlm-ask",
        device=selection.device,
        offline=selection.offline,
        dtype=selection.dtype,
    )
    if vlm.model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)
    return vlm


def _header(
    selection: Selection, settings: ActSettings, vlm: VisionLanguageModel, choosing: int, kept: int
) -> dict[str, Any]:
    """What the result depends on: no path, no time, no machine."""
    from attnkit.models.identity import model_identity

    place = Path(selection.model)
    return {
        "schema": 1,
        "calibration": "act",
        "model": place.resolve().name if place.exists() else selection.model,
        "model_sha256": model_identity(selection.model),
        "layers": len(vlm.layers),
        "heads_per_layer": vlm.heads,
        "dtype": vlm.dtype,
        "tasks_sha256": sha256_of(selection.tasks),
        "questions": choosing,
        "held_out_questions": kept,
        "held_out": selection.held_out,
        "choose": selection.choice,
        "max_tokens": selection.max_tokens,
        "batch_size": selection.batch_size,
        "settings": {key: value for key, value in asdict(settings).items() if key != "heads"},
    }


def _known(path: Path, header: Mapping[str, Any], folder: Path) -> list[HeadScore]:
    """Heads that an earlier run has tried with the same questions and settings; none where it wrote no file."""
    from .act_heads import HeadScore

    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        different = [key for key, value in header.items() if found.get(key) != value and key not in _FREE]
        known = [HeadScore(**one) for one in found["measured"]]
    except OSError as error:
        raise UsageError(f"--resume: cannot read {path} ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"--resume: {path} is no file of heads; use --overwrite or name another --out") from None
    # in the model's folder the file itself has changed what the folder's hash is
    if path.parent.resolve() == folder.resolve():
        different = [key for key in different if key != "model_sha256"]
    for key in different:
        raise UsageError(
            f"--resume: {path} was begun with {key} {json.dumps(found.get(key))}, got {json.dumps(header[key])}; "
            "give the same options, or --overwrite"
        )
    return known


def _tried(
    selection: Selection, trial: HeadTrial, header: Mapping[str, Any], known: Sequence[HeadScore], talk: Talk
) -> dict[str, Any]:
    """The record of all heads, saved as it grows."""
    done = {(one.layer, one.head): one for one in known}
    candidates = list(trial.candidates())

    def record() -> dict[str, Any]:
        measured = [done[one] for one in candidates if one in done]
        return {
            **header,
            "finished": False,
            "heads": [[one.layer, one.head] for one in measured if one.chosen(selection.choice)],
            "measured": [asdict(one) for one in measured],
        }

    talk.start(len(candidates))
    try:
        for layer, head in candidates:
            if (layer, head) not in done:
                done[layer, head] = trial.score(layer, head)
                _write(selection, record())
            talk.advance()
    finally:
        talk.stop()
    return record()


def _write(selection: Selection, record: Mapping[str, Any]) -> None:
    """Put the record into the file, a head a line."""
    from attnkit.runtime.tables import replace_file

    if selection.out is None:
        return
    parts = {key: json.dumps(value) for key, value in record.items()}
    parts["measured"] = "[\n  " + ",\n  ".join(json.dumps(one) for one in record["measured"]) + "\n ]"
    text = "{\n" + ",\n".join(f" {json.dumps(key)}: {value}" for key, value in parts.items()) + "\n}\n"
    replace_file(selection.out, text.encode())
