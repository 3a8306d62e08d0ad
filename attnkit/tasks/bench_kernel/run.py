"""One benchmark from options to tables and files: every check first, then the measurement, then what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    UsageError,
)
from attnkit.runtime.values import one_of

from . import tables
from .baselines import BASELINES, baseline_named
from .operators import OPERATORS, Operator, operator_named
from .plan import Case, Wanted, cases_of
from .suites import SUITES, suite_named

if TYPE_CHECKING:
    from attnkit.runtime.options import BatchOptions
    from attnkit.runtime.progress import Talk

    from .measuring import Row

DEFAULT_SUITE = "quick"
PICTURE_BASELINES = ("reference",)


@dataclass(frozen=True)
class Bench:
    """What to measure and where the answers go. `values` are the single values of shape and setting flags, as text."""

    names: tuple[str, ...] = ()
    suite: str | None = None
    sweeps: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    baselines: tuple[str, ...] | None = None
    repeats: int | None = None
    memory: bool = True
    tables: tuple[Path, ...] = ()
    against: Path | None = None
    threshold: float = 5.0
    roofline: bool = False
    plot: Path | None = None


@dataclass
class Plan:
    """The cases, the maps that are known before the run, and cases that cannot be, with the reason.

    baselines stand beside attentions, picture_baselines beside operators on pictures.
    """

    cases: list[Case]
    baselines: tuple[str, ...]
    picture_baselines: tuple[str, ...]
    maps: dict[Case, Any]
    refused: dict[Case, str]

    @property
    def shown(self) -> list[str]:
        """The baselines that have columns."""
        pictures = [OPERATORS[case.operator].kind == "image" for case in self.cases]
        attentions = () if all(pictures) else self.baselines
        return list(dict.fromkeys((*attentions, *(self.picture_baselines if any(pictures) else ()))))


def run_bench(bench: Bench, batch: BatchOptions) -> int:
    """Measure, print, write; returns the exit code."""
    from attnkit.runtime.progress import Talk

    talk = Talk("bench-kernel", quiet=batch.quiet, verbose=batch.verbose, log_file=batch.log_file)
    talk.check()
    check_outputs(bench.tables, tables.SUFFIXES, "--out", batch)
    check_outputs([] if bench.plot is None else [bench.plot], (".png",), "--plot", batch)
    if not bench.names and bench.suite is None:
        talk.info(f"no operator named: the suite {DEFAULT_SUITE}; --list shows what there is")
    wanted, baselines = wanted_of(bench)
    cases = list(dict.fromkeys(case for part in wanted for case in cases_of(part)))
    from .against import check_same, compare, key_of, read_record, regressions
    from .environment import chosen_device, describe

    old = None if bench.against is None else read_record(bench.against)
    device = chosen_device(batch.device)
    environment = describe(device, batch.seed)
    if old is not None:
        assert bench.against is not None
        check_same(bench.against, old["environment"], environment)
        known = {key_of(row) for row in old["rows"]}
        if not any(key_of({**case.identity(), "role": "operator"}) in known for case in cases):
            raise UsageError(f"--against {bench.against}: has none of the {len(cases)} cases that are to be measured")
    pictures = PICTURE_BASELINES if bench.baselines is None else baselines
    plan = make_plan(cases, baselines, pictures, device)
    if batch.dry_run:
        _show_plan(plan, batch, environment)
        return EXIT_DONE
    rows, interrupted = _measured(plan, bench, batch, device, talk)
    compared = None if old is None else compare(old["rows"], rows, bench.threshold)
    result: dict[str, Any] = {"environment": environment, "baselines": plan.shown, "rows": rows}
    if compared is not None:
        result["against"] = compared
    if not interrupted:
        _write(bench, batch, plan, result)
    _print(bench, batch, plan, result)
    for entry in regressions(compared or ()):
        talk.error(f"{entry['operator']} at {entry['tokens']} tokens: {entry['verdict']}{_change(entry)}")
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if compared and regressions(compared) else exit_code(rows)


def wanted_of(bench: Bench) -> tuple[list[Wanted], tuple[str, ...]]:
    """What is asked for, as names or as a suite, and the baselines. UsageError for both at once."""
    if bench.names and bench.suite is not None:
        raise UsageError(f"--suite: got {bench.suite} and {' '.join(bench.names)}; give a suite or names")
    if bench.names:
        wanted = [Wanted(bench.names, bench.sweeps, bench.values, bench.settings)]
        baselines: tuple[str, ...] = ("sdpa",)
    else:
        suite = suite_named(bench.suite or DEFAULT_SUITE)
        if bench.sweeps or bench.settings:
            raise UsageError("--sweep and --set: got them with a suite, which has its own; name operators instead")
        wanted = [Wanted(part.names, part.sweeps, {**part.values, **bench.values}) for part in suite.parts]
        baselines = suite.baselines
    if bench.baselines is not None:
        baselines = bench.baselines
    for name in baselines:
        baseline_named(name)
    return wanted, tuple(dict.fromkeys(baselines))


def make_plan(cases: Sequence[Case], baselines: tuple[str, ...], pictures: tuple[str, ...], device: str) -> Plan:
    """Maps of static patterns, and which cases cannot be run. UsageError where none can."""
    from .kernels import check_case, static_map

    maps: dict[Case, Any] = {}
    refused: dict[Case, str] = {}
    shared: dict[Any, Any] = {}
    for case in cases:
        try:
            check_case(case, device)
            if OPERATORS[case.operator].kind == "static":
                # other heads, types and directions have the same map
                key = (case.operator, case.canvas, case.settings, case.query_tile, case.key_tile)
                if key not in shared:
                    shared[key] = static_map(case)
                maps[case] = shared[key]
        except ValueError as error:
            refused[case] = " ".join(str(error).split())
    if len(refused) == len(cases):
        case, reason = next(iter(refused.items()))
        raise UsageError(f"{case.operator}: {reason}")
    return Plan(list(cases), baselines, pictures, maps, refused)


def check_outputs(paths: Sequence[Path], suffixes: Sequence[str], option: str, batch: BatchOptions) -> None:
    """UsageError for a file that could not be written or would be replaced."""
    if len(set(paths)) < len(paths):
        raise UsageError(f"{option}: got {' '.join(map(str, paths))}, expected each file once")
    for path in paths:
        if path.suffix not in suffixes:
            raise UsageError(f"{option} {path}: got suffix {path.suffix or 'none'}, expected {one_of(suffixes)}")
        if not path.parent.is_dir():
            raise UsageError(f"{option} {path}: no folder {path.parent}")
        for file in files_of(path):
            if file.exists() and not batch.overwrite:
                raise UsageError(f"{option} {file}: exists; add --overwrite or name another file")


def files_of(path: Path) -> list[Path]:
    """A table of bare rows and a picture have no place for the environment: it lies beside them."""
    return [path] if path.suffix == ".json" else [path, path.with_name(path.name + ".json")]


def exit_code(rows: Sequence[Row]) -> int:
    """1 where a kernel is wrong or nothing could be measured, 3 where a kernel failed, else 0."""
    own = [row["status"] for row in rows if row["role"] == "operator"]
    if any(row["status"] == "wrong" for row in rows) or "ok" not in own:
        return EXIT_FAILED
    return EXIT_SOME_FAILED if {"out of memory", "failed"} & set(own) else EXIT_DONE


def _measured(plan: Plan, bench: Bench, batch: BatchOptions, device: str, talk: Talk) -> tuple[list[Row], bool]:
    from .measuring import Options, add_break_even, add_roofline, groups, measure

    options = Options(plan.baselines, plan.picture_baselines, device, bench.repeats, batch.seed, bench.memory)
    usable = [case for case in plan.cases if case not in plan.refused]
    rows: list[Row] = [
        {**case.identity(), "role": "operator", "of": None, "impl": None, "device": device}
        | {"status": "unsupported", "reason": reason}
        for case, reason in plan.refused.items()
    ]
    talk.start(len(groups(usable)))
    interrupted = False
    roofs: dict[str, Any] = {}
    try:
        for found in measure(usable, options, plan.maps, roofs, talk.detail):
            rows += found
            talk.advance()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        talk.stop()
    add_roofline(rows, roofs)
    add_break_even(usable, rows, plan.baselines)
    return rows, interrupted


def _write(bench: Bench, batch: BatchOptions, plan: Plan, result: Mapping[str, Any]) -> None:
    from attnkit.runtime.tables import replace_file

    whole = whole_document(result)
    about = json.dumps({key: result[key] for key in ("environment", "baselines")}, ensure_ascii=False, indent=1) + "\n"
    for path in bench.tables:
        replace_file(path, tables.table_text(path, result["rows"], plan.shown, whole).encode())
        for beside in files_of(path)[1:]:
            replace_file(beside, about.encode())
    if bench.plot is not None:
        from .chart import draw

        replace_file(bench.plot, draw(result["rows"], result["environment"]))
        replace_file(files_of(bench.plot)[1], about.encode())


def whole_document(result: Mapping[str, Any]) -> str:
    """The document of --json and of a .json file."""
    from attnkit.runtime.config import current
    from attnkit.runtime.records import document

    running = current()
    command, options = (running.path, running.shown()) if running else ("bench-kernel", {})
    statuses = [row["status"] for row in result["rows"]]
    summary = {status: statuses.count(status) for status in sorted(set(statuses))}
    return document(command, options, summary, result=result)


def _print(bench: Bench, batch: BatchOptions, plan: Plan, result: Mapping[str, Any]) -> None:
    from attnkit.runtime.answers import print_table
    from attnkit.runtime.records import json_line

    rows = result["rows"]
    if batch.json:
        print(whole_document(result))
        return
    if batch.jsonl:
        for row in rows:
            print(json_line(row))
        return
    if batch.quiet or not rows:
        return
    for line in about_lines(result["environment"]):
        print(line)
    print()
    print_table(*tables.cells_of(rows, tables.PEOPLE, plan.shown))
    done = [row for row in rows if row["status"] == "ok"]
    if bench.roofline and done:
        print()
        print_table(*tables.cells_of(done, tables.ROOFLINE))
    if result.get("against"):
        print()
        print_table(*tables.cells_of(result["against"], tables.COMPARED))


def about_lines(environment: Mapping[str, Any]) -> list[str]:
    """The device and the versions in two lines."""
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    commit = f", commit {environment['commit'][:10]}" if environment["commit"] else ""
    return [
        f"{environment['device_name']}, {environment['threads']} threads, seed {environment['seed']}",
        f"attnkit {environment['attnkit']}{commit}, {versions}",
    ]


def _change(entry: Mapping[str, Any]) -> str:
    if entry["change_percent"] is None:
        return ""
    return f", {entry['old_ms']:.3g} ms before, {entry['new_ms']:.3g} ms now ({entry['change_percent']:+.1f} %)"


def _show_plan(plan: Plan, batch: BatchOptions, environment: Mapping[str, Any]) -> None:
    from attnkit.runtime.answers import print_document, print_table

    entries = []
    for case in plan.cases:
        block_map = plan.maps[case][0] if case in plan.maps else None
        entries.append(
            {
                **case.identity(),
                "action": "refuse" if case in plan.refused else "measure",
                "reason": plan.refused.get(case),
                "device": environment["device_name"],
                "density": None if block_map is None else block_map.density,
                "baselines": plan.shown,
            }
        )
    if batch.json or batch.jsonl:
        print_document(entries, {"dry_run": True, "cases": len(entries), "refused": len(plan.refused)})
    elif not batch.quiet:
        columns = {
            name: tables.PEOPLE[name]
            for name in ("operator", "batch x canvas x heads x dim", "dtype", "pass", "tiles (%)")
        }
        columns |= {"action": lambda row: row["action"], "note": lambda row: row["reason"] or ""}
        print_table(*tables.cells_of([{**one, "of": None} for one in entries], columns))


def show_list(batch: BatchOptions, names: Sequence[str] = ()) -> int:
    """Print operators, baselines and suites, or the settings of the named operators.

    Without names it imports no torch, and leaves out the settings of operators that do.
    """
    from attnkit.runtime.answers import print_document, print_table

    if names:
        return _show_settings(batch, [operator_named(name) for name in names])
    light = {one.name: list(one.settings()) if one.light else None for one in OPERATORS.values()}
    operators = [
        {"operator": one.name, "kind": one.kind, "settings": light[one.name], "summary": one.summary}
        for one in OPERATORS.values()
    ]
    baselines = [{"baseline": one.name, "installed": one.present, "summary": one.summary} for one in BASELINES.values()]
    suites = [{"suite": name, "summary": one.summary} for name, one in SUITES.items()]
    if batch.json or batch.jsonl:
        print_document({"operators": operators, "baselines": baselines, "suites": suites})
        return EXIT_DONE
    print_table(
        ["operator", "kind", "settings", "what it is"],
        [
            [
                name,
                OPERATORS[name].kind,
                f"--list {name}" if own is None else " ".join(own) or "-",
                OPERATORS[name].summary,
            ]
            for name, own in light.items()
        ],
    )
    print()
    print_table(
        ["baseline", "here", "what it is"],
        [[one.name, "yes" if one.present else "no", one.summary] for one in BASELINES.values()],
    )
    print()
    print_table(["suite", "what it runs"], [[name, one.summary] for name, one in SUITES.items()])
    return EXIT_DONE


def _show_settings(batch: BatchOptions, operators: Sequence[Operator]) -> int:
    from attnkit.runtime.answers import print_document, print_table

    rows = [
        {
            "setting": f"{one.name}.{key}",
            "type": getattr(setting.type, "__name__", None) if isinstance(setting.type, type) else str(setting.type),
            "default": repr(setting.default),
            "help": setting.help,
        }
        for one in operators
        for key, setting in one.settings().items()
    ]
    if batch.json or batch.jsonl:
        print_document({"operators": [one.name for one in operators], "settings": rows})
    else:
        print_table(
            ["setting", "type", "default", "what it is"], [[str(cell) for cell in row.values()] for row in rows]
        )
    return EXIT_DONE
