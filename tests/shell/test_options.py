"""The decorator that gives a command the shared options."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest

from attnkit.runtime.options import BATCH_OPTIONS, BatchOptions, batch_command, collect


def test_defaults_of_the_options_are_those_of_the_dataclass(made_up: Callable) -> None:
    told = json.loads(made_up("paint", "a").out)
    for field in dataclasses.fields(BatchOptions):
        if field.name in ("include", "exclude"):
            assert told[field.name] == []
        elif field.name != "command_options":
            assert told[field.name] == field.default, field.name


def test_every_field_is_an_option_or_given_to_every_command() -> None:
    fields = {field.name for field in dataclasses.fields(BatchOptions)}
    assert fields - set(BATCH_OPTIONS) == {"config", "debug", "command_options"}
    assert set(BATCH_OPTIONS) <= fields


def test_shorts(made_up: Callable) -> None:
    told = json.loads(made_up("paint", "a", "-o", "x/", "-n", "-j", "3", "-v").out)
    assert (told["out"], told["dry_run"], told["jobs"], told["verbose"]) == ("x/", True, 3, True)


def test_repeatable(made_up: Callable) -> None:
    told = json.loads(made_up("paint", "a", "--include", "*.hdr", "--include", "*.exr", "--exclude", "b*").out)
    assert told["include"] == ["*.hdr", "*.exr"]
    assert told["exclude"] == ["b*"]


def test_random_seed_is_drawn_once_and_known(made_up: Callable) -> None:
    drawn = {json.loads(made_up("paint", "a", "--seed", "random").out)["seed"] for _ in range(4)}
    assert len(drawn) > 1


def test_decorated_function_keeps_its_name_and_help() -> None:
    @batch_command
    def sing(batch: BatchOptions, loud: bool = False) -> None:
        """Sing."""

    assert (sing.__name__, sing.__doc__) == ("sing", "Sing.")


def test_leave_out_names_fields() -> None:
    with pytest.raises(TypeError, match=r"got \['reusme'\]"):
        batch_command(leave_out=("reusme",))(lambda batch: None)


def test_outside_of_the_command_line() -> None:
    batch = collect({"include": ["*.hdr"], "jobs": 2}, {"own_one": 1})
    assert batch.include == ("*.hdr",)
    assert batch.command_options == {"own-one": 1}
