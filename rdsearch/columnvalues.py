"""What a column of a catalog holds, for people who choose a filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb

from rdsearch.catalog import FILTER_SECONDS
from rdsearch.errors import InputError

if TYPE_CHECKING:
    from rdsearch.catalogs import Catalogs

__all__ = ["Summary", "summary"]

# Values that are read of each segment: counts are exact where a column has no more.
_READ = 5_000


class Summary(NamedTuple):
    """What a column holds.

    Attributes
    ----------
    values : list of (value, int)
        The most frequent values with the proteins that have them; of a list its items.
    min, max : object
        The least and the greatest value; None where there is none.
    missing : int
        Proteins without a value.
    """

    values: list[tuple[Any, int]]
    min: Any
    max: Any
    missing: int


def summary(catalogs: Catalogs, column: str, most: int, seconds: float = FILTER_SECONDS) -> Summary:
    """Bring together what the segments of an index say of a column.

    Parameters
    ----------
    catalogs : Catalogs
    column : str
        One of its columns.
    most : int
        Values at most.
    seconds : float, optional
        That each segment may take.

    Raises
    ------
    InputError
        There is no such column, or it takes too long.
    """
    if column not in catalogs.columns:
        raise InputError(f"there is no column {column!r}; there are {', '.join(catalogs.columns)}")
    counts: Counter[str] = Counter()
    shown: dict[str, Any] = {}
    ends: list[tuple[Any, Any]] = []
    missing = 0
    for catalog in catalogs.catalogs:
        own = next((name for name in catalog.columns if name.lower() == column.lower()), None)
        if own is None:
            missing += catalog.n_accessions
            continue
        try:
            values, (least, greatest, without) = catalog.counted(own, _READ, seconds)
        except duckdb.InterruptException as error:
            raise InputError(
                f"the values of column {column} cannot be counted in {seconds:.3g} s"
            ) from error
        for value, number in values:
            # A structure is no key of a dictionary: its text is.
            shown.setdefault(repr(value), value)
            counts[repr(value)] += number
        ends.append((least, greatest))
        missing += without
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    return Summary(
        [(shown[name], number) for name, number in ordered],
        _end(min, (least for least, _ in ends)),
        _end(max, (greatest for _, greatest in ends)),
        missing,
    )


def _end(choose: Callable[..., Any], values: Iterable[Any]) -> Any:
    return choose((value for value in values if value is not None), default=None)
