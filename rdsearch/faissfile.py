"""The layout of a tier file: where its arrays are.

FAISS writes an index as a row of fields. The arrays among them are numbers that may be anything;
the rest says how long they are and what they mean. Known here are the files of `rdsearch.codecs`
without cells, as FAISS 1.10 to 1.15 write them; they are those that are mapped into memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

__all__ = ["Span", "arrays"]

#: Bytes of a file: the first, and the one after the last.
Span = tuple[int, int]


class _Array(NamedTuple):
    """A number of elements in 8 bytes, then the elements."""

    element_bytes: int


# Dimensions, rows, two numbers without meaning, whether it is trained, metric.
_HEADER = 33
# Dimensions in and out, whether it is trained.
_END = 9
_FLOATS, _CODES = _Array(4), _Array(1)
_WRAPPED = b"IxPT"

# Fields after the four letters of each kind: arrays, and bytes of all else.
_TRANSFORMS: dict[bytes, tuple[int | _Array, ...]] = {
    b"VCnt": (_FLOATS, _END),
    b"LTra": (1, _FLOATS, _FLOATS, _END),
    b"VNrm": (4, _END),
}
_CODECS: dict[bytes, tuple[int | _Array, ...]] = {
    b"IxFI": (_HEADER, _FLOATS),
    b"IxSQ": (_HEADER, 28, _FLOATS, _CODES),
    b"Ixrq": (_HEADER, 20, _CODES, _FLOATS, 1),
    b"Ixrr": (_HEADER, 28, _CODES, _FLOATS, 1),
}


class _UnknownError(Exception):
    """It is none of these files."""


def arrays(path: Path) -> list[Span] | None:
    """Where the arrays of a tier file are.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of (int, int) or None
        Start and stop, in order. None where the layout is not known, or the fields do not end
        where the file does.
    """
    with path.open("rb") as file:
        try:
            return list(_walk(file, path.stat().st_size))
        except (_UnknownError, struct.error):
            return None


def _walk(file: BinaryIO, size: int) -> Iterator[Span]:
    kind = file.read(4)
    if kind == _WRAPPED:
        file.seek(_HEADER, 1)
        (transforms,) = struct.unpack("<i", file.read(4))
        if not 0 <= transforms <= len(_TRANSFORMS):
            raise _UnknownError
        for _ in range(transforms):
            yield from _fields(file, _TRANSFORMS.get(file.read(4)), size)
        kind = file.read(4)
    yield from _fields(file, _CODECS.get(kind), size)
    if file.tell() != size:
        raise _UnknownError


def _fields(file: BinaryIO, fields: tuple[int | _Array, ...] | None, size: int) -> Iterator[Span]:
    if fields is None:
        raise _UnknownError
    for field in fields:
        if isinstance(field, _Array):
            (length,) = struct.unpack("<Q", file.read(8))
            start = file.tell()
            stop = start + length * field.element_bytes
            if stop > size:
                raise _UnknownError
            file.seek(stop)
            yield start, stop
        else:
            file.seek(field, 1)
