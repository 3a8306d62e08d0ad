"""Where the value of an option comes from: flag, environment, configuration files, built in; in this order.

    flag > ATTNKIT_COMMAND_OPTION > ATTNKIT_OPTION > --config FILE > user configuration file > built in

In both files the command's own table ([tonemap], [train.tonemap]) goes before [common].
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin

from attnkit.runtime.errors import UsageError
from attnkit.runtime.values import ValueRefused, convert, nearest, plain_type

COMMON = "common"
RANKS = ("flag", "environment", "common environment", "config file", "user file", "built in")


@dataclass(frozen=True)
class Source:
    """Where a value was found: one of RANKS, and the words that lead a person there."""

    kind: str
    where: str

    @property
    def rank(self) -> int:
        return RANKS.index(self.kind)


@dataclass
class Running:
    """The command that runs, with the resolved value and source of each option (by parameter name)."""

    path: str
    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    config_file: Path | None = None
    debug: bool = False

    def rank(self, name: str) -> int:
        return self.sources[name].rank

    def shown(self, skip: Collection[str] = ()) -> dict[str, Any]:
        """The options by long name, as JSON can hold them."""
        return {self.names[name]: as_json(value) for name, value in self.values.items() if name not in skip}


_running: ContextVar[Running | None] = ContextVar("attnkit_running", default=None)


def current() -> Running | None:
    """The command that runs, or None outside of the command line."""
    return _running.get()


def set_current(running: Running | None) -> None:
    _running.set(running)


def as_json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def user_file() -> Path | None:
    """The user's configuration file, whether it exists or not; None where no place for one can be named."""
    base = os.environ.get("XDG_CONFIG_HOME")
    if base and os.path.isabs(base):
        return Path(base, "attnkit", "config.toml")
    if sys.platform == "win32":
        roaming = os.environ.get("APPDATA")
        return Path(roaming, "attnkit", "config.toml") if roaming else None
    # without HOME this asks the password data base; an account without a home keeps the ~
    home = os.path.expanduser("~")
    return Path(home, ".config", "attnkit", "config.toml") if os.path.isabs(home) else None


def read_file(path: Path, *, missing_is_error: bool) -> dict[str, Any]:
    """The tables of a configuration file. Raises UsageError for a file that is absent, unreadable or no TOML."""
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing_is_error:
            raise UsageError(f"--config: got {path}, which does not exist; expected a TOML file") from None
        return {}
    except (NotADirectoryError, IsADirectoryError, PermissionError) as error:
        if not missing_is_error and isinstance(error, NotADirectoryError):
            return {}
        raise UsageError(f"configuration file {path}: {error.strerror}; expected a readable TOML file") from None
    except UnicodeDecodeError:
        raise UsageError(f"configuration file {path}: not UTF-8 text; expected TOML") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"configuration file {path}: {error}; expected TOML such as [tonemap] depth = 16") from None


@dataclass(frozen=True)
class Option:
    """What resolving needs to know of one option of a command."""

    name: str
    longs: tuple[str, ...]
    negated: tuple[str, ...]
    annotation: Any
    default: Any
    parser: Any = None
    minimum: float | None = None
    maximum: float | None = None

    @property
    def long(self) -> str:
        return self.longs[0]

    @property
    def several(self) -> bool:
        return get_origin(plain_type(self.annotation)) is list

    def spellings(self) -> Iterator[tuple[str, bool]]:
        """Each long name, and whether it means the opposite."""
        yield from ((name, False) for name in self.longs)
        yield from ((name, True) for name in self.negated)

    def value(self, raw: Any, where: str, *, opposite: bool = False) -> Any:
        """The converted value. Raises UsageError naming `where` it stands."""
        try:
            value = convert(raw, self.annotation, parser=self.parser, minimum=self.minimum, maximum=self.maximum)
        except ValueRefused as refused:
            raise UsageError(f"{where}: got {show(raw)}, expected {refused.expected}") from None
        return not value if opposite else value


def show(value: Any) -> str:
    """A value as a person would write it in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, str | int | float | list | tuple) else f"a {type(value).__name__}"


def variable(command: str, long: str) -> str:
    """ATTNKIT_TRAIN_TONEMAP_SEED for ("train tonemap", "seed"); ATTNKIT_SEED for ("", "seed")."""
    return "_".join(part for part in ("attnkit", command, long) if part).upper().replace("-", "_").replace(" ", "_")


class Layers:
    """The configuration files as one command sees them."""

    def __init__(self, command: str, config_file: Path | None) -> None:
        self.command = command
        self.files: list[tuple[str, Path, dict[str, Any]]] = []
        if config_file is not None:
            self.files.append(("config file", config_file, read_file(config_file, missing_is_error=True)))
        user = user_file()
        if user is not None:
            self.files.append(("user file", user, read_file(user, missing_is_error=False)))

    @classmethod
    def without_files(cls, command: str) -> Layers:
        """Flags and environment only: what --config itself is looked up in."""
        layers = cls.__new__(cls)
        layers.command = command
        layers.files = []
        return layers

    def find(self, option: Option) -> tuple[Any, Source] | None:
        """The converted value of the first environment variable or file that has one."""
        for kind, command in (("environment", self.command), ("common environment", "")):
            for long, opposite in option.spellings():
                name = variable(command, long)
                text = os.environ.get(name)
                if text:
                    raw = shlex.split(text) if option.several else text
                    return option.value(raw, name, opposite=opposite), Source(kind, name)
        # a file cannot send its reader on to another file
        for kind, path, tables in self.files if option.name != "config" else ():
            for table in (self.command.replace(" ", "."), COMMON):
                keys = table_of(tables, table)
                for long, opposite in option.spellings():
                    for key in (long, long.replace("-", "_")):
                        if key in keys:
                            where = f"{path} [{table}]"
                            raw = keys[key]
                            return option.value(raw, f"{key} in {where}", opposite=opposite), Source(kind, where)
        return None

    def check(self, tree: Mapping[str, Any], options: Sequence[Option], all_names: Any) -> None:
        """Refuses unknown tables and unknown keys of [common] and of the command's own table.

        `tree` holds the commands as nested mappings; `all_names()` gives the options of all commands, asked only
        where [common] has a key that this command lacks.
        """
        own = spelled(options) - {"config"}
        for _, path, tables in self.files:
            check_tables(path, tables, tree)
            for key in table_of(tables, COMMON):
                if key.replace("_", "-") not in own:
                    known = all_names()
                    if key.replace("_", "-") not in known:
                        raise unknown_key(key, f"{path} [{COMMON}]", known)
            table = self.command.replace(" ", ".")
            for key in table_of(tables, table):
                if key.replace("_", "-") not in own:
                    raise unknown_key(key, f"{path} [{table}]", own)


def spelled(options: Sequence[Option]) -> set[str]:
    return {name for option in options for name, _ in option.spellings()}


def table_of(tables: Mapping[str, Any], dotted: str) -> dict[str, Any]:
    found: Any = tables
    for part in dotted.split("."):
        found = found.get(part, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, dict) else {}


def check_tables(path: Path, tables: Mapping[str, Any], tree: Mapping[str, Any], prefix: str = "") -> None:
    """Refuses tables that belong to no command, and keys outside of any table."""
    known = [*tree, COMMON] if not prefix else list(tree)
    head = f"{prefix}." if prefix else ""
    for name, content in tables.items():
        if not isinstance(content, dict):
            place = f"in [{prefix}]" if prefix else "outside of any table"
            raise UsageError(f"key {name!r} in {path}: stands {place}, expected in a table such as [{head}{known[0]}]")
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean [{head}{near}]?" if near else f"expected {', '.join(known)}"
            raise UsageError(f"unknown table [{head}{name}] in {path}; {hint}")
        if tree.get(name):
            check_tables(path, content, tree[name], head + name)


def unknown_key(key: str, where: str, known: Collection[str]) -> UsageError:
    near = nearest(key.replace("_", "-"), known)
    hint = f"did you mean {near}?" if near else f"expected some of {', '.join(sorted(known))}"
    return UsageError(f"unknown key {key!r} in {where}; {hint}")
