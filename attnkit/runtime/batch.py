"""The batch runner: one contract for every command that works on files (see run_files)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime import errors, render
from attnkit.runtime.errors import AttnkitError, UsageError
from attnkit.runtime.items import STANDARD_STREAM, Context, Item, Outcome
from attnkit.runtime.lanes import may_overlap, run_in_lanes
from attnkit.runtime.lock import FolderLock, FolderLocked, held
from attnkit.runtime.naming import TEXT, lay_out
from attnkit.runtime.outputs import sweep
from attnkit.runtime.plan import SKIP, Plan, Step, make_plan, shortage
from attnkit.runtime.progress import Talk
from attnkit.runtime.records import RecordFile, document, json_line, utc_now
from attnkit.runtime.signals import Interrupted, check, shielded, stoppable
from attnkit.runtime.tables import AnswerTable
from attnkit.runtime.work import Job, Setup, forget, hush_libraries, run_job, share_threads

if TYPE_CHECKING:
    from attnkit.runtime.command import FileCommand
    from attnkit.runtime.options import BatchOptions

# notices of items that are shown unasked: one of the same kind for thousands of items buries the others
MOST_WARNINGS = 20


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
        self.token = secrets.token_hex(4)
        self.talk = Talk(command.name, quiet=batch.quiet, verbose=batch.verbose, log_file=batch.log_file)
        self.records = RecordFile(batch.record)
        self.started = utc_now()
        self.outcomes: dict[int, Outcome] = {}
        self.plan: Plan | None = None
        self.table: AnswerTable | None = None
        self.lost_record: str | None = None
        self.warnings = 0

    @property
    def options(self) -> dict[str, Any]:
        """Every option as it was understood: the command's own, and the shared ones that differ from silence."""
        from dataclasses import asdict

        shared = {name: value for name, value in asdict(self.batch).items() if name != "command_options"}
        own = {name.replace("-", "_"): value for name, value in self.batch.command_options.items()}
        return {**shared, **own}

    def run(self, inputs: Sequence[str]) -> int:
        with stoppable():
            try:
                return self._run(inputs)
            except Interrupted as stop:
                self._interrupted(stop)
                return errors.EXIT_INTERRUPTED
            except render.PipeClosed:
                render.abandon_standard_output()
                return self.exit_code() or (errors.EXIT_FAILED if self._unfinished() else errors.EXIT_DONE)
            except UsageError:
                raise
            except AttnkitError as error:
                if isinstance(error, FolderLocked) and not self.batch.dry_run:
                    self._note(record="run", status="locked", error=str(error), **self._about_run())
                self._finish_documents(str(error))
                raise
            finally:
                forget(self.token)

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
            render.show_dry_run(self.command, plan, self.batch, self.options)
        refusal = plan.refusal()
        if refusal is not None:
            raise refusal
        refusal = shortage(self.command, plan)
        if refusal is not None:
            raise refusal
        if self.batch.dry_run:
            return errors.EXIT_DONE
        self.records.check()
        self.talk.check()
        with ExitStack() as held:
            made = self._make_roots(plan)
            held.callback(_remove_empty, made)
            if self._lock(plan, held) or self._changed(plan):
                # whoever had the folder before may have written some of it
                plan = self._plan(items)
                refusal = plan.refusal()
                if refusal is not None:
                    raise refusal
            swept = sweep(self._deserted(plan))
            if swept:
                self.talk.detail(f"removed {swept} temporary files of a run that was killed")
            try:
                self._work(plan)
            finally:
                sweep(plan.folders(), self.token)
        self._finish(plan)
        return self.exit_code()

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
        self.plan = make_plan(self.command, items, self.batch, self.table)
        return self.plan

    def _say(self, several: bool, name: str, row: Mapping[str, Any]) -> str | None:
        """The line of an answer on standard output; among several it begins with its item and stays one line."""
        said = None if self.batch.json or self.batch.jsonl else self.command.say(row)
        return said if said is None or not several else f"{name}\t{' '.join(said.splitlines())}"

    def _make_roots(self, plan: Plan) -> list[Path]:
        made: list[Path] = []
        for root in plan.layout.roots:
            missing = [folder for folder in (root, *root.parents) if not folder.exists()]
            try:
                root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                _remove_empty(made)
                raise UsageError(f"{root}: cannot make this folder ({error.strerror}); name another --out") from error
            made += missing
        return made

    def _lock(self, plan: Plan, held: ExitStack) -> bool:
        waited = False
        # one order for all runs, so that two of them never wait for each other
        for root in sorted({Path(os.path.realpath(root)) for root in plan.layout.roots}):
            lock = FolderLock(root)
            waited = lock.acquire(self.batch.wait) or waited
            held.callback(lock.release)
        return waited

    def _deserted(self, plan: Plan) -> list[Path]:
        """Folders of the plan in which no other run can be writing: one that holds a folder above or below has not
        the lock that this run has."""
        ours = {Path(os.path.realpath(root)) for root in plan.layout.roots}
        return [
            folder
            for folder in plan.folders()
            if not any(held(above) for above in _upwards(Path(os.path.realpath(folder))) if above not in ours)
        ]

    def _changed(self, plan: Plan) -> bool:
        """Whether outputs came up between the plan and the lock."""
        table = plan.layout.table if plan.new_table else None
        absent = [*([table] if table else []), *(path for step in plan.steps for path in _absent(step))]
        return any(os.path.lexists(path) for path in absent)

    def _setup(self, plan: Plan, processes: int) -> Setup:
        in_pool = self.batch.engine == "local" and processes > 1
        context = Context(
            device=plan.device,
            seed=self.batch.seed,
            threads=share_threads(processes),
            token=self.token,
            debug=self.batch.debug,
            offline=self.batch.offline,
            parent=os.getpid() if in_pool else 0,
        )
        return Setup(self.command, context, plan.layout.format)

    def _work(self, plan: Plan) -> None:
        for step in plan.steps:
            if not step.todo:
                self._account(step, Outcome(step.item.index, "skipped", {"item": step.item.name, "status": "skipped"}))
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
        self.talk.start(len(todo))
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
            self.talk.stop()
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
                yield run_job(setup, job, self.talk.inside)

    def _book(self, step: Step, outcome: Outcome) -> None:
        self._answer(step, outcome)
        self._account(step, outcome)
        self.talk.advance()

    def _account(self, step: Step, outcome: Outcome) -> None:
        """Book one item: record, messages, a line of --jsonl."""
        assert self.plan is not None
        self.outcomes[outcome.index] = outcome
        record = outcome.record
        record["input"] = None if step.item.path is None else str(step.item.path)
        record["outputs"] = {name: str(path) for name, path in step.paths.items() if path is not None}
        if self.plan.layout.table is not None:
            record["outputs"]["main"] = str(self.plan.layout.table)
        if step.action == SKIP:
            self.talk.detail(f"{step.item.name}: left out, {', '.join(record['outputs'].values())} is there")
        elif outcome.error is not None:
            # a model that cannot be loaded is no fault of the item that came first
            named = outcome.fatal or step.item.name in outcome.error
            what = outcome.error if named else f"{step.item.name}: {outcome.error}"
            self.talk.error(what)
            if self.batch.debug and outcome.traceback:
                self.talk.traceback(outcome.traceback)
        else:
            self._talk_of_success(step, outcome)
        self._note(**{"record": "item", **self._about_run(), **record})
        if self.batch.jsonl:
            render.put(json_line(record))

    def _talk_of_success(self, step: Step, outcome: Outcome) -> None:
        places = ", ".join(outcome.record["outputs"].values()) or "standard output"
        line = f"{step.item.name} -> {places} ({outcome.seconds:.2f} s)"
        for warning in outcome.record.get("warnings", ()):
            self.warnings += 1
            say = self.talk.info if self.warnings <= MOST_WARNINGS else self.talk.detail
            say(f"{step.item.name}: {warning}")
        assert self.plan is not None
        if len(self.plan.steps) == 1 and not self.plan.layout.to_standard_output:
            self.talk.info(line)
        else:
            self.talk.detail(line)

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

    def _note(self, **fields: Any) -> None:
        try:
            self.records.add(**fields)
        except AttnkitError as error:
            # said once; the pictures are worth more than their book-keeping
            if self.lost_record is None:
                self.lost_record = str(error)
                self.talk.error(str(error))

    def _about_run(self) -> dict[str, Any]:
        from attnkit import __version__

        return {
            "run": self.token,
            "time": utc_now(),
            "command": self.command.name,
            "version": __version__,
            "method": self.command.method or None,
            "device": None if self.plan is None else self.plan.device,
            "seed": self.batch.seed,
        }

    def summary(self) -> dict[str, Any]:
        """Counts of the run; `not_run` items were never begun."""
        counts = {"ok": 0, "skipped": 0, "failed": 0}
        for outcome in self.outcomes.values():
            counts[outcome.status] += 1
        total = 0 if self.plan is None else len(self.plan.steps)
        seconds = sum(outcome.seconds for outcome in self.outcomes.values())
        return {"items": total, **counts, "not_run": total - len(self.outcomes), "seconds": round(seconds, 3)}

    def exit_code(self) -> int:
        counts = self.summary()
        if not counts["failed"]:
            return errors.EXIT_DONE
        return errors.EXIT_SOME_FAILED if counts["ok"] else errors.EXIT_FAILED

    def _unfinished(self) -> bool:
        return bool(self.summary()["not_run"])

    def _finish(self, plan: Plan) -> None:
        counts = self.summary()
        self._note(
            record="run",
            status="ok" if not self.exit_code() else "failed",
            exit_code=self.exit_code(),
            started=self.started,
            summary=counts,
            options=self.options,
            **self._about_run(),
        )
        columns = self.command.columns()
        answered = [self.outcomes[index].record for index in sorted(self.outcomes)]
        rows = [{"item": one["item"], **row} for one in answered for row in self.command.table_rows(one)]
        scored = [row for row in rows if any(row.get(column.key) is not None for column in columns)]
        taken = plan.layout.to_standard_output and plan.layout.format != TEXT
        if scored and not (self.batch.json or self.batch.jsonl or self.batch.quiet or taken):
            render.show_table(columns, scored)
        if self.warnings > MOST_WARNINGS and not self.batch.verbose:
            self.talk.info(f"{self.warnings - MOST_WARNINGS} more notices; --verbose shows them, the record has them")
        if len(plan.steps) > 1 or counts["skipped"]:
            parts = [f"{counts['ok']} done", f"{counts['skipped']} left out", f"{counts['failed']} failed"]
            if counts["not_run"]:
                parts.append(f"{counts['not_run']} not begun")
            self.talk.info(", ".join(parts))
        self._finish_documents(None)

    def _finish_documents(self, error: str | None) -> None:
        if not self.batch.json:
            return
        summary: dict[str, Any] = self.summary()
        if error is not None:
            summary["error"] = error
        items = [self.outcomes[index].record for index in sorted(self.outcomes)]
        with suppress(render.PipeClosed):
            render.put(document(self.command.name, self.options, summary, items=items))
            return
        render.abandon_standard_output()

    def _interrupted(self, stop: Interrupted) -> None:
        if self.plan is None or self.batch.dry_run:
            self.talk.error(f"stopped by {stop.signal_name} before any work")
            return
        counts = self.summary()
        self._note(
            record="run",
            status="interrupted",
            signal=stop.signal_name,
            exit_code=errors.EXIT_INTERRUPTED,
            started=self.started,
            summary=counts,
            **self._about_run(),
        )
        inside = " (and --resume, inside the one at hand)" if self.command.resumes_items else ""
        self.talk.error(
            f"stopped by {stop.signal_name} after {counts['ok'] + counts['failed'] + counts['skipped']} of "
            f"{counts['items']} items; every file written is whole, run again with --skip-existing{inside} to go on"
        )


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


def _absent(step: Step) -> list[Path]:
    known: Mapping[Path, None] = dict.fromkeys(step.existing)
    return [path for path in step.paths.values() if path is not None and path not in known]


def _upwards(folder: Path) -> list[Path]:
    return [folder, *folder.parents]


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        with suppress(OSError):
            folder.rmdir()
