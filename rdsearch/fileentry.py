"""The files of an index, and how a manifest knows that they are whole.

An index may come from anybody: its files are reached only through `locate`, which follows no link
and waits for nothing.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from rdsearch.errors import IndexDamagedError, InputError
from rdsearch.faissfile import Span, arrays

__all__ = ["FileEntry", "locate", "open_file", "sha256_of"]

# A quick check reads so many bytes of a file at most: headers, and what a truncated copy lacks.
_QUICK_BYTES = 128 << 10
_BLOCK = 1 << 20
_LARGEST = 1 << 63
_NEXT = "Restore it or build again"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an index.

    Attributes
    ----------
    path : str
        Relative to the index, with forward slashes.
    size : int
        Bytes.
    sha256 : str
        Of the whole file.
    quick_sha256 : str
        Of what the quick check reads: all but `skipped`, at most 128 KiB.
    skipped : tuple of (int, int)
        Where the file has large arrays of numbers, or its middle; start and stop, in order. In a
        tier file everything that says how these numbers are laid out is outside.
    """

    path: str
    size: int
    sha256: str
    quick_sha256: str
    skipped: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if any(part in ("", ".", "..") for part in parts) or not self._plain():
            raise InputError(f"the path {self.path!r} leaves the index")
        edges = [0, *(edge for span in self.skipped for edge in span), self.size]
        if edges != sorted(edges) or not 0 <= self.size < _LARGEST:
            raise InputError(f"{self.path}: skipped parts that are not inside its bytes")
        if self.size - _length(self.skipped) > _QUICK_BYTES:
            raise InputError(
                f"{self.path}: a quick check reads at most {_QUICK_BYTES:,} bytes; found "
                f"{self.size - _length(self.skipped):,}"
            )

    def _plain(self) -> bool:
        return "\\" not in self.path and self.path.isprintable()

    @classmethod
    def of(cls, folder: Path, path: str) -> FileEntry:
        """Describe a file that was just written."""
        file = folder / path
        size = file.stat().st_size
        skipped = _skipped(size, arrays(file) or ())
        with file.open("rb") as handle:
            quick = _digest(handle, _outside(skipped, size))
        return cls(path, size, sha256_of(file), quick, skipped)

    def check(self, folder: Path, *, full: bool = False) -> None:
        """Compare with the file on disk.

        Raises
        ------
        IndexDamagedError
            Missing, no plain file, another size, other bytes where the quick check reads, or
            (`full`) anywhere.
        """
        file = folder / self.path
        try:
            with open_file(folder, self.path) as handle:
                size = os.fstat(handle.fileno()).st_size
                if size != self.size:
                    _damaged(file, f"expected {self.size} bytes, found {size}")
                if full and _digest(handle, [(0, size)]) != self.sha256:
                    _damaged(file, "its SHA-256 is not the one in the manifest")
                outside = _outside(self.skipped, size)
                if not full and _digest(handle, outside) != self.quick_sha256:
                    _damaged(
                        file,
                        "its headers, or its first or last bytes, are not those in the manifest",
                    )
        except OSError as error:
            raise IndexDamagedError(
                f"{file}: it cannot be read ({error.strerror}). {_NEXT}", path=file
            ) from error


def locate(folder: Path, path: str) -> Path:
    """Where a file of an index lies.

    Parameters
    ----------
    folder : Path
        The index; itself it may be a link.
    path : str
        The file, relative to it.

    Raises
    ------
    IndexDamagedError
        The file is missing, it or a folder on the way is a link, or it is a folder or a device.
    """
    place = folder
    for part in path.split("/"):
        place = place / part
        try:
            mode = place.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            _damaged(folder / path, "the file is missing")
        except OSError as error:
            raise IndexDamagedError(
                f"{folder / path}: it cannot be read ({error.strerror}). {_NEXT}",
                path=folder / path,
            ) from error
        if stat.S_ISLNK(mode):
            _damaged(place, "expected no link, for links inside an index are not followed")
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a device, a pipe or a socket"
        _damaged(place, f"expected a file, found {found}")
    return place


def open_file(folder: Path, path: str) -> BinaryIO:
    """Open a file of an index for reading; see `locate`.

    Raises
    ------
    IndexDamagedError
        As `locate`.
    OSError
        It cannot be opened.
    """
    place = locate(folder, path)
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.fdopen(os.open(place, flags), "rb")


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's content, hex."""
    with file.open("rb") as handle:
        return _digest(handle, [(0, _LARGEST)])


def _damaged(file: Path, found: str) -> NoReturn:
    raise IndexDamagedError(f"{file}: {found}. {_NEXT}", path=file)


def _digest(handle: BinaryIO, spans: Iterable[Span]) -> str:
    """SHA-256 of parts of a file, hex."""
    digest = hashlib.sha256()
    for start, stop in spans:
        handle.seek(start)
        while start < stop and (block := handle.read(min(_BLOCK, stop - start))):
            digest.update(block)
            start += len(block)
    return digest.hexdigest()


def _skipped(size: int, spans: Sequence[Span]) -> tuple[Span, ...]:
    """What a quick check leaves out: the longest spans, until little enough is left."""
    left, chosen = size, []
    for start, stop in sorted(spans, key=lambda span: span[0] - span[1]):
        if left > _QUICK_BYTES:
            chosen.append((start, stop))
            left -= stop - start
    if left > _QUICK_BYTES:
        chosen = [(_QUICK_BYTES // 2, size - _QUICK_BYTES // 2)]
    return tuple(sorted(chosen))


def _outside(spans: Sequence[Span], size: int) -> Iterator[Span]:
    """The rest of a file."""
    edges = [0, *(edge for span in spans for edge in span), size]
    return zip(edges[::2], edges[1::2], strict=True)


def _length(spans: Iterable[Span]) -> int:
    return sum(stop - start for start, stop in spans)
