"""What the numbers of a run were measured on. No user, host or path is in it."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from attnkit.runtime import machine
from attnkit.runtime.errors import UsageError
from attnkit.runtime.records import utc_now

PACKAGES = ("torch", "triton", "numpy", "natten", "flash-attn", "flash-linear-attention")


def chosen_device(asked: str) -> str:
    """ "cpu" or "cuda:N" for a --device; auto is the first GPU, else the CPU. UsageError for one that is not there."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "cpu" or (asked == "auto" and not count):
        return "cpu"
    index = int(asked.partition(":")[2] or 0)
    if index >= count:
        there = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        raise UsageError(f"--device: got {asked}, but torch sees {there} here; use --device cpu")
    return f"cuda:{index}"


def describe(device: str, seed: int) -> dict[str, Any]:
    """The record of a run: machine, processor, versions, commit, threads, seed, and when."""
    import torch

    from attnkit import __version__

    record: dict[str, Any] = {
        "date_utc": utc_now(),
        "device": device.partition(":")[0],
        "device_name": device_name(device),
        "processor": processor(),
        "platform": platform.platform(),
        "cores": machine.usable_cores(),
        "memory_gb": machine.memory_gb(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "attnkit": __version__,
        "commit": commit(),
        "versions": {name: version for name in PACKAGES if (version := version_of(name)) is not None},
        "seed": seed,
    }
    if device != "cpu":
        facts = torch.cuda.get_device_properties(device)
        record.update(
            device_memory_gb=round(facts.total_memory / machine.BYTES_PER_GB, 1),
            capability=f"sm_{facts.major}{facts.minor}",
            multiprocessors=facts.multi_processor_count,
            cuda=torch.version.cuda or torch.version.hip,
        )
    return record


def device_name(device: str) -> str:
    """The processor's or the GPU's own name: what two records must share to be compared."""
    if device == "cpu":
        return processor()
    import torch

    return torch.cuda.get_device_name(device)


def processor() -> str:
    """The model name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def version_of(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the checkout that this code runs from; None for an installed wheel."""
    folder = Path(__file__).resolve().parents[3]
    try:
        head = (folder / ".git" / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        loose = folder / ".git" / name
        if loose.exists():
            return loose.read_text(encoding="ascii").strip()
        packed = (folder / ".git" / "packed-refs").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
