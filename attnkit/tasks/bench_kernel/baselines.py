"""What a user would pick instead: torch's own attentions and the peers that can be imported.

Nothing here imports torch or a peer before a baseline is prepared: `--list` shows which are there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from attnkit.runtime.errors import UsageError
from attnkit.runtime.values import nearest

from .failures import Absent, Unsupported
from .plan import Case

if TYPE_CHECKING:
    from attnkit_kernels.softmax import BlockMap
    from torch import Tensor

    from .kernels import Kernel

Inputs = tuple["Tensor", "Tensor", "Tensor"]
# scores that an implementation without tiles keeps: in the type of the inputs, the softmax's, and the mask
_COPIES = 3


@dataclass(frozen=True)
class Baseline:
    """own_map: it runs the case's map (else dense attention, or causal for the causal operator)."""

    name: str
    summary: str
    module: str
    own_map: bool
    prepare: Callable[[Case, Inputs, BlockMap | None], Kernel] | None

    @property
    def present(self) -> bool:
        return find_spec(self.module) is not None


def baseline_named(name: str) -> Baseline:
    """The baseline of that name. UsageError with the nearest and all names for an unknown one."""
    if name not in BASELINES:
        near = nearest(name, BASELINES)
        hint = f"did you mean {near}? " if near else ""
        raise UsageError(f"--baseline: got {name!r}; {hint}expected some of {', '.join(BASELINES)}")
    return BASELINES[name]


def prepare_baseline(name: str, case: Case, kernel: Kernel, seed: int) -> Kernel:
    """The baseline beside the kernel of a case. Absent where its package is not here, Unsupported where it cannot."""
    baseline = BASELINES[name]
    if not baseline.present:
        raise Absent(f"{baseline.module} is not installed")
    if baseline.prepare is None:
        return _reference(case, kernel, seed)
    if kernel.operands is None:
        raise Unsupported(f"{case.operator} is no attention, so {name} cannot stand in for it")
    return baseline.prepare(case, kernel.operands, kernel.block_map)


def _reference(case: Case, kernel: Kernel, seed: int) -> Kernel:
    from .kernels import prepare

    if kernel.operands is not None:
        queries, keys = (one.shape[1] for one in kernel.operands[:2])
        refuse_large(case, queries, keys, "the reference's scores of all pairs")
    made = None if kernel.block_map is None else (kernel.block_map, 0.0)
    own = prepare(replace(case, impl="reference"), str(kernel.inputs[0].device), seed, made)
    own.map_seconds = None
    return own


def _sdpa(case: Case, inputs: Inputs, block_map: BlockMap | None, backend: str | None, masked: bool) -> Kernel:
    import torch
    from attnkit_kernels.softmax import causal, dense
    from torch.nn import functional
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from .kernels import Kernel, truth_of, work_of

    is_causal = case.operator == "causal" and not masked
    queries, keys = inputs[0].shape[1], inputs[1].shape[1]
    mask = None
    if masked:
        if block_map is None:
            raise Unsupported(f"{case.operator} has no map that a mask could show")
        refuse_large(case, queries, keys, "a mask over all pairs")
        mask = torch.from_numpy(block_map.to_dense()).to(inputs[0].device)
        shown = block_map
    else:
        shown = causal(queries) if is_causal else dense(queries, keys)
    if backend == "MATH":
        refuse_large(case, queries, keys, "the scores of all pairs")

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(
            query, key, value, mask, is_causal=is_causal, enable_gqa=case.heads != case.kv_heads
        )

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if backend is None:
            return attend(query, key, value)
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return attend(query, key, value)

    work = work_of(case, shown)
    # the layout that this function is written for, so that it pays for no copies of ours
    own = tuple(tensor.transpose(1, 2).contiguous() for tensor in inputs)
    pairs = case.batch * case.heads * queries * keys
    # a table of the blocks is our own idea: of this kernel only its pairs are known
    tile_flops = None if masked else work.tile_flops
    own_work = type(work)(work.flops, tile_flops, work.moved)
    return Kernel(run, own, own_work, truth_of(shown), pairs, queries, backend or "auto", layout="heads")


def _sdpa_with(backend: str | None, masked: bool = False) -> Callable[[Case, Inputs, BlockMap | None], Kernel]:
    return lambda case, inputs, block_map: _sdpa(case, inputs, block_map, backend, masked)


def _flex(case: Case, inputs: Inputs, block_map: BlockMap | None) -> Kernel:
    from attnkit_kernels.softmax import resolve_impl

    from .kernels import over_map

    if block_map is None:
        raise Unsupported(f"{case.operator} has no map that FlexAttention could run")
    if inputs[0].device.type == "cpu":
        if case.direction != "fwd":
            raise Unsupported("FlexAttention has no backward pass on a CPU")
        refuse_large(case, inputs[0].shape[1], inputs[1].shape[1], "eager FlexAttention's scores of all pairs")
    return over_map(case, inputs, block_map, resolve_impl(*inputs, impl="flex"), None)


def _natten(case: Case, inputs: Inputs, block_map: BlockMap | None) -> Kernel:
    import natten

    from .kernels import Kernel, truth_of, work_of

    if case.operator != "neighborhood" or block_map is None:
        raise Unsupported(f"natten knows neighborhood attention, not {case.operator}")
    if len(case.canvas) > 3:
        raise Unsupported(f"natten takes 1 to 3 axes, not {len(case.canvas)}")
    if inputs[0].device.type == "cpu" and case.direction != "fwd":
        raise Unsupported("natten has no backward pass on a CPU")
    attend = getattr(natten, f"na{len(case.canvas)}d")
    settings = dict(case.settings)
    options = {
        "kernel_size": settings["window"],
        "stride": settings.get("stride", 1),
        "dilation": settings.get("dilation", 1),
        "is_causal": settings.get("causal", False),
    }
    options = {key: _per_axis(value, len(case.canvas)) for key, value in options.items()}

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        on_canvas = [tensor.unflatten(1, case.canvas) for tensor in (query, key, value)]
        return attend(*on_canvas, **options).flatten(1, len(case.canvas))

    work = work_of(case, block_map)
    pairs = case.batch * case.heads * case.tokens**2
    return Kernel(
        run, inputs, type(work)(work.flops, None, work.moved), truth_of(block_map), pairs, case.tokens, "auto"
    )


def _per_axis(value: Any, axes: int) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return values * axes if len(values) == 1 else values


def _flash(case: Case, inputs: Inputs, block_map: BlockMap | None) -> Kernel:
    from flash_attn import flash_attn_func

    from .kernels import Kernel, truth_of, work_of

    settings = dict(case.settings)
    if case.operator not in ("dense", "causal", "sliding") or block_map is None or settings.get("sink"):
        raise Unsupported(f"flash-attn knows dense, causal and sliding windows, not {case.operator}")
    if inputs[0].device.type != "cuda" or case.dtype not in ("float16", "bfloat16"):
        raise Unsupported(f"flash-attn runs float16 and bfloat16 on cuda, not {case.dtype} on {inputs[0].device.type}")
    is_causal = case.operator == "causal" or (case.operator == "sliding" and settings.get("causal", True))
    reach = settings["window"] - 1 if case.operator == "sliding" else -1
    window = (reach, 0 if is_causal and reach >= 0 else reach)

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return flash_attn_func(query, key, value, causal=is_causal, window_size=window)

    work = work_of(case, block_map)
    pairs = case.batch * case.heads * case.tokens**2
    return Kernel(
        run, inputs, type(work)(work.flops, None, work.moved), truth_of(block_map), pairs, case.tokens, "auto"
    )


def _fla(case: Case, inputs: Inputs, block_map: BlockMap | None) -> Kernel:
    from fla.ops.attn import parallel_attn

    from .kernels import Kernel, truth_of, work_of

    if case.operator != "causal" or block_map is None:
        raise Unsupported(f"fla's softmax attention is causal; it has no {case.operator}")
    if inputs[0].device.type != "cuda":
        raise Unsupported(f"fla runs on cuda, not on {inputs[0].device.type}")

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return parallel_attn(query, key, value)

    work = work_of(case, block_map)
    pairs = case.batch * case.heads * case.tokens**2
    return Kernel(
        run, inputs, type(work)(work.flops, None, work.moved), truth_of(block_map), pairs, case.tokens, "triton"
    )


def refuse_large(case: Case, queries: int, keys: int, what: str) -> None:
    """MemoryError, before anything is allocated, where tables over all pairs cannot fit."""
    import torch

    size = torch.empty(0, dtype=getattr(torch, case.dtype)).element_size()
    needed = _COPIES * size * case.batch * case.heads * queries * keys
    free = free_bytes()
    if needed > free:
        raise MemoryError(f"{what} would take about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


def free_bytes() -> int:
    """Memory that a kernel on the CPU may take now."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            facts = dict(line.split(":", 1) for line in stream)
        return int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 1 << 62


BASELINES: dict[str, Baseline] = {
    one.name: one
    for one in (
        Baseline(
            "sdpa",
            "torch's attention, dense (causal for causal), backend by its own choice",
            "torch",
            False,
            _sdpa_with(None),
        ),
        Baseline("sdpa-flash", "its flash backend", "torch", False, _sdpa_with("FLASH_ATTENTION")),
        Baseline("sdpa-efficient", "its memory-efficient backend", "torch", False, _sdpa_with("EFFICIENT_ATTENTION")),
        Baseline("sdpa-cudnn", "its cuDNN backend", "torch", False, _sdpa_with("CUDNN_ATTENTION")),
        Baseline("sdpa-math", "its plain backend, with all scores", "torch", False, _sdpa_with("MATH")),
        Baseline("sdpa-mask", "torch's attention with the map as a dense mask", "torch", True, _sdpa_with(None, True)),
        Baseline("reference", "the operator's own definition in eager torch", "torch", True, None),
        Baseline("flex", "FlexAttention on the same map", "torch", True, _flex),
        Baseline("natten", "NATTEN, for neighborhood", "natten", True, _natten),
        Baseline("flash-attn", "FlashAttention, for dense, causal and sliding", "flash_attn", True, _flash),
        Baseline("fla", "flash-linear-attention's softmax attention, for causal", "fla", True, _fla),
    )
}
