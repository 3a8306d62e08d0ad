"""What --help says: lazily, plain when piped, in panels on a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from attnkit import cli
from attnkit.runtime import manual

HEAVY = ("torch", "cv2", "transformers", "diffusers", "numpy", "numba", "scipy", "OpenEXR", "tifffile", "PIL", "dask")
# typer's own conversion of values would cost as much as typer itself
SLOW = ("pydantic", "rich.console", "attnkit.models.registry")


def imported(*arguments: str) -> set[str]:
    """The modules that a command line has imported at its end, in a process of its own, piped."""
    code = (
        "import sys, json; from attnkit import cli; code = cli.run(sys.argv[1:]); "
        "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    ended, modules = json.loads(done.stderr.splitlines()[-1])
    assert ended == 0
    assert done.stdout
    return set(modules)


@pytest.mark.parametrize("arguments", [("--help",), ("tonemap", "--help"), ("--version",), ("models", "--help")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    modules = imported(*arguments)
    assert modules.isdisjoint(HEAVY)
    assert modules.isdisjoint(SLOW)


def test_root_help_loads_no_command() -> None:
    assert not [name for name in imported("--help") if name.startswith("attnkit.commands.")]


def test_every_command_helps_without_heavy_imports() -> None:
    """All commands in one process: importing their modules must cost nothing."""
    code = (
        "import sys; from attnkit.runtime import manual; made = manual.pages(); "
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]; print(len(made), heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, _, heavy = done.stdout.strip().partition(" ")
    assert heavy == "[]"
    assert int(count) > len(cli.COMMANDS)


def test_root_lists_the_commands(attnkit: Callable) -> None:
    ended = attnkit("--help")
    assert (ended.code, ended.err) == (0, "")
    for name, entry in cli.COMMANDS.items():
        assert any(line.split() == [name, *entry.help.split()] for line in ended.out.splitlines())


def test_root_has_no_other_options(attnkit: Callable) -> None:
    options = [line.split()[0] for line in attnkit("--help").out.splitlines() if line.startswith("  --")]
    assert sorted(options) == ["--help", "--install-completion", "--show-completion", "--version"]


def test_plain_page(made_up: Callable) -> None:
    ended = made_up("paint", "--help")
    assert ended.code == 0
    text = ended.out
    assert text.startswith("Usage: attnkit paint INPUT... [options]\n\n  Paint files\n")
    assert "  One paragraph that is wrapped by hand." in text
    assert "Examples:\n  # one file\n  attnkit paint a.txt\n" in text
    assert "Colours:\n  red    as blood\n  green  as grass\n" in text
    assert "  --colour red|green|8  Colour [default: red]" in text
    assert "  -o, --out PATH " in text
    assert "--fail-fast / --keep-going" in text
    assert "[default: keep-going]" in text
    assert "variables ATTNKIT_PAINT_OPTION" in text
    assert "\x1b" not in text
    # the command's own options come before those of all commands
    assert text.index("\nOptions:") < text.index("\nInputs:") < text.index("\nGeneral:")


def test_plain_page_does_not_depend_on_the_terminal(made_up: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = made_up("paint", "--help").out
    monkeypatch.setenv("COLUMNS", "30")
    assert made_up("paint", "--help").out == wide
    assert max(len(line) for line in wide.splitlines()) <= 80


def test_help_needs_no_valid_configuration(made_up: Callable, clean_environment: object) -> None:
    clean_environment.parent.mkdir(parents=True)
    clean_environment.write_text("not toml")
    assert made_up("paint", "--help").code == 0
    assert made_up("paint", "a").code == 2


def on_a_terminal(*arguments: str, **variables: str) -> str:
    """What a command line prints on a pseudo terminal."""
    import pty

    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40", **variables}
    done = subprocess.Popen(
        [sys.executable, "-m", "attnkit", *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(master)
    assert done.wait() == 0
    return seen.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals there")
class TestTerminal:
    def test_panels(self) -> None:
        seen = on_a_terminal("doctor", "--help")
        assert "╭" in seen
        assert "\x1b[36m" in seen
        # what looks like Rich markup is shown as it is
        assert "[common]" in seen

    def test_no_color(self) -> None:
        seen = on_a_terminal("doctor", "--help", NO_COLOR="1")
        assert "╭" in seen
        assert "\x1b[36m" not in seen

    def test_dumb_terminal(self) -> None:
        seen = on_a_terminal("doctor", "--help", TERM="dumb")
        assert "╭" not in seen
        assert "\x1b" not in seen


class TestCompletion:
    def complete(self, words: str, index: int) -> list[str]:
        environment = {**os.environ, "_ATTNKIT_COMPLETE": "complete_bash"}
        environment.update(COMP_WORDS=words, COMP_CWORD=str(index))
        done = subprocess.run(
            [sys.executable, "-m", "attnkit"], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    def test_commands_and_options(self) -> None:
        assert self.complete("attnkit con", 1) == ["config"]
        assert self.complete("attnkit config sh", 2) == ["show"]
        assert "--require" in self.complete("attnkit doctor --re", 2)

    def test_script(self, attnkit: Callable) -> None:
        ended = attnkit("--show-completion", "bash")
        assert ended.code == 0
        assert "_ATTNKIT_COMPLETE" in ended.out


class TestManual:
    def test_is_up_to_date(self) -> None:
        assert manual.stale(manual.CHECKOUT) == [], f"run: {manual.WRITE_COMMAND}"

    def test_staleness_is_seen(self, tmp_path: object) -> None:
        wanted = manual.documents()
        for path, text in wanted.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
        assert manual.stale(tmp_path) == []
        (tmp_path / "man/attnkit-gone.1").write_text("")
        (tmp_path / "man/attnkit-doctor.1").write_text("old")
        (tmp_path / "docs/commands.md").unlink()
        assert manual.stale(tmp_path) == ["docs/commands.md", "man/attnkit-doctor.1", "man/attnkit-gone.1"]

    def test_sections_of_every_page(self) -> None:
        order = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "FILES", "EXIT STATUS", "EXAMPLES", "SEE ALSO"]
        for path, text in manual.documents().items():
            if path.endswith(".1"):
                heads = [line[4:].strip('"') for line in text.splitlines() if line.startswith(".SH ")]
                assert [head for head in heads if head in order] == order, path

    def test_reference_has_every_command(self) -> None:
        text = manual.documents()["docs/commands.md"]
        for name in cli.COMMANDS:
            assert f"## attnkit {name}\n" in text

    def test_roff_shows_text_literally(self) -> None:
        assert manual.roff(".hdr -o a\\b") == "\\&.hdr \\-o a\\eb"
