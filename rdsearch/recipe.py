"""Recipes: which codec each tier of an index uses, and its default funnel.

A recipe is a small TOML file, by name from ``indexes/recipes`` or by path::

    description = "2 bits a dimension first, 8 bits between, 16-bit floats last."
    [codecs]
    first = "pq4"
    middle = "sq8"
    last = "sqfp16"
    [shortlists]
    first = 2000
    last = 200
    [scan]              # a second file of one tier; may be left out
    codec = "pq4"
    least_dims = 640      # of the first tier so wide, the last excepted
    shortlist = 300       # rows that it passes on
    [cells]             # of the first tier and the scan file; may be left out
    above_rows = 1000000  # none up to here: all rows are scanned
    per_sqrt_row = 4.0    # cells: so many times the square root of the rows
    probes = 500          # cells that a query scans
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rdsearch.codecs import CODECS, LEAST_ROWS, WITH_CELLS, Codec
from rdsearch.errors import InputError
from rdsearch.funnel import Funnel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Cells", "Recipe", "Scan", "load", "names"]

# Ratio of dimensions of one tier of a default funnel to the next.
_APART = 4
_FOLDER = Path(__file__).parent / "data" / "recipes"


@dataclass(frozen=True, slots=True)
class Cells:
    """When the first tier and the scan file are split into cells, and how many are scanned.

    Attributes
    ----------
    above_rows : int
        Up to so many rows there are no cells.
    per_sqrt_row : float
        Cells, as a multiple of the square root of the rows.
    probes : int
        Cells that a query scans.
    """

    above_rows: int
    per_sqrt_row: float
    probes: int

    def __post_init__(self) -> None:
        if self.above_rows < 0 or not self.per_sqrt_row > 0 or self.probes < 1:
            raise InputError(
                "cells need above_rows of at least 0, per_sqrt_row above 0 and probes of at "
                f"least 1; found {self.above_rows}, {self.per_sqrt_row} and {self.probes}"
            )

    def count(self, n_rows: int) -> int | None:
        """Cells for an index of so many rows; None where all rows are scanned."""
        if n_rows <= self.above_rows:
            return None
        return max(1, min(n_rows, round(self.per_sqrt_row * math.sqrt(n_rows))))


@dataclass(frozen=True, slots=True)
class Scan:
    """A second, smaller file of one tier: the default funnel begins with a scan of it.

    A wider tier at few bits tells rows apart better than the first tier at as many bits a
    dimension, so that a much shorter shortlist does; its scores come from its other file.

    Attributes
    ----------
    codec : str
        A key of `rdsearch.codecs.CODECS`.
    least_dims : int
        It is of the first tier so wide; there is none where that is the last tier, or no tier.
    shortlist : int
        Rows that it passes on.
    """

    codec: str
    least_dims: int
    shortlist: int

    def __post_init__(self) -> None:
        _check_codec("scan", self.codec)
        if self.least_dims < 1 or self.shortlist < 1:
            raise InputError(
                "a scan needs least_dims and a shortlist of at least 1; found "
                f"{self.least_dims} and {self.shortlist}"
            )


@dataclass(frozen=True, slots=True)
class Recipe:
    """Codecs and shortlists by place in the chain.

    Attributes
    ----------
    name : str
        File name without suffix.
    first, middle, last : str
        Codec of the first tier, of the tiers between, and of the last: keys of
        `rdsearch.codecs.CODECS`. A chain of one tier uses `last`.
    first_shortlist, last_shortlist : int
        Rows that the first tier passes on, and rows that reach the last tier where there are
        tiers between: those follow a geometric progression.
    cells : Cells or None
        Of the first tier, whose codec must be one of `rdsearch.codecs.WITH_CELLS` then, and of
        the scan file, if its codec is one of them.
    scan : Scan or None
    """

    name: str
    first: str
    middle: str
    last: str
    first_shortlist: int
    last_shortlist: int
    cells: Cells | None = None
    scan: Scan | None = None

    def __post_init__(self) -> None:
        for codec in (self.first, self.middle, self.last):
            _check_codec(f"recipe {self.name}", codec)
        if not 1 <= self.last_shortlist <= self.first_shortlist:
            raise InputError(
                f"recipe {self.name}: shortlists must be positive and not grow; found "
                f"first {self.first_shortlist}, last {self.last_shortlist}"
            )

        if self.cells is not None and self.first not in WITH_CELLS:
            raise InputError(
                f"recipe {self.name}: cells belong to the codecs {' and '.join(WITH_CELLS)}; found "
                f"{self.first} as the first codec"
            )

    def codecs(self, n_tiers: int, n_rows: int) -> list[Codec]:
        """Codec of each tier, first to last.

        Parameters
        ----------
        n_tiers : int
        n_rows : int
            Rows of the index: they decide on the first tier's cells, and a codec that cannot
            be learnt from so few rows gives way to ``flat``.
        """
        places = [self.first, *[self.middle] * (n_tiers - 2), self.last][-n_tiers:]
        codecs = [Codec(name if n_rows >= LEAST_ROWS.get(name, 0) else "flat") for name in places]
        if n_tiers > 1:
            codecs[0] = self._in_cells(codecs[0].name, n_rows)
        return codecs

    def _in_cells(self, codec: str, n_rows: int) -> Codec:
        """A codec whose rows are scanned first, so in cells where there are many of them."""
        if self.cells is None or codec not in WITH_CELLS:
            return Codec(codec)
        return Codec(codec, self.cells.count(n_rows))

    def scans(self, dims: Sequence[int], n_rows: int) -> list[Codec | None]:
        """Codec of each tier's scan file, first to last: one at most has such a file.

        Parameters
        ----------
        dims : sequence of int
            Dimensions of the tiers.
        n_rows : int
            Rows of the index; see `codecs`.
        """
        scans: list[Codec | None] = [None] * len(dims)
        if self.scan is None or n_rows < LEAST_ROWS.get(self.scan.codec, 0):
            return scans
        for i, width in enumerate(dims[:-1]):
            if width >= self.scan.least_dims:
                scans[i] = self._in_cells(self.scan.codec, n_rows)
                break
        return scans

    def funnel(self, tiers: Sequence[str], dims: Sequence[int], n_rows: int) -> Funnel:
        """The default funnel: from the scan file or first tier to the last, in wide steps.

        Each tier is at least 4 times as wide as the one before, except the last: a narrower step
        costs more time than the rows that it keeps from the next are worth. All tiers are
        written, whatever the funnel uses.

        Parameters
        ----------
        tiers, dims : sequence of str, of int
            Names and dimensions of the index's tiers, coarse to fine.
        n_rows : int
        """
        first, codec, longest = 0, self.codecs(len(tiers), n_rows)[0], self.first_shortlist
        for i, scanned in enumerate(self.scans(dims, n_rows)):
            if self.scan is not None and scanned is not None:
                first, codec, longest = i, scanned, self.scan.shortlist
        through = [len(tiers) - 1]
        for i in range(len(tiers) - 2, first, -1):
            if _APART * dims[i] <= dims[through[0]] and _APART * dims[first] <= dims[i]:
                through.insert(0, i)
        if len(tiers) > 1:
            through.insert(0, first)
        steps = len(through) - 1
        shrink = min(self.last_shortlist, longest) / longest
        sizes = (round(longest * shrink ** (i / max(1, steps - 1))) for i in range(steps))
        probes = self.cells.probes if self.cells is not None and codec.cells is not None else None
        return Funnel(tuple(tiers[i] for i in through), tuple(sizes), probes)

    def as_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)


def _check_codec(owner: str, codec: str) -> None:
    if codec not in CODECS:
        raise InputError(f"{owner}: there is no codec {codec!r}; choose from {', '.join(CODECS)}")


def names() -> list[str]:
    """The recipes that come with rdsearch."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load(name_or_path: str | Path) -> Recipe:
    """Read a recipe by name (``"balanced"``) or by the path of a TOML file.

    Raises
    ------
    InputError
        No such recipe, not TOML, a key missing or unknown, an unknown codec.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = _FOLDER / f"{name_or_path}.toml"
        if not path.is_file():
            raise InputError(
                f"there is no recipe {str(name_or_path)!r}; choose from {', '.join(names())}, "
                "or give the path of a .toml file"
            )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"recipe {path} cannot be read: {error}") from error
    expected = {"codecs": {"first", "middle", "last"}, "shortlists": {"first", "last"}}
    wanted = {
        "scan": {"codec", "least_dims", "shortlist"},
        "cells": {"above_rows", "per_sqrt_row", "probes"},
    }
    expected |= {key: keys for key, keys in wanted.items() if key in table}
    found = {key: set(value) for key, value in table.items() if isinstance(value, dict)}
    if found != expected or not set(table) - set(expected) <= {"description"}:
        raise InputError(
            f"recipe {path}: expected a description and the tables [codecs] first, middle, last, "
            "[shortlists] first, last and, if wanted, [scan] codec, least_dims, shortlist and "
            f"[cells] above_rows, per_sqrt_row, probes; found {sorted(table)}"
        )
    codecs, shortlists, cells = table["codecs"], table["shortlists"], table.get("cells", {})
    scan = table.get("scan", {})
    whole = [*shortlists.values(), *(cells[key] for key in ("above_rows", "probes") if cells)]
    whole += [scan[key] for key in ("least_dims", "shortlist") if scan]
    numbers = [cells["per_sqrt_row"]] if cells else []
    if any(type(value) is not int for value in whole) or any(
        type(value) not in (int, float) for value in numbers
    ):
        raise InputError(
            f"recipe {path}: shortlists, least_dims, above_rows and probes must be whole "
            "numbers, per_sqrt_row a number"
        )
    return Recipe(
        path.stem,
        **{key: str(value) for key, value in codecs.items()},
        first_shortlist=shortlists["first"],
        last_shortlist=shortlists["last"],
        cells=Cells(**cells) if cells else None,
        scan=Scan(**{**scan, "codec": str(scan["codec"])}) if scan else None,
    )
