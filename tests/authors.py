"""The authors' package, or the reason why it is not here."""

from __future__ import annotations

import importlib
from typing import Any

import pytest


def scalers() -> Any:
    """The module with the authors' ``rdScaler``; skips the test where it cannot be imported."""
    try:
        module = importlib.import_module("reverse_distillation.scaler.rd")
    except ImportError as error:
        pytest.skip(
            f"the authors' package is not installed ({error}): "
            "pip install --no-deps -r tests/parity-requirements.txt"
        )
    # Importing it replaced loguru's sinks by standard output.
    importlib.import_module("loguru").logger.remove()
    return module
