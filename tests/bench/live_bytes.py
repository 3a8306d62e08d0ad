"""Bytes of the tensors that are alive at once while code runs: a count, the same on every machine and in every run."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages of what operations return until they are freed, in bytes: `live` now, `peak` at most.

    Tensors from before are not counted, nor what an operation needs within itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: dict[int, Any] = {}

    def forget_peak(self) -> None:
        """Let the peak begin anew at what is alive now."""
        self.peak = self.live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in self._tensors((args, kwargs)):
            self._note(tensor, counted=False)
        result = func(*args, **kwargs)
        for tensor in self._tensors(result):
            self._note(tensor, counted=True)
        self.peak = max(self.peak, self.live)
        return result

    @staticmethod
    def _tensors(tree: Any) -> list[torch.Tensor]:
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]

    def _note(self, tensor: torch.Tensor, *, counted: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if counted else 0
        self.live += size

        def freed(_: Any) -> None:
            self._known.pop(key)
            self.live -= size

        self._known[key] = weakref.ref(storage, freed)
