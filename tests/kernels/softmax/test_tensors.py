"""Tensors of a map: made once per device, equal to its arrays, and gone with it."""

import gc
import weakref

import pytest
import torch
from attnkit_kernels.softmax import causal
from attnkit_kernels.softmax.tensors import map_tensors
from cases import maps


@pytest.mark.parametrize("name", ["boxes_permuted", "mask_all"])
def test_tensors_hold_the_arrays(name):
    block_map = maps()[name]
    tensors = map_tensors(block_map, "cpu")
    lists = block_map.transpose_lists()
    pairs = [
        (tensors.starts, block_map.starts),
        (tensors.rows, block_map.rows),
        (tensors.columns, block_map.columns),
        (tensors.full, block_map.full),
        (tensors.key_starts, lists.starts),
        (tensors.key_columns, lists.columns),
        (tensors.key_full, lists.full),
        (tensors.key_listed, lists.listed),
        (tensors.query_slots, block_map.query_slots()),
        (tensors.key_slots, block_map.key_slots()),
    ]
    assert all(tensor.tolist() == array.tolist() for tensor, array in pairs)
    assert {tensor.dtype for tensor, _ in pairs[:8]} == {torch.int32, torch.bool}
    kind, other = ("Boxes", "bits") if name.startswith("boxes") else ("Tiles", "low")
    for own in ("low", "high", "coordinate") if kind == "Boxes" else ("bits", "index"):
        assert getattr(tensors, own).tolist() == getattr(block_map.rule, own).tolist()
    with pytest.raises(AttributeError, match=f"the rule of this map is {kind}, not"):
        getattr(tensors, other)


def test_made_once_per_device_and_kept_by_the_map_alone():
    block_map = causal(40, 16, 16)
    tensors = map_tensors(block_map, "cpu")
    assert map_tensors(block_map, torch.device("cpu")) is tensors
    assert map_tensors(block_map, "meta") is not tensors
    assert tensors.columns is tensors.columns
    gone = weakref.ref(tensors.columns)
    del tensors, block_map
    gc.collect()
    assert gone() is None


def test_writing_to_a_tensor_leaves_the_map_alone():
    block_map = causal(40, 16, 16)
    map_tensors(block_map, "cpu").columns.zero_()
    assert block_map.columns.tolist() == causal(40, 16, 16).columns.tolist()
