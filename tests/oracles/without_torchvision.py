"""Lets timm be imported where torchvision is not installed: there is no CPU build of it beside every torch."""

import sys
from enum import Enum
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

INTERPOLATIONS = ("NEAREST", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS")


class _Hollow(ModuleType):
    """A module whose every attribute is an empty class."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "InterpolationMode":
            made = Enum(name, [(mode, mode.lower()) for mode in INTERPOLATIONS])
        else:
            made = type(name, (), {})
        setattr(self, name, made)
        return made


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "torchvision":
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return _Hollow(spec.name)

    def exec_module(self, module):
        module.__path__ = []


def install() -> None:
    """Answer imports of torchvision with hollow modules, unless it is installed."""
    if find_spec("torchvision") is None:
        sys.meta_path.append(_Finder())
