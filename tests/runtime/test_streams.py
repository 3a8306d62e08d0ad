"""What a run says while another thread turns the process's streams away, and beside a bar on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from attnkit.pictures.native import captured_messages
from attnkit.runtime import render
from attnkit.runtime.progress import Talk

SPEAKING = """
import sys
from attnkit.runtime import render
from attnkit.runtime.progress import Talk
talk = Talk("demo", quiet=False, verbose=False, log_file=None)
talk.start(3)
for number in range(3):
    with talk.aside():
        render.put("answer %d " % number + "long " * 40)
        talk.info("said %d" % number)
    talk.advance()
    talk.info("more %d" % number)
talk.stop()
"""


def say(line: str) -> None:
    Talk("demo", quiet=False, verbose=False, log_file=None).error(line)


@pytest.mark.parametrize("speak", [render.put, say], ids=["answer", "talk"])
def test_lines_wait_while_a_reader_has_turned_the_streams_away(
    speak: Callable[[str], None], capfd, monkeypatch
) -> None:
    # pytest's own standard error is not descriptor 2, as that of a command is
    with open(2, "w", closefd=False) as descriptor:
        monkeypatch.setattr(sys, "stderr", descriptor)
        speaker = threading.Thread(target=speak, args=("of another item",))
        with captured_messages() as messages:
            speaker.start()
            # where nothing makes it wait, it has spoken by then
            speaker.join(timeout=0.3)
            os.write(2, b"of the library\n")
        speaker.join()
        monkeypatch.undo()
    assert messages == ["of the library"]
    assert "of another item" in "".join(capfd.readouterr())


def on_terminal(stdout: int | None) -> str:
    """What the script leaves on a terminal: standard error, and standard output unless that is given."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SPEAKING],
        stdin=subprocess.DEVNULL,
        stdout=slave if stdout is None else stdout,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:
        # the end of a terminal on Linux
        pass
    assert process.wait() == 0
    os.close(master)
    return shown.decode()


def test_answers_of_a_run_on_a_terminal_go_where_standard_output_goes(tmp_path: Path) -> None:
    with (tmp_path / "answers").open("wb") as answers:
        shown = on_terminal(answers.fileno())
    lines = (tmp_path / "answers").read_text().splitlines()
    assert [line.split(" long")[0] for line in lines] == ["answer 0", "answer 1", "answer 2"]
    assert "answer" not in shown and "said 2" in shown and "3/3" in shown


def test_answers_beside_a_bar_are_lines_of_their_own() -> None:
    shown = on_terminal(None)
    lines = [line.split("\x1b[2K")[-1] for line in shown.split("\r\n")]
    for number in range(3):
        assert f"answer {number} " + "long " * 40 in lines
        assert f"attnkit demo: said {number}" in lines and f"attnkit demo: more {number}" in lines
