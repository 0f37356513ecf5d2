"""Small files of text, read whole: lists and tables that a user names on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

from xopen import xopen

from rdsearch.errors import InputError

__all__ = ["read_text"]


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
        with xopen(path, "rb") as file:
            return bytes(file.read()).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text in UTF-8 ({error})", path=path) from error
