"""Recipes: which codec each tier of an index uses, and its default funnel.

A recipe is a small TOML file, by name from ``indexes/recipes`` or by path::

    description = "Exact scores at every tier."
    [codecs]
    first = "flat"
    middle = "flat"
    last = "flat"
    [shortlists]
    first = 2000
    last = 200
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rdsearch.errors import InputError
from rdsearch.funnel import Funnel
from rdsearch.tiers import CODECS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Recipe", "load", "names"]

_FOLDER = Path(__file__).parent / "data" / "recipes"


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
        Rows that the first tier passes on, and rows that reach the last tier. Tiers between
        follow a geometric progression.
    """

    name: str
    first: str
    middle: str
    last: str
    first_shortlist: int
    last_shortlist: int

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

    def codecs(self, n_tiers: int) -> list[str]:
        """Codec of each tier, first to last."""
        if n_tiers == 1:
            return [self.last]
        return [self.first, *[self.middle] * (n_tiers - 2), self.last]

    def funnel(self, tiers: tuple[str, ...]) -> Funnel:
        """The default funnel through `tiers`."""
        steps = len(tiers) - 1
        shrink = self.last_shortlist / self.first_shortlist
        return Funnel(
            tiers,
            tuple(
                round(self.first_shortlist * shrink ** (i / max(1, steps - 1)))
                for i in range(steps)
            ),
        )

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
    found = {key: set(value) for key, value in table.items() if isinstance(value, dict)}
    if found != expected or set(table) - set(expected) > {"description"}:
        raise InputError(
            f"recipe {path}: expected a description and the tables [codecs] first, middle, last "
            f"and [shortlists] first, last; found {sorted(table)}"
        )
    codecs, shortlists = table["codecs"], table["shortlists"]
    if not all(type(shortlists[key]) is int for key in ("first", "last")):
        raise InputError(f"recipe {path}: shortlists must be whole numbers")
    return Recipe(
        path.stem,
        **{key: str(value) for key, value in codecs.items()},
        first_shortlist=shortlists["first"],
        last_shortlist=shortlists["last"],
    )
