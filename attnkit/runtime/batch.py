"""The batch runner: one contract for every command that works on files (see run_files)."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from attnkit.runtime import errors, render
from attnkit.runtime.account import Account
from attnkit.runtime.claim import came_up, deserted, lock_roots, make_roots, remove_empty
from attnkit.runtime.errors import AttnkitError, UsageError
from attnkit.runtime.items import STANDARD_STREAM, Context, Item, Outcome
from attnkit.runtime.lanes import may_overlap, run_in_lanes
from attnkit.runtime.lock import FolderLocked
from attnkit.runtime.naming import TEXT, lay_out
from attnkit.runtime.outputs import sweep
from attnkit.runtime.plan import Plan, Step, make_plan, shortage
from attnkit.runtime.signals import Interrupted, check, shielded, stoppable
from attnkit.runtime.tables import AnswerTable
from attnkit.runtime.work import Job, Setup, forget, hush_libraries, run_job, share_threads

if TYPE_CHECKING:
    from attnkit.runtime.command import FileCommand
    from attnkit.runtime.options import BatchOptions


def run_files(command: FileCommand, inputs: Sequence[str], batch: BatchOptions) -> int:
    """Run `command` over `inputs` as the batch options say; returns the exit code of the process.

    0: all items done or left out; 1: no input matched, every attempted item failed, or the folder is locked;
    3: some items failed; 130: stopped by a signal. Raises UsageError (exit 2) before any work where the plan is
    wrong: nothing has been written then.
    """
    return Run(command, batch).run(inputs)


class Run:
    """One run of one command. Its parts happen in the order of the methods."""

    def __init__(self, command: FileCommand, batch: BatchOptions) -> None:
        self.command = command
        self.batch = batch
        self.account = Account(command, batch)
        self.table: AnswerTable | None = None

    def run(self, inputs: Sequence[str]) -> int:
        with stoppable():
            try:
                return self._run(inputs)
            except Interrupted as stop:
                self.account.interrupted(stop)
                return errors.EXIT_INTERRUPTED
            except render.PipeClosed:
                render.abandon_standard_output()
                unfinished = errors.EXIT_FAILED if self.account.unfinished() else errors.EXIT_DONE
                return self.account.exit_code() or unfinished
            except UsageError:
                raise
            except AttnkitError as error:
                if isinstance(error, FolderLocked) and not self.batch.dry_run:
                    self.account.note("run", status="locked", error=str(error))
                self.account.finish_documents(str(error))
                raise
            finally:
                forget(self.account.token)

    def _run(self, inputs: Sequence[str]) -> int:
        hush_libraries()
        self._check_options()
        self.command.validate()
        items = [replace(item, index=index) for index, item in enumerate(self.command.items(inputs, self.batch))]
        if not items:
            kinds = ", ".join(sorted(self.command.folder_kinds))
            takes = f"; folders give files of kind {kinds}, others must be named" if kinds else ""
            raise AttnkitError(f"no input matched: got {' '.join(inputs)}{takes}")
        plan = self._plan(items)
        if self.batch.dry_run:
            render.show_dry_run(self.command, plan, self.batch, self.account.options)
        refusal = plan.refusal()
        if refusal is not None:
            raise refusal
        refusal = shortage(self.command, plan)
        if refusal is not None:
            raise refusal
        if self.batch.dry_run:
            return errors.EXIT_DONE
        self.account.records.check()
        self.account.talk.check()
        with ExitStack() as locks:
            made = make_roots(plan)
            locks.callback(remove_empty, made)
            if lock_roots(plan, self.batch.wait, locks) or came_up(plan):
                # whoever had the folder before may have written some of it
                plan = self._plan(items)
                refusal = plan.refusal()
                if refusal is not None:
                    raise refusal
            swept = sweep(deserted(plan))
            if swept:
                self.account.talk.detail(f"removed {swept} temporary files of a run that was killed")
            try:
                self._work(plan)
            finally:
                sweep(plan.folders(), self.account.token)
        self.account.finish(plan)
        return self.account.exit_code()

    def _check_options(self) -> None:
        batch = self.batch
        chosen = [name for name in ("overwrite", "skip_existing", "update") if getattr(batch, name)]
        if len(chosen) > 1:
            flags = " and ".join("--" + name.replace("_", "-") for name in chosen)
            raise UsageError(f"{flags} exclude each other; give one of them")
        if batch.out == STANDARD_STREAM and (batch.json or batch.jsonl):
            raise UsageError("--out -: the answer takes standard output, and so does --json; name a file with --out")

    def _plan(self, items: Sequence[Item]) -> Plan:
        if self.command.layout == "table":
            layout = lay_out(self.command, items, self.batch)
            say = partial(self._say, len(items) > 1) if layout.format == TEXT else None
            self.table = AnswerTable(layout.table, layout.format, _Stream(), say)
        self.account.plan = make_plan(self.command, items, self.batch, self.table)
        return self.account.plan

    def _say(self, several: bool, name: str, row: Mapping[str, Any]) -> str | None:
        """The line of an answer on standard output; among several it begins with its item and stays one line."""
        said = None if self.batch.json or self.batch.jsonl else self.command.say(row)
        return said if said is None or not several else f"{name}\t{' '.join(said.splitlines())}"

    def _setup(self, plan: Plan, processes: int) -> Setup:
        in_pool = self.batch.engine == "local" and processes > 1
        context = Context(
            device=plan.device,
            seed=self.batch.seed,
            threads=share_threads(processes),
            token=self.account.token,
            debug=self.batch.debug,
            offline=self.batch.offline,
            parent=os.getpid() if in_pool else 0,
        )
        return Setup(self.command, context, plan.layout.format)

    def _work(self, plan: Plan) -> None:
        for step in plan.steps:
            if not step.todo:
                skipped = {"item": step.item.name, "status": "skipped"}
                self.account.add(step, Outcome(step.item.index, "skipped", skipped))
        todo = [step for step in plan.steps if step.todo]
        if not todo:
            return
        processes = max(1, min(self.batch.jobs, len(todo)))
        setup = self._setup(plan, processes)
        todo = _grouped(self._prepared(plan, todo), self.command.together)
        if self.table is not None:
            self.table.forget(plan.redone)
            self.table.start(plan.fresh_table)
        steps = {step.item.index: step for step in todo}
        held_back = _InOrder([step.item.index for step in todo])
        in_order = self.table is not None
        self.account.talk.start(len(todo))
        try:
            with closing(self._outcomes(setup, [step.job for step in todo], processes)) as outcomes:
                for outcome in outcomes:
                    with shielded():
                        # answers of several items in one stream keep the items' order
                        for ready in held_back.add(outcome) if in_order else (outcome,):
                            self._book(steps[ready.index], ready)
                    check()
                    if outcome.fatal or (outcome.status == "failed" and self.batch.fail_fast):
                        break
        finally:
            for ready in held_back.rest():
                self._book(steps[ready.index], ready)
            self.account.talk.stop()
            if self.table is not None:
                self.table.close()
        if self.table is not None:
            self.table.finish([step.item.name for step in plan.steps])

    def _prepared(self, plan: Plan, todo: list[Step]) -> list[Step]:
        payloads = self.command.prepare([step.item for step in plan.steps])
        if payloads is None:
            return todo
        by_index = {step.item.index: payload for step, payload in zip(plan.steps, payloads, strict=True)}
        return [replace(step, item=replace(step.item, payload=by_index[step.item.index])) for step in todo]

    def _outcomes(self, setup: Setup, jobs: Sequence[Job], processes: int) -> Generator[Outcome]:
        if self.batch.engine == "dask":
            from attnkit.runtime.cluster import run_on_cluster

            yield from run_on_cluster(setup, jobs, self.batch.scheduler, processes)
        elif processes > 1:
            from attnkit.runtime.pool import run_in_pool

            yield from run_in_pool(setup, jobs, processes)
        elif may_overlap(setup, jobs):
            with closing(run_in_lanes(setup, jobs, setup.context.threads)) as outcomes:
                yield from outcomes
        else:
            for job in jobs:
                yield run_job(setup, job, self.account.talk.inside)

    def _book(self, step: Step, outcome: Outcome) -> None:
        answers = self.batch.jsonl or self.table is not None or outcome.standard_output is not None
        with self.account.talk.aside() if answers else nullcontext():
            self._answer(step, outcome)
            self.account.add(step, outcome)
        self.account.talk.advance()

    def _answer(self, step: Step, outcome: Outcome) -> None:
        """Pass on what an item gives besides files."""
        if outcome.standard_output is not None:
            render.put_bytes(outcome.standard_output)
        if self.table is not None and outcome.status == "ok":
            try:
                self.table.add(step.item.name, outcome.rows, outcome.settings)
            except errors.ItemError as error:
                outcome.status = outcome.record["status"] = "failed"
                outcome.error = outcome.record["error"] = str(error)


class _InOrder:
    """Holds outcomes back until those of the items before them are in, so that two runs answer in one order."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = list(order)
        self._waiting: dict[int, Outcome] = {}

    def add(self, outcome: Outcome) -> Iterator[Outcome]:
        self._waiting[outcome.index] = outcome
        while self._order and self._order[0] in self._waiting:
            yield self._waiting.pop(self._order.pop(0))

    def rest(self) -> list[Outcome]:
        """Those that wait for an item that will not come: the run was stopped."""
        found = [self._waiting[index] for index in sorted(self._waiting)]
        self._waiting.clear()
        return found


class _Stream:
    """Standard output as the place of answers; a reader that has gone ends the run quietly."""

    def write(self, text: str) -> None:
        if text:
            render.put(text.removesuffix("\n"))


def _grouped(steps: Sequence[Step], size: int) -> list[Step]:
    """Steps whose items know those that can be done with them, at most `size` at a time."""
    able = [step.item for step in steps if step.item.problem is None]
    groups = [tuple(able[at : at + size]) for at in range(0, len(able), size)] if size > 1 else []
    of_index = {item.index: group for group in groups for item in group}
    return [replace(step, item=replace(step.item, group=of_index.get(step.item.index, ()))) for step in steps]
