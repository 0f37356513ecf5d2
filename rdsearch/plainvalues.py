"""Plain values that nobody vouches for, as JSON gives them, on their way into dataclasses."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

from rdsearch.errors import InputError

__all__ = ["check_names", "check_type", "listed", "typed"]

_LONGEST_NAME = 1024

# The plain types of fields, as `from __future__ import annotations` leaves them.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "bool": (bool,),
}


def listed(table: Mapping[str, Any], name: str, most: int) -> list[Any]:
    """A list of a table.

    Raises
    ------
    InputError
        It is none, or longer than `most`.
    """
    values = table.get(name)
    if not isinstance(values, (list, tuple)) or len(values) > most:
        raise InputError(
            f"calibration: {name} must be a list of at most {most:,}; found {reprlib.repr(values)}"
        )
    return list(values)


def typed(kind: Any, table: Any, apart: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a dataclass.

    Parameters
    ----------
    kind : type
        The dataclass; its fields are of plain types but for those in `apart`.
    table : object
        What is read.
    apart : tuple of str, optional
        Fields that must be there and are looked at by the caller.

    Returns
    -------
    dict of str to object
        Without those in `apart`.

    Raises
    ------
    InputError
        No table, or an entry is missing, unknown or of another type.
    """
    declared = {name: field.type for name, field in kind.__dataclass_fields__.items()}
    if not isinstance(table, Mapping):
        raise InputError(f"calibration: expected a table, found {reprlib.repr(table)}")
    if set(table) != set(declared):
        differing = sorted(map(str, set(table) ^ set(declared)))
        raise InputError(
            f"calibration: expected the entries {', '.join(declared)}; missing or unknown: "
            f"{reprlib.repr(differing)}"
        )
    for name, type_ in declared.items():
        if name not in apart:
            check_type(name, table[name], type_)
    return {name: table[name] for name in declared if name not in apart}


def check_type(name: str, value: Any, declared: str) -> None:
    """Refuse a value of another type; a truth value is no number, and numbers are finite."""
    finite = not isinstance(value, float) or math.isfinite(value)
    if type(value) not in _TYPES[declared] or not finite:
        raise InputError(f"calibration: {name} must be {declared}; found {reprlib.repr(value)}")


def check_names(**names: str) -> None:
    """Refuse names that are empty, endless or not printable."""
    for name, value in names.items():
        if not (0 < len(value) <= _LONGEST_NAME and value.isprintable()):
            raise InputError(
                f"calibration: expected a {name} of printable characters, found "
                f"{reprlib.repr(value)}"
            )
