"""The one place that imports FAISS, so that its absence has one clear error."""

from __future__ import annotations

from typing import Any

from rdsearch.errors import DependencyError


def load() -> Any:
    """The module ``faiss``.

    Raises
    ------
    DependencyError
        When it is not installed, with the two commands that install it.
    """
    try:
        import faiss
    except ImportError as error:
        raise DependencyError(
            "FAISS is not installed. Install one of\n"
            "    pip install 'rdsearch[cpu]'\n"
            "    pip install 'rdsearch[gpu]'\n"
            "and not both: they provide the same module"
        ) from error
    return faiss
