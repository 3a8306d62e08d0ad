"""What a run takes hold of before it writes: its output folders, each locked, none changed since the plan."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attnkit.runtime.errors import UsageError
from attnkit.runtime.lock import FolderLock, held

if TYPE_CHECKING:
    from attnkit.runtime.plan import Plan, Step


def make_roots(plan: Plan) -> list[Path]:
    """Make the folders that a plan writes below; returns those that were missing, for `remove_empty`."""
    made: list[Path] = []
    for root in plan.layout.roots:
        missing = [folder for folder in (root, *root.parents) if not folder.exists()]
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remove_empty(made)
            raise UsageError(f"{root}: cannot make this folder ({error.strerror}); name another --out") from error
        made += missing
    return made


def lock_roots(plan: Plan, wait: float, locks: ExitStack) -> bool:
    """Lock the folders of a plan until `locks` is left; returns whether another run had one."""
    waited = False
    # one order for all runs, so that two of them never wait for each other
    for root in sorted({Path(os.path.realpath(root)) for root in plan.layout.roots}):
        lock = FolderLock(root)
        waited = lock.acquire(wait) or waited
        locks.callback(lock.release)
    return waited


def deserted(plan: Plan) -> list[Path]:
    """Folders of the plan in which no other run can be writing: one that holds a folder above or below has not
    the lock that this run has."""
    ours = {Path(os.path.realpath(root)) for root in plan.layout.roots}
    return [
        folder
        for folder in plan.folders()
        if not any(held(above) for above in _upwards(Path(os.path.realpath(folder))) if above not in ours)
    ]


def came_up(plan: Plan) -> bool:
    """Whether outputs came up between the plan and the lock."""
    table = plan.layout.table if plan.new_table else None
    absent = [*([table] if table else []), *(path for step in plan.steps for path in _absent(step))]
    return any(os.path.lexists(path) for path in absent)


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of some folders that hold nothing."""
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        with suppress(OSError):
            folder.rmdir()


def _absent(step: Step) -> list[Path]:
    known: Mapping[Path, None] = dict.fromkeys(step.existing)
    return [path for path in step.paths.values() if path is not None and path not in known]


def _upwards(folder: Path) -> list[Path]:
    return [folder, *folder.parents]
