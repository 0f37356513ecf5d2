"""Put rows in the order of a result: by falling score, equal scores by row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_first"]

_SIGN = np.uint32(1 << 31)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def best_first(
    rows: NDArray[np.int64], scores: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Sort rows and their scores along the last axis.

    Equal to ``order = numpy.lexsort((rows, -scores))``, then ``rows[order], scores[order]``. Score
    and row become one whole number, whose sort is several times as fast as a sort by two keys.

    Parameters
    ----------
    rows : ndarray of int64
        From 0 up to, not including, 2**32.
    scores : ndarray of float32
        Of the same shape; not NaN.

    Returns
    -------
    rows, scores : ndarray
        New arrays; a score of -0.0 comes back as 0.0.
    """
    # Taken from 0, not negated: -0.0, which equals 0.0 and has other bits, becomes 0.0.
    falling = (0.0 - np.asarray(scores, dtype=np.float32)).view(np.uint32)
    # The bits of positive floats rise with their value, those of negative ones fall.
    rising = np.where(falling & _SIGN, ~falling, falling | _SIGN)
    keys = rising.astype(np.uint64) << _SHIFT | rows.astype(np.uint64)
    keys.sort(axis=-1)
    high = (keys >> _SHIFT).astype(np.uint32)
    sorted_scores = np.where(high & _SIGN, high ^ _SIGN, ~high).view(np.float32)
    return (keys & _LOW).astype(np.int64), np.float32(0) - sorted_scores
