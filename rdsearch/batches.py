"""Sequences cut into windows, and windows packed into batches of little padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DEFAULT_OVERLAP",
    "LONGEST_WINDOW",
    "Statistics",
    "Window",
    "coverage",
    "pack",
    "size",
    "windows",
]

#: Longest window: ESM-2 was trained on 1,024 tokens, BOS and EOS among them.
LONGEST_WINDOW = 1022
#: Residues that two full windows share: each sees half of them beyond a border.
DEFAULT_OVERLAP = 255

# BOS and EOS.
_SPECIAL = 2
# A batch ends where the next window is so much shorter than its first: padding costs as much as
# residues do.
_SHORTEST = 0.9


@dataclass(frozen=True, slots=True)
class Window:
    """Part of a sequence that the model sees at once.

    Attributes
    ----------
    sequence : int
        Position in the input.
    start, stop : int
        Residues, half open.
    """

    sequence: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def windows(sequence: int, length: int, window: int, overlap: int) -> list[Window]:
    """Cut a sequence into windows of equal length that overlap by at least `overlap`.

    Parameters
    ----------
    sequence : int
        Position in the input.
    length : int
        Residues.
    window, overlap : int
        Residues in a window at most, and in two neighbours at least.

    Returns
    -------
    list of Window
        Evenly spaced; one alone where the sequence fits.
    """
    if length <= window:
        return [Window(sequence, 0, length)]
    count = -(-(length - overlap) // (window - overlap))
    starts = [(length - window) * i // (count - 1) for i in range(count)]
    return [Window(sequence, start, start + window) for start in starts]


def coverage(length: int, cut: Sequence[Window]) -> NDArray[np.float32]:
    """Weight of each residue in each of its windows: one over the windows that see it.

    Returns
    -------
    ndarray, shape (length,), float32
        Every residue counts once when its windows are added up with these weights.
    """
    seen = np.zeros(length, dtype=np.int64)
    for window in cut:
        seen[window.start : window.stop] += 1
    return (1 / seen).astype(np.float32)


def pack(parts: Sequence[Window], tokens_per_batch: int) -> Iterator[list[Window]]:
    """Batches of windows of about one length, longest first.

    Parameters
    ----------
    parts : sequence of Window
    tokens_per_batch : int
        A batch times its longest window, BOS and EOS counted, stays within it; a single window
        may be longer.

    Yields
    ------
    list of Window
        The same input gives the same batches.
    """
    batch: list[Window] = []
    for part in sorted(parts, key=lambda part: (-len(part), part.sequence, part.start)):
        if batch:
            longest = len(batch[0])
            full = (len(batch) + 1) * (longest + _SPECIAL) > tokens_per_batch
            if full or len(part) + _SPECIAL < _SHORTEST * (longest + _SPECIAL):
                yield batch
                batch = []
        batch.append(part)
    if batch:
        yield batch


def size(batches: Iterable[Sequence[Window]]) -> int:
    """Tokens of batches as `pack` makes them, padding included."""
    return sum(len(batch) * (len(batch[0]) + _SPECIAL) for batch in batches)


@dataclass(slots=True)
class Statistics:
    """What an embedder has done so far.

    Attributes
    ----------
    batches : int
        Batches finished.
    tokens, padding : int
        All tokens in them, and those that were padding.
    """

    batches: int = 0
    tokens: int = 0
    padding: int = 0

    @property
    def padded_share(self) -> float:
        """Padding in all tokens."""
        return self.padding / self.tokens if self.tokens else 0.0

    def count(self, batches: Sequence[Sequence[Window]]) -> None:
        """Add batches that are finished."""
        tokens = size(batches)
        self.batches += len(batches)
        self.tokens += tokens
        self.padding += tokens - sum(len(part) + _SPECIAL for batch in batches for part in batch)
