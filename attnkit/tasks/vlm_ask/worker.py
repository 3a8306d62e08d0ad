"""The worker of `vlm-ask`: a model, loaded once in a process, that is asked one item after another."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from attnkit.models.vlm.opening import hushed
from attnkit.models.vlm.sinks import SinkProfile, known_profile, read_profile
from attnkit.runtime.errors import AttnkitError, ItemError, UsageError
from attnkit.runtime.outputs import write_error

from .calibrations.settings import parse_layers
from .jobs import Job
from .maps import write_map
from .observers import Heat, Observer, RowStream
from .pictures import read_rgb
from .rows import about_answer, about_job, warnings_of
from .task import Answer, Decoding, Request, ask, equals_plain

if TYPE_CHECKING:
    from attnkit.models.vlm.opening import VisionLanguageModel
    from attnkit.runtime.items import Context, Item
    from attnkit.runtime.outputs import Outputs

    from .files import VlmAskFiles

# below this many parameters threads wait for each other longer than they work, on a busy machine much longer
SMALL_MODEL = 20_000_000


@dataclass
class Asked:
    """One item on its way: its question with the pictures read, and one answer for each arm."""

    job: Job
    request: Request
    notices: list[str]
    answers: list[Answer] = field(default_factory=list)
    heats: list[Heat] = field(default_factory=list)


class VlmAskWorker:
    """Answers items; those of a group are asked together when the first of them is run."""

    def __init__(self, command: VlmAskFiles, context: Context) -> None:
        self.command = command
        self.context = context
        self.vlm = _open(command, context)
        small = self.vlm.model.num_parameters() < SMALL_MODEL
        torch.set_num_threads(1 if small else max(1, context.threads))
        self.profile = _profile(command, self.vlm)
        count = len(self.vlm.layers)
        self.layers = parse_layers(command.layers or "auto", count, range(count), "--layers")
        heads = self.vlm.heads
        self.heads = sorted(parse_layers(command.heads or "auto", heads, range(heads), "--heads", "heads"))
        self._done: dict[int, Asked | AttnkitError] = {}

    def run(self, item: Item, outputs: Outputs) -> Mapping[str, Any]:
        if item.index not in self._done:
            self._answer(item.group or (item,), outputs)
        found = self._done.pop(item.index)
        if isinstance(found, AttnkitError):
            raise found
        if outputs.wants("overlay"):
            outputs.write("overlay", self._overlay(found, outputs))
        return self._record(item, found, outputs)

    def _answer(self, items: Sequence[Item], outputs: Outputs) -> None:
        asked: dict[int, Asked] = {}
        for item in items:
            try:
                asked[item.index] = self._read(item.payload)
            except AttnkitError as error:
                self._done[item.index] = error
        seed = self.command.seed + items[0].index
        try:
            self._ask(list(asked.values()), seed, outputs)
        except AttnkitError as problem:
            if len(asked) == 1:
                self._done.update(dict.fromkeys(asked, problem))
                return
            # one question may be at fault, or all together too large
            for index, one in asked.items():
                one.answers.clear()
                try:
                    self._ask([one], seed, outputs)
                except AttnkitError as error:
                    self._done[index] = error
        self._done.update({index: one for index, one in asked.items() if index not in self._done})

    def _read(self, job: Job) -> Asked:
        pictures, notices = [], []
        for source, name in zip(job.sources, job.images, strict=True):
            picture, told = read_rgb(source, name)
            pictures.append(picture)
            notices += [f"{name}: {notice}" if len(job.images) > 1 else notice for notice in told]
        command = self.command
        return Asked(job, Request(tuple(pictures), job.question, command.system, command.max_pixels), notices)

    def _ask(self, asked: Sequence[Asked], seed: int, outputs: Outputs) -> None:
        if not asked:
            return
        command, requests = self.command, [one.request for one in asked]
        decoding = Decoding(command.max_tokens, command.temperature, command.top_p, command.beams, seed)
        if command.verify and not equals_plain(self.vlm, requests):
            raise ItemError("--verify: the model without calibration differs from transformers' own; please report it")
        for arm in command.arms:
            with ExitStack() as held:
                observers: list[Observer] = []
                if outputs.wants("overlay"):
                    asked[0].heats.append(Heat(self.layers, self.heads, self.profile))
                    observers.append(asked[0].heats[-1])
                rows = self._stream(outputs, held)
                observers += [] if rows is None else [rows]
                held.enter_context(hushed())
                answers = ask(
                    self.vlm,
                    requests,
                    arm=arm,
                    settings=dict(command.own_settings),
                    decoding=decoding,
                    profile=self.profile,
                    observers=observers,
                )
                if rows is not None:
                    target, tokenizer = outputs.path("map"), self.vlm.processor.tokenizer
                    write_map(target, rows, answers[0], tokenizer, outputs.settings)
            for one, answer in zip(asked, answers, strict=True):
                one.answers.append(answer)

    def _stream(self, outputs: Outputs, held: ExitStack) -> RowStream | None:
        if not outputs.wants("map"):
            return None
        held.enter_context(_errors_of(outputs.place("map")))
        # where the map goes there is room for it, if anywhere
        folder = outputs.path("map").parent
        stream: IO[bytes] = held.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
        return RowStream(self.layers, self.heads, stream)

    def _overlay(self, asked: Asked, outputs: Outputs) -> bytes:
        from .overlays import Panel, draw_overlay

        panels = [
            Panel(
                f"{answer.calibration}: {' '.join(answer.text.split())[:90]}",
                heat.pictures,
                heat.views,
                heat.mean(len(answer.tokens)).numpy(),
                _visual_sinks(answer) or heat.sinks(),
            )
            for answer, heat in zip(asked.answers, asked.heats, strict=True)
        ]
        return draw_overlay(panels, outputs.settings)

    def _too_long(self, answer: Answer) -> list[str]:
        places = getattr(self.vlm.text_config, "max_position_embeddings", None)
        used = answer.prompt_tokens + len(answer.tokens)
        if places is None or used <= places:
            return []
        return [f"{used} tokens of prompt and answer, the model was made for {places}; its answer may mean nothing"]

    def _record(self, item: Item, asked: Asked, outputs: Outputs) -> dict[str, Any]:
        command = self.command
        shared = about_job(asked.job)
        first = (item.group or (item,))[0].index
        common: dict[str, Any] = {
            "model": command.model_name,
            "seed": command.seed + first,
            "verified": True if command.verify else None,
        }
        marker = self.vlm.processor.marker
        answers = [about_answer(answer, marker, command.probs) for answer in asked.answers]
        told = [[*asked.notices, *self._too_long(answer), *warnings_of(answer)] for answer in asked.answers]
        for answer, warnings in zip(answers, told, strict=True):
            outputs.row(**shared, **answer, **common, warnings=warnings)
        if asked.heats and self.profile is None and not any(map(_visual_sinks, asked.answers)):
            asked.notices.append("overlay without sinks: no sink profile is known for this model")
        record = {
            **shared,
            **(answers[0] if len(answers) == 1 and not command.compare else {"answers": answers}),
            **common,
            "model_sha256": command.model_identity(),
            "device": self.vlm.device,
            "dtype": self.vlm.dtype,
            "answer_seconds": round(sum(answer.seconds for answer in asked.answers), 4),
        }
        warnings = list(dict.fromkeys([*asked.notices, *(one for each in told for one in each)]))
        return {**record, "warnings": warnings} if warnings else record


@contextmanager
def _errors_of(path: Path | None) -> Iterator[None]:
    """Rows of attention are written while the answer is made: an error of the disk names their file."""
    try:
        yield
    except OSError as error:
        raise write_error(error, path or Path()) from error


def _visual_sinks(answer: Answer) -> list[int]:
    """Image tokens that a calibration took for sinks in some layer."""
    reports = [report["visual_sinks"] for report in answer.reports.values() if "visual_sinks" in report]
    return sorted({sink for report in reports for sinks in report.values() for sink in sinks})


def _open(command: VlmAskFiles, context: Context) -> VisionLanguageModel:
    from attnkit.models import registry
    from attnkit.models.identity import kept_model

    if command.adapter is None:
        return kept_model(command.model, "vlm-ask", context.device, context.offline, command.dtype)
    from attnkit.models.adapters.files import load_adapter

    # a model of its own: one that is kept must stay as it is
    vlm = registry.open_model(
        command.model, task="vlm-ask", device=context.device, offline=context.offline, dtype=command.dtype
    )
    load_adapter(command.adapter, vlm.model)
    return vlm


def _profile(command: VlmAskFiles, vlm: VisionLanguageModel) -> SinkProfile | None:
    """The sinks of the model: those of --profile, of its folder, or published ones; None where none are known."""
    if command.profile is not None:
        profile = read_profile(command.profile)
        if profile.hidden_size != vlm.hidden_size:
            raise UsageError(
                f"--profile {command.profile}: made for {profile.model} with {profile.hidden_size} hidden dimensions, "
                f"the model has {vlm.hidden_size}"
            )
        return profile
    return known_profile(vlm)
