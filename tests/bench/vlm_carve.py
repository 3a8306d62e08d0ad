"""What CARVE saves by ending its extra passes with the last layer whose attention it needs.

    python tests/bench/vlm_carve.py [--repeats 5] [--tokens 1 3] [--threads 1] [--json]

The network is random, LLaVA's shape, with the 28 layers of the paper's Qwen2.5-VL-7B, of which CARVE sees 20 to 25,
and 144 image tokens; it is 256 wide, since what is saved depends on the depth. A pass writes --tokens tokens (1 is
`--set carve.steps=first`). Whole passes and those that end early take turns; compared are the operations of matrix
products as torch counts them, and medians of the process's own time. The maps must be the same bits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnkit.models.vlm.attention import register
from attnkit.models.vlm.families import FAMILIES
from attnkit.models.vlm.opening import VisionLanguageModel
from attnkit.models.vlm.prompt import Prompt, Tile, View
from attnkit.tasks.vlm_ask.calibrations.carve import FIRST_SHARE, STOP_SHARE, written_attention

IMAGE_ID, IMAGE_SIDE, TEXT_TOKENS = 7, 12, 40


def network() -> tuple[VisionLanguageModel, Prompt]:
    """The network and a prompt with one picture."""
    from transformers import AutoModelForImageTextToText, CLIPVisionConfig, LlamaConfig, LlavaConfig

    side = 14 * IMAGE_SIDE
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=side,
        patch_size=14,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=8000, hidden_size=256, intermediate_size=1024, num_hidden_layers=28, num_attention_heads=8,
        num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE_ID)
    model: Any = AutoModelForImageTextToText.from_config(config, attn_implementation=register()).eval()
    words = SimpleNamespace(pad_token_id=0, tokenizer=SimpleNamespace(eos_token_id=2, get_added_vocab=dict))
    layers = FAMILIES["llava"].decoder_layers(model)
    vlm = VisionLanguageModel(model, words, FAMILIES["llava"], Path(), "cpu", "float32", layers)  # type: ignore[arg-type]
    ids = torch.randint(10, 8000, (1, TEXT_TOKENS), generator=torch.Generator().manual_seed(1))
    ids = torch.cat([ids[:, :6], torch.full((1, IMAGE_SIDE**2), IMAGE_ID), ids[:, 6:]], 1)
    view = View(side, side, side, side, (Tile(IMAGE_SIDE, IMAGE_SIDE, (0.0, 0.0, side, side)),))
    pixels = {"pixel_values": torch.randn(1, 3, side, side)}
    return vlm, Prompt(["random"], ids, torch.ones_like(ids), ids == IMAGE_ID, pixels, [(view,)])


def measure(repeats: int, tokens: int) -> dict[str, Any]:
    vlm, prompt = network()
    count = len(vlm.layers)
    layers = frozenset(range(round(FIRST_SHARE * count), round(STOP_SHARE * count)))

    def run(whole: bool) -> list[Any]:
        return written_attention(vlm, prompt, layers, tokens, whole=whole)

    operations, maps = {}, {}
    for whole in (True, False):
        with FlopCounterMode(display=False) as counter:
            maps[whole] = run(whole)
        operations[whole] = counter.get_total_flops()
    if not all(np.array_equal(one, other) for one, other in zip(maps[True], maps[False], strict=True)):
        raise SystemExit("the maps of a pass that ends early are others")
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(repeats):
        for whole in (True, False) if turn % 2 else (False, True):
            started = time.process_time()
            run(whole)
            seconds[whole].append(time.process_time() - started)
    ratios = [early / whole for whole, early in zip(seconds[True], seconds[False], strict=True)]
    return {
        "tokens": tokens,
        "layers": [min(layers), max(layers)],
        "of": count,
        "operations_ratio": round(operations[False] / operations[True], 4),
        "whole_ms": round(1000 * statistics.median(seconds[True]), 1),
        "early_ms": round(1000 * statistics.median(seconds[False]), 1),
        "ratio": round(statistics.median(seconds[False]) / statistics.median(seconds[True]), 3),
        "ratios": [round(one, 3) for one in sorted(ratios)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for tokens in given.tokens:
        result = measure(given.repeats, tokens)
        print(json.dumps(result) if given.json else ", ".join(f"{key} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
