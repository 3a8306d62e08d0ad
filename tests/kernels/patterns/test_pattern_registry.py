"""Patterns by name: settings listed, read from text and checked; the cache of maps; no torch at import."""

import subprocess
import sys

import numpy as np
import pytest
from attnkit_kernels.patterns import PATTERNS, REQUIRED, STATIC, Maps, parse_settings, pattern, settings_of

# settings under which every static pattern takes this canvas
CANVAS = (4, 8, 8)
SETTINGS = {
    "sliding": {"window": 20},
    "neighborhood": {"window": (2, 3, 4)},
    "blocked": {"window": 4},
    "grid": {"grid": 2},
    "halo": {"block": (2, 4, 4), "halo": 1},
    "random_blocks": {"density": 0.5},
}


@pytest.mark.parametrize("name", STATIC)
def test_every_static_pattern_is_named_documented_hashable_and_maps_a_canvas(name):
    chosen, same = (pattern(name, **SETTINGS.get(name, {})) for _ in range(2))
    assert chosen.name == name and chosen.paper
    assert chosen == same and hash(chosen) == hash(same)
    assert all(one.help for one in settings_of(name).values())
    block_map = chosen.block_map(CANVAS)
    assert block_map.query_tokens == block_map.key_tokens == 256
    assert block_map.visited > 0
    assert block_map.visible_pairs() == block_map.to_dense().sum()


@pytest.mark.parametrize("name", PATTERNS)
def test_every_name_leads_to_a_class_of_that_name(name):
    settings = settings_of(name)
    assert all(key.isidentifier() for key in settings)


def test_settings_say_type_default_and_help():
    settings = settings_of("neighborhood")
    assert settings["window"].default is REQUIRED and settings["window"].type == tuple[int, ...]
    assert settings["causal"].default == (False,)
    assert settings_of("radial")["decay"][:2] == (float, 1.0)


def test_settings_are_read_from_text():
    texts = [
        "radial.decay=.2", "radial.sink=none", "neighborhood.window=18, 24,24", "neighborhood.causal=0,false,yes",
        "sliding.window=7", "halo.pad=zero", "radial.text_blocks=True", "radial.rule = code",
    ]  # fmt: skip
    assert parse_settings(texts) == {
        "radial": {"decay": 0.2, "sink": None, "text_blocks": True, "rule": "code"},
        "neighborhood": {"window": (18, 24, 24), "causal": (False, False, True)},
        "sliding": {"window": 7},
        "halo": {"pad": "zero"},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("radial.decay", "expected PATTERN.KEY=VALUE, got 'radial.decay'"),
        ("decay=3", "expected PATTERN.KEY=VALUE, got 'decay=3'"),
        ("radail.decay=3", "did you mean radial?"),
        ("radial.dcay=3", "radial has no setting 'dcay'; it has: rule, decay"),
        ("radial.decay=much", "radial.decay: expected a number, got 'much'"),
        ("neighborhood.window=3,x", "neighborhood.window: expected a whole number, got 'x'"),
        ("radial.text_blocks=2", "radial.text_blocks: expected true or false, got '2'"),
    ],
)
def test_text_that_is_no_setting_is_refused(text, said):
    with pytest.raises(ValueError) as error:
        parse_settings([text])
    assert said in str(error.value)


def test_unknown_and_missing_settings_are_refused():
    with pytest.raises(ValueError, match="sliding has no setting 'width'; it has: window, sink, causal"):
        pattern("sliding", width=3)
    with pytest.raises(ValueError, match="sliding needs window"):
        pattern("sliding")
    with pytest.raises(ValueError, match="unknown pattern 'nothing'; known: dense, causal"):
        pattern("nothing")


def test_maps_are_built_once_and_the_oldest_goes_first():
    maps = Maps(2)
    near, far = pattern("sliding", window=4), pattern("sliding", window=8)
    first = maps.block_map(near, (64,), 16)
    assert maps.block_map(pattern("sliding", window=4), [64], 16) is first
    other = maps.block_map(near, (64,), 8)
    assert maps.block_map(near, (64,), 16) is first
    maps.block_map(far, (64,), 16)
    assert len(maps) == 2
    assert maps.block_map(near, (64,), 16) is first
    assert maps.block_map(near, (64,), 8) is not other
    with pytest.raises(ValueError, match="got 0"):
        Maps(0)


def test_equal_maps_come_out_of_equal_settings():
    left, right = (pattern("radial", decay=0.3).block_map((6, 200)) for _ in range(2))
    np.testing.assert_array_equal(left.columns, right.columns)


def test_patterns_and_their_maps_need_no_torch():
    code = f"""
import sys
import attnkit_kernels.softmax, attnkit_kernels.patterns as patterns
for name in patterns.STATIC:
    patterns.pattern(name, **{SETTINGS!r}.get(name, {{}})).block_map({CANVAS!r})
patterns.Maps().block_map(patterns.pattern("dense"), (64,))
loaded = [name for name in ("torch", "triton", "numba", "scipy") if name in sys.modules]
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
