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
    [cells]             # of the first tier; may be left out
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

from rdsearch.errors import InputError
from rdsearch.funnel import Funnel
from rdsearch.tiers import CODECS, LEAST_ROWS, WITH_CELLS, Codec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Cells", "Recipe", "load", "names"]

# Ratio of dimensions of one tier of a default funnel to the next.
_APART = 4
_FOLDER = Path(__file__).parent / "data" / "recipes"


@dataclass(frozen=True, slots=True)
class Cells:
    """When the first tier is split into cells, and how many are scanned.

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
class Recipe:
    """Codecs and shortlists by place in the chain.

    Attributes
    ----------
    name : str
        File name without suffix.
    first, middle, last : str
        Codec of the first tier, of the tiers between, and of the last: keys of
        `rdsearch.tiers.CODECS`. A chain of one tier uses `last`.
    first_shortlist, last_shortlist : int
        Rows that the first tier passes on, and rows that reach the last tier where there are
        tiers between: those follow a geometric progression.
    cells : Cells or None
        Of the first tier, whose codec must be one of `rdsearch.tiers.WITH_CELLS` then.
    """

    name: str
    first: str
    middle: str
    last: str
    first_shortlist: int
    last_shortlist: int
    cells: Cells | None = None

    def __post_init__(self) -> None:
        for codec in (self.first, self.middle, self.last):
            if codec not in CODECS:
                raise InputError(
                    f"recipe {self.name}: there is no codec {codec!r}; choose from "
                    f"{', '.join(CODECS)}"
                )
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
        if self.cells is not None and n_tiers > 1 and codecs[0].name in WITH_CELLS:
            codecs[0] = Codec(self.first, self.cells.count(n_rows))
        return codecs

    def funnel(self, tiers: Sequence[str], dims: Sequence[int], n_rows: int) -> Funnel:
        """The default funnel: from the first tier to the last, each at least 4 times as wide.

        A tier less than 4 times as wide as the one before costs more time than the rows that it
        keeps from the next are worth. All tiers are written, whatever the funnel uses.

        Parameters
        ----------
        tiers, dims : sequence of str, of int
            Names and dimensions of the index's tiers, coarse to fine.
        n_rows : int
        """
        through = [len(tiers) - 1]
        for i in range(len(tiers) - 2, 0, -1):
            if _APART * dims[i] <= dims[through[0]] and _APART * dims[0] <= dims[i]:
                through.insert(0, i)
        if len(tiers) > 1:
            through.insert(0, 0)
        steps = len(through) - 1
        shrink = self.last_shortlist / self.first_shortlist
        sizes = (
            round(self.first_shortlist * shrink ** (i / max(1, steps - 1))) for i in range(steps)
        )
        in_cells = self.codecs(len(tiers), n_rows)[0].cells is not None
        probes = self.cells.probes if self.cells is not None and in_cells else None
        return Funnel(tuple(tiers[i] for i in through), tuple(sizes), probes)

    def as_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)


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
    if "cells" in table:
        expected["cells"] = {"above_rows", "per_sqrt_row", "probes"}
    found = {key: set(value) for key, value in table.items() if isinstance(value, dict)}
    if found != expected or not set(table) - set(expected) <= {"description"}:
        raise InputError(
            f"recipe {path}: expected a description and the tables [codecs] first, middle, last, "
            "[shortlists] first, last and, if wanted, [cells] above_rows, per_sqrt_row, probes; "
            f"found {sorted(table)}"
        )
    codecs, shortlists, cells = table["codecs"], table["shortlists"], table.get("cells", {})
    whole = [*shortlists.values(), *(cells[key] for key in ("above_rows", "probes") if cells)]
    numbers = [cells["per_sqrt_row"]] if cells else []
    if any(type(value) is not int for value in whole) or any(
        type(value) not in (int, float) for value in numbers
    ):
        raise InputError(
            f"recipe {path}: shortlists, above_rows and probes must be whole numbers, "
            "per_sqrt_row a number"
        )
    return Recipe(
        path.stem,
        **{key: str(value) for key, value in codecs.items()},
        first_shortlist=shortlists["first"],
        last_shortlist=shortlists["last"],
        cells=Cells(**cells) if cells else None,
    )
