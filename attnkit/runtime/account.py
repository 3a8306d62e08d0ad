"""What a run tells: messages, a line of the record per item, the table, the document of --json, the exit code."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from attnkit.runtime import errors, render
from attnkit.runtime.errors import AttnkitError
from attnkit.runtime.items import Outcome
from attnkit.runtime.naming import TEXT
from attnkit.runtime.plan import SKIP, Plan, Step
from attnkit.runtime.progress import Talk
from attnkit.runtime.records import RecordFile, document, json_line, utc_now
from attnkit.runtime.signals import Interrupted

if TYPE_CHECKING:
    from attnkit.runtime.command import FileCommand
    from attnkit.runtime.options import BatchOptions

# notices of items that are shown unasked: one of the same kind for thousands of items buries the others
MOST_WARNINGS = 20


class Account:
    """The account of one run of one command; `plan` is None until it has one."""

    def __init__(self, command: FileCommand, batch: BatchOptions) -> None:
        self.command = command
        self.batch = batch
        self.token = secrets.token_hex(4)
        self.talk = Talk(command.name, quiet=batch.quiet, verbose=batch.verbose, log_file=batch.log_file)
        self.records = RecordFile(batch.record)
        self.started = utc_now()
        self.outcomes: dict[int, Outcome] = {}
        self.plan: Plan | None = None
        self.lost_record: str | None = None
        self.warnings = 0

    @property
    def options(self) -> dict[str, Any]:
        """Every option as it was understood: the command's own, and the shared ones that differ from silence."""
        from dataclasses import asdict

        shared = {name: value for name, value in asdict(self.batch).items() if name != "command_options"}
        own = {name.replace("-", "_"): value for name, value in self.batch.command_options.items()}
        return {**shared, **own}

    def add(self, step: Step, outcome: Outcome) -> None:
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
        self.note("item", **record)
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

    def note(self, kind: str, /, **fields: Any) -> None:
        """Add a line to the record, of kind item or run."""
        try:
            self.records.add(**{"record": kind, **self._about_run(), **fields})
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
        """What the items that were run say, see `run_files`."""
        counts = self.summary()
        if not counts["failed"]:
            return errors.EXIT_DONE
        return errors.EXIT_SOME_FAILED if counts["ok"] else errors.EXIT_FAILED

    def unfinished(self) -> bool:
        """Whether items were never begun."""
        return bool(self.summary()["not_run"])

    def finish(self, plan: Plan) -> None:
        """Close the record of a run that came to its end, and say what was done."""
        counts = self.summary()
        self.note(
            "run",
            status="ok" if not self.exit_code() else "failed",
            exit_code=self.exit_code(),
            started=self.started,
            summary=counts,
            options=self.options,
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
        self.finish_documents(None)

    def finish_documents(self, error: str | None) -> None:
        """Print the document of --json, with an error where the run has one."""
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

    def interrupted(self, stop: Interrupted) -> None:
        """Close the record of a run that a signal stopped, and say how to go on."""
        if self.plan is None or self.batch.dry_run:
            self.talk.error(f"stopped by {stop.signal_name} before any work")
            return
        counts = self.summary()
        self.note(
            "run",
            status="interrupted",
            signal=stop.signal_name,
            exit_code=errors.EXIT_INTERRUPTED,
            started=self.started,
            summary=counts,
        )
        inside = " (and --resume, inside the one at hand)" if self.command.resumes_items else ""
        self.talk.error(
            f"stopped by {stop.signal_name} after {counts['ok'] + counts['failed'] + counts['skipped']} of "
            f"{counts['items']} items; every file written is whole, run again with --skip-existing{inside} to go on"
        )
