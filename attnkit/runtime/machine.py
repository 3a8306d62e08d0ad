"""What this machine and this installation are, for `attnkit doctor`.

Versions come from package metadata, without importing anything. Whether the packages can be imported, and which devices
torch sees, is asked in a process of its own (`python -m attnkit.runtime.machine MODULE...`), so that a package that
takes the interpreter down with it is a line in the report.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

PROBE_SECONDS = 60.0
BYTES_PER_GB = 10**9


def system() -> dict[str, Any]:
    """Platform, Python, cores and memory; a container's limits go before the machine's."""
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "executable": from_home(sys.executable),
        "cores": usable_cores(),
        "memory_gb": memory_gb(),
    }


def from_home(path: str | os.PathLike[str] | None) -> str | None:
    """The path with ~ for the home folder, so that a report can be posted."""
    if path is None:
        return None
    text, home = os.fspath(path), os.path.expanduser("~")
    return "~" + text[len(home) :] if len(home) > 1 and text.startswith(home + os.sep) else text


def usable_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = first_line("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def memory_gb() -> float | None:
    limits = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = first_line("/sys/fs/cgroup/memory.max")
    if limit.isdigit():
        limits.append(int(limit))
    return round(min(limits) / BYTES_PER_GB, 1) if limits else None


def first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""


def packages() -> list[dict[str, Any]]:
    """Every package that attnkit or one of its extras asks for: version here, what is asked, whether it fits."""
    from packaging.requirements import Requirement

    rows: dict[str, dict[str, Any]] = {}
    for line in requirements():
        asked = Requirement(line)
        extra = re.search(r"extra == ['\"]([^'\"]+)", line)
        if asked.name == "attnkit" or (extra and extra[1] in ("test", "all")):
            continue
        if asked.marker is not None and not asked.marker.evaluate({"extra": extra[1] if extra else ""}):
            continue
        try:
            version = metadata.version(asked.name)
        except metadata.PackageNotFoundError:
            version = None
        fits = version is not None and asked.specifier.contains(version, prereleases=True)
        rows[asked.name] = {
            "package": asked.name,
            "version": version,
            "expected": str(asked.specifier),
            "extra": extra[1] if extra else None,
            "ok": fits,
        }
    return list(rows.values())


def requirements() -> list[str]:
    try:
        return metadata.requires("attnkit") or []
    except metadata.PackageNotFoundError:
        return []


def start_probe(modules: Sequence[str]) -> subprocess.Popen[str]:
    """Begins importing the modules in a process of its own; `finish_probe` has the answer."""
    return subprocess.Popen(
        [sys.executable, "-m", "attnkit.runtime.machine", *modules],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_probe(probe: subprocess.Popen[str], modules: Sequence[str]) -> dict[str, Any]:
    """{modules: {name: {seconds, error}}, devices: [...], cache: ...} as far as the process came."""
    try:
        output, noise = probe.communicate(timeout=PROBE_SECONDS)
        end = f"ended with {probe.returncode}: {noise.strip().splitlines()[-1] if noise.strip() else 'no message'}"
    except subprocess.TimeoutExpired:
        probe.kill()
        output, _ = probe.communicate()
        end = f"took more than {PROBE_SECONDS:g} s"
    found: dict[str, Any] = {"modules": {}, "devices": None, "cache": None}
    for line in output.splitlines():
        if line.startswith("{"):
            answer = json.loads(line)
            found["modules"].update(answer.pop("modules", {}))
            found.update(answer)
    # the first module without an answer is the one that stopped the process
    for name in modules:
        if name not in found["modules"]:
            found["modules"][name] = {"seconds": None, "error": f"importing stopped the process, which {end}"}
            break
    return found


def probe_main(modules: Sequence[str]) -> None:
    for name in modules:
        start = time.perf_counter()
        error = None
        try:
            importlib.import_module(name)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}".splitlines()[0]
        answer = {"seconds": round(time.perf_counter() - start, 3), "error": error}
        print(json.dumps({"modules": {name: answer}}), flush=True)
    if "torch" in modules:
        print(json.dumps({"devices": devices()}), flush=True)
    if "numba" in modules:
        print(json.dumps({"cache": compiled_cache()}), flush=True)


def devices() -> list[dict[str, Any]] | None:
    """What torch can compute on, or None where torch cannot be imported."""
    try:
        import torch
    except Exception:
        return None
    found: list[dict[str, Any]] = [{"device": "cpu", "name": platform.machine(), "torch": torch.__version__}]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(index)
        memory = round(facts.total_memory / BYTES_PER_GB, 1)
        capability = f"sm_{facts.major}{facts.minor}"
        found.append({"device": f"cuda:{index}", "name": facts.name, "memory_gb": memory, "capability": capability})
    return found


def compiled_cache() -> dict[str, Any] | None:
    """Where the compiled CPU loops are kept; folder None means that each process compiles anew."""
    try:
        from attnkit_kernels.cache import cache_folder
    except Exception:
        return None
    folder = cache_folder()
    return {"folder": from_home(folder), "writable": folder is not None}


if __name__ == "__main__":
    probe_main(sys.argv[1:])
