"""`attnkit doctor`: what runs here, and what is missing for the rest."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Any

import typer

from attnkit import __version__
from attnkit.runtime.answers import print_document, print_table
from attnkit.runtime.config import user_file
from attnkit.runtime.errors import AttnkitError, UsageError
from attnkit.runtime.values import nearest


def doctor(
    ctx: typer.Context,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="COMMAND", help="End with 1 unless this command can run; repeatable"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Import nothing: look for packages only, no devices")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output")] = False,
) -> None:
    """Say what this installation is, which commands can run here, and what the others lack.

    Paste its output into a bug report: it names no user and no host.

    Examples:
      attnkit doctor
      attnkit doctor --quick --json
      attnkit doctor --require tonemap
    """
    from attnkit.runtime import machine

    entries = entries_of(ctx.find_root().command)
    for name in require or ():
        if name not in entries:
            near = nearest(name, entries)
            raise UsageError(f"--require: got {name!r}, {f'did you mean {near}?' if near else 'expected a command'}")
    modules = sorted({module for entry in entries.values() for module in (*entry.imports, "torch", "triton")})
    present = [module for module in modules if importlib.util.find_spec(module) is not None]
    probe = None if quick else machine.start_probe(present)
    path = user_file()
    report: dict[str, Any] = {
        "attnkit": __version__,
        **machine.system(),
        "configuration": {"user": machine.from_home(path), "exists": path is not None and path.is_file()},
        "packages": machine.packages(),
        "models": models(),
    }
    found: dict[str, Any] = {"modules": {}, "devices": None, "cache": None}
    if probe is not None:
        found = machine.finish_probe(probe, present)
    report.update(devices=found["devices"], compiled_cache=found["cache"], imports=found["modules"])
    report["commands"] = [readiness(name, entry, report) for name, entry in entries.items()]
    if json:
        print_document(report)
    else:
        render(report)
    failed = [one for one in report["commands"] if one["command"] in (require or ()) and not one["ready"]]
    if failed:
        raise AttnkitError("; ".join(f"{one['command']} cannot run here: {', '.join(one['lacks'])}" for one in failed))


def entries_of(root: Any) -> dict[str, Any]:
    """The table of cli.py, flat."""
    flat = {}
    for name, entry in root.table.items():
        inner = getattr(entry, "commands", None)
        flat.update({name: entry} if inner is None else {f"{name} {verb}": one for verb, one in inner.items()})
    return flat


def models() -> list[dict[str, Any]]:
    """The models whose weights come with the installation, and whether they are what they should be."""
    from attnkit.models.registry import find
    from attnkit.models.weights import hash_weights

    rows = []
    for entry in find():
        path = entry.weights_path
        if path is None:
            continue
        if not path.exists():
            state = "absent"
        elif entry.expected_sha256 is None:
            state = "no hash recorded"
        else:
            state = "verified" if hash_weights(path) == entry.expected_sha256 else "damaged"
        rows.append({"model": entry.name, "task": entry.task, "source": entry.source, "state": state})
    return rows


def readiness(name: str, entry: Any, report: dict[str, Any]) -> dict[str, Any]:
    """Whether a command can run, what it lacks, and the one line that helps."""
    from attnkit.runtime.extras import install_line

    lacks, helps = [], []
    for module in entry.imports:
        if importlib.util.find_spec(module) is None:
            lacks.append(f"{module} is not installed")
        elif report["imports"].get(module, {}).get("error"):
            lacks.append(f"{module} cannot be imported ({report['imports'][module]['error']})")
        else:
            continue
        helps.append(install_line(module))
    states = {one["model"]: one["state"] for one in report["models"]}
    for model in entry.models:
        if states.get(model, "absent") != "verified":
            lacks.append(f"weights of {model}: {states.get(model, 'absent')}")
            helps.append("pip install --force-reinstall attnkit")
    return {"command": name, "ready": not lacks, "lacks": lacks, "help": next(iter(helps), None)}


def render(report: dict[str, Any]) -> None:
    cache = report["compiled_cache"]
    devices = report["devices"]
    configuration = report["configuration"]
    facts = [
        ["attnkit", report["attnkit"]],
        ["python", f"{report['python']} ({report['executable']})"],
        ["platform", report["platform"]],
        ["cores", str(report["cores"])],
        ["memory (GB)", str(report["memory_gb"] or "unknown")],
        ["configuration", f"{configuration['user']}{'' if configuration['exists'] else ' (absent)'}"],
    ]
    if cache is not None:
        facts.append(["compiled code", cache["folder"] or "not kept: no folder can be written; set NUMBA_CACHE_DIR"])
    facts += [["device", " ".join(str(part) for part in one.values())] for one in devices or []]
    print_table(["what", "here"], facts)
    typer.echo()
    print_table(
        ["package", "version", "expected", "state"],
        [
            [
                one["package"],
                one["version"] or "",
                one["expected"],
                "ok"
                if one["ok"]
                else f"{'missing' if one['version'] is None else 'does not fit'}"
                + (f" (extra {one['extra']})" if one["extra"] else ""),
            ]
            for one in report["packages"]
        ],
    )
    typer.echo()
    print_table(
        ["model", "task", "source", "weights"],
        [[one["model"], one["task"], one["source"], one["state"]] for one in report["models"]],
    )
    typer.echo()
    print_table(
        ["command", "state"],
        [
            [one["command"], "ready" if one["ready"] else f"{'; '.join(one['lacks'])}; run: {one['help']}"]
            for one in report["commands"]
        ],
    )
