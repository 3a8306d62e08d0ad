"""The arrays of a `BlockMap` as tensors, made once per map and device."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .blockmap import BlockMap
from .rules import Boxes, Tiles

__all__ = ["MapTensors", "map_tensors"]


class MapTensors:
    """Tensors of one map on one device, each made when it is first asked for.

    starts, rows, columns, full : int32 lists by query block ([rows + 1], [listed], [listed]) and bool [listed]
    key_starts, key_columns, key_full, key_listed : the same lists by key block, and the place in the lists above
    query_slots, key_slots : int64 [slots], the token of each slot, -1 for padding
    low, high, coordinate : int32, of a `Boxes` rule; bits, index : uint8 and int32, of a `Tiles` rule
    """

    def __init__(self, block_map: BlockMap, device: torch.device) -> None:
        self._map = block_map
        self.device = device

    def _put(self, array: NDArray, dtype: type | None = None) -> Tensor:  # type: ignore[type-arg]
        # a copy: the map's arrays may be read-only, and must not be written through the tensor
        return torch.from_numpy(np.array(array, dtype or array.dtype)).to(self.device)

    @cached_property
    def starts(self) -> Tensor:
        return self._put(self._map.starts, np.int32)

    @cached_property
    def rows(self) -> Tensor:
        return self._put(self._map.rows)

    @cached_property
    def columns(self) -> Tensor:
        return self._put(self._map.columns)

    @cached_property
    def full(self) -> Tensor:
        return self._put(self._map.full)

    @cached_property
    def key_starts(self) -> Tensor:
        return self._put(self._map.transpose_lists().starts, np.int32)

    @cached_property
    def key_columns(self) -> Tensor:
        return self._put(self._map.transpose_lists().columns)

    @cached_property
    def key_full(self) -> Tensor:
        return self._put(self._map.transpose_lists().full)

    @cached_property
    def key_listed(self) -> Tensor:
        return self._put(self._map.transpose_lists().listed)

    @cached_property
    def query_slots(self) -> Tensor:
        return self._put(self._map.query_slots())

    @cached_property
    def key_slots(self) -> Tensor:
        return self._put(self._map.key_slots())

    @cached_property
    def low(self) -> Tensor:
        return self._put(self._boxes.low)

    @cached_property
    def high(self) -> Tensor:
        return self._put(self._boxes.high)

    @cached_property
    def coordinate(self) -> Tensor:
        return self._put(self._boxes.coordinate)

    @cached_property
    def bits(self) -> Tensor:
        return self._put(self._tiles.bits)

    @cached_property
    def index(self) -> Tensor:
        return self._put(self._tiles.index)

    @property
    def _boxes(self) -> Boxes:
        if not isinstance(self._map.rule, Boxes):
            raise AttributeError(f"the rule of this map is {type(self._map.rule).__name__}, not Boxes")
        return self._map.rule

    @property
    def _tiles(self) -> Tiles:
        if not isinstance(self._map.rule, Tiles):
            raise AttributeError(f"the rule of this map is {type(self._map.rule).__name__}, not Tiles")
        return self._map.rule


def map_tensors(block_map: BlockMap, device: torch.device | str) -> MapTensors:
    """The tensors of `block_map` on `device`, kept on the map itself, so that they live as long as it does."""
    held: dict[str, MapTensors] = block_map.__dict__.setdefault("_tensors", {})
    where = torch.device(device)
    if where.type == "cuda" and where.index is None:
        where = torch.device("cuda", torch.cuda.current_device())
    return held.setdefault(str(where), MapTensors(block_map, where))
