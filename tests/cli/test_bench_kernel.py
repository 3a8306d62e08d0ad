"""`attnkit bench-kernel` as a person calls it: exit codes, streams and files. No time is asserted."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_cases import Run

from attnkit import cli

NAME = "bench-kernel"
TINY = ("--heads", "1", "--dim", "8", "--impl", "reference", "--repeats", "5", "--no-memory")
SMALL = ("dense", "blocked", "-i", "8,16", *TINY)


@pytest.fixture(autouse=True)
def one_thread(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command in the place of the other tests' made-up ones, on one thread."""
    monkeypatch.setattr(cli.Root, "table", {NAME: cli.COMMANDS[NAME]})
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def result_of(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())["result"]


def test_list_imports_no_torch() -> None:
    code = (
        "import sys; from attnkit import cli; code = cli.run(['bench-kernel', '--list']); "
        "print(code, 'torch' in sys.modules, 'scipy' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["0", "False", "False"]
    for word in ("neighborhood", "window stride dilation causal", "sdpa", "natten", "quick"):
        assert word in done.stdout


def test_list_as_json(run: Run) -> None:
    ended = run(NAME, "--list", "--json")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    assert told["command"] == NAME
    by_name = {one["operator"]: one for one in told["result"]["operators"]}
    assert "decay" in by_name["radial"]["settings"] and by_name["sla"]["settings"] is None
    assert {one["suite"] for one in told["result"]["suites"]} == {"quick", "cpu", "gpu"}
    assert any(one["baseline"] == "flex" and one["installed"] for one in told["result"]["baselines"])


def test_list_of_names_shows_their_settings(run: Run) -> None:
    ended = run(NAME, "--list", "sla", "neighborhood")
    assert (ended.code, ended.err) == (0, "")
    assert "sla.ratio" in ended.out and "neighborhood.stride" in ended.out and "required" in ended.out
    told = json.loads(run(NAME, "--list", "lut3d", "--json").out)["result"]
    assert told["settings"][0]["setting"] == "lut3d.size" and told["settings"][0]["default"] == "33"
    assert "did you mean sla" in run(NAME, "--list", "slaa").line


def test_table(run: Run) -> None:
    ended = run(NAME, *SMALL, "--baseline", "sdpa,natten", "--roofline")
    assert (ended.code, ended.err) == (0, "")
    assert "torch 2." in ended.out and "threads" in ended.out
    first, second = ended.out.split("\n\n")[1:]
    header, *lines = first.splitlines()
    for word in ("median (ms)", "CV (%)", "runs", "over sdpa", "TFLOP/s", "error", "compile (ms)", "total (ms)"):
        assert word in header
    assert [line.split()[0] for line in lines] == ["dense", "sdpa", "natten", "blocked", "natten"]
    assert "absent: natten is not installed" in lines[2]
    assert "ridge (FLOP/byte)" in second.splitlines()[0]


def test_json_and_files_agree(run: Run, work: Path) -> None:
    files = [word for suffix in ("json", "csv", "md", "jsonl") for word in ("--out", f"o.{suffix}")]
    ended = run(NAME, *SMALL, "--json", *files, "--plot", "o.png")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    assert told == json.loads((work / "o.json").read_text())
    assert told["command"] == NAME and told["summary"] == {"ok": 3} and told["schema"] == 1
    environment = told["result"]["environment"]
    # what a build is for, behind a plus, is not always in the version that is installed
    assert environment["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert environment["threads"] == 1 and environment["seed"] == 0 and environment["device"] == "cpu"
    assert environment["device_name"] and environment["date_utc"] and "commit" in environment
    rows = told["result"]["rows"]
    assert [row["operator"] for row in rows] == ["dense", "sdpa", "blocked"]
    dense, sdpa, blocked = rows
    assert dense["runs"] == 5 and dense["error"] < 1e-5 and dense["impl"] == "reference"
    assert dense["flops"] == 4 * 8 * 128 * 128 and blocked["canvas"] == [8, 16]
    assert dense["versus"]["sdpa"]["speedup"] > 0 and sdpa["versus"] == {}
    with (work / "o.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["operator"] for line in lines] == ["dense", "sdpa", "blocked"]
    assert float(lines[0]["median_ms"]) == dense["median_ms"]
    assert float(lines[0]["speedup_over_sdpa"]) == dense["versus"]["sdpa"]["speedup"]
    assert json.loads(lines[2]["settings"]) == blocked["settings"]
    assert (work / "o.md").read_text().count("\n| ") == 4
    assert [json.loads(line)["operator"] for line in (work / "o.jsonl").read_text().splitlines()] == [
        line["operator"] for line in lines
    ]
    assert (work / "o.png").read_bytes().startswith(b"\x89PNG")
    for name in ("o.csv.json", "o.md.json", "o.png.json", "o.jsonl.json"):
        assert json.loads((work / name).read_text())["environment"] == environment


def test_columns_of_a_csv_do_not_depend_on_the_rows(run: Run, work: Path) -> None:
    run(NAME, *SMALL, "--out", "a.csv")
    run(NAME, "neighborhood", "-i", "8,16", "-w", "4,4", "--direction", "fwdbwd", *TINY, "--out", "b.csv")
    assert (work / "a.csv").read_text().splitlines()[0] == (work / "b.csv").read_text().splitlines()[0]


def test_jsonl_and_quiet(run: Run) -> None:
    ended = run(NAME, *SMALL, "--jsonl")
    assert [json.loads(line)["status"] for line in ended.out.splitlines()] == ["ok"] * 3
    ended = run(NAME, *SMALL, "-q")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_sweep_with_memory_and_break_even(run: Run, work: Path) -> None:
    words = ("grid", "--sweep", "tokens=64,128,256", "--heads", "1", "--dim", "8", "--impl", "reference")
    ended = run(NAME, *words, "--repeats", "5", "--out", "o.json", "--plot", "o.png", "-v")
    assert ended.code == 0 and "group 3" in ended.err
    rows = result_of(work / "o.json")["rows"]
    assert [row["tokens"] for row in rows if row["role"] == "operator"] == [64, 128, 256]
    assert all(row["peak_memory_mb"] >= 0 for row in rows)
    assert all("fit of 3 lengths" in row["break_even_method"] for row in rows if row["role"] == "operator")
    # one call of the reference keeps several tables of all pairs
    assert rows[-2]["peak_memory_mb"] > 256 * 256 * 4 / 1e6


def test_against_ends_with_0_1_or_2(run: Run, work: Path) -> None:
    assert run(NAME, *SMALL, "--out", "old.json").code == 0
    content = json.loads((work / "old.json").read_text())

    def aged(name: str, factor: float, **environment: Any) -> str:
        old = json.loads(json.dumps(content))
        old["result"]["environment"].update(environment)
        for row in old["result"]["rows"]:
            for key in ("median_ms", "median_low_ms", "median_high_ms"):
                row[key] *= factor
        (work / name).write_text(json.dumps(old))
        return name

    ended = run(NAME, *SMALL, "--against", aged("slow.json", 1e6), "--threshold", "5")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("faster") >= 3 and "change (%)" in ended.out
    ended = run(NAME, *SMALL, "--against", aged("fast.json", 1e-6), "--json")
    assert ended.code == 1
    assert "dense at 128 tokens: regression" in ended.err and "before" in ended.err
    verdicts = [entry["verdict"] for entry in json.loads(ended.out)["result"]["against"]]
    assert verdicts == ["regression"] * 3
    other = {"versions": {"torch": "1.0"}}
    for name, word, environment in (("torch.json", "1.0", other), ("device.json", "A1", {"device_name": "A1"})):
        ended = run(NAME, *SMALL, "--against", aged(name, 1, **environment))
        assert ended.code == 2 and word in ended.line and ended.out == ""
    ended = run(NAME, "causal", *TINY, "--against", "old.json")
    assert ended.code == 2 and "none of the 1 cases" in ended.line
    (work / "no.json").write_text("{}")
    for name, words in (("no.json", "no record of bench-kernel"), ("absent.json", "No such file"), ("o.txt", "")):
        ended = run(NAME, *SMALL, "--against", name)
        assert ended.code == 2 and name in ended.line and words in ended.line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("radail",), ("radail", "did you mean radial?", "random_blocks")),
        (("neighborhood", "-i", "8,16", "-w", "9,4"), ("9", "8")),
        (("neighborhood", "-i", "8,16", "-w", "4,4", "-s", "5,4"), ("5", "4")),
        (("neighborhood", "-i", "8,16", "-w", "4,4", "--dilation", "3,1"), ("3", "4", "8")),
        (("neighborhood", "-i", "8,16", "-w", "4,4,4"), ("4", "(8, 16)")),
        (("dense", "--impl", "triton", "--dtype", "float64"), ("triton", "works here")),
        (("dense", "--impl", "numba"), ("numba", "works here")),
        (("dense", "--impl", "flex", "--direction", "bwd"), ("flex", "works here")),
        (("dense", "--device", "cuda:7"), ("cuda:7", "--device cpu")),
        (("dense", "--dtype", "float8"), ("float8", "bfloat16")),
        (("dense", "--sweep", "token=1"), ("token", "tokens")),
        (("dense", "--sweep", "tokens=1", "-i", "4"), ("tokens", "--canvas")),
        (("dense", "--baseline", "spda"), ("spda", "did you mean sdpa?")),
        (("dense", "--heads", "4", "--kv-heads", "3"), ("3", "4")),
        (("dense", "--set", "dense.window=1"), ("dense", "window")),
        (("dense", "--window", "3"), ("--window", "neighborhood")),
        (("dense", "--suite", "cpu"), ("--suite", "dense")),
        (("--suite", "quick", "--sweep", "tokens=1"), ("--sweep",)),
        (("dense", "--out", "o.txt"), ("o.txt", ".json")),
        (("dense", "--plot", "o.jpg"), ("o.jpg", ".png")),
        (("dense", "--plot", "o.json"), ("--plot", "o.json", ".png")),
        (("dense", "--out", "o.png"), ("--out", "o.png", ".json")),
        (("dense", "--out", "no/o.json"), ("no/o.json", "no folder")),
        (("dense", "--out", "o.csv", "--out", "o.csv"), ("o.csv",)),
        (("--list", "--suite", "quick"), ("--suite", "--list")),
        (("dense", "--repeats", "0"), ("--repeats", "1")),
        (("dense", "--threshold", "-1"), ("--threshold",)),
        (("dense", "--fit-cost", "o.json"), ("NAME", "--fit-cost")),
        (("--fit-cost", "o.json", "--heads", "2"), ("--heads", "--fit-cost")),
        (("--fit-cost", "o.json", "--list"), ("--list", "--fit-cost")),
        (("--fit-cost", "o.csv"), ("o.csv", ".json")),
        (("--compile-only", "--target", "sm_91"), ("sm_91", "did you mean sm_90?", "gfx942")),
        (("--compile-only", "--target", ","), ("--target", "sm_100")),
        (("--target", "sm_90"), ("--target", "--compile-only")),
        (("lut3d", "--compile-only"), ("lut3d", "neighborhood")),
        (("dense", "--compile-only", "--dtype", "float64"), ("float64", "bfloat16")),
        (("dense", "--compile-only", "--heads", "2"), ("--heads", "--compile-only")),
        (("dense", "--compile-only", "--fit-cost", "o.json"), ("--compile-only", "--fit-cost")),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], words: tuple[str, ...], run: Run, work: Path) -> None:
    ended = run(NAME, *arguments)
    assert ended.code == 2 and ended.out == ""
    assert all(word in ended.line for word in words), ended.line
    assert list(work.iterdir()) == []


def test_existing_files_are_kept(run: Run, work: Path) -> None:
    for name in ("o.csv", "o.md.json"):
        (work / name).write_text("mine")
    for out in ("o.csv", "o.md"):
        ended = run(NAME, *SMALL, "--out", out)
        assert ended.code == 2 and "--overwrite" in ended.line
    assert (work / "o.csv").read_text() == "mine"
    assert run(NAME, *SMALL, "--out", "o.csv", "--overwrite").code == 0
    assert (work / "o.csv").read_text().startswith("operator,")


def test_dry_run_measures_nothing(run: Run, work: Path) -> None:
    ended = run(NAME, *SMALL, "--sweep", "dtype=float32,float64", "--dry-run", "--out", "o.json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("measure") == 4 and list(work.iterdir()) == []
    ended = run(NAME, "neighborhood", "-i", "8,16", "--sweep", "window=4x4,9x9", *TINY, "--dry-run", "--json")
    told = json.loads(ended.out)
    assert told["summary"] == {"dry_run": True, "cases": 2, "refused": 1}
    assert [entry["action"] for entry in told["result"]] == ["measure", "refuse"]
    assert "9" in told["result"][1]["reason"]


def test_a_case_of_a_sweep_that_cannot_be_is_a_row(run: Run) -> None:
    ended = run(NAME, "neighborhood", "-i", "8,16", "--sweep", "window=4x4,9x9", *TINY, "--json")
    assert ended.code == 0
    rows = json.loads(ended.out)["result"]["rows"]
    assert sorted((row["status"], row["operator"]) for row in rows) == [
        ("ok", "neighborhood"),
        ("ok", "sdpa"),
        ("unsupported", "neighborhood"),
    ]


def test_a_wrong_kernel_ends_with_1_and_has_no_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnkit.tasks.bench_kernel import kernels

    attention = kernels.attention

    def wrong(query: torch.Tensor, *others: torch.Tensor, **options: object) -> object:
        result = attention(query, *others, **options)
        return result if query.dtype == torch.float64 else result._replace(output=result.output.roll(1, 1))

    monkeypatch.setattr(kernels, "attention", wrong)
    ended = run(NAME, *SMALL)
    assert ended.code == 1
    line = next(line for line in ended.out.splitlines() if line.startswith("blocked"))
    assert "wrong: error" in line and "against the reference" in line


def test_no_names_is_the_quick_suite(run: Run) -> None:
    ended = run(NAME, "--dry-run")
    assert ended.code == 0 and "suite quick" in ended.err and "random_blocks" in ended.out


def test_memory_that_is_not_there_is_a_row(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnkit.tasks.bench_kernel import baselines

    monkeypatch.setattr(baselines, "free_bytes", lambda: 1000)
    ended = run(NAME, *SMALL, "--baseline", "flex,sdpa", "--json")
    assert ended.code == 0
    rows = {(row["operator"], row["of"]): row for row in json.loads(ended.out)["result"]["rows"]}
    assert rows["flex", "dense"]["status"] == "out of memory" and "GB" in rows["flex", "dense"]["reason"]
    assert rows["dense", None]["versus"]["flex"] == {
        "speedup": None,
        "low": None,
        "high": None,
        "verdict": "out of memory",
    }


def test_fit_cost_feeds_sim_gna(run: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnkit.tasks.bench_kernel import fitting

    design = (fitting.one("dense", (128,), 1), fitting.one("random_blocks", (512,), 1, density=0.4))
    monkeypatch.setattr(fitting.fit_cost, "__defaults__", (design, 2))
    monkeypatch.setattr(cli.Root, "table", {name: cli.COMMANDS[name] for name in (NAME, "sim-gna")})
    ended = run(NAME, "--fit-cost", "here.json", "--dry-run")
    assert ended.code == 0 and "fit" in ended.out and list(work.iterdir()) == []
    ended = run(NAME, "--fit-cost", "here.json", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["result"]["samples"] == 2
    assert run(NAME, "--fit-cost", "here.json").code == 2
    assert run(NAME, "--fit-cost", "here.json", "--overwrite").code == 0
    words = ("sim-gna", "-i", "16,32", "-w", "8,16", "-s", "8,16", "--cost", "here.json")
    tiles = ("--q-tile", "8,16", "--kv-tile", "8,16")
    like = ("--dim", "64", "--dtype", "float32")
    ended = run(*words, *tiles, *like, "--sweep", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["result"]["predicted_ms"] > 0
    for others, word in (
        ((*tiles, "--dim", "64"), "--dtype float32"),
        ((*tiles, "--dtype", "float32"), "--dim 64"),
        (like, "128 x 128"),
        ((*tiles, *like, "--dynamic"), "--dynamic"),
    ):
        ended = run(*words, *others)
        assert ended.code == 2 and word in ended.line


def test_compile_only(run: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    # a child process compiles where kernels are interpreted
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    words = (NAME, "dense", "blocked", "--compile-only", "--target", "sm_90", "--dtype", "float16")
    ended = run(*words, "--json", "-o", "o.csv", "-o", "o.md", "-o", "o.json")
    assert (ended.code, ended.err) == (0, "")
    told = json.loads(ended.out)
    assert told == json.loads((work / "o.json").read_text()) and set(told["summary"]) == {"ok"}
    rows = told["result"]["rows"]
    assert {row["operator"] for row in rows} == {"dense", "blocked"}
    for row in rows:
        assert (row["kernel"], row["target"], row["matrix"]) == ("forward", "sm_90", "wgmma")
        assert 0 < row["registers"] <= 255 and row["spilled_bytes"] == 0 and row["shared_bytes"] > 0
    header = (work / "o.csv").read_text().splitlines()[0]
    assert header.startswith("operator,kernel,target,choice,registers (a thread),spills (bytes)")
    assert (work / "o.md").read_text().count("\n") == len(rows) + 2
    assert run(*words, "-o", "o.csv").code == 2
    ended = run(*words, "--direction", "fwdbwd", "--dry-run")
    assert ended.code == 0 and ended.out.count("prepare") == 2
