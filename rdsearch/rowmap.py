"""Row numbers of an index that has several segments, or rows that are hidden.

Seen from outside, the rows of an index are 0 to n - 1 without a gap, in the order of its segments
and within each in its own order. Inside a segment a row keeps its number for ever; removed ones
are hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Part", "RowMap"]

_Rows = NDArray[np.int64]


class Part(NamedTuple):
    """The rows of a request that lie in one segment.

    Attributes
    ----------
    segment : int
        Its place among the segments.
    places : ndarray, shape (n,), int64
        Where the rows stand in the request.
    rows : ndarray, shape (n,), int64
        Their numbers inside the segment.
    """

    segment: int
    places: _Rows
    rows: _Rows


class RowMap:
    """Between the rows of an index and those of its segments.

    It takes memory for hidden rows alone.

    Parameters
    ----------
    sizes : sequence of int
        Rows of each segment.
    hidden : sequence of ndarray of int64
        For each segment the rows that the index does not show, sorted and distinct.

    Attributes
    ----------
    sizes : tuple of int
    hidden : tuple of ndarray of int64
    starts : ndarray, shape (segments + 1,), int64
        The first row of each segment as the index counts, and the number of rows.
    """

    def __init__(self, sizes: Sequence[int], hidden: Sequence[_Rows]) -> None:
        self.sizes = tuple(sizes)
        self.hidden = tuple(np.asarray(rows, dtype=np.int64) for rows in hidden)
        shown = [size - len(rows) for size, rows in zip(self.sizes, self.hidden, strict=True)]
        self.starts = np.concatenate([[0], np.cumsum(shown, dtype=np.int64)]).astype(np.int64)
        # Shown rows of the segment that come before each hidden one.
        self._before = tuple(rows - np.arange(len(rows)) for rows in self.hidden)

    @property
    def n_rows(self) -> int:
        """Rows that the index shows."""
        return int(self.starts[-1])

    @property
    def plain(self) -> bool:
        """Whether there is one segment with nothing hidden: its numbers are the index's."""
        return len(self.sizes) == 1 and not len(self.hidden[0])

    def split(self, rows: Sequence[int] | _Rows) -> Iterator[Part]:
        """Rows of the index, by segment.

        Parameters
        ----------
        rows : sequence of int
            From 0 to ``n_rows - 1``, in any order.

        Yields
        ------
        Part
            For each segment that has some; rows of one segment in the order of the request.
        """
        asked = np.asarray(rows, dtype=np.int64)
        owner = np.searchsorted(self.starts, asked, side="right") - 1
        for segment in range(len(self.sizes)):
            places = np.flatnonzero(owner == segment)
            if len(places):
                within = asked[places] - self.starts[segment]
                skipped = np.searchsorted(self._before[segment], within, side="right")
                yield Part(segment, places, within + skipped)

    def join(self, segment: int, rows: Sequence[int] | _Rows) -> _Rows:
        """Rows of a segment as the index counts them; -1 for hidden ones.

        Parameters
        ----------
        segment : int
            Its place among the segments.
        rows : sequence of int

        Returns
        -------
        ndarray of int64
            In the order asked for. Undoes `split`.
        """
        asked, hidden = np.asarray(rows, dtype=np.int64), self.hidden[segment]
        before = np.searchsorted(hidden, asked)
        found = asked - before + self.starts[segment]
        if len(hidden):
            at = np.minimum(before, len(hidden) - 1)
            found[hidden[at] == asked] = -1
        return found
