"""The plan of a run: what will be done with each item, decided before any work and shown by --dry-run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import AttnkitError, ItemError, UsageError
from attnkit.runtime.items import Estimate, Item
from attnkit.runtime.naming import MAIN, Layout, lay_out
from attnkit.runtime.outputs import partial_path
from attnkit.runtime.records import plain
from attnkit.runtime.tables import AnswerTable
from attnkit.runtime.work import Job, stored_settings

if TYPE_CHECKING:
    from attnkit.runtime.command import FileCommand
    from attnkit.runtime.options import BatchOptions

# what an item's line of the plan says
WRITE, OVERWRITE, UPDATE, COMPLETE, SKIP, REFUSE = "write", "overwrite", "update", "complete", "skip", "refuse"


@dataclass
class Step:
    """One item of the plan. `keep` are outputs that exist and stay as they are."""

    item: Item
    paths: dict[str, Path | None]
    further: tuple[Path, ...] = ()
    action: str = WRITE
    keep: frozenset[str] = frozenset()
    existing: tuple[Path, ...] = ()
    fingerprint: str | None = None

    @property
    def job(self) -> Job:
        return Job(self.item, self.paths, self.keep, self.fingerprint)

    @property
    def todo(self) -> bool:
        return self.action not in (SKIP, REFUSE)


@dataclass
class Plan:
    """All items with their places and actions."""

    steps: list[Step]
    layout: Layout
    device: str
    fresh_table: bool = False
    new_table: bool = False
    redone: tuple[str, ...] = ()
    refused: list[Path] = field(default_factory=list)

    def refusal(self) -> UsageError | None:
        """The one line about outputs that exist, or None."""
        if not self.refused:
            return None
        more = f" (and {len(self.refused) - 1} more)" if len(self.refused) > 1 else ""
        return UsageError(
            f"{self.refused[0]}{more}: exists, nothing done; --overwrite replaces, --skip-existing leaves out, "
            "--update redoes what has changed"
        )

    def folders(self) -> list[Path]:
        """Every folder that a file of this plan goes to."""
        return list(dict.fromkeys([*self.layout.roots, *(path.parent for path in self.layout.files())]))


def make_plan(
    command: FileCommand, items: Sequence[Item], batch: BatchOptions, table: AnswerTable | None = None
) -> Plan:
    """Name the outputs, check every item, and decide what to do about outputs that exist.

    Raises UsageError for anything that is wrong with names or options; outputs that exist and may not be touched are
    in `Plan.refused`, so that a dry run can show them.
    """
    device = command.resolve_device(batch.device)
    layout = lay_out(command, items, batch)
    for item in items:
        command.check(item)
    steps = [Step(item, laid.paths, laid.further) for item, laid in zip(items, layout.items, strict=True)]
    plan = Plan(steps, layout, device)
    if command.layout == "table":
        _decide_table(command, plan, batch, table or AnswerTable(layout.table, layout.format))
    _decide_files(command, plan, batch)
    if command.coupled and batch.update and any(step.todo for step in steps):
        for step in steps:
            if step.action == SKIP:
                step.action, step.keep = UPDATE, frozenset()
    plan.refused += [path for step in steps if step.action == REFUSE for path in step.existing]
    return plan


def _decide_files(command: FileCommand, plan: Plan, batch: BatchOptions) -> None:
    for step in plan.steps:
        present = {name: path for name, path in step.paths.items() if path is not None and os.path.lexists(path)}
        step.existing = tuple(present.values())
        if step.action == SKIP and len(present) < len(step.paths):
            # answered in the table, but a side output is missing
            step.action = WRITE
        if not (present or batch.overwrite or batch.skip_existing or batch.update):
            # data of another header, or of a run that was killed between its two renames
            step.existing = tuple(path for path in step.further if os.path.lexists(path))
            step.action = REFUSE if step.existing else step.action
            continue
        if not present or step.action == SKIP:
            continue
        if batch.overwrite:
            step.action = OVERWRITE
        elif batch.skip_existing:
            complete = len(present) == len(step.paths)
            step.action = SKIP if complete else COMPLETE
            step.keep = frozenset(present)
        elif batch.update:
            fresh = len(present) == len(step.paths) and _is_current(command, step)
            step.action = SKIP if fresh else UPDATE
        else:
            step.action = REFUSE


def _is_current(command: FileCommand, step: Step) -> bool:
    main = step.paths.get(MAIN)
    stored = None if main is None else command.read_settings(main)
    return stored is not None and _same(command, step, stored)


def _same(command: FileCommand, step: Step, stored: Any) -> bool:
    try:
        step.fingerprint = step.item.fingerprint()
    except OSError:
        # the item will say why when its turn comes
        return False
    wanted = plain(stored_settings(command, step.fingerprint))
    # a newer version of attnkit alone is no reason to redo a folder
    return isinstance(stored, dict) and all(
        stored.get(key) == wanted[key] for key in ("command", "options", "input_sha256")
    )


def _decide_table(command: FileCommand, plan: Plan, batch: BatchOptions, table: AnswerTable) -> None:
    names = [step.item.name for step in plan.steps]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{twice}: two items have this id, and answers are told apart by it; give each its own")
    path = plan.layout.table
    plan.fresh_table = True
    if path is None or not path.exists():
        plan.new_table = True
        return
    if batch.overwrite:
        for step in plan.steps:
            step.action = OVERWRITE
        return
    if not (batch.skip_existing or batch.update or batch.resume):
        plan.refused.append(path)
        for step in plan.steps:
            step.action = REFUSE
        return
    plan.fresh_table = False
    done = table.read()
    stale = []
    for step in plan.steps:
        name = step.item.name
        if name not in done:
            continue
        if batch.update and not _same(command, step, done[name]):
            step.action = UPDATE
            stale.append(name)
        else:
            step.action = SKIP
    plan.redone = tuple(stale)


def free_bytes(folders: Iterable[Path]) -> int | None:
    """Free space of the fullest disk among `folders`, or of their nearest parents that exist."""
    found = []
    for folder in folders:
        try:
            found.append(shutil.disk_usage(_present(folder)).free)
        except OSError:
            continue
    return min(found) if found else None


def shortage(command: FileCommand, plan: Plan) -> UsageError | None:
    """The one line about a disk on which the outputs that are to be written do not fit, or None.

    Outputs are written one after another, each beside the one that it replaces.
    """
    if not command.checks_space:
        return None
    grown: dict[int, int] = {}
    most: dict[int, tuple[int, Path]] = {}
    for step, estimate in zip(plan.steps, estimates(command, plan), strict=True):
        main = step.paths.get(MAIN)
        if main is None or not step.todo or MAIN in step.keep or isinstance(estimate, AttnkitError):
            continue
        folder = _present(main.parent)
        device = folder.stat().st_dev
        before = grown.get(device, 0)
        files = (main, *step.further)
        # what a killed run has built is gone on with or begun anew, in its place
        wanted = before + (estimate.output_bytes or 0) - sum(_allocated(partial_path(path)) for path in files)
        most[device] = max(most.get(device, (0, folder)), (wanted, folder))
        grown[device] = wanted - sum(_allocated(path) for path in files)
    for wanted, folder in most.values():
        free = shutil.disk_usage(folder).free
        if wanted > free:
            return UsageError(
                f"{folder}: {free} bytes free, the results need {wanted}; make room or name another place with --out"
            )
    return None


def _present(folder: Path) -> Path:
    found = folder.absolute()
    while not found.exists() and found != found.parent:
        found = found.parent
    return found


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def estimates(command: FileCommand, plan: Plan) -> list[Estimate | AttnkitError]:
    """What each item will take; the error in place of an item whose header already tells that it cannot be done."""
    found: list[Estimate | AttnkitError] = []
    for step in plan.steps:
        if step.item.problem is not None:
            found.append(ItemError(step.item.problem))
            continue
        try:
            found.append(command.estimate(step.item, plan.layout.format))
        except AttnkitError as error:
            found.append(error)
    return found
