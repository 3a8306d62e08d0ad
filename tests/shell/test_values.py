"""What a person wrote becomes the type of the option, or is refused with what was expected."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from attnkit.runtime.errors import UsageError
from attnkit.runtime.values import (
    ValueRefused,
    convert,
    nearest,
    parse_bytes,
    parse_device,
    parse_seed,
    parse_settings,
)

Depth = Literal[8, 16]


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("3", int, 3),
        (3, int, 3),
        ("2.5", float, 2.5),
        (2, float, 2.0),
        ("-1e-3", float, -0.001),
        ("yes", bool, True),
        ("off", bool, False),
        (True, bool, True),
        ("x", str | None, "x"),
        (2048, str, "2048"),
        ("a/b", Path | None, Path("a/b")),
        ("16", Depth, 16),
        (16, Depth, 16),
        (["a", "b"], list[str], ["a", "b"]),
        ("a", list[str] | None, ["a"]),
        (["1", 2], list[int], [1, 2]),
    ],
)
def test_fits(value: Any, annotation: Any, expected: Any) -> None:
    converted = convert(value, annotation)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("3.5", int, "a whole number"),
        (3.5, int, "a whole number"),
        (True, int, "a whole number"),
        ("nan", float, "a number"),
        ("inf", float, "a number"),
        ("", float, "a number"),
        (1, bool, "true or false"),
        ("perhaps", bool, "true or false"),
        (True, str, "a text"),
        ({"a": 1}, str, "a text"),
        ("12", Depth, "8 or 16"),
        (True, Depth, "8 or 16"),
        (["a", True], list[str], "a text"),
    ],
)
def test_refused(value: Any, annotation: Any, expected: str) -> None:
    with pytest.raises(ValueRefused) as refused:
        convert(value, annotation)
    assert refused.value.expected.startswith(expected)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [((0, 2), "from 0 to 2"), ((0, None), "of at least 0"), ((None, -3), "of at most -3")],
)
def test_bounds(bounds: tuple[float | None, float | None], expected: str) -> None:
    with pytest.raises(ValueRefused, match=expected):
        convert("-2.5", float, minimum=bounds[0], maximum=bounds[1])
    if bounds[1] == 2:
        assert convert("2", float, minimum=0, maximum=2) == 2


def test_choice_names_the_nearest() -> None:
    with pytest.raises(ValueRefused, match="did you mean reinhard"):
        convert("reinhart", Literal["drago", "reinhard"])


@pytest.mark.parametrize("text", ["auto", "cpu", "cuda", "cuda:0", "cuda:11"])
def test_device(text: str) -> None:
    assert parse_device(text) == text


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:x", "cpu:0", "CUDA", "cuda:²"])
def test_device_refused(text: str) -> None:
    with pytest.raises(ValueRefused, match="auto, cpu, cuda or cuda:N"):
        parse_device(text)


def test_seed() -> None:
    assert parse_seed("7") == 7
    drawn = {parse_seed("random") for _ in range(8)}
    assert len(drawn) > 1
    assert all(0 <= seed < 2**31 for seed in drawn)


@pytest.mark.parametrize("text", ["-1", "1.5", "", "Random", str(2**63)])
def test_seed_refused(text: str) -> None:
    with pytest.raises(ValueRefused, match="or random"):
        parse_seed(text)


@pytest.mark.parametrize(
    ("text", "count"), [("1.5GB", 1_500_000_000), ("800 mb", 800_000_000), ("64", 64), ("2kB", 2000), ("1e9", 10**9)]
)
def test_bytes(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2GiB", "nan", "inf", "0", "1 2MB", "3XB"])
def test_bytes_refused(text: str) -> None:
    with pytest.raises(ValueRefused, match=r"1\.5GB"):
        parse_bytes(text)


def test_nearest_is_none_for_what_is_far() -> None:
    assert nearest("tonmap", ["tonemap", "eval"]) == "tonemap"
    assert nearest("zzz", ["tonemap", "eval"]) is None


class TestSettings:
    valid: ClassVar[dict[str, Any]] = {
        "llf.sigma": 0.5,
        "llf.levels": 4,
        "llf.name": None,
        "llf.clip": True,
        "llf.range": (0.0, 1.0),
    }

    def test_types_follow_the_defaults(self) -> None:
        pairs = ["llf.sigma=2", "llf.levels=7", "llf.name=a=b", "llf.clip=no", "llf.range=0.5, 2"]
        assert parse_settings(pairs, self.valid) == {
            "llf.sigma": 2.0,
            "llf.levels": 7,
            "llf.name": "a=b",
            "llf.clip": False,
            "llf.range": (0.5, 2.0),
        }

    def test_last_one_wins(self) -> None:
        assert parse_settings(["llf.levels=1", "llf.levels=2"], self.valid) == {"llf.levels": 2}

    def test_unknown_key_lists_the_valid_ones(self) -> None:
        with pytest.raises(UsageError) as error:
            parse_settings(["llf.sigm=2"], self.valid)
        assert "unknown key 'llf.sigm'; did you mean llf.sigma?" in str(error.value)
        assert all(key in str(error.value) for key in self.valid)

    @pytest.mark.parametrize(
        ("pair", "text"),
        [("llf.sigma", "expected NAME.KEY=VALUE"), ("llf.sigma=x", "got 'x', expected a number")],
    )
    def test_refused(self, pair: str, text: str) -> None:
        with pytest.raises(UsageError, match=text):
            parse_settings([pair], self.valid)
