"""Fixtures that every test folder shares."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the shared test material, beside the checkout or named by ATTNKIT_SHARED."""
    folder = Path(os.environ.get("ATTNKIT_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"shared test material not found at {folder}; set ATTNKIT_SHARED to its folder")
    return folder
