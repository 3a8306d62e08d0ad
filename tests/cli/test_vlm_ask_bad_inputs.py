"""Bad pictures, tasks and models on the whole command: one line each and the right exit code."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import shutil
import time
import zlib
from pathlib import Path

import pytest
import torch
from cli_cases import Ended, Run, rows, tree
from PIL import Image
from talking_vlm import save_talking
from tiny_vlms import picture, save_tiny

from attnkit.tasks.vlm_ask.observers import RowStream

QUESTION = "what is there"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_talking(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def asked(run: Run, model: Path, work: Path):
    """Runs vlm-ask with a small model beside a good picture, a.png."""
    picture().save(work / "a.png")

    def asked(*arguments: object, model: Path | str = model) -> Ended:
        return run("vlm-ask", *arguments, "--model", model, "--max-tokens", 2)

    return asked


def copied(model: Path, work: Path) -> Path:
    return Path(shutil.copytree(model, work / "model"))


# pictures


def huge(png: bytes) -> bytes:
    """A PNG whose header says 20000 x 20000 pixels."""
    header = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + png[24:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("empty", "the file is empty"),
        ("text", "no picture that this reads"),
        ("truncated", "damaged or cut off"),
        ("huge", "20000x20000 pixels, at most 128 million"),
    ],
)
def test_a_bad_picture_is_one_failed_item(kind: str, text: str, asked, work: Path) -> None:
    whole = (work / "a.png").read_bytes()
    data = {"empty": b"", "text": b"hello", "truncated": whole[: len(whole) // 2], "huge": huge(whole)}[kind]
    (work / "b.png").write_bytes(data)
    ended = asked("b.png", QUESTION)
    assert ended.code == 1 and ended.line.startswith("attnkit vlm-ask: b.png: ") and text in ended.line
    both = asked("a.png", "b.png", QUESTION, "--each", "--out", "o.jsonl")
    assert both.code == 3 and [row["id"] for row in rows(work / "o.jsonl")] == ["a.png"]
    together = asked("a.png", "b.png", QUESTION)
    assert together.code == 1 and "b.png: " in together.line


def test_what_was_decided_about_a_picture_is_said(asked, work: Path) -> None:
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(work / "clear.png")
    frames = [Image.new("L", (8, 8), colour) for colour in (0, 200)]
    frames[0].save(work / "two.gif", save_all=True, append_images=frames[1:])
    Image.new("CMYK", (20, 20)).save(work / "ink.jpg")
    ended = asked("clear.png", "two.gif", "ink.jpg", QUESTION, "--each", "--json")
    assert ended.code == 0
    told = [item.get("warnings") for item in json.loads(ended.out)["items"]]
    assert told == [["transparent parts are laid over white"], ["holds 2 frames, the first one is used"], None]
    assert "clear.png: transparent parts" in ended.err and "two.gif: holds 2 frames" in ended.err


def test_a_narrow_picture_is_read_in_silence(run: Run, work: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(1, 1).save(work / "dot.png")
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        ended = run("vlm-ask", "dot.png", QUESTION, "--model", save_tiny("internvl", work / "model"), "--max-tokens", 1)
    finally:
        logger.removeHandler(caplog.handler)
    assert (ended.code, ended.err, caplog.records) == (0, "", [])


def test_a_picture_too_narrow_for_its_model_says_so(run: Run, work: Path) -> None:
    picture(900, 2).save(work / "line.png")
    ended = run("vlm-ask", "line.png", QUESTION, "--model", save_tiny("qwen2_vl", work / "model"))
    assert ended.code == 1 and "aspect ratio must be smaller than 200" in ended.line and "wider parts" in ended.line


def test_a_disk_that_is_full_names_the_map(asked, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RowStream, "take", full)
    ended = asked("a.png", QUESTION, "--map", "m.npz")
    assert ended.code == 1 and "cannot write m.npz: no space left on the disk; make room" in ended.line
    assert list(tree(work)) == ["a.png"]


# questions and tasks


def test_a_question_longer_than_the_model_is_told(asked) -> None:
    (item,) = json.loads(asked("a.png", "how many " * 300, "--json").out)["items"]
    (told,) = item["warnings"]
    assert f"{item['prompt_tokens'] + 2} tokens" in told and "was made for 512" in told


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "expected IMAGE... and a question"),
        (("a.png",), "expected IMAGE... and a question"),
        (("a.png", ""), "question: is empty"),
        (("a.png", "-what is it?"), "no option -w; put -- before a text that begins with a dash"),
        (("a.png", "\udcff what"), "question: got '\\udcff what', expected text in UTF-8"),
        (("lost.png", QUESTION), "lost.png: no such file"),
        (("a.png", QUESTION, "--tasks", "t.jsonl"), "expected one of them"),
        (("--tasks", "t.jsonl"), "no such file"),
        (("a.png", QUESTION, "--image-root", "."), "needs --tasks"),
        (("a.png", QUESTION, "--calibrate", "vor"), "expected one of none, var"),
        (("a.png", QUESTION, "--calibrate", "var+act"), "move the same attention"),
        (("a.png", QUESTION, "--calibrate", "var", "--set", "var.rho=2"), "var.rho: got 2.0, expected 0 to 1"),
        (("a.png", QUESTION, "--set", "var.row=2"), "did you mean var.rho"),
        (("a.png", QUESTION, "--beams", "2", "--temperature", "1"), "expected one of them"),
        (("a.png", QUESTION, "--beams", "2", "--map", "m.npz"), "rows of beams"),
        (("a.png", QUESTION, "--calibrate", "none,var", "--map", "m.npz"), "got 2 calibrations"),
        (("a.png", QUESTION, "--layers", "1"), "needs --map or --overlay"),
        (("a.png", QUESTION, "--map", "m.npz", "--layers", "1,"), "--layers: got '1,', expected layers such as"),
        (("a.png", QUESTION, "--map", "m.npz", "--heads=-1"), "--heads: got -1, expected heads counted from 0"),
        (("a.png", QUESTION, "--overlay", "a.png", "--overwrite"), "--overlay: a.png is the input"),
        (("a.png", QUESTION, "--map", "a.png/m.npz"), "is not a folder; name another place with --map"),
        (("a.png", QUESTION, "--calibrate", "var", "--set", "var.layers=x", "--dry-run"), "var.layers: got 'x'"),
        (("a.png", QUESTION, "--calibrate", "var", "--set", "var.dims=x", "--dry-run"), "var.dims: got 'x'"),
        (("a.png", QUESTION, "--calibrate", "act", "--set", "act.heads=h.json"), "act.heads: h.json: no such file"),
        (("a.png", QUESTION, "--calibrate", "paint", "--set", "paint.gains=g.json"), "gains: g.json: no such file"),
        (("a.png", QUESTION, "--calibrate", "none", "--compare"), "--calibrate none alone"),
        (("a.png", QUESTION, "--top-p", "0.5"), "--temperature 0, which draws nothing"),
        (("--tasks", "."), "is a folder, expected a file"),
        (("a.png", QUESTION, "--profile", "p.json"), "no such file"),
        (("a.png", QUESTION, "--profile", "a.png", "--dry-run"), "--profile a.png: no sink profile"),
        (("a.png", QUESTION, "--adapter", "p.safetensors"), "no such file"),
        (("a.png", QUESTION, "--adapter", "."), "expected a folder with one .safetensors file, got none"),
        (("a.png", QUESTION, "--batch-size", "2", "--jobs", "2"), "expected one of them"),
        (("a.png", QUESTION, "--out", "o.txt"), "expected .jsonl or .csv"),
        (("a.png", QUESTION, "--out", "o/"), "is a folder, expected one file for all items such as o/answers.jsonl"),
    ],
)
def test_usage_errors_are_one_line_before_any_work(arguments: tuple[str, ...], text: str, asked, work: Path) -> None:
    ended = asked(*arguments)
    assert ended.code == 2 and text in ended.line and list(tree(work)) == ["a.png"]


def test_a_broken_line_and_a_missing_picture_fail_alone(asked, work: Path) -> None:
    lines = [
        json.dumps({"id": 1, "image": "a.png", "question": QUESTION}),
        '{"id": 2, "image": "a.png", "quest',
        json.dumps({"id": 3, "image": "lost.png", "question": QUESTION}),
        json.dumps({"id": 4, "image": "a.png", "question": ""}),
    ]
    (work / "t.jsonl").write_text("\n".join(lines))
    ended = asked("--tasks", "t.jsonl", "--out", "o.jsonl")
    assert ended.code == 3 and [row["id"] for row in rows(work / "o.jsonl")] == [1]
    for text in ("t.jsonl, line 2: not JSON", "lost.png: no such picture", "question is ''"):
        assert text in ended.err
    planned = json.loads(asked("--tasks", "t.jsonl", "--dry-run", "--json").out)["items"]
    assert ["problem" in item for item in planned] == [False, True, True, True]
    (work / "t.jsonl").write_text("\n".join(lines[:1] * 2))
    assert "two items have this id" in asked("--tasks", "t.jsonl").line


def test_a_layer_or_head_that_is_not_there(asked) -> None:
    for option in ("--layers", "--heads"):
        ended = asked("a.png", QUESTION, "--overlay", "o.png", option, "2:9")
        assert ended.code == 1 and f"{option}: got 2:9" in ended.line


# models


def test_a_path_that_leads_nowhere_is_a_usage_error(run: Run, work: Path) -> None:
    picture().save(work / "a.png")
    for lost in ("./lost", "some/deeper/lost", work / "lost"):
        ended = run("vlm-ask", "a.png", QUESTION, "--model", lost)
        assert ended.code == 2 and f"model '{lost}': " in ended.line
    ended = run("vlm-ask", "a.png", QUESTION, "--model", "hsie", "--dry-run")
    assert ended.code == 2 and "made for 'hsi-enhance', expected one for 'vlm-ask'" in ended.line


def test_a_folder_without_weights(asked, model: Path, work: Path) -> None:
    folder = copied(model, work)
    (folder / "model.safetensors").unlink()
    ended = asked("a.png", QUESTION, model=folder)
    assert ended.code == 1 and "no weights in it, expected model.safetensors" in ended.line


def test_weights_that_are_cut_off(asked, model: Path, work: Path) -> None:
    folder = copied(model, work)
    data = (folder / "model.safetensors").read_bytes()
    for size in (len(data) - 1000, 100):
        (folder / "model.safetensors").write_bytes(data[:size])
        ended = asked("a.png", QUESTION, model=folder)
        assert ended.code == 1 and str(folder) in ended.line


def test_pickled_weights_are_loaded_and_a_malicious_pickle_is_not(asked, model: Path, work: Path) -> None:
    from safetensors.torch import load_file

    folder = copied(model, work)
    wanted = asked("a.png", QUESTION).out
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert asked("a.png", QUESTION, model=folder).out == wanted
    mark = work / "mark"

    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(mark),)

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Malicious()}))
    torch.save({"weight": Malicious()}, work / "whole.bin")
    for data in ((folder / "pytorch_model.bin").read_bytes(), (work / "whole.bin").read_bytes()):
        (folder / "pytorch_model.bin").write_bytes(data)
        ended = asked("a.png", QUESTION, model=folder)
        assert ended.code == 1 and "cannot be loaded" in ended.line and not mark.exists()


def test_weights_that_are_not_all_there_are_not_made_up(asked, model: Path, work: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(model, work)
    state = load_file(folder / "model.safetensors")
    lost = next(name for name in sorted(state) if name.endswith("q_proj.weight"))
    kept = {name: value for name, value in state.items() if name != lost}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    ended = asked("a.png", QUESTION, model=folder)
    assert ended.code == 1 and "lack 1 of " in ended.line and "q_proj.weight among them" in ended.line


def test_an_unknown_family_names_those_supported(asked, model: Path, work: Path) -> None:
    folder = copied(model, work)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "blip-2"}))
    ended = asked("a.png", QUESTION, model=folder)
    assert ended.code == 2 and "'blip-2', expected one of" in ended.line and "qwen2_5_vl" in ended.line


def test_a_folder_that_is_no_model(asked, work: Path) -> None:
    (work / "empty").mkdir()
    assert "no model folder" in asked("a.png", QUESTION, model=work / "empty").line
    (work / "empty" / "config.json").write_text("{")
    assert "config.json" in asked("a.png", QUESTION, model=work / "empty").line
    ended = asked("a.png", QUESTION, model="tiny-llawa")
    assert ended.code == 2 and "did you mean 'tiny-llava'" in ended.line
    ended = asked("a.png", QUESTION, model="llf-lut")
    assert ended.code in (1, 2) and "made for 'tonemap'" in ended.line


def test_own_code_of_a_folder_is_never_run(asked, model: Path, work: Path) -> None:
    folder, mark = copied(model, work), work / "mark"
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {name: "own.Own" for name in ("AutoConfig", "AutoModelForImageTextToText", "AutoTokenizer")}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Own: pass\n")
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        found = json.loads((folder / name).read_text())
        found["auto_map"] = {"AutoTokenizer": ["own.Own", "own.Own"], "AutoImageProcessor": "own.Own"}
        (folder / name).write_text(json.dumps(found))
    ended = asked("a.png", QUESTION, model=folder)
    assert ended.code in (0, 1) and not mark.exists()
    assert ended.code == 0 or len(ended.err.splitlines()) == 1


def test_a_model_larger_than_the_memory_is_not_loaded(asked, model: Path, work: Path, monkeypatch) -> None:
    from attnkit.models.vlm import opening

    monkeypatch.setattr(opening, "free_memory", lambda device: 1000)
    ended = asked("a.png", QUESTION, model=copied(model, work))
    assert ended.code == 1 and "GB as float32, 0.00 GB of memory are free on cpu" in ended.line


def test_of_a_batch_that_is_too_large_each_is_asked_alone(asked, work: Path, monkeypatch) -> None:
    from attnkit.tasks.vlm_ask import task

    whole = task.generate
    for name in "bcd":
        shutil.copy(work / "a.png", work / f"{name}.png")
    (work / "e.png").write_bytes(b"")
    names = [f"{name}.png" for name in "eabcd"]
    wanted = asked("a.png", QUESTION).out.strip()

    def narrow(vlm, prompt, *more):
        if len(prompt.texts) > 1:
            raise RuntimeError("not enough memory: you tried to allocate 9 bytes")
        return whole(vlm, prompt, *more)

    monkeypatch.setattr(task, "generate", narrow)
    ended = asked(*names, QUESTION, "--each", "--batch-size", 4)
    assert ended.code == 3 and ended.out.splitlines() == [f"{name}\t{wanted}" for name in names[1:]]
    assert "e.png: the file is empty" in ended.err
    # an error is that of its own item, in a batch as well
    monkeypatch.setattr(task, "generate", lambda *_: (_ for _ in ()).throw(RuntimeError("not enough memory")))
    ended = asked(*names[:2], QUESTION, "--each", "--batch-size", 2)
    assert ended.code == 1 and "e.png: the file is empty" in ended.err and "a.png: out of memory" in ended.err


def test_out_of_memory_while_answering_is_one_line(asked, monkeypatch) -> None:
    from attnkit.tasks.vlm_ask import task

    def full(*arguments: object, **options: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(task, "generate", full)
    ended = asked("a.png", QUESTION)
    assert ended.code == 1 and ended.line.startswith("attnkit vlm-ask: a.png: out of memory; use --batch-size 1")


def test_a_hub_id_without_network_is_one_line_without_waiting(asked, monkeypatch) -> None:
    import socket

    def nowhere(*arguments: object, **options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(Path.cwd() / "cache"))
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    ended = asked("a.png", QUESTION, model="no-such-organisation/no-such-model")
    assert ended.code == 1 and "'no-such-organisation/no-such-model': cannot be fetched from the hub" in ended.line
    assert sum(waits) < 5
    ended = asked("a.png", QUESTION, "--offline", model="no-such-organisation/no-such-model")
    assert ended.code == 1 and "needs the network" in ended.line


def test_a_device_that_is_not_there(asked) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    ended = asked("a.png", QUESTION, "--device", "cuda")
    assert ended.code == 2 and "--device cuda" in ended.line
