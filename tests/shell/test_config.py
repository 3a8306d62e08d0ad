"""Precedence: flag, own variable, common variable, --config file, user file, built in; and what is refused in files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attnkit.runtime import config

FILE = '[common]\njobs = 2\n[paint]\nweight = 0.25\ncolour = "green"\nkeep-going = false\nskip_existing = true\n'


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_layers_in_order(
    made_up: Callable, clean_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer is put on top of those below it, and wins."""

    def weight(*flags: str) -> float:
        ended = made_up("paint", "a", *flags)
        assert ended.code == 0, ended.err
        return json.loads(ended.out)["weight"]

    assert weight() == 1.0
    write(clean_environment, "[common]\nweight = 0.1\n")
    assert weight() == 0.1
    write(clean_environment, "[common]\nweight = 0.1\n[paint]\nweight = 0.2\n")
    assert weight() == 0.2
    given = str(write(tmp_path / "given.toml", "[common]\nweight = 0.3\n"))
    assert weight("--config", given) == 0.3
    write(tmp_path / "given.toml", "[common]\nweight = 0.3\n[paint]\nweight = 0.4\n")
    assert weight("--config", given) == 0.4
    monkeypatch.setenv("ATTNKIT_WEIGHT", "0.5")
    assert weight("--config", given) == 0.5
    monkeypatch.setenv("ATTNKIT_PAINT_WEIGHT", "0.6")
    assert weight("--config", given) == 0.6
    assert weight("--config", given, "--weight", "0.7") == 0.7
    monkeypatch.setenv("ATTNKIT_PAINT_WEIGHT", "")
    assert weight("--config", given) == 0.5


def test_all_spellings_and_types(made_up: Callable, clean_environment: Path) -> None:
    more = 'include = ["*.hdr", "*.exr"]\nlimit = 3\nseed = 9\ntable = "t.cube"\nset = "a.b=1"\n'
    write(clean_environment, FILE + more)
    told = json.loads(made_up("paint", "a").out)
    assert told["jobs"] == 2
    assert told["fail_fast"] is True
    assert told["skip_existing"] is True
    assert told["include"] == ["*.hdr", "*.exr"]
    assert (told["limit"], told["seed"], told["table"], told["set"]) == (3, 9, "t.cube", ["a.b=1"])


def test_choice_may_be_written_as_a_number(made_up: Callable, clean_environment: Path) -> None:
    write(clean_environment, "[paint]\ncolour = 8\n")
    assert json.loads(made_up("paint", "a").out)["colour"] == "8"


def test_variables_of_lists_and_flags(made_up: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNKIT_INCLUDE", "*.hdr 'a b.exr'")
    monkeypatch.setenv("ATTNKIT_PAINT_QUIET", "1")
    monkeypatch.setenv("ATTNKIT_KEEP_GOING", "no")
    told = json.loads(made_up("paint", "a").out)
    assert told["include"] == ["*.hdr", "a b.exr"]
    assert told["quiet"] is True
    assert told["fail_fast"] is True


def test_config_file_named_by_a_variable(made_up: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNKIT_CONFIG", str(write(tmp_path / "c.toml", FILE)))
    told = json.loads(made_up("paint", "a").out)
    assert told["weight"] == 0.25
    assert told["config"] == str(tmp_path / "c.toml")


def test_verb_tables(made_up: Callable, clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(clean_environment, "[train.paint]\nseed = 5\n[paint]\nseed = 6\n")
    assert json.loads(made_up("train", "paint").out) == {"seed": 5}
    monkeypatch.setenv("ATTNKIT_TRAIN_PAINT_SEED", "7")
    assert json.loads(made_up("train", "paint").out) == {"seed": 7}


def test_common_key_that_another_command_has(made_up: Callable, clean_environment: Path) -> None:
    write(clean_environment, '[common]\ncolour = "green"\n')
    assert made_up("train", "paint").code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[paint]\nwieght = 1\n", ["unknown key 'wieght'", "[paint]", "did you mean weight?"]),
        ("[common]\njbos = 1\n", ["unknown key 'jbos'", "[common]", "did you mean jobs?"]),
        ("[pain]\nweight = 1\n", ["unknown table [pain]", "did you mean [paint]?"]),
        ("[train.pain]\nseed = 1\n", ["unknown table [train.pain]", "did you mean [train.paint]?"]),
        ("[train]\nseed = 1\n", ["key 'seed'", "in [train]", "[train.paint]"]),
        ("weight = 1\n", ["key 'weight'", "outside of any table", "[paint]"]),
        ("[paint]\nconfig = 'x'\n", ["unknown key 'config'"]),
        ("[paint]\nweight = 'heavy'\n", ["weight in", "got 'heavy'", "expected a number from 0 to 2"]),
        ("[paint]\nweight = 9\n", ["got 9", "expected a number from 0 to 2"]),
        ("[paint]\noverwrite = 1\n", ["got 1", "expected true or false"]),
        ("[paint]\ncolour = 'gren'\n", ["got 'gren'", "did you mean green"]),
        ("[paint\n", ["config.toml", "line 1"]),
    ],
)
def test_refused_in_a_file(made_up: Callable, clean_environment: Path, text: str, words: list[str]) -> None:
    write(clean_environment, text)
    ended = made_up("paint", "a")
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("attnkit paint: ")
    assert ended.err.count("\n") == 1
    for word in words:
        assert word in ended.err


def test_bad_variable_is_named(made_up: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNKIT_JOBS", "many")
    ended = made_up("paint", "a")
    assert ended.code == 2
    assert "ATTNKIT_JOBS: got 'many', expected a whole number of at least 1" in ended.err


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "not UTF-8"),
    ],
)
def test_config_file_that_cannot_be_read(made_up: Callable, tmp_path: Path, make: Callable, words: str) -> None:
    make(tmp_path / "c.toml")
    ended = made_up("paint", "a", "--config", str(tmp_path / "c.toml"))
    assert ended.code == 2
    assert words in ended.err


def test_flag_beats_configured_sibling(made_up: Callable, clean_environment: Path) -> None:
    """`skip-existing = true` in a file must not make --overwrite an error, nor survive it."""
    write(clean_environment, "[common]\nskip-existing = true\njson = true\n")
    told = json.loads(made_up("paint", "a", "--overwrite", "--jsonl").out)
    assert (told["overwrite"], told["skip_existing"], told["update"]) == (True, False, False)
    assert (told["json"], told["jsonl"]) == (False, True)


@pytest.mark.parametrize("flags", [("--overwrite", "--update"), ("--json", "--jsonl"), ("--quiet", "--verbose")])
def test_siblings_of_one_level(made_up: Callable, flags: tuple[str, str]) -> None:
    ended = made_up("paint", "a", *flags)
    assert ended.code == 2
    assert f"{flags[0]} and {flags[1]} exclude each other" in ended.err


def test_scheduler_needs_its_engine(made_up: Callable) -> None:
    assert made_up("paint", "a", "--scheduler", "tcp://h:1").code == 2
    told = json.loads(made_up("paint", "a", "--scheduler", "tcp://h:1", "--engine", "dask").out)
    assert told["scheduler"] == "tcp://h:1"


def test_commands_see_their_own_options(made_up: Callable) -> None:
    told = json.loads(made_up("paint", "a", "--weight", "0.5", "--jobs", "2").out)
    assert told["command_options"] == {"colour": "red", "weight": 0.5, "table": None, "set": None}


class TestUserFile:
    def test_xdg(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/someone")
        assert config.user_file() == Path("/etc/someone/attnkit/config.toml")

    def test_relative_xdg_is_ignored(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert config.user_file() == tmp_path / ".config/attnkit/config.toml"

    @pytest.mark.skipif(sys.platform == "win32", reason="HOME is how other systems say it")
    def test_without_home_and_account(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("XDG_CONFIG_HOME")
        monkeypatch.setattr(config.os.path, "expanduser", lambda text: text)
        assert config.user_file() is None

    def test_windows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("XDG_CONFIG_HOME")
        monkeypatch.setattr(config.sys, "platform", "win32")
        monkeypatch.setenv("APPDATA", "/roaming")
        assert config.user_file() == Path("/roaming/attnkit/config.toml")


class TestShow:
    def rows(self, ended: object) -> dict[str, tuple[str, str]]:
        assert ended.code == 0, ended.err
        values = json.loads(ended.out)["result"]["values"]
        return {f"{one['command']} {one['option']}": (one["value"], one["source"]) for one in values}

    def test_value_and_source(
        self, made_up: Callable, clean_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(clean_environment, "[common]\njobs = 3\n")
        given = write(tmp_path / "given.toml", "[paint]\nweight = 0.5\n")
        monkeypatch.setenv("ATTNKIT_SEED", "4")
        rows = self.rows(made_up("config", "show", "--json", "--config", str(given)))
        assert rows["paint jobs"] == (3, f"{clean_environment} [common]")
        assert rows["paint weight"] == (0.5, f"{given} [paint]")
        assert rows["paint seed"] == (4, "ATTNKIT_SEED")
        assert rows["train paint seed"] == (4, "ATTNKIT_SEED")
        assert rows["paint colour"] == ("red", "built in")

    def test_one_command_and_changed(self, made_up: Callable, clean_environment: Path) -> None:
        write(clean_environment, "[common]\njobs = 3\n[train.paint]\nseed = 1\n")
        rows = self.rows(made_up("config", "show", "paint", "--changed", "--json"))
        assert rows == {"paint jobs": (3, f"{clean_environment} [common]")}
        assert list(self.rows(made_up("config", "show", "train", "--changed", "--json"))) == ["train paint seed"]

    def test_table_when_piped_is_never_cut(self, made_up: Callable, clean_environment: Path) -> None:
        long = "x" * 300
        write(clean_environment, f'[paint]\ntable = "{long}"\n')
        ended = made_up("config", "show", "paint")
        line = next(line for line in ended.out.splitlines() if long in line)
        assert line.split() == ["paint", "table", f"'{long}'", str(clean_environment), "[paint]"]
        assert str(clean_environment) in ended.err

    def test_misspelt_variable_is_pointed_out(self, made_up: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ATTNKIT_PAINT_WIEGHT", "1")
        assert "ATTNKIT_PAINT_WIEGHT" in made_up("config", "show", "paint").err

    def test_unknown_command(self, made_up: Callable) -> None:
        ended = made_up("config", "show", "pant")
        assert ended.code == 2
        assert "did you mean paint?" in ended.err
