"""The exception tree.

Every error a user can cause is an `RdsearchError`. Its message names the thing, what was
expected, what was found and the next step; the facts are attributes, so that a program need
not parse the text. The CLI prints the message and leaves with exit code 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "CatalogError",
    "ChainError",
    "ChainMismatchError",
    "DependencyError",
    "EmbeddingError",
    "FastaError",
    "IndexDamagedError",
    "IndexExistsError",
    "IndexLockedError",
    "IndexMissingError",
    "IndexWriteError",
    "InputError",
    "MetadataError",
    "RdsearchError",
    "StoreError",
    "StoreMismatchError",
    "TuningError",
    "WeightsError",
    "few",
]


# Names that a message gives as examples.
_EXAMPLES = 3


def few(names: Sequence[str]) -> str:
    """The first names for a message, with an ellipsis where there are more."""
    return ", ".join(names[:_EXAMPLES]) + (", …" if len(names) > _EXAMPLES else "")


class RdsearchError(Exception):
    """Base of every error that rdsearch raises on purpose.

    Parameters
    ----------
    message : str
        What is wrong, what was expected, what was found, and the next step.
    **facts : object
        The same facts as attributes, for example ``path=…, line=…``.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)


class InputError(RdsearchError):
    """A value or a file that the user gave cannot be used."""


class FastaError(InputError):
    """A FASTA file that cannot be read as proteins (attributes ``path``, ``line``, ``reason``)."""

    def __init__(self, path: str, line: int | None, reason: str) -> None:
        where = path if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {reason}", path=path, line=line, reason=reason)


class MetadataError(InputError):
    """A metadata table that cannot be joined to the proteins."""


class WeightsError(RdsearchError):
    """Model weights are absent, unreadable, or of another shape than the member says."""


class EmbeddingError(RdsearchError):
    """A model's output cannot be used (not finite, out of memory at the smallest batch)."""


class ChainError(RdsearchError):
    """A chain cannot be fitted, read, or applied."""


class ChainMismatchError(ChainError):
    """Vectors or an index of another chain (attributes ``expected``, ``found``: chain hashes)."""


class StoreError(RdsearchError):
    """An embedding store cannot be opened, continued or written."""


class StoreMismatchError(StoreError):
    """A store of other input or options is in the folder (attribute ``differences``)."""


class CatalogError(RdsearchError):
    """The catalog cannot be read or written, or does not fit its vectors."""


class IndexMissingError(RdsearchError):
    """There is no index at this path."""


class IndexExistsError(RdsearchError):
    """There is an index at this path already."""


class IndexDamagedError(RdsearchError):
    """A file of an index is not what its manifest says (attribute ``path``: the file)."""


class IndexLockedError(RdsearchError):
    """Another process is writing the index (attributes ``path``, ``owner``)."""


class IndexWriteError(RdsearchError):
    """An index cannot be written: disk full, read-only, no permission (attribute ``path``)."""


class DependencyError(RdsearchError):
    """An optional library is needed and not installed."""


class TuningError(RdsearchError):
    """No funnel can be certified (attributes ``needed``, ``found``), or the index was changed."""


class CalibrationError(RdsearchError):
    """An index is not calibrated as it was asked for, or no score can be certified."""
