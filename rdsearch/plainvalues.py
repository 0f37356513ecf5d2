"""Plain values that nobody vouches for, as JSON gives them, on their way into dataclasses."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from rdsearch.errors import InputError

__all__ = ["UNFIT", "entry"]

#: What an entry that is missing or of another kind leads to.
UNFIT = (LookupError, TypeError, ValueError, ArithmeticError, RecursionError, InputError)

_T = TypeVar("_T")


@cache
def _declared(kind: type[Any]) -> dict[str, Any]:
    """The types of its fields, which take a millisecond to find out."""
    return get_type_hints(kind)


def entry(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """A dataclass from plain values, which are of the types that it declares.

    Parameters
    ----------
    kind : type
        The dataclass. Entries that are dataclasses or tuples themselves are made before.
    values : mapping
        Nobody vouches for them.

    Raises
    ------
    Exception
        One of `UNFIT`: a value is missing, unknown, of another type, or makes no sense.
    """
    made: Any = kind
    expected = _declared(made)
    if set(values) != set(expected):
        differing = sorted(map(str, set(values) ^ set(expected)))
        raise TypeError(
            f"expected the entries {', '.join(expected)}; missing or unknown: "
            f"{reprlib.repr(differing)}"
        )
    for name, declared in expected.items():
        if not _fits(values[name], declared):
            needed = getattr(declared, "__name__", declared)
            raise TypeError(f"{name} must be {needed}; found {reprlib.repr(values[name])}")
    return kind(**values)


def _fits(value: Any, declared: Any) -> bool:
    """Whether a value has a type; a whole number is no truth value, and a float may be whole."""
    inside = get_args(declared)
    if declared is Any:
        return True
    if isinstance(declared, UnionType):
        return any(_fits(value, one) for one in inside)
    if get_origin(declared) is tuple:
        listed = inside[:1] * len(value) if inside[-1] is Ellipsis else inside
        return type(value) is tuple and len(value) == len(listed) and all(map(_fits, value, listed))
    if get_origin(declared) is dict:
        return type(value) is dict
    if declared is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is declared
