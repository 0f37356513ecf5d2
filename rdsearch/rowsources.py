"""Vectors for a new segment: from a store of embedded proteins, or from an index that has them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdsearch.manifest import SCAN
from rdsearch.space import unit

if TYPE_CHECKING:
    from rdsearch.manifest import TierEntry
    from rdsearch.searcher import Searcher
    from rdsearch.store import Store

__all__ = ["COPIED", "FIXED", "Chained", "IndexRows", "StoreRows", "copied"]

#: Codecs that encode what they decoded to the same code again. RaBitQ does not: it keeps
#: constants beside its bits that are those of the vector before.
COPIED = ("flat", "sqfp16", "sq8", "pq4")

#: Codecs that learn nothing: their codes mean the same in every index.
FIXED = ("flat", "sqfp16")

_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class StoreRows:
    """Rows of a store: rd prefixes.

    Attributes
    ----------
    store : Store
    rows : ndarray of int64 or None
        All where it is None.
    """

    store: Store
    rows: NDArray[np.int64] | None = None
    in_space: bool = field(default=False, init=False)

    @property
    def n_rows(self) -> int:
        """How many."""
        return self.store.n_rows if self.rows is None else len(self.rows)

    def blocks(self, tier: str) -> Iterator[NDArray[np.float32]]:
        """See `rdsearch.segmentwriter.Vectors`."""
        if self.rows is None:
            yield from self.store.blocks(tier.removesuffix(SCAN))
            return
        tier = tier.removesuffix(SCAN)
        step = _block_rows(self.store.rd(slice(0, 0), tier).shape[1])
        for start in range(0, len(self.rows), step):
            yield self.store.rd(self.rows[start : start + step], tier)


@dataclass(frozen=True, slots=True)
class IndexRows:
    """Rows of an index, as its tiers keep them: unit vectors in its space.

    A tier's own vectors are taken where encoding them again gives the same codes; else the prefix
    of the last tier's, which is the finest.

    Attributes
    ----------
    index : Searcher
    rows : ndarray of int64
    relearnt : collection of str
        Tiers whose codec in the new segment is not the one that the index has.
    """

    index: Searcher
    rows: NDArray[np.int64]
    relearnt: Collection[str] = ()
    in_space: bool = field(default=True, init=False)

    @property
    def n_rows(self) -> int:
        """How many."""
        return len(self.rows)

    def blocks(self, tier: str) -> Iterator[NDArray[np.float32]]:
        """See `rdsearch.segmentwriter.Vectors`."""
        entry = next((one for one in self.index.manifest.stored if one.name == tier), None)
        dims = self.index.entry(tier.removesuffix(SCAN)).dims
        last = self.index.manifest.tiers[-1]
        own = entry is not None and (
            entry == last or (copied(entry) and (tier not in self.relearnt or entry.codec in FIXED))
        )
        step = _block_rows(dims if own else last.dims)
        for start in range(0, len(self.rows), step):
            rows = self.rows[start : start + step]
            if own:
                yield self.index.tier(tier).vectors(rows)
            else:
                yield unit(self.index.tier(last.name).vectors(rows)[:, :dims])


@dataclass(frozen=True, slots=True)
class Chained:
    """Several sources one after the other, all in the same space.

    Attributes
    ----------
    parts : sequence of IndexRows
    """

    parts: Sequence[IndexRows]
    in_space: bool = field(default=True, init=False)

    @property
    def n_rows(self) -> int:
        """Rows of all parts."""
        return sum(part.n_rows for part in self.parts)

    def at(self, places: NDArray[np.int64]) -> Chained:
        """Only the rows at these places of the whole, sorted."""
        parts, start = [], 0
        for part in self.parts:
            inside = places[(places >= start) & (places < start + part.n_rows)] - start
            parts.append(replace(part, rows=part.rows[inside]))
            start += part.n_rows
        return Chained(parts)

    def blocks(self, tier: str) -> Iterator[NDArray[np.float32]]:
        """See `rdsearch.segmentwriter.Vectors`."""
        for part in self.parts:
            yield from part.blocks(tier)


def copied(entry: TierEntry) -> bool:
    """Whether a tier's rows, decoded and encoded again, are found as they were before.

    In cells they are not: a row's cell is that of the vector before it was rounded.
    """
    return entry.codec in COPIED and entry.cells is None


def _block_rows(dims: int) -> int:
    return max(1, _BLOCK_BYTES // (4 * dims))
