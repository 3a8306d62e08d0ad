"""The command classes under every attnkit command: options from all layers, one-line errors, lazy loading."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from attnkit.runtime import help as help_texts
from attnkit.runtime.config import Layers, Option, Running, Source, set_current, spelled
from attnkit.runtime.errors import UsageError
from attnkit.runtime.values import nearest, one_of


@dataclass(frozen=True)
class Entry:
    """One command of the table in cli.py: what it is called is the key, what runs is `module:function`."""

    target: str
    help: str
    # modules that it imports when it runs, and embedded models that it opens: what `attnkit doctor` looks for
    imports: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A noun or verb with sub-commands."""

    help: str
    commands: Mapping[str, Entry]


def options_of(command: TyperCommand) -> list[Option]:
    """The options of a command (its arguments and --help left out) as config.py resolves them."""
    found = []
    for parameter in command.params:
        if parameter.param_type_name != "option":
            continue
        described: Any = parameter
        found.append(
            Option(
                name=parameter.name,
                longs=tuple(name[2:] for name in parameter.opts if name.startswith("--")),
                negated=tuple(name[2:] for name in parameter.secondary_opts if name.startswith("--")),
                annotation=described.type_descriptor.annotation,
                default=parameter.default,
                parser=described.type_descriptor.parameter_info.parser,
                minimum=described.min,
                maximum=described.max,
            )
        )
    return found


class AttnkitCommand(TyperCommand):
    """A command whose options are looked up in all layers, and which commands themselves know nothing about."""

    def __init__(self, name: str | None, **settings: Any) -> None:
        super().__init__(name, **settings)
        taken = {parameter.name for parameter in self.params}
        self.params.extend(option for option in general_options() if option.name not in taken)

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        running = Running(path=path_of(ctx), debug="--debug" in args)
        set_current(running)
        given, rest = self.read_flags(ctx, list(args))
        help_option = self.get_help_option(ctx)
        if help_option is not None and given.get(help_option.name):
            help_option.handle_parse_result(ctx, given, rest)
        options = options_of(self)
        by_name = {option.name: option for option in options}
        config = by_name["config"]
        file = resolve(config, given, Layers.without_files(running.path))
        running.config_file = file[0]
        layers = Layers(running.path, running.config_file)
        layers.check(tree_of(ctx.find_root().command), options, lambda: all_options(ctx.find_root()))
        for parameter in self.params:
            if parameter.name in by_name:
                value, source = resolve(by_name[parameter.name], given, layers)
                running.values[parameter.name] = value
                running.sources[parameter.name] = source
                running.names[parameter.name] = by_name[parameter.name].long
            else:
                value = self.argument(parameter, given)
            if value is None and parameter.required:
                raise UsageError(f"{label(parameter)}: not given; see {ctx.command_path} --help")
            if parameter.callback is not None:
                value = parameter.callback(ctx, parameter, value)  # type: ignore[arg-type]
            if parameter.expose_value:
                ctx.params[parameter.name] = value
        running.debug = bool(running.values["debug"])
        return ctx.args

    def read_flags(self, ctx: typer.Context, args: list[str]) -> tuple[dict[str, Any], list[str]]:
        """What was typed, by parameter name. Raises UsageError with the nearest name for what is not known."""
        words = list(args)
        try:
            given, rest, _ = self.make_parser(ctx).parse_args(args=args)
        except typer.TyperException as error:
            raise usage_error(error, flags_of(self, ctx), ctx.command_path, words) from None
        if rest:
            raise UsageError(f"got {rest[0]!r}, expected no more arguments; see {ctx.command_path} --help")
        return given, rest

    def argument(self, parameter: Any, given: Mapping[str, Any]) -> Any:
        value = given.get(parameter.name)
        if value in (None, ()):
            return parameter.default
        described = Option(
            name=parameter.name,
            longs=(label(parameter),),
            negated=(),
            annotation=parameter.type_descriptor.annotation,
            default=parameter.default,
            parser=parameter.type_descriptor.parameter_info.parser,
            minimum=parameter.min,
            maximum=parameter.max,
        )
        return described.value(value, label(parameter))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        help_texts.write(help_texts.page(self, ctx), formatter)


class LazyGroup(TyperGroup):
    """A group that knows its commands' names and one-line helps, and loads a command only when it is called."""

    table: Mapping[str, Entry | Family] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.table and cmd_name not in self.commands:
            self.commands[cmd_name] = load(cmd_name, self.table[cmd_name])
        return self.commands.get(cmd_name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        set_current(Running(path=path_of(ctx), debug="--debug" in args))
        if not args:
            raise self.nothing_called(ctx)
        try:
            given, rest, _ = self.make_parser(ctx).parse_args(args=list(args))
        except typer.TyperException as error:
            raise self.misplaced(error, ctx) or usage_error(error, flags_of(self, ctx), ctx.command_path) from None
        # only options that were given are converted: typer's own conversion would import pydantic for the others
        for parameter in self.get_params(ctx):
            if given.get(parameter.name):
                parameter.handle_parse_result(ctx, given, rest)
        if not rest:
            raise self.nothing_called(ctx)
        ctx.args = rest
        return rest

    def invoke(self, ctx: Any) -> Any:
        name, *rest = ctx.args
        if name not in self.table:
            near = nearest(name, self.table)
            hint = f"did you mean {near}?" if near else f"expected {one_of(self.table)}"
            raise UsageError(f"no command {name!r}; {hint}; see {ctx.command_path} --help")
        with ctx:
            inner = self.get_command(ctx, name).make_context(name, rest, parent=ctx)
            with inner:
                return inner.command.invoke(inner)

    def nothing_called(self, ctx: Any) -> UsageError:
        return UsageError(f"no command given, expected {one_of(self.table)}; see {ctx.command_path} --help")

    def misplaced(self, error: typer.TyperException, ctx: Any) -> UsageError | None:
        option = getattr(error, "option_name", None)
        if option in ("--debug", "--config", "--json", "--quiet", "-q", "--verbose", "-v"):
            return UsageError(f"{option}: options go after the command, as in {ctx.command_path} COMMAND {option}")
        return None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        help_texts.write(help_texts.page(self, ctx), formatter)


def load(name: str, entry: Entry | Family) -> Any:
    """The click command of a table entry; imports its module if it is a command, nothing if it is a family."""
    if isinstance(entry, Family):
        return group(name, entry.help, entry.commands)
    module, _, function = entry.target.partition(":")
    callback = getattr(importlib.import_module(module), function)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=AttnkitCommand, short_help=entry.help)(callback)
    return typer.main.get_command(app)


def group(name: str, text: str, table: Mapping[str, Entry | Family]) -> TyperGroup:
    cls = type("Group", (LazyGroup,), {"table": table})
    app = typer.Typer(name=name, cls=cls, add_completion=False, rich_markup_mode=None, help=text)
    app.callback()(lambda: None)
    made = typer.main.get_command(app)
    assert isinstance(made, TyperGroup)
    return made


GENERAL: dict[str, Any] = {"expose_value": False, "rich_help_panel": "General"}
CONFIG_HELP = "TOML file of defaults, with tables [common], [tonemap] ..."


def general(
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help=CONFIG_HELP, **GENERAL)] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Add the traceback to an error", **GENERAL)] = False,
) -> None:
    """Carries the options that every command has."""


def general_options() -> list[Any]:
    """--config and --debug as parameters."""
    carrier = typer.Typer(add_completion=False)
    carrier.command()(general)
    return list(typer.main.get_command(carrier).params)


def resolve(option: Option, given: Mapping[str, Any], layers: Layers) -> tuple[Any, Source]:
    """The value of one option and where it comes from."""
    raw = given.get(option.name)
    if raw is not None and raw != []:
        return option.value(raw, f"--{option.long}"), Source("flag", f"--{option.long}")
    found = layers.find(option)
    if found is not None:
        return found
    return option.default, Source("built in", "built in")


def flags_of(command: Any, ctx: Any) -> list[str]:
    return [name for parameter in command.get_params(ctx) for name in (*parameter.opts, *parameter.secondary_opts)]


def label(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        return str(parameter.opts[0])
    return str(parameter.metavar or parameter.name.upper())


def path_of(ctx: Any) -> str:
    """'train tonemap' for `attnkit train tonemap`; '' for the root."""
    return str(ctx.command_path).partition(" ")[2]


def usage_error(error: typer.TyperException, known: list[str], command: str, words: Sequence[str] = ()) -> UsageError:
    """What the parser said, in one line with the nearest name and the next step."""
    option = getattr(error, "option_name", None)
    text = error.format_message().rstrip(".")
    if option is not None and hasattr(error, "possibilities"):
        # without the dashes, which all names share and which would make every name near
        near = nearest(option.lstrip("-"), [name.lstrip("-") for name in known if name.startswith("--")])
        text = f"no option {option}" + (f"; did you mean --{near}?" if near else "")
        if any(word.startswith(option) and len(word.split()) > 1 for word in words):
            text = f"no option {option}; put -- before a text that begins with a dash"
    elif option is not None and "requires" in text:
        text = f"{option}: no value given"
    elif option is not None:
        text = f"{option}: got a value, expected none"
    return UsageError(f"{text}; see {command} --help")


def tree_of(command: Any) -> dict[str, Any]:
    """The names of all commands as nested mappings, without loading any."""
    table: Mapping[str, Entry | Family] = getattr(command, "table", {})
    return {
        name: {inner: {} for inner in entry.commands} if isinstance(entry, Family) else {}
        for name, entry in table.items()
    }


def commands_of(ctx: Any) -> dict[str, AttnkitCommand]:
    """All commands by path, loaded. `ctx` is the root's."""
    found: dict[str, AttnkitCommand] = {}
    for name in ctx.command.list_commands(ctx):
        command = ctx.command.get_command(ctx, name)
        if isinstance(command, LazyGroup):
            inner = {f"{name} {verb}": command.get_command(ctx, verb) for verb in command.list_commands(ctx)}
            found.update(inner)
        else:
            found[name] = command
    return found


def all_options(root: Any) -> set[str]:
    return {name for command in commands_of(root).values() for name in spelled(options_of(command))}
