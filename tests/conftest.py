"""Fixtures shared by the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[2] / "shared"


def _shared_folder(name: str) -> Path:
    folder = _SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the data folder shared/{name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def eval_dir() -> Path:
    """Evaluation data that is not part of the repository."""
    return _shared_folder("eval")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real proteins that are not part of the repository."""
    return _shared_folder("data")
