"""What VAR needs at most: tensors alive at once, counted, so that the same number comes out everywhere."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from attnkit.models.vlm.attention import Call, Rule

sys.path.append(str(Path(__file__).parents[2] / "bench"))

from live_bytes import LiveBytes
from vlm_calibration import large, memory, peak


class WholeMap(Rule):
    """Has all rows of every map computed."""

    def weights(self, call: Call, weights: Tensor) -> Tensor:
        return weights


def test_count_follows_storages_until_they_are_freed() -> None:
    before = torch.ones(1000)
    with LiveBytes() as counted:
        made = before + 1
        view, same = made.view(10, 100), before.t()
        assert counted.live == 4000
        del made
        assert counted.live == 4000
        del view, same
        assert counted.live == 0
        pair = [torch.ones(10), torch.ones(20)]
        assert counted.live == 120
        del pair
    assert counted.live == 0
    assert counted.peak == 4000


def test_var_adds_no_more_than_a_map_and_an_eighth_of_what_output_attentions_adds() -> None:
    bench = large(layers=12, width=64, heads=4, grid=16)
    found = memory(bench)
    assert found["rows_changed"] > 0
    assert found["output_attentions_adds"] >= 12 * found["one_map"]
    assert found["var_adds"] <= found["one_map"]
    assert found["var_adds"] <= found["output_attentions_adds"] / 8
    # a whole map would have been seen
    assert peak(bench, [WholeMap()]) - found["none"] > found["one_map"]
