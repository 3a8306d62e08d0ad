"""Fixtures that every test folder shares."""

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# files that take longest come first, so that no process is left with one of them at the end
LONGEST = (
    "test_triton.py",
    "test_image_triton.py",
    "test_triton_compiles.py",
    "test_examples.py",
    "test_pattern_engines.py",
    "test_variant_channel.py",
    "test_kernel_compiled.py",
)

# as commands have it: threads that wait for each other make small products a hundred times slower on a busy machine
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# two test processes share the cores: threads that wait must not keep one busy
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# a run in the background or under nohup ignores these, and so would every command that a test starts and then stops
for stop, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(stop) is signal.SIG_IGN:
        signal.signal(stop, usual)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """All tests at once run in two processes, file by file; those that are named, as ever, in one."""
    option = config.option
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    if named or hasattr(config, "workerinput") or getattr(option, "numprocesses", 0) is not None or option.usepdb:
        return
    option.numprocesses, option.dist, option.loadscopereorder = 2, "loadfile", False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the shared test material, beside the checkout or named by ATTNKIT_SHARED."""
    folder = Path(os.environ.get("ATTNKIT_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"shared test material not found at {folder}; set ATTNKIT_SHARED to its folder")
    return folder
