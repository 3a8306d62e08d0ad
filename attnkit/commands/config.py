"""`attnkit config show`: where options get their values."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from attnkit.runtime.answers import print_document, print_table
from attnkit.runtime.commandline import commands_of, options_of, resolve, tree_of
from attnkit.runtime.config import Layers, as_json, current, show, user_file, variable
from attnkit.runtime.errors import UsageError
from attnkit.runtime.values import nearest


def show_config(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="Such as tonemap, or train tonemap; all without it")
    ] = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only values that are not the built-in ones")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output")] = False,
) -> None:
    """Print the value of each option and where it comes from.

    A flag goes before the variable ATTNKIT_COMMAND_OPTION, this before ATTNKIT_OPTION, then the file given with
    --config, the user configuration file, and the built-in value. A file has tables [common], [tonemap],
    [train.tonemap] and so on; a command's own table goes before [common].

    Examples:
      attnkit config show tonemap
      attnkit config show --changed
      # what a file of defaults would do
      attnkit config show tonemap --config examples/attnkit.toml
    """
    root = ctx.find_root()
    commands = commands_of(root)
    wanted = " ".join(command or [])
    chosen = [name for name in commands if not wanted or name == wanted or name.startswith(wanted + " ")]
    if not chosen:
        near = nearest(wanted, commands)
        hint = f"did you mean {near}?" if near else f"expected one of {', '.join(commands)}"
        raise UsageError(f"COMMAND: got {wanted!r}; {hint}")
    running = current()
    config_file = running.config_file if running else None
    everything = {name for one in commands.values() for option in options_of(one) for name, _ in option.spellings()}
    rows: list[dict[str, Any]] = []
    for name in chosen:
        options = options_of(commands[name])
        layers = Layers(name, config_file)
        layers.check(tree_of(root.command), options, everything.copy)
        for option in options:
            value, source = resolve(option, {}, layers)
            row = {"option": option.long, "value": as_json(value), "source": source.where, "kind": source.kind}
            rows.append({"command": name, **row})
    if changed:
        rows = [row for row in rows if row["kind"] != "built in"]
    path = user_file()
    unused = unused_variables(commands)
    if json:
        files = {"config": config_file, "user": path, "user_exists": path is not None and path.is_file()}
        print_document({"files": files, "values": rows, "unused_variables": unused})
        return
    for row in rows:
        row["shown"] = "" if row["value"] is None else show(row["value"])
    columns = ("command", "option", "shown", "source")
    print_table(["command", "option", "value", "source"], [[row[column] for column in columns] for row in rows])
    state = "" if path is not None and path.is_file() else " (absent)"
    typer.echo(f"user configuration file: {path or 'none, as this account has no home'}{state}", err=True)
    if unused:
        typer.echo(f"variables that no option reads: {', '.join(unused)}", err=True)


def unused_variables(commands: dict[str, Any]) -> list[str]:
    """Variables named ATTNKIT_... that are the name of no option: most likely typing errors."""
    known: set[str] = set()
    for name, command in commands.items():
        for option in options_of(command):
            for long, _ in option.spellings():
                known.update((variable(name, long), variable("", long)))
    return sorted(name for name in os.environ if name.startswith("ATTNKIT_") and name not in known)
