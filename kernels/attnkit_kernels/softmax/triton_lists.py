"""The arrays of a `BlockMap` as the Triton kernels read them, made once for each map and device."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .blockmap import BlockMap
from .rules import Boxes, Tiles
from .tensors import map_tensors
from .triton_tiles import BOXES, NO_RULE, TILES, Lists, Rule

__all__ = ["MapArrays", "map_arrays"]

Int32s = NDArray[np.int32]


class MapArrays:
    """Lists by query block and by key block; the rule, its kind (NO_RULE, BOXES or TILES) and the axes of boxes."""

    def __init__(self, block_map: BlockMap, device: torch.device) -> None:
        self._map = block_map
        self._device = device
        shared = map_tensors(block_map, device)
        rule = block_map.rule
        self.kind, self.axes = NO_RULE.value, 0
        arrays: tuple[Tensor | None, ...] = (None, None, None, None)
        if isinstance(rule, Boxes):
            self.kind, self.axes = BOXES.value, len(rule.low)
            query_slots, key_slots = shared.query_slots, shared.key_slots
            real = query_slots >= 0
            low, high = (axes[:, query_slots] for axes in (shared.low, shared.high))
            arrays = (low.where(real, 1), high.where(real, 0), shared.coordinate[:, key_slots], None)
        elif isinstance(rule, Tiles):
            self.kind, arrays = TILES.value, (None, None, None, shared.bits)
        query_order = None if block_map.query_order is None else shared.query_slots.int()
        key_order = None if block_map.key_order is None else shared.key_slots.int()
        self.rule = Rule(query_order, key_order, *arrays)

    @cached_property
    def by_query(self) -> Lists:
        return self._lists(self._map.starts, self._map.columns, self._map.full, self._tiles(), self._map.query_blocks)

    @cached_property
    def by_key(self) -> Lists:
        keys = self._map.transpose_lists()
        tiles = self._tiles()[keys.listed]
        return self._lists(keys.starts, keys.columns, keys.full, tiles, self._map.key_blocks)

    def _tiles(self) -> Int32s:
        rule = self._map.rule
        return np.maximum(rule.index, 0) if isinstance(rule, Tiles) else np.zeros(self._map.visited, np.int32)

    def _lists(
        self, starts: NDArray[np.int64], columns: Int32s, full: NDArray[np.bool_], tiles: Int32s, blocks: int
    ) -> Lists:
        lengths = np.diff(starts)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        full_first = np.lexsort((~full, rows))
        splits = starts[:-1] + np.bincount(rows[full], minlength=len(lengths))
        # stable: equal rows keep their order, and with it the keys that neighbours share in the cache
        order = np.argsort(-lengths.reshape(-1, max(blocks, 1)), axis=1, kind="stable")
        arrays = (order.reshape(-1), starts, splits, columns[full_first], tiles[full_first])
        put = iter([torch.from_numpy(array.astype(np.int32)).to(self._device) for array in arrays])
        return Lists(
            order=next(put),
            starts=next(put),
            splits=next(put),
            columns=next(put),
            tiles=next(put),
            batch=self._map.heads * blocks if self._map.batch > 1 else 0,
            head=blocks if self._map.heads > 1 else 0,
        )


def map_arrays(block_map: BlockMap, device: torch.device) -> MapArrays:
    """The arrays of `block_map` on `device`; kept with the map, so they live as long as it does."""
    kept: dict[torch.device, MapArrays] = block_map.__dict__.setdefault("_triton_arrays", {})
    if device not in kept:
        kept[device] = MapArrays(block_map, device)
    return kept[device]
