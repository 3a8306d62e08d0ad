"""Which extra of the package brings which import, and the one line that installs it."""

from __future__ import annotations

EXTRAS: dict[str, tuple[str, ...]] = {"cluster": ("dask", "distributed"), "all": ("sklearn",)}


def extra_of(module: str) -> str | None:
    """The extra that brings a module, or None where the base installation should have it."""
    top = module.partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if top in modules), None)


def install_line(module: str) -> str | None:
    """The line that installs what brings `module`; None for attnkit's own modules, whose absence is a defect."""
    top = module.partition(".")[0]
    if top in ("attnkit", "attnkit_kernels"):
        return None
    extra = extra_of(top)
    return f"pip install 'attnkit[{extra}]'" if extra else "pip install --force-reinstall attnkit"
