"""What a search gives: rows with their scores, and what each tier did for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ranking", "Step"]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The rows that one query found, best first.

    Attributes
    ----------
    rows : ndarray, shape (hits,), int64
        Sorted by score at the funnel's last tier, then by row.
    scores : ndarray, shape (hits, tiers), float32
        Cosine in each of the funnel's tiers, coarse to fine; the last tier's alone where the
        others were not asked for.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Step:
    """What one tier does for one query.

    Attributes
    ----------
    tier : str
    rows : int
        Rows it scores; in a tier with cells those of the cells that are scanned.
    bytes : int
        Bytes of their codes, and of the cells' centres.
    seconds : float or None
        Wall time, where it was measured.
    """

    tier: str
    rows: int
    bytes: int
    seconds: float | None = None
