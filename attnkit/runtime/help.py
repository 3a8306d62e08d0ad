"""What a command says about itself, once: the page behind --help (plain or Rich), the man pages and the reference.

The docstring of a command function is the source. Its first line is the summary; paragraphs follow; a line such as
`Examples:` opens a section with indented lines. In Examples a line that starts with # explains the next ones.
"""

from __future__ import annotations

import inspect
import os
import shutil
import sys
import textwrap
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from attnkit.runtime.values import plain_type

PIPED_WIDTH = 80
WIDEST = 110
EXIT_STATUS = (
    ("0", "all done or skipped"),
    ("1", "nothing done: no input matched, every item failed, a folder is locked, a check failed"),
    ("2", "usage or plan error, before any work"),
    ("3", "some items failed"),
    ("130", "interrupted"),
)
TYPE_WORDS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


@dataclass
class Section:
    """A titled list of (term, text); an empty term is a paragraph."""

    title: str
    rows: list[tuple[str, str]]


@dataclass
class Page:
    """All that is said about one command."""

    path: str
    usage: str
    summary: str
    paragraphs: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    notes: list[Section] = field(default_factory=list)
    closing: str = ""

    @property
    def example_commands(self) -> list[str]:
        return [line for line in self.examples if not line.startswith("#")]


def page(command: Any, ctx: Any) -> Page:
    """The page of a command or a group; `ctx` is its context."""
    path = ctx.command_path
    made = Page(path=path, usage="", summary="")
    read_docstring(inspect.cleandoc(command.help or ""), made)
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    pieces = [argument_word(parameter) for parameter in arguments]
    table = getattr(command, "table", None)
    if table is not None:
        pieces = ["COMMAND ..."]
        made.sections.append(Section("Commands", [(name, entry.help) for name, entry in table.items()]))
    made.usage = " ".join([path, *pieces, "[options]"])
    if arguments:
        made.sections.append(Section("Arguments", [(argument_word(one), one.help or "") for one in arguments]))
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        if parameter.param_type_name == "option" and not parameter.hidden:
            panel = "General" if "--help" in parameter.opts else parameter.rich_help_panel or "Options"
            panels.setdefault(panel, []).append((option_term(parameter), option_text(parameter)))
    # the command's own options first, what every command has last
    order = sorted(panels, key=lambda title: (title == "General", title != "Options"))
    made.sections.extend(Section(title, panels[title]) for title in order)
    if table is None:
        name = path.partition(" ")[2]
        prefix = path.replace(" ", "_").replace("-", "_").upper()
        made.closing = f"Defaults: variables {prefix}_OPTION and configuration files; see attnkit config show {name}"
    return made


def read_docstring(text: str, made: Page) -> None:
    blocks = [block for block in text.split("\n\n") if block.strip()]
    if not blocks:
        return
    first, _, rest = blocks[0].partition("\n")
    made.summary = first.strip().rstrip(".")
    for block in ([rest] if rest else []) + blocks[1:]:
        head, _, body = block.partition("\n")
        if not (head.endswith(":") and body.startswith(" ")):
            made.paragraphs.append(" ".join(line.strip() for line in block.splitlines()))
        elif head == "Examples:":
            made.examples.extend(line.strip() for line in body.splitlines() if line.strip())
        else:
            made.notes.append(Section(head.rstrip(":"), [split_row(line) for line in body.splitlines()]))


def split_row(line: str) -> tuple[str, str]:
    """('term', 'text') of a line `  term   text`; without two spaces between, a paragraph."""
    term, gap, text = line.strip().partition("  ")
    return (term, text.strip()) if gap else ("", term)


def argument_word(parameter: Any) -> str:
    word = str(parameter.metavar or parameter.name.upper())
    if parameter.nargs == -1 and not word.endswith("..."):
        word += "..."
    return word if parameter.required else f"[{word}]"


def option_term(parameter: Any) -> str:
    """`-o, --out PATH` or `--fail-fast / --keep-going`."""
    names = sorted(parameter.opts, key=lambda name: name.startswith("--"))
    term = ", ".join(names)
    if parameter.secondary_opts:
        term += " / " + ", ".join(parameter.secondary_opts)
    word = value_word(parameter)
    return f"{term} {word}" if word else term


def value_word(parameter: Any) -> str:
    if parameter.is_flag or parameter.count:
        return ""
    if parameter.metavar:
        return str(parameter.metavar)
    annotation = plain_type(parameter.type_descriptor.annotation)
    if get_origin(annotation) is list:
        annotation = plain_type(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return "|".join(str(choice) for choice in get_args(annotation))
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return "|".join(str(member.value) for member in annotation)
    return TYPE_WORDS.get(annotation, "VALUE")


def option_text(parameter: Any) -> str:
    text = parameter.help or ""
    default = parameter.default
    if isinstance(parameter.show_default, str):
        shown = parameter.show_default
    elif isinstance(default, bool) and parameter.secondary_opts:
        shown = (parameter.opts if default else parameter.secondary_opts)[0].lstrip("-")
    elif default in (None, (), [], "") or isinstance(default, bool) or not parameter.show_default:
        shown = ""
    else:
        parts = default if isinstance(default, list | tuple) else [default]
        shown = ", ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)
    remarks = [f"default: {shown}"] if shown else []
    if parameter.required:
        remarks.append("required")
    return f"{text} [{'; '.join(remarks)}]" if remarks else text


def write(made: Page, formatter: Any) -> None:
    """Rich panels where standard output is a terminal that can show them, plain text elsewhere."""
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        formatter.write(rich_text(made))
    else:
        formatter.write(plain_text(made, PIPED_WIDTH))


def plain_text(made: Page, width: int) -> str:
    """The page as text with lines of at most `width` (longer only where a single word is)."""
    lines = [f"Usage: {made.usage}", ""]
    lines += wrapped(made.summary, width, "  ")
    for paragraph in made.paragraphs:
        lines += ["", *wrapped(paragraph, width, "  ")]
    if made.examples:
        lines += ["", "Examples:", *(f"  {line}" for line in made.examples)]
    for section in [*made.sections, *made.notes]:
        lines += ["", f"{section.title}:", *rows_text(section.rows, width)]
    if made.closing:
        lines += ["", *wrapped(made.closing, width, "")]
    return "\n".join(lines) + "\n"


def rows_text(rows: list[tuple[str, str]], width: int) -> list[str]:
    column = min(max((len(term) for term, _ in rows), default=0), 28) + 4
    lines: list[str] = []
    for term, text in rows:
        if not term:
            lines += wrapped(text, width, "  ")
            continue
        body = wrapped(text, width, " " * column)
        head = f"  {term}"
        if len(head) + 2 <= column and body:
            lines += [head.ljust(column) + body[0].lstrip(), *body[1:]]
        else:
            lines += [head, *body]
    return lines


def wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def rich_text(made: Page) -> str:
    """The page with panels, as the terminal on standard output can show them."""
    from rich.console import Console, Group
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    console = Console(width=min(shutil.get_terminal_size().columns, WIDEST), highlight=False)

    def panel(section: Section) -> Panel:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(max_width=34, overflow="fold")
        grid.add_column()
        for term, text in section.rows:
            grid.add_row(Text(term, style="cyan"), Text(text))
        return Panel(grid, title=section.title, title_align="left", border_style="dim")

    parts: list[Any] = [Padding(Text(f"Usage: {made.usage}", style="bold"), (1, 1))]
    parts.append(Padding(Text(made.summary), (0, 1)))
    parts += [Padding(Text(paragraph), (1, 1, 0, 1)) for paragraph in made.paragraphs]
    parts.append(Text(""))
    if made.examples:
        examples = [Text(line, style="dim" if line.startswith("#") else "green") for line in made.examples]
        parts.append(Panel(Group(*examples), title="Examples", title_align="left", border_style="dim"))
    parts += [panel(section) for section in [*made.sections, *made.notes]]
    if made.closing:
        parts.append(Padding(Text(made.closing, style="dim"), (0, 1)))
    with console.capture() as captured:
        console.print(Group(*parts))
    return captured.get()
