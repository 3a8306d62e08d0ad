"""The smaller parts of the runner: locks, signals, records, names, prompts, the pool's way with lost processes."""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attnkit.runtime.batch import _InOrder
from attnkit.runtime.command import FileCommand, choose_format
from attnkit.runtime.errors import AttnkitError, ItemError, UsageError
from attnkit.runtime.items import Item, Outcome, prompt_item, safe_stem
from attnkit.runtime.lock import LOCK_NAME, FolderLock, FolderLocked
from attnkit.runtime.naming import MAIN, lay_out
from attnkit.runtime.options import BatchOptions
from attnkit.runtime.progress import Talk
from attnkit.runtime.records import RecordFile, document, plain
from attnkit.runtime.signals import Interrupted, check, shielded, stoppable
from attnkit.runtime.work import error_line, share_threads


class Pictures(FileCommand):
    name = "paint"
    formats = {".png": "png", ".jpg": "jpeg"}  # noqa: RUF012


def test_lock_says_who_holds_it_and_goes_away(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    assert lock.acquire() is False
    about = json.loads((tmp_path / LOCK_NAME).read_text())
    assert about["pid"] == os.getpid()
    with pytest.raises(FolderLocked, match=f"pid {os.getpid()} on {about['host']} since {about['since'][:10]}"):
        FolderLock(tmp_path).acquire()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    other = FolderLock(tmp_path)
    other.acquire()
    other.release()


def test_lock_is_not_fooled_by_a_file_that_was_removed_under_it(tmp_path: Path, monkeypatch) -> None:
    real = fcntl.flock
    calls = []

    def flock(descriptor: int, operation: int) -> None:
        if not calls:
            # the run before ends between our open and our lock
            (tmp_path / LOCK_NAME).unlink()
        calls.append(operation)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FolderLock(tmp_path)
    lock.acquire(wait=5)
    assert len(calls) == 2
    # what is held is the file that others will see
    with pytest.raises(FolderLocked):
        FolderLock(tmp_path).acquire()
    lock.release()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_raise_and_handlers_come_back(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=name), stoppable():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_signals_wait_for_the_end_of_a_shield() -> None:
    done = []
    with stoppable():
        with pytest.raises(Interrupted), shielded():
            with shielded():
                signal.raise_signal(signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        # asked for once and not forgotten, should the exception get lost
        with pytest.raises(Interrupted):
            check()
    assert done == ["inner", "outer"]
    check()


def test_signals_that_were_ignored_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_plain_values_are_strict_json() -> None:
    value = {
        "nan": math.nan,
        "array": np.array([1.5, np.inf]),
        "number": np.float32(0.5),
        "path": Path("a"),
        "set": {"b", "a"},
        3: (True, None),
    }
    assert plain(value) == {
        "nan": None,
        "array": [1.5, None],
        "number": 0.5,
        "path": "a",
        "set": ["a", "b"],
        "3": [True, None],
    }
    assert list(json.loads(document("x", {}, {}, result=1))) == [
        "schema", "version", "command", "options", "result", "summary"
    ]  # fmt: skip


def test_record_file_that_cannot_be_appended(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--record"):
        RecordFile(tmp_path / "missing" / "r.jsonl").check()
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(AttnkitError, match="No space left"):
        RecordFile(tmp_path / "full").add(a=1)


def test_formats_by_option_suffix_and_default() -> None:
    formats = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
    assert choose_format(formats, None, None) == "png"
    assert choose_format(formats, "a.JPEG", None) == "jpeg"
    assert choose_format(formats, "a.jpg", "jpeg") == "jpeg"
    for out, wanted, words in (("a.gif", None, ".gif"), ("a.png", "jpeg", "--format"), (None, "gif", "png or jpeg")):
        with pytest.raises(UsageError, match=words):
            choose_format(formats, out, wanted)


def test_names_of_a_folder_that_holds_one_file(tmp_path: Path) -> None:
    found = Item(name="in/a.hdr", stem="a", path=tmp_path / "a.hdr", home=tmp_path, found=True)
    (tmp_path / "a.hdr").touch()
    named = Item(name="in/a.hdr", stem="a", path=tmp_path / "a.hdr", home=tmp_path)
    out = str(tmp_path / "out")
    assert lay_out(Pictures(), [found], BatchOptions(out=out)).items[0].paths[MAIN] == tmp_path / "out" / "a.png"
    with pytest.raises(UsageError, match="no suffix"):
        lay_out(Pictures(), [named], BatchOptions(out=out))


def test_names_of_prompts() -> None:
    assert prompt_item("A red fox, running home!").stem == "a-red-fox-running-home"
    assert prompt_item("one two three four five six seven").stem == "one-two-three-four-five-six"
    assert prompt_item("x", identifier="shot 1/2").stem == "shot-1-2"
    assert safe_stem("../..") == "item" and prompt_item("!?").stem == "prompt"
    assert prompt_item("x").fingerprint() != prompt_item("y").fingerprint()


def test_error_lines_are_single_lines() -> None:
    assert error_line(ItemError("a\nb")) == "a b"
    assert "memory" in error_line(MemoryError())
    assert error_line(FileNotFoundError(2, "No such file", "x")) == "x: No such file"
    assert "ValueError: a b" in error_line(ValueError("a\n b")) and "--debug" in error_line(ValueError("a"))


def test_outcomes_wait_for_those_before_them() -> None:
    order = _InOrder([0, 2, 5])
    assert [outcome.index for outcome in order.add(Outcome(5, "ok"))] == []
    assert [outcome.index for outcome in order.add(Outcome(0, "ok"))] == [0]
    assert [outcome.index for outcome in order.rest()] == [5]
    order = _InOrder([0, 2])
    assert [outcome.index for outcome in order.add(Outcome(2, "ok"))] == []
    assert [outcome.index for outcome in order.add(Outcome(0, "ok"))] == [0, 2]


def test_threads_are_shared_out() -> None:
    cores = len(os.sched_getaffinity(0))
    assert share_threads(1) == cores and share_threads(cores) == 1 and share_threads(10 * cores) == 1


def test_runner_imports_nothing_heavy() -> None:
    modules = sorted(
        path.stem for path in Path(lay_out.__code__.co_filename).parent.glob("*.py") if path.stem[0] != "_"
    )
    imports = "; ".join(f"import attnkit.runtime.{name}" for name in modules)
    imports += "; import attnkit.commands.tonemap, attnkit.tasks.tonemap.files"
    heavy = "('numpy', 'cv2', 'torch', 'numba', 'rich', 'distributed', 'PIL', 'OpenEXR', 'tifffile', 'safetensors')"
    script = f"import sys; {imports}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_item_end_to_end_does_not_import_torch(tmp_path: Path) -> None:
    (tmp_path / "a.pfm").write_bytes(b"PF\n2 2\n-1.0\n" + np.ones(12, np.float32).tobytes())
    script = (
        "import sys\nfrom attnkit import cli\n"
        f"code = cli.run(['tonemap', r'{tmp_path / 'a.pfm'}', '--method', 'reinhard', '-q'])\n"
        "print(code, [name for name in ('torch', 'rich', 'distributed', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 []"


def test_the_bar_moves_inside_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    talk = Talk("demo", quiet=False, verbose=False, log_file=None)
    talk.start(2)
    talk.advance()
    talk.inside(0.5)
    talk.stop()
    assert "1/2" in terminal.getvalue() and "75%" in terminal.getvalue()
    # where there is no bar nothing is said
    talk.inside(0.7)
