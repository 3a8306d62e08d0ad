"""Fixtures that every test folder shares."""

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# as commands have it: threads that wait for each other make small products a hundred times slower on a busy machine
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# a run in the background or under nohup ignores these, and so would every command that a test starts and then stops
for stop, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(stop) is signal.SIG_IGN:
        signal.signal(stop, usual)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the shared test material, beside the checkout or named by ATTNKIT_SHARED."""
    folder = Path(os.environ.get("ATTNKIT_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"shared test material not found at {folder}; set ATTNKIT_SHARED to its folder")
    return folder
