"""Made rd vectors: clustered, nested, and shaped as the embeddings of a real chain are.

What they share with real ones: a common mean that holds most of the squared length and lies in
the first block (later blocks are residuals, whose mean is zero); 68 % of the centred squared
length in the first block and geometrically less in each later one; a decaying spectrum inside a
block, along its axes but for the first block, whose axes mean nothing; families whose sizes follow
a power law, in any order of rows; close and remote members, so that the remote ones fade into the
proteins of other families.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

#: Prefix boundaries of the ESM-2 family, by the member that ends there.
ESM2 = {"8M": 320, "35M": 480, "150M": 640, "650M": 1280, "3B": 2560, "15B": 5120}

FIRST_ENERGY = 0.68
_LATER_RATIO = 0.5
_SPECTRUM = 1.0
_MEAN_SHARE = 0.93
_FAMILY_SIZE = 20
_SIZE_EXPONENT = 1.5
_LARGEST_SHARE = 0.02
# Share of a member's squared length that it does not have in common with its family.
_CLOSEST, _REMOTEST = 0.1, 0.7
_BLOCK = 1000


def energies(boundaries: Sequence[int]) -> NDArray[np.float64]:
    """Share of the centred squared length in each block; sums to 1."""
    later = _LATER_RATIO ** np.arange(len(boundaries) - 1)
    if not len(later):
        return np.ones(1)
    return np.concatenate([[FIRST_ENERGY], (1 - FIRST_ENERGY) * later / later.sum()])


class Made:
    """Vectors from a seed: the same for any use, never all in memory.

    Parameters
    ----------
    n_rows : int
    boundaries : sequence of int
        Widths of the prefixes, narrow to wide.
    seed : int

    Attributes
    ----------
    mean : ndarray, shape (dims,), float32
        The common mean; centred vectors have an expected squared length of 1.
    family_of : ndarray, shape (n_rows,), int64
        The family of each row.
    """

    def __init__(
        self, n_rows: int, boundaries: Sequence[int] = tuple(ESM2.values()), seed: int = 0
    ) -> None:
        self.n_rows = n_rows
        self.dims = boundaries[-1]
        self._seed = seed
        draw = self._stream("families")
        self.family_of = _families(n_rows, draw)
        self._first = boundaries[0]
        self._scale = _deviations(boundaries)
        self._rotation = np.linalg.qr(draw.standard_normal((self._first, self._first)))[0]
        self.mean = np.zeros(self.dims, np.float32)
        direction = draw.standard_normal(self._first)
        direction *= np.sqrt(_MEAN_SHARE / (1 - _MEAN_SHARE)) / np.linalg.norm(direction)
        self.mean[: self._first] = direction
        n_families = int(self.family_of.max()) + 1
        self._centres = np.empty((n_families, self.dims), np.float32)
        for block, start in enumerate(range(0, n_families, _BLOCK)):
            part = self._centres[start : start + _BLOCK]
            part[:] = self._shaped(len(part), self._stream("centres", block))

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """All rows in order, in blocks of at most 1,000."""
        for block, start in enumerate(range(0, self.n_rows, _BLOCK)):
            families = self.family_of[start : start + _BLOCK]
            yield self._members(families, self._stream("rows", block))

    def queries(self, n: int, part: int = 0) -> NDArray[np.float32]:
        """Further members of the same families, none of them a row; `part` tells sets apart."""
        draw = self._stream("queries", part)
        return self._members(draw.choice(self.family_of, n), draw)

    def _members(
        self, families: NDArray[np.int64], draw: np.random.Generator
    ) -> NDArray[np.float32]:
        own = draw.uniform(_CLOSEST, _REMOTEST, (len(families), 1)).astype(np.float32)
        vectors = self._shaped(len(families), draw)
        vectors *= np.sqrt(own)
        vectors += np.sqrt(1 - own) * self._centres[families]
        vectors += self.mean
        return vectors

    def _shaped(self, n: int, draw: np.random.Generator) -> NDArray[np.float32]:
        """Normal vectors with the energies and spectra of the blocks, without the mean."""
        vectors = draw.standard_normal((n, self.dims), np.float32) * self._scale
        vectors[:, : self._first] = vectors[:, : self._first] @ self._rotation
        return vectors

    def _stream(self, purpose: str, block: int = 0) -> np.random.Generator:
        return np.random.default_rng([self._seed, *purpose.encode(), block])


def _families(n_rows: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """A family for each row, sizes by a power law, rows in random order."""
    largest = max(1, round(_LARGEST_SHARE * n_rows))
    scale = (_FAMILY_SIZE - 1) * (_SIZE_EXPONENT - 1)
    sizes = 1 + (scale * draw.pareto(_SIZE_EXPONENT, n_rows)).astype(np.int64)
    family_of = np.repeat(np.arange(n_rows), np.minimum(sizes, largest))[:n_rows]
    return draw.permutation(family_of)


def _deviations(boundaries: Sequence[int]) -> NDArray[np.float32]:
    """Standard deviation of each dimension; their squares sum to 1."""
    parts = []
    widths = np.diff([0, *boundaries])
    for width, energy in zip(widths, energies(boundaries), strict=True):
        variances = np.arange(1, width + 1.0) ** -_SPECTRUM
        parts.append(np.sqrt(energy * variances / variances.sum()))
    return np.concatenate(parts).astype(np.float32)
