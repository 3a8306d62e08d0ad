"""`--compile-only`: the Triton kernels of attention, compiled for GPUs that are not there, and what they use.

Where kernels are interpreted (TRITON_INTERPRET), Triton cannot compile any more: a child process does it then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit_kernels import patterns

from attnkit.runtime.errors import EXIT_DONE, EXIT_FAILED, AttnkitError, UsageError
from attnkit.runtime.values import nearest

from .operators import OPERATORS, operator_named

if TYPE_CHECKING:
    from attnkit.runtime.options import BatchOptions

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
DEFAULT_NAMES = ("dense", "neighborhood")
DEFAULT_TARGETS = ("sm_90", "sm_100")
DTYPES = ("float32", "float16", "bfloat16")
# of each kernel's tuning list; compiling all of them takes minutes
CHOICES = 2
KERNELS = {"fwd": ("forward",), "bwd": ("prepare", "query", "key")}
KERNELS["fwdbwd"] = (*KERNELS["fwd"], *KERNELS["bwd"])
# the maps of routed patterns list whole blocks; bilevel orders tokens by region
ROUTED = {"bilevel": True, "sla": False, "headwise": False}
# long enough for any usual setting, and quick to build a map of
TOKENS = 4096
SUFFIXES = (".json", ".csv", ".md")
Row = dict[str, Any]

COLUMNS = {
    "operator": "operator",
    "kernel": "kernel",
    "target": "target",
    "choice": "choice",
    "registers": "registers (a thread)",
    "spilled_bytes": "spills (bytes)",
    "shared_bytes": "shared (bytes)",
    "tensor_memory_columns": "tensor memory (columns)",
    "matrix": "matrix instructions",
    "matrix_count": "matrix (count)",
    "seconds": "compile (s)",
    "reason": "note",
}


def targets_of(text: str | None) -> tuple[str, ...]:
    """The targets of --target. UsageError, with the list, for one that is unknown."""
    if text is None:
        return DEFAULT_TARGETS
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in found or ("",):
        if name not in TARGETS:
            near = nearest(name, TARGETS)
            hint = f"did you mean {near}? " if near else ""
            raise UsageError(f"--target: got {name!r}; {hint}known: {', '.join(TARGETS)}")
    return found


def variant_of(name: str, dim: int, dtype: str) -> dict[str, Any]:
    """Settings of `triton_variants.Variant` for the map that an operator makes. UsageError for one that makes none."""
    operator = operator_named(name)
    common = {"dim": dim, "dtype": dtype}
    if name in ROUTED:
        return {**common, "rule": "none", "ordered": ROUTED[name]}
    if operator.kind != "static":
        known = [one.name for one in OPERATORS.values() if one.kind == "static" or one.name in ROUTED]
        raise UsageError(f"--compile-only: {name} is no attention over one map; expected some of {', '.join(known)}")
    canvas = operator.canvas_of(TOKENS)
    block_map = patterns.pattern(name, **operator.usual(canvas)).block_map(canvas)
    rule = {"NoneType": "none", "Boxes": "boxes", "Tiles": "tiles"}[type(block_map.rule).__name__]
    axes = len(getattr(block_map.rule, "low", [0]))
    blocks = [block_map.query_block, block_map.key_block]
    return {**common, "rule": rule, "axes": axes, "ordered": block_map.query_order is not None, "blocks": blocks}


def compile_all(jobs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each tuning choice of each job: {operator, kernel, target, variant, choices}."""
    from attnkit_kernels.softmax.triton_variants import Variant, compile_variant, tuning_of

    rows: list[Row] = []
    done: dict[str, list[Row]] = {}
    for job in jobs:
        about = {"operator": job["operator"], "kernel": job["kernel"], "target": job["target"]}
        key = json.dumps([job["kernel"], job["target"], job["variant"]], sort_keys=True)
        if key not in done:
            settings = {**job["variant"], "blocks": tuple(job["variant"].get("blocks", (128, 128)))}
            variant = Variant(job["kernel"], **settings)
            done[key] = []
            every = tuning_of(variant, job["target"])
            for config in every[: job["choices"]]:
                words = [f"{name}={value}" for name, value in config.kwargs.items()]
                choice = " ".join([*words, f"warps={config.num_warps}", f"stages={config.num_stages}"])
                row: Row = {"choice": choice, "choices": len(every)}
                try:
                    with warnings.catch_warnings():
                        # triton's notes on its own defaults
                        warnings.simplefilter("ignore")
                        used = compile_variant(variant, config, job["target"])
                except Exception as error:
                    row |= {"status": "failed", "reason": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
                else:
                    row |= {
                        "status": "ok",
                        "registers": used.registers,
                        "spilled_bytes": used.spilled,
                        "shared_bytes": used.shared,
                        "tensor_memory_columns": used.tensor_memory,
                        "matrix": used.matrix,
                        "matrix_count": used.matrix_count,
                        "seconds": round(used.seconds, 3),
                    }
                done[key].append(row)
        rows += [{**about, **row} for row in done[key]]
    return rows


def run_compile(
    batch: BatchOptions,
    names: Sequence[str],
    target: str | None,
    values: Mapping[str, str],
    tables: Sequence[Path],
) -> int:
    """Compile, print, write; 1 where a kernel does not compile."""
    from attnkit.runtime.tables import replace_file

    from .plan import whole
    from .run import check_outputs, whole_document

    targets = targets_of(target)
    dtype = values.get("dtype", "bfloat16")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype: got {dtype}, but the Triton kernels take {', '.join(DTYPES)}")
    check_outputs(tables, SUFFIXES, "--out", batch)
    dim = whole("dim", values.get("dim", "64"))
    names = tuple(dict.fromkeys(names or DEFAULT_NAMES))
    variants = {name: variant_of(name, dim, dtype) for name in names}
    jobs = [
        {"operator": name, "kernel": kernel, "target": one, "variant": variants[name], "choices": CHOICES}
        for name in names
        for kernel in KERNELS[values.get("direction", "fwd")]
        for one in targets
    ]
    if batch.dry_run:
        rows: list[Row] = [{**{key: job[key] for key in ("operator", "kernel", "target")}} for job in jobs]
    elif os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        rows = _in_child(jobs)
    else:
        rows = compile_all(jobs)
    versions = {} if batch.dry_run else _versions()
    result = {"environment": versions, "dim": dim, "dtype": dtype, "rows": [{"status": "planned", **r} for r in rows]}
    headers, cells = _cells(rows)
    if not batch.dry_run:
        beside = json.dumps({key: result[key] for key in ("environment", "dim", "dtype")}, indent=1) + "\n"
        for path in tables:
            replace_file(path, _text(path, headers, cells, whole_document(result)).encode())
            if path.suffix != ".json":
                replace_file(path.with_name(path.name + ".json"), beside.encode())
    _print(batch, result, headers, cells)
    return EXIT_FAILED if any(row.get("status") == "failed" for row in rows) else EXIT_DONE


def _print(batch: BatchOptions, result: Mapping[str, Any], headers: list[str], cells: list[list[str]]) -> None:
    from attnkit.runtime.answers import print_table
    from attnkit.runtime.records import json_line

    from .run import whole_document

    if batch.json:
        print(whole_document(result))
    elif batch.jsonl:
        for row in result["rows"]:
            print(json_line(row))
    elif not batch.quiet:
        print(f"dim {result['dim']}, {result['dtype']}, at most the first {CHOICES} tuning choices of each kernel")
        print_table(headers, cells)


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    kept = [key for key in COLUMNS if any(row.get(key) not in (None, "") for row in rows)]
    return [COLUMNS[key] for key in kept], [[str(row.get(key, "")) for key in kept] for row in rows]


def _text(path: Path, headers: list[str], cells: list[list[str]], whole: str) -> str:
    import csv
    import io

    from .tables import markdown

    if path.suffix == ".json":
        return whole + "\n"
    if path.suffix == ".md":
        return markdown(headers, cells)
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([headers, *cells])
    return stream.getvalue()


def _versions() -> dict[str, Any]:
    from .environment import version_of

    return {name: version_of(name) for name in ("torch", "triton")}


def _in_child(jobs: Sequence[Mapping[str, Any]]) -> list[Row]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    line = [sys.executable, "-m", __name__]
    done = subprocess.run(line, input=json.dumps(jobs), capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise AttnkitError(f"--compile-only: the compiling process ended with {done.returncode}: {last}")
    rows: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return rows


if __name__ == "__main__":
    print(json.dumps(compile_all(json.load(sys.stdin))))
