"""Every model of the registry keeps the same promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from seeded_models import seeded

from attnkit.models import registry
from attnkit.models.describe import count_numbers, describe
from attnkit.models.weights import hash_weights, read_weights
from attnkit.runtime.errors import UsageError

NAMES = [entry.name for entry in registry.find()]

pytestmark = pytest.mark.parametrize("name", NAMES)


def test_runs_on_its_example_and_odd_sizes(name: str) -> None:
    model = seeded(name)
    for rows, columns in ((48, 64), (33, 47)):
        inputs = model.example(rows, columns)
        before = inputs.copy()
        outputs = model.run(inputs)
        assert outputs and all(np.isfinite(value).all() for value in outputs.values())
        # an answer has no rows and columns
        pictures = registry.get(name).task != "vlm-ask"
        assert any(value.shape[:2] == (rows, columns) for value in outputs.values()) == pictures
        assert np.array_equal(inputs, before)


def test_is_deterministic(name: str) -> None:
    model = seeded(name)
    first, second = (model.run(model.example()) for _ in range(2))
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_save_and_load_give_the_same_model_and_the_same_bytes(name: str, tmp_path: Path) -> None:
    model = seeded(name)
    paths = [tmp_path / "one.safetensors", tmp_path / "other.safetensors"]
    hashes = [registry.save(model, name, path, provenance={"seed": 7}) for path in paths]
    assert hashes[0] == hashes[1] == hash_weights(paths[0])
    loaded = registry.load(paths[0])
    assert loaded.config == model.config
    wanted, got = model.run(model.example()), loaded.run(loaded.example())
    assert all(np.array_equal(wanted[key], got[key]) for key in wanted)
    assert read_weights(paths[0]).provenance == {"seed": 7}


def test_counts_its_parameters(name: str, tmp_path: Path) -> None:
    model = seeded(name)
    assert model.count_parameters() == sum(value.size for value in model.arrays().values())
    registry.save(model, name, tmp_path / "model.safetensors")
    assert count_numbers(tmp_path / "model.safetensors") == model.count_parameters()
    entry = registry.get(name)
    told = describe(name)["parameters"]
    # a family has as many as the folder that the user brings
    wanted = None if entry.format == "folder" and entry.source == "path" else registry.build(name).count_parameters()
    assert told == wanted


def test_counts_operations_that_grow_with_the_picture(name: str) -> None:
    model = registry.build(name, tiny=True)
    small, large = model.count_flops(64, 64), model.count_flops(256, 256)
    if registry.get(name).task == "vlm-ask":
        # pictures are brought to the model's own size
        assert 0 < small == large
    else:
        assert 0 < small < large < 40 * small


def test_computes_in_each_of_its_dtypes(name: str) -> None:
    model = seeded(name)
    single = model.run(model.example())
    assert "float32" in model.dtypes
    for dtype in model.dtypes:
        outputs = model.as_dtype(dtype).run(model.example())
        assert all(value.dtype == dtype for value in outputs.values())
        for key in outputs:
            # edges are decided by thresholds, so single pixels may differ by more than rounding
            assert np.median(np.abs(outputs[key] - single[key])) < 1e-4
    with pytest.raises(UsageError, match="bfloat8"):
        model.as_dtype("bfloat8")


def test_refuses_arrays_of_another_shape_or_name(name: str) -> None:
    model = registry.build(name, tiny=True)
    arrays = model.arrays()
    first = sorted(arrays)[0]
    with pytest.raises(UsageError, match="shape"):
        model.load_arrays({**arrays, first: np.zeros((3, 1, 4, 1, 5), np.float32)})
    with pytest.raises(UsageError, match="unknown array 'stranger'"):
        model.load_arrays({**arrays, "stranger": np.zeros(1, np.float32)})
    with pytest.raises(UsageError, match="lacks"):
        model.load_arrays({key: value for key, value in arrays.items() if key != first})


def test_opens_for_its_task(name: str, tmp_path: Path) -> None:
    entry = registry.get(name)
    if entry.format == "folder":
        if entry.weights_path is None:
            pytest.skip("a folder that the user brings")
        opened = registry.open_model(name, task=entry.task)
        assert opened.model.num_parameters() == registry.build(name).count_parameters()
        return
    model = seeded(name)
    registry.save(model, name, tmp_path / "model.safetensors")
    mapper = registry.open_model(tmp_path / "model.safetensors", task=entry.task)
    if entry.task != "tonemap":
        # its verbs are its task's; tests/tasks has them
        assert mapper.config == model.config
        return
    pixels = model.example(40, 56)
    parameters = mapper.parameters(pixels)
    display = mapper.render(pixels, parameters)
    assert display.shape == pixels.shape and display.dtype == np.float32
    assert 0 <= display.min() < display.max() <= 1
    assert np.array_equal(display, mapper.render(pixels))
    table = mapper.cube(parameters)
    assert table.ndim == 4 and table.shape[0] == 3 and len(set(table.shape[1:])) == 1


def test_entry_imports_nothing_heavy(name: str) -> None:
    code = (
        "import sys; from attnkit.models import describe; "
        f"describe.describe({name!r}); "
        "heavy = {'torch', 'numba', 'numpy', 'cv2', 'transformers'} & set(sys.modules); "
        "sys.exit(' '.join(heavy) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
