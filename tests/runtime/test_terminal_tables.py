"""Tables of answers on a terminal: words stay whole where there is room, and nothing is cut off."""

from __future__ import annotations

import io
import re

import pytest

from attnkit.runtime.answers import print_table

HEADERS = ("item", "calibration", "answer", "its probability", "mean probability", "attention moved", "visual sinks")
ANSWER = "The image shows an orange cross, a purple square and a blue square."


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("width", "whole"), [(84, True), (60, False)])
def test_long_texts_make_room_for_words(width: int, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    print_table(HEADERS, [("ex/scene1.png", "none", ANSWER, "0.9420", "0.9748", "0.0000", "0")])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert all(len(line.rstrip()) <= width for line in shown.splitlines())
    assert all(word in shown for word in ("ex/scene1.png", "calibration", "attention")) == whole
    assert "0.9748" in shown and "sinks" in shown
