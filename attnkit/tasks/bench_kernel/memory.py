"""Peak memory of one call, each measured in a process of its own.

`python -m attnkit.tasks.bench_kernel.memory` imports torch once and computes nothing; for each question it forks, and
the fresh child answers. What takes a child down (a crash, the memory of the machine) is an answer too.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .failures import FAILED, OUT_OF_MEMORY, reason_of
from .plan import Case

# share of the free memory that a child may take before its allocations fail
SHARE = 0.9


@dataclass(frozen=True)
class Question:
    """A case, or a baseline for it; `threads` as in the process that times it."""

    case: Case
    baseline: str | None
    device: str
    seed: int
    threads: int


class Server:
    """The process that forks. Answers are {"peak_bytes": ...} or {"status": ..., "reason": ...}."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it has imported torch: what is timed next must not share the machine with that."""
        command = [sys.executable, "-m", "attnkit.tasks.bench_kernel.memory"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def ask(self, question: Question) -> dict[str, Any]:
        """The peak of one call beyond what was in memory before it."""
        if self._process is None:
            self.start()
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        try:
            pickle.dump(question, self._process.stdin)
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            return {"status": FAILED, "reason": "the process that measures memory has ended"}
        return dict(json.loads(line))

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def serve() -> None:
    """Answer questions from standard input until it ends."""
    # imported before the forks, so that each child starts with it; nothing is computed here
    import torch  # noqa: F401

    from . import baselines, gate, kernels  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        try:
            question = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        print(json.dumps(in_child(question)), flush=True)


def in_child(question: Question) -> dict[str, Any]:
    """Fork, let the child measure, and say what became of it."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(receive)
            with os.fdopen(send, "w") as stream:
                stream.write(json.dumps(answer(question)))
            code = 0
        finally:
            os._exit(code)
    os.close(send)
    with os.fdopen(receive) as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    if text:
        return dict(json.loads(text))
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name
        killed = number == signal.SIGKILL
        return {
            "status": OUT_OF_MEMORY if killed else FAILED,
            "reason": f"its process ended with {name}{', most likely for lack of memory' if killed else ''}",
        }
    return {"status": FAILED, "reason": "its process ended without an answer"}


def answer(question: Question) -> dict[str, Any]:
    """What the child does: prepare, then one call between two looks at the memory."""
    try:
        return {"peak_bytes": measure(question)}
    except Exception as error:
        status, reason = reason_of(error)
        return {"status": status, "reason": reason}


def measure(question: Question) -> int:
    """Bytes that one call adds at its peak, its output and what it keeps for later calls included."""
    import torch

    from .baselines import prepare_baseline
    from .kernels import prepare

    torch.set_num_threads(question.threads)
    case, device = question.case, question.device
    if device == "cpu":
        _limit()
    kernel = prepare(case, device, question.seed)
    if question.baseline is not None:
        kernel = prepare_baseline(question.baseline, case, kernel, question.seed)
    run = kernel.call(case.direction)
    if device != "cpu":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        kept = run()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
        del kept
        return peak - before
    # the buffers of the matrix library and of the threads belong to no kernel
    torch.ones(256, 256) @ torch.ones(256, 256)
    before = _reset()
    kept = run()
    peak = _status("VmHWM")
    del kept
    return max(0, peak - before)


def _limit() -> None:
    import resource

    from .baselines import free_bytes

    room = _status("VmSize") + int(SHARE * free_bytes())
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (room if hard == resource.RLIM_INFINITY else min(room, hard), hard))


def _reset() -> int:
    """Bytes in memory now, from where the high-water mark counts on."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        # the mark then stays where preparing left it
        return _status("VmHWM")
    return _status("VmRSS")


def _status(name: str) -> int:
    """A size of this process in bytes; unlike that of getrusage, its mark is not inherited from the parent."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    serve()
