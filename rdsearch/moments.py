"""Count, mean and centred cross products of the members' residue embeddings side by side.

Every step of every chain follows from these numbers: one pass over the residues fits all chain
configurations. The cross products are kept block by block, one block per pair of members, upper
triangle only. That halves the memory (about 0.5 GB for all six members of ESM-2, 10,400
dimensions), and it makes the numbers of one pair independent of which other members are there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdsearch.errors import ChainError, InputError

__all__ = ["Moments"]

# Rows that are centred and multiplied at once: 170 MB in float64 at 10,400 dimensions.
_CHUNK_ROWS = 2048

_Floats = NDArray[np.float64]


class Moments:
    """First and second moments that are updated block by block and merged.

    Each block is centred by its own mean before it is multiplied, and joined by the formula of
    Chan, Golub and LeVeque (1983), so that a large common mean costs no digits. The result does
    not depend on how the rows were split into blocks, nor on the order of merging, beyond
    rounding.

    Parameters
    ----------
    widths : sequence of int
        Dimensions of each member, in the order in which they stand side by side.

    Attributes
    ----------
    widths : tuple of int
    n_ : int
        Rows seen.
    mean_ : ndarray, shape (D,), float64
        Equal to ``X.mean(axis=0)``; zeros before the first row.

    Notes
    -----
    Updating with some thousand rows at once is the most efficient: each update touches all
    cross products.

    Examples
    --------
    >>> moments = Moments([1, 1])
    >>> moments.update(np.array([[0.0, 1.0], [2.0, 5.0]]))
    >>> moments.n_, moments.mean_, moments.covariance()
    (2, array([1., 3.]), array([[2., 4.],
           [4., 8.]]))
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self.widths = tuple(int(width) for width in widths)
        if not self.widths or min(self.widths) < 1:
            raise InputError(
                f"moments need at least one member, each at least one dimension wide; "
                f"found widths {list(self.widths)}"
            )
        edges = np.cumsum((0, *self.widths)).tolist()
        self._slices = tuple(map(slice, edges[:-1], edges[1:]))
        self.n_ = 0
        self.mean_: _Floats = np.zeros(edges[-1])
        self._blocks: dict[tuple[int, int], _Floats] = {
            (i, j): np.zeros((self.widths[i], self.widths[j]))
            for i in range(len(self.widths))
            for j in range(i, len(self.widths))
        }

    def __repr__(self) -> str:
        return f"Moments(widths={list(self.widths)}, n_={self.n_})"

    def update(self, block: ArrayLike) -> None:
        """Add rows.

        Parameters
        ----------
        block : array, shape (n, D), any floating type
            Residue embeddings of all members side by side; n may be 0.

        Raises
        ------
        InputError
            Another shape, another kind of number, or a value that is not finite. The moments
            are then what they were before.
        """
        rows = np.asarray(block)
        if rows.ndim != 2 or rows.shape[1] != self.mean_.shape[0]:
            raise InputError(
                f"a block of residue embeddings must have shape (rows, {self.mean_.shape[0]}), the "
                f"widths {list(self.widths)} side by side; found {rows.shape}"
            )
        if rows.dtype.kind != "f":
            raise InputError(
                f"residue embeddings must be floating point numbers; found {rows.dtype}"
            )
        chunks = [rows[start : start + _CHUNK_ROWS] for start in range(0, len(rows), _CHUNK_ROWS)]
        for number, chunk in enumerate(chunks):
            bad = np.flatnonzero(~np.isfinite(chunk).all(axis=1)) + number * _CHUNK_ROWS
            if bad.size:
                raise InputError(
                    f"row {bad[0]} of the block holds NaN or infinity: embed "
                    "these residues again, in float32 if they were computed in half precision"
                )
        for chunk in chunks:
            self._add(chunk)

    def merge(self, other: Moments) -> None:
        """Add the rows that `other` has seen; `other` stays as it is.

        Parameters
        ----------
        other : Moments
            Of the same widths, for example another worker's.

        Raises
        ------
        InputError
            `other` has other widths.
        """
        if other.widths != self.widths:
            raise InputError(
                f"only moments of the same widths can be merged: these have {list(self.widths)}, "
                f"the others {list(other.widths)}"
            )
        if other.n_:
            self._shift(other.n_, other.mean_)
            for pair, block in self._blocks.items():
                block += other._blocks[pair]

    def select(self, members: Sequence[int]) -> Moments:
        """Moments of some of the members, bit for bit what they alone would have given.

        Parameters
        ----------
        members : sequence of int
            Positions in `widths`, increasing.

        Returns
        -------
        Moments
            A copy.

        Raises
        ------
        InputError
            A position that is not there, or positions that do not increase.
        """
        chosen = list(members)
        if chosen != sorted(set(chosen)) or not set(chosen) <= set(range(len(self.widths))):
            raise InputError(
                f"choose members by increasing positions in 0..{len(self.widths) - 1}; "
                f"found {chosen}"
            )
        part = Moments([self.widths[i] for i in chosen])
        part.n_ = self.n_
        part.mean_ = np.concatenate([self.mean_[self._slices[i]] for i in chosen])
        part._blocks = {(a, b): self._blocks[chosen[a], chosen[b]].copy() for a, b in part._blocks}
        return part

    @property
    def scatter_(self) -> _Floats:
        """Centred cross products, shape (D, D), symmetric, assembled on each access.

        Equal to ``(X - mean_).T @ (X - mean_)``.
        """
        whole = np.empty((self.mean_.shape[0],) * 2)
        for (i, j), block in self._blocks.items():
            whole[self._slices[i], self._slices[j]] = block
            whole[self._slices[j], self._slices[i]] = block.T
        return whole

    def covariance(self) -> _Floats:
        """Sample covariance, shape (D, D): ``scatter_ / (n_ - 1)``.

        Raises
        ------
        ChainError
            Fewer than two rows.
        """
        scatter = self.scatter_
        scatter /= self._degrees()
        return scatter

    def cross_covariance(self, i: int, j: int) -> _Floats:
        """Block (i, j) of the covariance, shape (widths[i], widths[j]).

        Raises
        ------
        ChainError
            Fewer than two rows.
        """
        block = self._blocks[i, j] if i <= j else np.ascontiguousarray(self._blocks[j, i].T)
        return block / self._degrees()

    def mean_of(self, i: int) -> _Floats:
        """Mean of member i, shape (widths[i],)."""
        return self.mean_[self._slices[i]].copy()

    def _degrees(self) -> int:
        """Degrees of freedom of the covariance."""
        if self.n_ < 2:
            raise ChainError(
                f"a covariance needs at least two residues; found {self.n_}. Add residues first"
            )
        return self.n_ - 1

    def _add(self, chunk: NDArray[np.floating]) -> None:
        """Centre one chunk by its own mean and join it."""
        # Each member in its own contiguous array: the same bits whatever stands beside it.
        parts = [chunk[:, columns].astype(np.float64, order="C") for columns in self._slices]
        means = []
        for part in parts:
            mean = part.mean(axis=0)
            part -= mean
            # A sum of many rows with a large mean is not exact: centre what is left once more.
            rest = part.mean(axis=0)
            part -= rest
            means.append(mean + rest)
        self._shift(len(chunk), np.concatenate(means))
        for (i, j), block in self._blocks.items():
            block += parts[i].T @ parts[j]

    def _shift(self, n: int, mean: _Floats) -> None:
        """Account for n more rows with this mean, except for their own scatter."""
        total = self.n_ + n
        step = mean - self.mean_
        if self.n_:
            # The root on both sides keeps the diagonal blocks exactly symmetric.
            scaled = step * np.sqrt(self.n_ * n / total)
            for (i, j), block in self._blocks.items():
                block += np.outer(scaled[self._slices[i]], scaled[self._slices[j]])
        self.mean_ += step * (n / total)
        self.n_ = total
