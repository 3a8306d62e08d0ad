"""The run: each group of equal shapes is prepared, checked, measured in memory, then timed in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import breakeven
from .baselines import BASELINES, prepare_baseline
from .failures import OK, WRONG, reason_of
from .gate import check
from .kernels import Kernel, prepare
from .memory import Question, Server
from .operators import OPERATORS
from .peaks import Peaks
from .peaks import measure as measure_peaks
from .plan import Case
from .statistics import speed_up, spread_of
from .timing import Clock, DeviceClock, HostClock, Times, in_turns

Row = dict[str, Any]
Say = Callable[[str], None]
MS = 1e3
MB = 1e6


@dataclass(frozen=True)
class Options:
    """repeats: rounds, or None for as many as take some seconds; memory: whether peak memory is measured too."""

    baselines: tuple[str, ...] = ("sdpa",)
    picture_baselines: tuple[str, ...] = ("reference",)
    device: str = "cpu"
    repeats: int | None = None
    seed: int = 0
    memory: bool = True

    def baselines_of(self, case: Case) -> tuple[str, ...]:
        """The baselines of a case."""
        return self.picture_baselines if OPERATORS[case.operator].kind == "image" else self.baselines


@dataclass
class Subject:
    """One thing that is measured in a group, with its row as far as it is known."""

    case: Case
    row: Row
    baseline: str | None = None
    kernel: Kernel | None = None
    # the subjects that it is compared with, by name of the baseline
    rivals: dict[str, str] = field(default_factory=dict)

    def stop(self, status: str, reason: str) -> None:
        self.row.update(status=status, reason=reason)
        self.kernel = None


def clock_for(device: str) -> Clock:
    """The clock of a device."""
    return HostClock() if device == "cpu" else DeviceClock(device)


def measure(
    cases: Sequence[Case], options: Options, maps: Mapping[Case, Any], roofs: dict[str, Peaks], say: Say
) -> Iterator[list[Row]]:
    """The rows of each group, as soon as they are known. `maps` holds what `kernels.static_map` gave for a case.

    Peaks by type of number are put into `roofs`: measured before each group and after the last, the best counts.
    """
    clock = clock_for(options.device)
    server = Server()

    def look_up(dtype: str) -> None:
        found = measure_peaks(options.device, dtype, clock)
        roofs[dtype] = found.best(roofs.get(dtype, found))

    try:
        if options.memory:
            server.start()
        for number, (_, group) in enumerate(groups(cases), 1):
            say(f"group {number}: {', '.join(case.operator for case in group)} at {group[0].tokens} tokens")
            look_up(group[0].dtype)
            yield measure_group(group, options, maps, clock, server if options.memory else None)
        for dtype in list(roofs):
            look_up(dtype)
    finally:
        server.stop()


def groups(cases: Sequence[Case]) -> list[tuple[Any, list[Case]]]:
    """Cases of one shape, in the order of their first."""
    found: dict[Any, list[Case]] = {}
    for case in cases:
        found.setdefault(case.group, []).append(case)
    return list(found.items())


def measure_group(
    group: Sequence[Case],
    options: Options,
    maps: Mapping[Case, Any],
    clock: Clock,
    server: Server | None,
) -> list[Row]:
    """One row for each case and each baseline of a group."""
    subjects = subjects_of(group, options, maps)
    for subject in subjects.values():
        _pass_gate(subject, options.seed)
    if server is not None:
        for subject in subjects.values():
            _measure_memory(subject, options, server)
    calls: dict[str, Callable[[], Any]] = {}
    for name, subject in subjects.items():
        if subject.kernel is not None:
            try:
                calls[name] = subject.kernel.call(subject.case.direction, options.seed)
            except Exception as error:
                subject.stop(*reason_of(error))
    times = in_turns(calls, clock, options.repeats)
    calls.clear()
    for name, subject in subjects.items():
        _finish(name, subject, subjects, times, clock, options.seed)
    return [subject.row for subject in subjects.values()]


def subjects_of(group: Sequence[Case], options: Options, maps: Mapping[Case, Any]) -> dict[str, Subject]:
    """The operators of a group, each followed by the baselines that no operator before it has brought."""
    subjects: dict[str, Subject] = {}
    inputs: dict[tuple[int, int], Any] = {}
    for at, case in enumerate(group):
        row: Row = {**case.identity(), "role": "operator", "of": None, "impl": None, "device": options.device}
        own = subjects[f"operator {at}"] = Subject(case, row)
        try:
            kernel = prepare(case, options.device, options.seed, maps.get(case), inputs)
        except Exception as error:
            own.stop(*reason_of(error))
            continue
        own.kernel = kernel
        row.update(impl=kernel.impl, **work_fields(kernel))
        for name in options.baselines_of(case):
            key = _baseline_key(name, case, at)
            own.rivals[name] = key
            if key not in subjects:
                subjects[key] = _baseline_subject(name, case, kernel, options)
    return subjects


def _baseline_key(name: str, case: Case, at: int) -> str:
    if BASELINES[name].own_map or OPERATORS[case.operator].kind == "image":
        return f"{name} for {at}"
    return f"{name} causal" if case.operator == "causal" else name


def _baseline_subject(name: str, case: Case, kernel: Kernel, options: Options) -> Subject:
    own_map = BASELINES[name].own_map or OPERATORS[case.operator].kind == "image"
    named = own_map or case.operator == "causal"
    row = {
        **case.identity(),
        "operator": name,
        "canvas": list(case.canvas) if own_map else [case.tokens],
        "settings": case.identity()["settings"] if own_map else {},
        "impl_asked": None,
        "role": "baseline",
        "of": case.operator if named else None,
        "impl": None,
        "device": options.device,
    }
    subject = Subject(case, row, baseline=name)
    try:
        subject.kernel = prepare_baseline(name, case, kernel, options.seed)
    except Exception as error:
        subject.stop(*reason_of(error))
    else:
        row.update(impl=subject.kernel.impl, **work_fields(subject.kernel))
    return subject


def work_fields(kernel: Kernel) -> Row:
    """What a row says of the work, before any run."""
    work = kernel.work
    return {
        **work.counts,
        "flops": work.flops,
        "tile_flops": work.tile_flops,
        "bytes": work.moved,
        "map_ms": None if kernel.map_seconds is None else kernel.map_seconds * MS,
    }


def _pass_gate(subject: Subject, seed: int) -> None:
    if subject.kernel is None:
        return
    try:
        checked = check(subject.kernel, subject.case.direction, seed)
    except Exception as error:
        subject.stop(*reason_of(error))
        return
    subject.row.update(error=checked.error, checked=checked.size, compile_ms=checked.first_seconds * MS)
    if not checked.right:
        del subject.row["compile_ms"]
        subject.stop(WRONG, f"error {checked.error:.2g} against the reference, at most {checked.bound:g} may be")


def _measure_memory(subject: Subject, options: Options, server: Server) -> None:
    if subject.kernel is None:
        return
    import torch

    question = Question(subject.case, subject.baseline, options.device, options.seed, torch.get_num_threads())
    told = server.ask(question)
    if "status" in told:
        subject.stop(told["status"], told["reason"])
    else:
        subject.row["peak_memory_mb"] = told["peak_bytes"] / MB


def _finish(
    name: str, subject: Subject, subjects: Mapping[str, Subject], times: Times, clock: Clock, seed: int
) -> None:
    if name in times.failed:
        subject.stop(*reason_of(times.failed[name]))
    if subject.kernel is None:
        return
    row, work = subject.row, subject.kernel.work
    spread = spread_of(times.rounds[name], seed)
    permute = subject.kernel.permute
    row.update(
        status=OK,
        reason=None,
        median_ms=spread.median * MS,
        p20_ms=spread.p20 * MS,
        p80_ms=spread.p80 * MS,
        median_low_ms=None if spread.low is None else spread.low * MS,
        median_high_ms=None if spread.high is None else spread.high * MS,
        cv_percent=100 * spread.variation,
        runs=spread.runs,
        tflops=work.flops / spread.median / 1e12,
        tile_tflops=None if work.tile_flops is None else work.tile_flops / spread.median / 1e12,
        gb_per_s=work.moved / spread.median / 1e9,
        permute_ms=0.0 if permute is None else spread_of([clock(permute) for _ in range(5)]).median * MS,
        total_ms=(subject.kernel.map_seconds or 0.0) * MS + spread.median * MS,
    )
    versus = {}
    for rival, key in subject.rivals.items():
        other = subjects[key]
        if key in times.rounds and other.kernel is not None:
            found = speed_up(times.rounds[name], times.rounds[key], seed)
            versus[rival] = {
                "speedup": found.ratio,
                "low": found.low,
                "high": found.high,
                "verdict": found.verdict,
                "baseline_ms": spread_of(times.rounds[key]).median * MS,
            }
        else:
            versus[rival] = {"speedup": None, "low": None, "high": None, "verdict": other.row.get("status")}
    row["versus"] = versus


def add_roofline(rows: Sequence[Row], roofs: Mapping[str, Peaks]) -> None:
    """Write the share of the roof into the rows that have a time."""
    for row in rows:
        if row.get("status") != OK:
            continue
        roof = roofs[row["dtype"]]
        row.update(
            roofline_percent=100 * roof.seconds(row["flops"], row["bytes"]) * MS / row["median_ms"],
            bound=roof.bound(row["flops"], row["bytes"]),
            flops_per_byte=row["flops"] / row["bytes"],
            peak_tflops=roof.flops / 1e12,
            peak_gb_per_s=roof.bandwidth / 1e9,
        )


def add_break_even(cases: Sequence[Case], rows: Sequence[Row], baselines: Sequence[str]) -> None:
    """Write the break-even length against the first dense baseline into the rows of operators."""
    dense = next((name for name in baselines if not BASELINES[name].own_map), None)
    if dense is None:
        return
    operators = [row for row in rows if row["role"] == "operator"]
    measured: dict[Any, list[tuple[Case, Row]]] = {}
    by_identity = {_identity_key(row): row for row in operators}
    for case in cases:
        row = by_identity.get(_identity_key({**case.identity()}))
        if row is None or row.get("status") != OK or case.operator in ("dense", "causal"):
            continue
        if row.get("versus", {}).get(dense, {}).get("baseline_ms"):
            series = (case.operator, *case.group[:-1], case.impl, case.query_tile, case.key_tile, case.asked)
            measured.setdefault(series, []).append((case, row))
    for members in measured.values():
        lengths = [case.tokens for case, _ in members]
        own = [row["median_ms"] / MS for _, row in members]
        other = [row["versus"][dense]["baseline_ms"] / MS for _, row in members]
        if len(set(lengths)) >= breakeven.FEWEST_LENGTHS:
            every = [breakeven.by_fit(lengths, own, other)] * len(members)
        else:
            linear = OPERATORS[members[0][0].operator].linear
            every = [breakeven.by_formula(*one, linear) for one in zip(lengths, own, other, strict=True)]
        for (_, row), one in zip(members, every, strict=True):
            row.update(break_even_tokens=one.tokens, break_even_method=one.method)


def _identity_key(row: Mapping[str, Any]) -> str:
    from .against import IDENTITY, key_of

    return key_of({name: row.get(name) for name in IDENTITY if name not in ("role", "of")})
