"""The funnel: which tiers a search passes, coarse to fine, and what each passes on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rdsearch.errors import InputError

__all__ = ["Funnel", "plan", "position"]

# Shortlist of a tier that is put before the only tier of a default funnel.
_WITHOUT = 2000


@dataclass(frozen=True, slots=True)
class Funnel:
    """A search plan.

    Attributes
    ----------
    tiers : tuple of str
        The tiers a query passes, coarse to fine.
    shortlists : tuple of int
        Rows that each tier but the last passes on; they do not grow.
    probes : int or None
        Cells of the first tier that are scanned, where that tier has cells; None: all.
    """

    tiers: tuple[str, ...]
    shortlists: tuple[int, ...]
    probes: int | None = None

    def __post_init__(self) -> None:
        if not self.tiers or len(self.shortlists) != len(self.tiers) - 1:
            raise InputError(
                "a funnel needs at least one tier, and one shortlist for each tier but the last; "
                f"found tiers {self.tiers} and shortlists {self.shortlists}"
            )
        if any(wide < narrow for wide, narrow in itertools.pairwise((*self.shortlists, 1))):
            raise InputError(
                f"shortlists must be positive and must not grow; found {self.shortlists}"
            )
        if self.probes is not None and self.probes < 1:
            raise InputError(f"a query scans at least 1 cell; found {self.probes} probes")

    def __str__(self) -> str:
        steps = [f"{tier}:{size}" for tier, size in zip(self.tiers, self.shortlists, strict=False)]
        text = " > ".join([*steps, self.tiers[-1]])
        return text if self.probes is None else f"{text} (probes {self.probes})"


def plan(
    default: Funnel,
    tiers: Sequence[str],
    from_tier: str | None = None,
    to_tier: str | None = None,
    shortlists: dict[str, int] | int | None = None,
    probes: int | None = None,
) -> Funnel:
    """A funnel from what a user says.

    Parameters
    ----------
    default : Funnel
        The index's own.
    tiers : sequence of str
        All tiers of the index, coarse to fine.
    from_tier, to_tier : str, optional
        Where to begin and where to stop; the ends of `default` where they are not given.
    shortlists : dict of str to int, or int, optional
        Named tiers with their shortlists (`{}`: the last tier alone, all of its rows), or one
        shortlist for every tier before the last.
    probes : int, optional
        Cells of the first tier to scan; what `default` says where it is not given.

    Returns
    -------
    Funnel

    Raises
    ------
    InputError
        Unknown tier, tiers out of order, shortlists that grow or name the last tier.
    """
    order = partial(position, tiers)
    named = sorted(shortlists, key=order) if isinstance(shortlists, dict) else []
    last = to_tier or default.tiers[-1]
    first = from_tier or (named[0] if named else default.tiers[0])
    if any(order(name) >= order(last) for name in named):
        raise InputError(
            f"shortlists belong to tiers before the last one, {last}; found {', '.join(named)}"
        )
    if order(first) > order(last):
        if from_tier is None and not named:
            first = last
        else:
            raise InputError(
                f"a funnel goes from narrow to wide tiers ({', '.join(tiers)}); found {first} "
                f"before {last}"
            )
    if isinstance(shortlists, dict):
        if (named and named[0] != first) or (not named and from_tier not in (None, last)):
            raise InputError(
                f"the funnel is to begin at {first}: give its shortlist; found "
                f"{', '.join(named) or 'none'}"
            )
        if probes is None and named:
            probes = default.probes
        return Funnel((*named, last), tuple(shortlists[name] for name in named), probes)
    inside = [name for name in default.tiers if order(first) < order(name) < order(last)]
    through = (*dict.fromkeys((first, *inside, last)),)
    if isinstance(shortlists, int):
        sizes = [shortlists] * (len(through) - 1)
    else:
        known = dict(zip(default.tiers, default.shortlists, strict=False))
        sizes = [known.get(name, max(default.shortlists, default=_WITHOUT)) for name in through]
        sizes = list(itertools.accumulate(sizes[:-1], min))
    return Funnel(through, tuple(sizes), default.probes if probes is None else probes)


def position(tiers: Sequence[str], name: str) -> int:
    """Where a tier stands in an index.

    Raises
    ------
    InputError
        No such tier.
    """
    if name not in tiers:
        raise InputError(f"the index has no tier {name!r}; it has {', '.join(tiers)}")
    return tiers.index(name)
