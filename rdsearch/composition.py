"""Amino-acid composition: what a search finds that knows no order of residues.

The floor of an evaluation. Each protein is 20 numbers, the shares of the amino acids,
standardised over the proteins searched; the score is the cosine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rdsearch.ordering import best_first

__all__ = ["AMINO_ACIDS", "rankings", "shares", "standardised"]

#: The order of the 20 numbers.
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"

# Scores held at once: 64 MB of float64.
_SCORES = 1 << 23


def shares(sequences: Sequence[str]) -> NDArray[np.float64]:
    """Shares of the 20 amino acids.

    Parameters
    ----------
    sequences : sequence of str
        Upper case. Other letters (X, B, U …) do not count.

    Returns
    -------
    ndarray, shape (n, 20), float64
        Each line sums to 1; 0 for a sequence without any of the 20.
    """
    counts = np.empty((len(sequences), len(AMINO_ACIDS)))
    letters = np.frombuffer(AMINO_ACIDS.encode(), dtype=np.uint8)
    for line, sequence in zip(counts, sequences, strict=True):
        residues = np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)
        line[:] = np.bincount(residues, minlength=128)[letters]
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns of mean 0 and standard deviation 1, then lines of length 1.

    A column that does not vary becomes 0, and so does a line at the mean.
    """
    centred = values - values.mean(axis=0)
    deviation = centred.std(axis=0)
    scaled = centred / np.where(deviation > 0, deviation, np.inf)
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit: NDArray[np.float64] = scaled / np.where(length > 0, length, 1)
    return unit


def rankings(sequences: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """All against all by composition.

    Yields
    ------
    ndarray, shape (n,), int64
        For each sequence the positions of all, itself too, by falling cosine in float32, equal
        cosines by position.
    """
    unit = standardised(shares(sequences))
    positions = np.arange(len(unit))
    block = max(1, _SCORES // max(1, len(unit)))
    for start in range(0, len(unit), block):
        # float32: proteins of one composition differ in the last bits of a float64.
        cosines = (unit[start : start + block] @ unit.T).astype(np.float32)
        for scores in cosines:
            yield best_first(positions, scores)[0]
