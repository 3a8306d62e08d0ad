"""The examples in the docstrings of the image operators."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["image", "image.laplacian.api", "image.lut3d.api", "image.local_laplacian.api"])
def test_examples_of_docstrings(name):
    found = doctest.testmod(import_module(f"attnkit_kernels.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
