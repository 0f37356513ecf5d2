"""Files of text, packed or not: small ones read whole, and what damage is called in any of them."""

from __future__ import annotations

import contextlib
import importlib
import lzma
import sys
import zlib
from pathlib import Path

from xopen import xopen

from rdsearch.errors import InputError

__all__ = ["DAMAGE", "read_text"]

#: What reading raises on damaged data; the decompressors that xopen finds have their own errors.
DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError)
for _module, _error in (
    ("isal.isal_zlib", "error"),
    ("zlib_ng.zlib_ng", "error"),
    ("compression.zstd", "ZstdError"),
    ("backports.zstd", "ZstdError"),
):
    with contextlib.suppress(ImportError):
        DAMAGE += (getattr(importlib.import_module(_module), _error),)

_NO_TEXT: tuple[type[Exception], ...] = (*DAMAGE, UnicodeDecodeError)


def read_text(path: str | Path) -> str:
    """The content of a file of UTF-8 text, packed or not; ``"-"`` is standard input.

    Raises
    ------
    InputError
        The file cannot be read, or is something else.
    """
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read().decode("utf-8-sig")
        with xopen(path, "rb", threads=0) as file:
            return bytes(file.read()).decode("utf-8-sig")
    except _NO_TEXT as error:
        raise InputError(f"{path}: cannot be read as text in UTF-8 ({error})", path=path) from error
