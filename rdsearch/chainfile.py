"""Chain files: a safetensors file of float64 arrays whose metadata describes the chain.

The metadata has one entry, ``rdsearch.chain``: JSON with the format version, the family, the
members, the boundaries, the residues seen, a report per step, and the hash. One entry, because
the order of several is not fixed in the file: the same chain gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import durable
from rdsearch.errors import ChainError

__all__ = ["FORMAT", "digest", "read", "recorded_hash", "write"]

FORMAT = 1
_ENTRY = "rdsearch.chain"

Arrays = Mapping[str, NDArray[np.float64]]


def digest(header: Mapping[str, Any], arrays: Arrays) -> str:
    """Hash of a chain: hex sha256 over its description and its arrays.

    Parameters
    ----------
    header : mapping
        What JSON can hold.
    arrays : mapping of str to ndarray, float64

    Returns
    -------
    str
        Independent of the format version and of the order of entries.
    """
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    content = json.dumps([header, shapes], sort_keys=True, separators=(",", ":"), allow_nan=False)
    sha = hashlib.sha256(b"rdsearch chain\0" + content.encode())
    for name in sorted(arrays):
        sha.update(np.ascontiguousarray(arrays[name], dtype="<f8").data)
    return sha.hexdigest()


def write(path: Path, header: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a chain file: a temporary sibling, made durable, then renamed.

    Parameters
    ----------
    path : Path
        Replaced where it exists.
    header : mapping
    arrays : mapping of str to ndarray, float64

    Raises
    ------
    ChainError
        The file cannot be written; what was at `path` is still there.
    """
    from safetensors.numpy import save

    document = {"format": FORMAT, **header, "hash": digest(header, arrays)}
    data = save(
        {name: np.ascontiguousarray(array, dtype="<f8") for name, array in arrays.items()},
        metadata={_ENTRY: json.dumps(document, allow_nan=False)},
    )
    # No lock is taken here: two processes that write the same file need two names.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(data)
            durable.sync_file(temporary)
            durable.publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ChainError(
            f"{path}: the chain cannot be written ({error.strerror}); choose a folder that exists "
            "and has room",
            path=str(path),
        ) from error


def read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]], str]:
    """Read a chain file and check its hash.

    Parameters
    ----------
    path : Path

    Returns
    -------
    header : dict
    arrays : dict of str to ndarray, float64
    hash : str

    Raises
    ------
    ChainError
        Absent, not a chain file, of a newer format, or damaged; the message names the file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ChainError(
            f"{path}: there is no chain file here; make one with: rdsearch fit", path=str(path)
        )
    try:
        with safe_open(str(path), framework="numpy") as file:
            document = _document(path, file.metadata())
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise _unusable(path, f"it cannot be read as a chain ({error})") from error
    found = {str(array.dtype) for array in arrays.values()} - {"float64"}
    if found:
        raise _unusable(path, f"its arrays must be float64, found {', '.join(sorted(found))}")
    expected = document.pop("hash", None)
    actual = digest(document, arrays)
    if actual != expected:
        raise ChainError(
            f"{path}: the chain file is damaged: its content has hash {actual[:12]}, recorded is "
            f"{str(expected)[:12]}. Copy the file again or fit the chain again",
            path=str(path),
            expected=expected,
            found=actual,
        )
    return document, arrays, actual


def recorded_hash(path: Path) -> str:
    """The hash that a chain file says it has; its arrays are not read.

    Raises
    ------
    ChainError
        Absent, or not a chain file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ChainError(f"{path}: there is no chain file here", path=str(path))
    try:
        with safe_open(str(path), framework="numpy") as file:
            return str(_document(path, file.metadata()).get("hash"))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise _unusable(path, f"it cannot be read as a chain ({error})") from error


def _document(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """The description in the metadata, without its format version."""
    if not metadata or _ENTRY not in metadata:
        raise _unusable(path, f"it is a safetensors file without the metadata {_ENTRY}")
    document = json.loads(metadata[_ENTRY])
    version = document.pop("format", None) if isinstance(document, dict) else None
    if not isinstance(version, int) or version < 1:
        raise _unusable(path, "its metadata does not say a format version")
    if version > FORMAT:
        raise ChainError(
            f"{path}: the chain file has format {version}, this rdsearch reads up to {FORMAT}. "
            "Update rdsearch",
            path=str(path),
            expected=FORMAT,
            found=version,
        )
    return dict(document)


def _unusable(path: Path, reason: str) -> ChainError:
    """An error for a file that is no chain file, or no longer one."""
    return ChainError(
        f"{path}: not a usable chain file: {reason}. Give a file made by rdsearch fit, or copy it "
        "again if it was one",
        path=str(path),
    )
