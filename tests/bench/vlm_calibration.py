"""What VAR costs: prefill, time per token and peak memory beside the model without a calibration.

    python tests/bench/vlm_calibration.py [--model large|tiny-llava] [--repeats 7] [--tokens 24] [--threads 2]
                                          [--as-shipped] [--processor-time] [--json]
    python tests/bench/vlm_calibration.py --memory [--json]

`large` is a random network of LLaVA's shape with the language model of a 0.5B one (24 layers, 896 wide, 14 heads, 2 of
keys; vocabulary 32000) and 576 image tokens. A threshold makes at least 3 of 100 image tokens sinks in every layer, and
every row behind the image may be changed, so that VAR does all that it can do; `tiny-llava` is the embedded model, its
sinks made the same way, or with --as-shipped those that it has (none). The arms take turns, each turn one answer; the
time to its first token is the prefill, the median between tokens the time per token, and the medians over the turns are
compared. Asked: at most 1.15 of the time of none for both. With --processor-time the clock is the processor time of the
thread (with one thread), which other work on the machine moves less.

Memory is the peak of the tensors alive at once in the decoder's prefill, counted, beside one layer's map
(heads x tokens^2 x 4 bytes). Asked: VAR adds at most one map, and an eighth of what output_attentions adds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from live_bytes import LiveBytes

from attnkit.models.vlm.attention import Rule, Session, register
from attnkit.models.vlm.families import FAMILIES
from attnkit.models.vlm.opening import VisionLanguageModel
from attnkit.models.vlm.prompt import Prompt, Tile, View
from attnkit.models.vlm.sinks import SinkProfile, known_profile, sink_scores
from attnkit.tasks.vlm_ask.calibrations.base import Asked, make_calibrations

IMAGE_ID = 7
TEXT_TOKENS = 40
# so that every head of every row behind the image is changed
SETTINGS = {"var.mass": 0.0, "var.rho": 0.0}
ARMS = ("none", "var")
SHARE = 0.03


@dataclass
class Bench:
    vlm: VisionLanguageModel
    prompt: Prompt
    profile: SinkProfile


class _Scores(Rule):
    """Scores of the image tokens in dimension 0, at the entrance of each layer."""

    def __init__(self, image: torch.Tensor) -> None:
        self.image = image
        self.found: list[torch.Tensor] = []

    def observe(self, layer: int, start: int, hidden: torch.Tensor) -> None:
        self.found.append(sink_scores(hidden, [0])[self.image])


def profile_for(vlm: VisionLanguageModel, prompt: Prompt, name: str) -> SinkProfile:
    """A threshold that SHARE of the image tokens exceed in each layer, at least."""
    looking = _Scores(prompt.image_mask)
    with torch.inference_mode(), Session(vlm.layers, prompt.length, [looking]):
        vlm.model(**prompt.inputs(), logits_to_keep=1)
    tau = min(float(scores.quantile(1 - SHARE)) for scores in looking.found)
    return SinkProfile((0,), tau, vlm.hidden_size, name, "benchmark")


def large(layers: int = 24, width: int = 896, heads: int = 14, grid: int = 24) -> Bench:
    """A random network that sees `grid` x `grid` image tokens; the defaults are those of a 0.5B one."""
    from transformers import AutoModelForImageTextToText, CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=6,
        image_size=14 * grid,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=32000, hidden_size=width, intermediate_size=4864 * width // 896, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=2, max_position_embeddings=4096,
    )  # fmt: skip
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE_ID)
    model: Any = AutoModelForImageTextToText.from_config(config, attn_implementation=register()).eval()
    family = FAMILIES["llava"]
    vlm = VisionLanguageModel(
        model,
        None,
        family,
        None,
        "cpu",
        "float32",
        family.decoder_layers(model),  # type: ignore[arg-type]
    )
    draw = torch.Generator().manual_seed(1)
    text_ids = torch.randint(10, 32000, (1, TEXT_TOKENS), generator=draw)
    ids = torch.cat([text_ids[:, :6], torch.full((1, grid**2), IMAGE_ID), text_ids[:, 6:]], 1)
    side = 14 * grid
    pixels = {"pixel_values": torch.randn(1, 3, side, side, generator=draw)}
    view = View(side, side, side, side, (Tile(grid, grid, (0.0, 0.0, float(side), float(side))),))
    prompt = Prompt(["random"], ids, torch.ones_like(ids), ids == IMAGE_ID, pixels, [(view,)])
    return Bench(vlm, prompt, profile_for(vlm, prompt, "random"))


def embedded(name: str, as_shipped: bool) -> Bench:
    from PIL import Image

    from attnkit.models import registry
    from attnkit.tasks.vlm_ask.task import Request, prompt_of

    vlm = registry.open_model(name, task="vlm-ask")
    prompt = prompt_of(vlm, [Request((Image.new("RGB", (200, 160), (200, 60, 30)),), "What is in the picture?")])
    own = known_profile(vlm) or SinkProfile((), 0.0, vlm.hidden_size, name, "none known")
    return Bench(vlm, prompt, own if as_shipped else profile_for(vlm, prompt, name))


class _Clock:
    """Notes when the logits of each token are there; a processor that changes nothing."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.times: list[float] = []

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.times.append(self.now())
        return scores


def run(bench: Bench, arm: str, tokens: int, now: Callable[[], float]) -> tuple[float, float, int]:
    """Seconds of the prefill, median seconds per further token, and rows that were changed."""
    from transformers import GenerationConfig, LogitsProcessorList

    config = GenerationConfig(
        max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0, eos_token_id=2
    )
    clock = _Clock(now)
    with torch.inference_mode():
        started = now()
        calibrations = make_calibrations(() if arm == "none" else (arm,), SETTINGS, bench.vlm, bench.profile)
        for calibration in calibrations:
            calibration.prepare(Asked(bench.vlm, (), bench.prompt))
        with Session(bench.vlm.layers, bench.prompt.length, calibrations):
            bench.vlm.model.generate(
                **bench.prompt.inputs(), generation_config=config, logits_processor=LogitsProcessorList([clock])
            )
    changed = sum(one.report(0)["rows_changed"] for one in calibrations)
    steps = [later - earlier for earlier, later in itertools.pairwise(clock.times)]
    return clock.times[0] - started, statistics.median(steps), changed


def measure(
    model: str, repeats: int, tokens: int, as_shipped: bool, now: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    bench = large() if model == "large" else embedded(model, as_shipped)
    found: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
    changed = 0
    for turn in range(repeats + 1):
        for arm in ARMS if turn % 2 else ARMS[::-1]:
            prefill, token, rows = run(bench, arm, tokens, now)
            changed = max(changed, rows)
            # the first turn warms up
            if turn:
                found[arm].append((prefill, token))
    if not changed and not as_shipped:
        raise SystemExit(f"{model}: VAR changed no row, so nothing was measured; lower the threshold")
    result: dict[str, Any] = {"model": model, "prompt_tokens": bench.prompt.length, "rows_changed": changed}
    for index, name in enumerate(("prefill", "token")):
        medians = {arm: statistics.median(one[index] for one in found[arm]) for arm in ARMS}
        ratios = [one[index] / other[index] for one, other in zip(found["var"], found["none"], strict=True)]
        result[name] = {
            **{f"{arm}_ms": round(1000 * value, 3) for arm, value in medians.items()},
            "ratio": round(medians["var"] / medians["none"], 3),
            "ratios": [round(one, 3) for one in sorted(ratios)],
        }
    return result


def peak(bench: Bench, rules: Sequence[Rule], *, output_attentions: bool = False) -> int:
    """Bytes of tensors alive at once from the first decoder layer of a prefill on: before, nothing of VAR is done."""
    model, prompt, counted = bench.vlm.model, bench.prompt, LiveBytes()
    beginning = bench.vlm.layers[0].register_forward_pre_hook(lambda *_: counted.forget_peak())
    # maps are handed out by eager attention alone
    model.set_attn_implementation("eager" if output_attentions else register())
    try:
        with torch.inference_mode(), Session(bench.vlm.layers, prompt.length, rules), counted:
            model(**prompt.inputs(), output_attentions=output_attentions, logits_to_keep=1)
    finally:
        beginning.remove()
        model.set_attn_implementation(register())
    return counted.peak


def memory(bench: Bench) -> dict[str, int]:
    """Bytes: the peaks of none, VAR and output_attentions, what the last two add, and one layer's map."""
    calibrations = make_calibrations(("var",), SETTINGS, bench.vlm, bench.profile)
    for calibration in calibrations:
        calibration.prepare(Asked(bench.vlm, (), bench.prompt))
    peaks = {
        "none": peak(bench, ()),
        "var": peak(bench, calibrations),
        "output_attentions": peak(bench, (), output_attentions=True),
    }
    adds = {f"{arm}_adds": value - peaks["none"] for arm, value in peaks.items() if arm != "none"}
    changed = calibrations[0].report(0)["rows_changed"]
    return {**peaks, **adds, "one_map": bench.vlm.heads * bench.prompt.length**2 * 4, "rows_changed": changed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="large")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--as-shipped", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.memory:
        result = memory(large())
    else:
        now = time.thread_time if given.processor_time else time.perf_counter
        result = measure(given.model, given.repeats, given.tokens, given.as_shipped, now)
    if given.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
