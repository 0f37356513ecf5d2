"""Where results go: files that appear when they are complete, standard output, open files."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from rdsearch import durable
from rdsearch.errors import InputError

__all__ = ["bytes_of", "named", "new_file", "text_of"]


@contextlib.contextmanager
def new_file(path: Path, *, binary: bool) -> Iterator[IO[Any]]:
    """A new file that gets its name when it is complete; what is no plain file is written to."""
    # A link stays, and leads to the new file.
    path = path.resolve()
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected the name of a file", path=path)
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}: make it first", path=path)
    special = path.exists() and not path.is_file()
    temporary = path if special else durable.temporary_file(path)
    try:
        with _opened(temporary, binary) as file:
            yield file
        if not special:
            durable.sync_file(temporary)
            durable.publish(temporary, path)
    except BaseException:
        if not special:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise


def _opened(path: Path, binary: bool) -> IO[Any]:
    return path.open("wb") if binary else path.open("w", encoding="utf-8", newline="")


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Errors of the system about what is written, with its name; others pass."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        # A write to an open file fails without a name; a file that the search reads has one.
        own = path.resolve()
        if error.filename is not None:
            at = Path(os.fsdecode(error.filename)).resolve()
            if own not in (at, at.parent) and at != durable.temporary_file(own):
                raise
        raise InputError(
            f"results cannot be written to {path}: {error.strerror or error}", path=path
        ) from error


@contextlib.contextmanager
def text_of(file: IO[Any], format: str) -> Iterator[IO[str]]:
    """Where text goes that is written to a file of either kind; it stays open."""
    if isinstance(file, io.TextIOBase) or hasattr(file, "encoding"):
        buffer = getattr(file, "buffer", None)
        if file is not sys.stdout or buffer is None or _is_utf8(file.encoding):
            yield file
            return
        # A locale without some letters. The table is for this terminal, other formats are for
        # programs, which expect UTF-8.
        file.flush()
        encoding, file = (file.encoding if format == "table" else "utf-8"), buffer
    else:
        encoding = "utf-8"
    text = io.TextIOWrapper(cast(IO[bytes], file), encoding=encoding, errors="replace", newline="")
    try:
        yield text
    finally:
        text.detach()


def _is_utf8(encoding: str | None) -> bool:
    return encoding is None or codecs.lookup(encoding).name == "utf-8"


def bytes_of(file: IO[Any], format: str) -> IO[bytes]:
    """Where bytes go that are written to a file of text."""
    if file is sys.stdout and file.isatty():
        raise InputError(
            f"{format} is binary and not for a terminal: name a file with -o, or redirect the "
            "output"
        )
    if isinstance(file, io.TextIOBase) or hasattr(file, "encoding"):
        buffer = getattr(file, "buffer", None)
        if buffer is None:
            raise InputError(f"{format} is binary; expected a binary file, found one of text")
        file.flush()
        return cast(IO[bytes], buffer)
    return file
