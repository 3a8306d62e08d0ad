"""`attnkit sim-gna` as a whole command: answers, files, exit codes, and the rules that all commands follow."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_cases import Ended, Run, tree

from attnkit import cli

HUNYUAN = ("-i", "30,48,80", "-w", "18,24,24", "-s", "16,8,8", "--q-tile", "4,8,8", "--kv-tile", "2,8,8")
FLUX = ("--canvas", "256,256", "--window", "80,80")
# the names that programs rely on
KEYS = {
    *("tiles_visited", "tiles_total", "map_tiles_visited", "map_tiles_full", "map_tiles_total", "useful_strides"),
    *("flop_speedup", "simulated_speedup", "sparsity", "block_sparse", "e2e_flop", "e2e_simulated"),
}


@pytest.fixture(autouse=True)
def real_table(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.Root, "table", cli.COMMANDS)


def result(ended: Ended) -> dict:
    assert (ended.code, ended.err) == (0, "")
    return json.loads(ended.out)["result"]


# answers


def test_the_example_of_the_paper(run: Run) -> None:
    found = result(run("sim-gna", *HUNYUAN, "--share", ".607", "--steps", "50", "--dense-steps", "15", "--json"))
    assert set(found) >= KEYS
    assert (found["tiles_visited"], found["tiles_total"]) == (81, 900)
    assert (found["map_tiles_visited"], found["map_tiles_full"], found["map_tiles_total"]) == (38880, 34020, 432000)
    assert found["flop_speedup"] == pytest.approx(100 / 9)
    assert found["simulated_speedup"] == pytest.approx(100 / 9)
    assert found["sparsity"] == pytest.approx(0.91)
    assert found["block_sparse"] is True
    assert (round(found["e2e_flop"], 2), round(found["e2e_simulated"], 2)) == (1.63, 1.63)
    assert found["useful_strides"] is None


def test_one_document(run: Run) -> None:
    document = json.loads(run("sim-gna", *HUNYUAN, "--json").out)
    assert set(document) == {"schema", "version", "command", "options", "result", "summary"}
    assert document["command"] == "sim-gna"
    assert document["options"]["canvas"] == [30, 48, 80]
    assert document["options"]["target"] == "b200"
    # no share, no estimate of the whole run
    assert document["result"]["e2e_flop"] is None and document["result"]["e2e_simulated"] is None


def test_the_default_target_is_said(run: Run) -> None:
    found = result(run("sim-gna", *FLUX, "--json"))
    assert (found["query_tile"], found["key_tile"], found["target"]) == ([16, 16], [16, 8], "b200")
    assert found["tile_source"] == "default of target b200"
    assert "16,16 | 16,8 (default of target b200)" in run("sim-gna", *FLUX).out
    other = result(run("sim-gna", *FLUX, "--target", "h100", "--json"))
    assert (other["query_tile"], other["key_tile"]) == ([16, 8], [16, 8])


def test_sweep(run: Run) -> None:
    found = result(run("sim-gna", *FLUX, "--sweep", "--json"))
    assert found["useful_strides"] == [[1, 16], [1, 16]]
    assert found["block_sparse_stride"] == [16, 16]
    assert [row["tiles_visited"] for row in found["strides"]] == [84, 70, 60, 50]
    text = run("sim-gna", *FLUX, "--sweep").out
    assert "Least stride that is fully block-sparse: 16,16" in text


def test_single_dimensional_tiles(run: Run) -> None:
    found = result(run("sim-gna", *FLUX, "--q-tile", "256", "--kv-tile", "128", "--json"))
    assert round(found["simulated_speedup"], 2) == 3.20
    assert found["tiling"] == "runs"


def test_dynamic_dilation_and_causal(run: Run) -> None:
    line = ("-i", "30,48,80", "-w", "18,24,24", "--q-tile", "4,8,8", "--kv-tile", "2,8,8", "--json")
    assert round(result(run("sim-gna", *line, "--dynamic"))["simulated_speedup"], 2) == 5.11
    cosmos = ("-i", "16,44,80", "-w", "16,4,16", "--dilation", "1,11,5", "--verify", "--json")
    found = result(run("sim-gna", *cosmos))
    assert found["block_sparse"] and found["simulated_speedup"] == 55.0
    found = result(
        run("sim-gna", "-i", "8,12", "-w", "4,5", "-c", "1,0", "--q-tile", "2,4", "--kv-tile", "4,2", "--json")
    )
    assert found["settings"]["causal"] == [True, False]
    assert found["visible_pairs"] == (1 + 2 + 3 + 4 * 5) * 12 * 5


def test_verify(run: Run) -> None:
    found = result(run("sim-gna", *HUNYUAN, "--verify", "--json"))["verification"]
    assert found["ok"] and found["reduced"] and found["counts_canvas"] == [30, 48, 80]
    assert "made smaller" in run("sim-gna", *HUNYUAN, "--verify").out


def test_verify_ends_with_1_when_the_engine_disagrees(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnkit_kernels.patterns.neighborhood import Neighborhood

    own = Neighborhood.block_map

    def other(self: Neighborhood, canvas: tuple[int, ...], *tiles: object) -> object:
        return own(Neighborhood((3,)), canvas, *tiles)

    monkeypatch.setattr(Neighborhood, "block_map", other)
    ended = run("sim-gna", "-i", "64", "-w", "16", "--q-tile", "8", "--kv-tile", "8", "--verify", "--json")
    assert ended.code == 1
    assert "tiles simulated" in ended.line and "report it" in ended.line
    assert json.loads(ended.out)["result"]["verification"]["ok"] is False


def test_milliseconds_only_with_cost(run: Run, work: Path) -> None:
    assert "_ms" not in run("sim-gna", *HUNYUAN, "--json").out
    assert "(ms)" not in run("sim-gna", *HUNYUAN).out
    found = result(run("sim-gna", *HUNYUAN, "--heads", "24", "--cost", "gna-b200", "--json"))
    assert found["predicted_ms"] == pytest.approx(13.0, rel=0.06)
    assert found["predicted_dense_ms"] == pytest.approx(135.3, rel=0.06)
    assert found["cost"]["source"].startswith("not measured by attnkit")
    # a file of one's own
    content = {"kind": "attnkit cost model", "schema": 1, "launch_ns": 2e6, "row_ns": 0.0, "full_ns": 0.0}
    content |= {"partial_ns": 0.0, "query_block": 256, "key_block": 128, "dim": 128}
    (work / "mine.json").write_text(json.dumps(content))
    assert result(run("sim-gna", *HUNYUAN, "--cost", "mine.json", "--json"))["predicted_ms"] == pytest.approx(2.0)


def test_other_patterns(run: Run) -> None:
    line = ("-i", "6,8,16", "--pattern", "radial", "--set", "radial.decay=.5", "--json")
    found = result(run("sim-gna", *line))
    assert found["pattern"] == "radial" and found["settings"]["decay"] == 0.5
    assert found["map_tiles_total"] == 36
    shorthand = result(run("sim-gna", "-i", "512", "--pattern", "sliding", "-w", "64", "--json"))
    spelled = result(run("sim-gna", "-i", "512", "--pattern", "sliding", "--set", "sliding.window=64", "--json"))
    assert shorthand == spelled


@pytest.mark.parametrize(
    "line",
    [
        "1000000 --pattern sliding -w 2048 --set sliding.sink=4",
        "1000000 --pattern streaming",
        "16,250,250 --pattern radial",
        "64,128,128 --pattern blocked -w 8,4,4",
        "64,128,128 --pattern halo --set halo.block=8,4,4 --set halo.halo=1",
    ],
)
def test_a_million_tokens_of_other_patterns_take_no_time(line: str, run: Run) -> None:
    begin = time.process_time()
    assert result(run("sim-gna", "-i", *line.split(), "--json"))["map_tiles_visited"] > 0
    # .2 to 2 s of this process; the limit leaves room for slow machines
    assert time.process_time() - begin < 8


def test_settings_of_neighborhood_are_what_the_flags_are_short_for(run: Run) -> None:
    long = ("--set", "neighborhood.window=18,24,24", "--set", "neighborhood.stride=16,8,8", *HUNYUAN[6:])
    assert result(run("sim-gna", "-i", "30,48,80", *long, "--json")) == result(run("sim-gna", *HUNYUAN, "--json"))


def test_a_million_tokens_take_no_time(run: Run) -> None:
    run("sim-gna", *FLUX, "--json")
    line = ("-i", "100,100,100", "-w", "18,24,24", "-s", "2,8,8", "--sweep", "--json")
    for arguments in (line, ("-i", "1000000", "-w", "10000", "--json"), ("-i", "1000,1000", "-w", "99,98", "--json")):
        begin = time.process_time()
        assert result(run("sim-gna", *arguments))["map_tiles_visited"] > 0
        assert time.process_time() - begin < 1


def test_no_torch_is_imported(work: Path) -> None:
    code = (
        "import sys; from attnkit import cli; code = cli.run(sys.argv[1:]); "
        "print(code, [n for n in ('torch', 'triton', 'numba', 'scipy', 'cv2') if n in sys.modules], file=sys.stderr)"
    )
    line = [*HUNYUAN, "--sweep", "--verify", "--cost", "gna-h100", "--share", ".6", "-o", "a.csv", "-o", "a.json"]
    for arguments in (line, ["-i", "6,8,16", "--pattern", "radial", "-o", "a.md"]):
        command = [sys.executable, "-c", code, "sim-gna", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=work)
        assert done.stderr == "0 []\n"


# files


def test_tables(run: Run, work: Path) -> None:
    ended = run("sim-gna", *FLUX, "--sweep", "-o", "a.csv", "-o", "a.md", "--out", "b.json")
    assert ended.code == 0 and ended.err == ""
    names = ["a.csv", "a.csv.json", "a.md", "a.md.json", "b.json"]
    assert sorted(tree(work)) == names
    lines = (work / "a.csv").read_text().splitlines()
    assert len(lines) == 5 and "tiles_visited" in lines[0]
    assert "| 16,16 | 50 |" in (work / "a.md").read_text()
    assert json.loads((work / "b.json").read_text())["result"]["useful_strides"] == [[1, 16], [1, 16]]
    settings = json.loads((work / "a.csv.json").read_text())
    assert settings["command"] == "sim-gna" and settings["set"] == {"window": [80, 80]}


def test_plot(run: Run, work: Path) -> None:
    import cv2

    from attnkit.pictures import read_settings

    assert run("sim-gna", *FLUX, "--plot", "map.png").code == 0
    picture = cv2.imread("map.png")
    assert picture is not None and picture.shape[0] > 256 and picture.shape[1] > 512
    stored = read_settings(work / "map.png")
    assert stored is not None and stored["canvas"] == [256, 256]


def test_two_runs_are_byte_equal_and_name_no_place(run: Run, work: Path) -> None:
    (work / "cost.json").write_text(
        json.dumps(
            {"kind": "attnkit cost model", "schema": 1, "launch_ns": 1.0, "row_ns": 0.0, "full_ns": 0.0}
            | {"partial_ns": 0.0, "query_block": 256, "key_block": 128, "dim": 128}
        )
    )
    for name in ("x", "y"):
        (work / name).mkdir()
        files = ("-o", f"{name}/a.csv", "-o", f"{name}/a.md", "-o", f"{name}/b.json", "--plot", f"{name}/p.png")
        assert run("sim-gna", *FLUX, *files, "--cost", work / "cost.json").code == 0
    assert tree(work / "x") == tree(work / "y")
    assert not [name for name, data in tree(work / "x").items() if str(work).encode() in data]


@pytest.mark.parametrize("option", ["--out a.csv", "--out a.json", "--out a.md", "--plot a.png"])
def test_existing_is_refused_then_overwritten(option: str, run: Run, work: Path) -> None:
    option, name = option.split()
    assert run("sim-gna", *FLUX, option, name).code == 0
    (work / name).write_text("kept")
    before = tree(work)
    ended = run("sim-gna", *FLUX, option, name, "--out", "other.json")
    assert ended.code == 2 and name in ended.line and "--overwrite" in ended.line
    assert tree(work) == before
    assert run("sim-gna", *FLUX, option, name, "--overwrite").code == 0
    assert (work / name).read_bytes() != b"kept"


# the rules of all commands


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-i", "30,48", "-w", "31,8"), ["window 31", "30"]),
        (("-i", "30,48", "-w", "8,8", "-s", "1,9"), ["stride 9", "window 8"]),
        (("-i", "30,48,80", "-w", "8,8"), ["(8, 8)", "(30, 48, 80)"]),
        (("-i", "30,48", "-w", "8,8", "-s", "1,1,1"), ["(1, 1, 1)", "(30, 48)"]),
        (("-i", "30,48", "-w", "8,8", "--dilation", "4,1"), ["4 * 8 = 32", "30"]),
        (("-i", "30,48", "-w", "8,8", "-c", "1,0,1"), ["3 values", "2 axes"]),
        (("-i", "30,48", "-w", "8,8", "--q-tile", "4,8"), ["(4, 8)", "expected both"]),
        (("-i", "30,48", "-w", "8,8", "--q-tile", "4,8,8", "--kv-tile", "4,8,8"), ["(4, 8, 8)", "(30, 48)"]),
        (("-i", "2,2,2,2", "-w", "2"), ["4 axes", "1 to 3"]),
        (("-w", "8"), ["--canvas: not given"]),
        (("-i", "30,x", "-w", "8"), ["--canvas", "'30,x'", "such as 30,48,80"]),
        (("-i", "30,0", "-w", "8"), ["--canvas", "'30,0'"]),
        (("-i", "30,48"), ["--window: not given"]),
        (("-i", "30,48", "-w", "8,8", "-c", "1,maybe"), ["--causal", "'1,maybe'", "0 or 1"]),
        (("-i", "30,48", "-w", "8,8", "--share", "1.5"), ["--share", "1.5", "from 0 to 1"]),
        (("-i", "30,48", "-w", "8,8", "--share", ".5", "--steps", "3", "--dense-steps", "4"), ["4 of 3"]),
        (("-i", "30,48", "-w", "8,8", "--steps", "3"), ["share: not given"]),
        (("-i", "30,48", "-w", "8,8", "--target", "b100"), ["--target", "'b100'", "b200"]),
        (("-i", "30,48", "--pattern", "radial", "-w", "8"), ["--window", "radial has no such setting"]),
        (("-i", "30,48", "--pattern", "radail"), ["'radail'", "did you mean radial?"]),
        (("-i", "10000000", "--pattern", "causal"), ["10000000 tokens", "6103515625", "268435456"]),
        (("-i", "30,48", "--pattern", "bilevel"), ["query and key", "bench-kernel bilevel"]),
        (("-i", "30,48", "-w", "8,8", "--set", "radial.decay=1"), ["--set radial", "--pattern neighborhood"]),
        (("-i", "30,48", "-w", "8,8", "--set", "neighborhood.wnd=1"), ["'wnd'", "window, stride"]),
        (("-i", "30,48", "-w", "8,8", "--set", "neighborhood.window=8,8"), ["got both"]),
        (("-i", "64", "--pattern", "sliding", "-w", "8,8"), ["2 values (8, 8)", "sliding"]),
        (("-i", "30,48", "-w", "8,8", "--cost", "nothing.json"), ["--cost nothing.json", "gna-b200"]),
        (("-i", "30,48", "-w", "8,8", "--cost", "bad.json"), ["--cost bad.json", "not JSON"]),
        (("-i", "30,48", "-w", "8,8", "--cost", "."), ["--cost ."]),
        (("-i", "30,48", "-w", "8,8", "-o", "a.txt"), ["--out a.txt", ".csv or .json or .md"]),
        (("-i", "30,48", "-w", "8,8", "-o", "none/a.csv"), ["no folder none"]),
        (("-i", "30,48", "-w", "8,8", "-o", "a.csv", "-o", "a.csv.json"), ["a.csv.json", "twice"]),
        (("-i", "30,48", "-w", "8,8", "--plot", "a.jpg"), ["--plot a.jpg", ".png"]),
        (("-i", "999,999,999", "-w", "8", "--plot", "a.png"), ["--plot", "tiles, expected at most 268435456"]),
        (("-i", "30,48", "-w", "8,8", "--sweeep"), ["did you mean --sweep?"]),
        (("-i", "30,48", "-w", "8,8", "a.txt"), ["'a.txt'", "expected no more arguments"]),
    ],
)
def test_bad_values_are_one_line_and_exit_2(arguments: tuple[str, ...], words: list[str], run: Run, work: Path) -> None:
    (work / "bad.json").write_text("{")
    ended = run("sim-gna", *arguments, "--json")
    assert (ended.code, ended.out) == (2, "")
    assert ended.line.startswith("attnkit sim-gna: ")
    assert all(word in ended.line for word in words), ended.line
    assert list(tree(work)) == ["bad.json"]


def test_quiet_says_nothing(run: Run, work: Path) -> None:
    ended = run("sim-gna", *FLUX, "--quiet", "-o", "a.json")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert (work / "a.json").exists()


def test_piped_tables_are_plain_and_never_cut(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    text = run("sim-gna", *HUNYUAN, "--cost", "gna-b200").out
    assert "\x1b" not in text
    assert any("by python -m attnkit_kernels.simulate.published" in line for line in text.splitlines())


def test_defaults_come_from_variables_and_files(run: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNKIT_SIM_GNA_WINDOW", "80,80")
    monkeypatch.setenv("ATTNKIT_TARGET", "flex")
    (work / "c.toml").write_text('[sim-gna]\ncanvas = "256,256"\nstride = "16,16"\nshare = 0.5\n')
    found = result(run("sim-gna", "--config", "c.toml", "--json"))
    assert (found["canvas"], found["settings"]["window"], found["target"]) == ([256, 256], [80, 80], "flex")
    assert found["settings"]["stride"] == [16, 16] and found["e2e_flop"] is not None
    assert result(run("sim-gna", "--config", "c.toml", "--target", "h100", "--json"))["target"] == "h100"
