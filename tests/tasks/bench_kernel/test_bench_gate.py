"""The gate stops wrong kernels, and the work of a kernel is what brute force counts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from attnkit_kernels.softmax import BlockMap, from_mask
from torch import Tensor

from attnkit.tasks.bench_kernel import kernels
from attnkit.tasks.bench_kernel.baselines import prepare_baseline
from attnkit.tasks.bench_kernel.failures import Absent, reason_of
from attnkit.tasks.bench_kernel.gate import BOUNDS, check, sample_rows
from attnkit.tasks.bench_kernel.measuring import Options, add_break_even, add_roofline, measure
from attnkit.tasks.bench_kernel.operators import OPERATORS
from attnkit.tasks.bench_kernel.peaks import Peaks
from attnkit.tasks.bench_kernel.plan import Case, Wanted, cases_of

SHAPE = {"tokens": "256", "heads": "2", "dim": "8", "impl": "reference"}
FEW_PAIRS = 1 << 13


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def case_of(name: str, **changed: str) -> Case:
    [case] = cases_of(Wanted((name,), (), {**SHAPE, **changed}))
    return case


def picture_case(name: str, **changed: str) -> Case:
    [case] = cases_of(Wanted((name,), (), {"canvas": "24,31", **changed}))
    return case


def static_names() -> list[str]:
    return [name for name, operator in OPERATORS.items() if operator.kind == "static"]


def spoiled(kernel: kernels.Kernel, how: str) -> kernels.Kernel:
    """The same kernel with one mistake."""
    right = kernel.run

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = right(query, key, value)
        if how == "last row":
            return torch.cat([output[:, :-1], output[:, -1:] * 1.01], 1)
        if how == "scale":
            return right(query * 1.05, key, value)
        if how == "nan":
            return output + torch.where(torch.arange(output.shape[1]) == 0, torch.nan, 0.0)[:, None, None]
        if how == "shape":
            return output[..., :-1]
        # right forward, wrong gradient of the keys
        return output.detach() + (right(query, key.detach(), value) - right(query, key.detach(), value).detach())

    kernel.run = run
    return kernel


@pytest.mark.parametrize("name", static_names())
@pytest.mark.parametrize("direction", ["fwd", "fwdbwd"])
def test_right_kernels_pass(name: str, direction: str) -> None:
    kernel = kernels.prepare(case_of(name, direction=direction), "cpu", 0)
    for most, size in ((1 << 30, "full"), (FEW_PAIRS, "16 of 256 rows")):
        checked = check(kernel, direction, 0, most)
        assert checked.right and checked.error < 1e-5 and checked.size == size
        assert checked.first_seconds >= 0


@pytest.mark.parametrize("name", [name for name, one in OPERATORS.items() if one.kind in ("routed", "variant")])
@pytest.mark.parametrize("direction", ["fwd", "fwdbwd"])
def test_routed_kernels_and_compositions_pass(name: str, direction: str) -> None:
    kernel = kernels.prepare(case_of(name, direction=direction, impl="torch"), "cpu", 0)
    assert check(kernel, direction, 0, 1 << 30).right
    checked = check(kernel, direction, 0, FEW_PAIRS)
    cut = OPERATORS[name].kind == "variant"
    assert checked.right and checked.size == ("at 64 tokens" if cut else "16 of 256 rows")
    assert kernel.impl == "torch" and kernel.work.flops > 0


@pytest.mark.parametrize("name", [name for name, one in OPERATORS.items() if one.kind == "image"])
def test_picture_kernels_pass_and_fail(name: str) -> None:
    kernel = kernels.prepare(picture_case(name), "cpu", 0)
    assert kernel.impl == "numba" and kernel.operands is None
    assert check(kernel, "fwd", 0).right and check(kernel, "fwd", 0).size == "full"
    right = kernel.run
    kernel.run = lambda *inputs: right(*inputs) + 1e-3
    assert not check(kernel, "fwd", 0).right
    with pytest.raises(ValueError, match="forward"):
        kernels.check_case(picture_case(name, direction="bwd"), "cpu")
    with pytest.raises(ValueError, match="rows and columns"):
        kernels.check_case(picture_case(name, canvas="4,4,4"), "cpu")


def test_pictures_stand_beside_their_reference() -> None:
    [rows] = list(measure([picture_case("lut3d")], Options(repeats=5, memory=False), {}, {}, lambda line: None))
    assert [(row["operator"], row["of"], row["status"]) for row in rows] == [
        ("lut3d", None, "ok"),
        ("reference", "lut3d", "ok"),
    ]
    assert rows[0]["versus"]["reference"]["baseline_ms"] > 0
    sdpa = list(
        measure([picture_case("lut3d")], Options(picture_baselines=("sdpa",), repeats=5, memory=False), {}, {}, str)
    )
    assert "no attention" in sdpa[0][1]["reason"]


@pytest.mark.parametrize("name", ["dense", "neighborhood"])
@pytest.mark.parametrize("how", ["last row", "scale", "nan", "shape"])
@pytest.mark.parametrize("most", [1 << 30, FEW_PAIRS])
def test_wrong_kernels_do_not(name: str, how: str, most: int) -> None:
    kernel = spoiled(kernels.prepare(case_of(name), "cpu", 0), how)
    checked = check(kernel, "fwd", 0, most)
    assert not checked.right and checked.error > BOUNDS["float32"]


@pytest.mark.parametrize("most", [1 << 30, FEW_PAIRS])
def test_a_wrong_gradient_does_not_pass(most: int) -> None:
    kernel = spoiled(kernels.prepare(case_of("neighborhood"), "cpu", 0), "gradient")
    assert check(kernel, "fwd", 0, most).right
    # the gradient is absent altogether: autograd says so, and the row has the reason
    with pytest.raises(RuntimeError, match="not have been used"):
        check(kernel, "fwdbwd", 0, most)


def test_a_wrong_kernel_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = kernels.attention

    def wrong(query: Tensor, key: Tensor, value: Tensor, **options: object) -> object:
        result = attention(query, key, value, **options)
        factor = 1.0 if query.dtype == torch.float64 else 1.1
        return result._replace(output=result.output * factor)

    monkeypatch.setattr(kernels, "attention", wrong)
    [rows] = list(measure([case_of("radial")], Options(repeats=1, memory=False), {}, {}, lambda line: None))
    own, baseline = rows
    assert own["status"] == "wrong" and own["error"] == pytest.approx(0.1, rel=0.01) and own["checked"] == "full"
    assert "median_ms" not in own and "compile_ms" not in own and "versus" not in own
    assert baseline["status"] == "ok" and baseline["median_ms"] > 0


def test_sampled_rows_cover_the_length() -> None:
    kernel = kernels.prepare(case_of("dense"), "cpu", 0)
    rows = sample_rows(kernel, 0, FEW_PAIRS)
    assert rows is not None and len(rows) == 16
    assert rows[0] == 0 and rows[-1] == 255
    # one from each sixteenth
    assert (rows[1:-1] // 16).tolist() == list(range(1, 15))
    assert sample_rows(kernel, 0, kernel.pairs) is None


@pytest.mark.parametrize("name", static_names())
def test_work_is_what_brute_force_counts(name: str) -> None:
    case = case_of(name, batch="2", heads="4", dim="16")
    kernel = kernels.prepare(case, "cpu", 0)
    assert kernel.block_map is not None
    seen = kernel.block_map.to_dense()
    pairs = int(np.broadcast_to(seen, (2, 4, *seen.shape[2:])).sum())
    assert kernel.work.flops == 4 * 16 * pairs
    tiles = kernel.work.counts
    assert kernel.work.tile_flops == 4 * 16 * tiles["visited"] * tiles["query_block"] * tiles["key_block"]
    assert tiles["full"] + tiles["partial"] == tiles["visited"] and tiles["total"] % 8 == 0
    assert kernel.work.tile_flops >= kernel.work.flops


def test_work_of_directions_and_bytes() -> None:
    forward, backward, both = (kernels.prepare(case_of("dense", direction=one), "cpu", 0) for one in kernels.FLOPS_OF)
    pairs = 2 * 256 * 256
    assert forward.work.flops == 4 * 8 * pairs
    # scores, their gradient, and one product for each of query, key and value
    assert backward.work.flops == 10 * 8 * pairs and both.work.flops == 14 * 8 * pairs
    tensor, lse = 4 * 256 * 2 * 8, 4 * 256 * 2
    assert forward.work.moved == 4 * tensor + lse
    assert backward.work.moved == 8 * tensor + lse and both.work.moved == 12 * tensor + 2 * lse


def test_tails_are_counted() -> None:
    text = {"text": "24"}
    [plain] = cases_of(Wanted(("radial",), (), SHAPE))
    [case] = cases_of(Wanted(("radial",), (), SHAPE, tuple(f"radial.{key}={value}" for key, value in text.items())))
    kernel = kernels.prepare(case, "cpu", 0)
    block_map = kernel.block_map
    assert block_map is not None and kernel.inputs[0].shape[1] == kernels.lengths_of(block_map)[0]
    assert kernel.work.flops == 4 * 8 * 2 * int(block_map.to_dense().sum())
    assert kernel.work.flops > kernels.prepare(plain, "cpu", 0).work.flops
    assert check(kernel, "fwd", 0, FEW_PAIRS).right


def test_visible_rows_of_any_map() -> None:
    generator = np.random.default_rng(3)
    mask = generator.random((2, 3, 50, 70)) < 0.3
    order = generator.permutation(np.r_[np.arange(50), -np.ones(14, np.int64)])
    shown = from_mask(mask, 8, 16, query_order=order)
    rows = np.array([0, 7, 8, 49])
    assert np.array_equal(kernels.visible_rows(shown, rows), mask[:, :, rows])


def test_permutation_gives_the_tokens_back() -> None:
    kernel = kernels.prepare(case_of("neighborhood"), "cpu", 0)
    assert isinstance(kernel.block_map, BlockMap) and kernel.block_map.query_order is not None
    assert kernel.permute is not None and torch.equal(kernel.permute(), kernel.inputs[0])
    assert kernels.prepare(case_of("dense"), "cpu", 0).permute is None


@pytest.mark.parametrize("name", ["sdpa", "sdpa-flash", "sdpa-math", "sdpa-mask", "flex"])
@pytest.mark.parametrize("operator", ["dense", "causal", "halo"])
def test_baselines_pass_their_gate(name: str, operator: str) -> None:
    case = case_of(operator, **{"kv-heads": "1", "dim": "16"})
    kernel = kernels.prepare(case, "cpu", 0)
    assert kernel.operands is not None
    other = prepare_baseline(name, case, kernel, 0)
    for most in (1 << 30, FEW_PAIRS):
        assert check(other, "fwd", 0, most).right
    # dense torch does all pairs, whatever the operator would leave out
    dense = name.startswith("sdpa") and name != "sdpa-mask" and operator != "causal"
    assert other.work.flops == (4 * 16 * 2 * 256**2 if dense else kernel.work.flops)


def test_absent_and_refused_baselines_are_rows_with_a_reason() -> None:
    case = case_of("dense", direction="bwd")
    [rows] = list(measure([case], Options(("fla", "flex"), repeats=5, memory=False), {}, {}, lambda line: None))
    own, fla, flex = rows
    assert own["status"] == "ok" and own["runs"] == 5
    assert {name: found["verdict"] for name, found in own["versus"].items()} == {"fla": "absent", "flex": "unsupported"}
    assert (fla["status"], fla["reason"]) == ("absent", "fla is not installed")
    assert flex["status"] == "unsupported" and "backward" in flex["reason"]


def test_too_large_tables_are_refused_before_they_are_made() -> None:
    case = cases_of(Wanted(("sliding",), (), {"tokens": "1000000", "heads": "1", "dim": "8"}))[0]
    kernel = kernels.prepare(case_of("sliding"), "cpu", 0)
    long = torch.zeros(1, 1, 1, 8).expand(1, 1000000, 1, 8)
    kernel.operands = (long, long, long)
    for name in ("sdpa-mask", "sdpa-math", "flex", "reference"):
        with pytest.raises(MemoryError, match=r"12000\.0 GB") as refused:
            prepare_baseline(name, case, kernel, 0)
        assert reason_of(refused.value)[0] == "out of memory"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Absent("natten is not installed"), "absent"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB."), "out of memory"),
        (ValueError("impl 'flex' has no backward pass"), "unsupported"),
        (RuntimeError("shapes differ\nin two lines"), "failed"),
    ],
)
def test_reasons(error: Exception, status: str) -> None:
    found, reason = reason_of(error)
    assert found == status and "\n" not in reason and reason


def test_rows_of_one_run() -> None:
    cases = cases_of(Wanted(("grid", "dense"), ("tokens=64,128,256",), {"heads": "2", "dim": "8", "impl": "reference"}))
    roofs: dict[str, Peaks] = {}
    groups = measure(cases, Options(repeats=5, memory=False), {}, roofs, lambda line: None)
    rows = [row for group in groups for row in group]
    add_roofline(rows, roofs)
    add_break_even(cases, rows, ("sdpa",))
    assert [row["operator"] for row in rows] == ["grid", "sdpa", "dense"] * 3
    for row in rows:
        assert row["status"] == "ok" and row["p20_ms"] <= row["median_ms"] <= row["p80_ms"]
        assert row["total_ms"] >= row["median_ms"] and row["tflops"] > 0 and row["roofline_percent"] > 0
    own = [row for row in rows if row["operator"] == "grid"]
    assert {row["break_even_method"].partition(":")[0] for row in own} == {"fit of 3 lengths"}
    assert all("break_even_tokens" not in row for row in rows if row["operator"] != "grid")
    assert all(row["versus"]["sdpa"]["baseline_ms"] > 0 for row in own)
