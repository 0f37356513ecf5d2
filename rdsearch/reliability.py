"""Whether e-values hold: false positives observed against those expected.

An e-value E is right when a query has, on average, E false positives with an e-value of at most E.
Labelled rows of an index are the queries; a false positive is a labelled row of another fold. No
protein is known to be unrelated to *all* others, so that decoys are queries too: labelled
sequences shuffled, which keeps their composition, or reversed. What is of the original's fold does
not count there, for a shuffled sequence is like its original in all that composition tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdsearch.calibration import EVALUES
from rdsearch.errors import InputError
from rdsearch.funnel import Funnel
from rdsearch.homologs import sequences_of
from rdsearch.labels import FALSE, LabelledRows

if TYPE_CHECKING:
    from rdsearch.index import Index
    from rdsearch.progress import Progress

__all__ = ["DECOYS", "LEVELS", "Reliability", "measure", "reversed_", "shuffled"]

#: E-values at which the ratio of observed to expected is given.
LEVELS = (0.01, 0.1, 1.0, 10.0)

# Queries that are ranked together.
_BLOCK = 512
# Rows that are looked at for each query, and more where the last of them is below the levels.
_FIRST_ROWS = 512


@dataclass(frozen=True, slots=True)
class Reliability:
    """How one tier's e-values hold for one kind of queries.

    Attributes
    ----------
    tier : str
    kind : str
        ``labelled``, or a key of `DECOYS`.
    queries : int
    ratios : tuple of float
        Observed over expected false positives at each of `LEVELS`.
    curve : tuple of (float, float)
        E-value, and false positives a query with that e-value or a lower one.
    """

    tier: str
    kind: str
    queries: int
    ratios: tuple[float, ...]
    curve: tuple[tuple[float, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, for JSON."""
        return {**asdict(self), "levels": list(LEVELS)}


def shuffled(sequence: str, random: np.random.Generator) -> str:
    """The same residues in random order."""
    residues = np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)
    return bytes(random.permutation(residues)).decode("ascii")


def reversed_(sequence: str, _: np.random.Generator) -> str:
    """The sequence from its end to its beginning."""
    return sequence[::-1]


#: Name to what makes a decoy of a sequence.
DECOYS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "shuffled": shuffled,
    "reversed": reversed_,
}


def measure(
    index: Index,
    labelled: LabelledRows,
    tiers: Sequence[str] | None = None,
    decoys: Sequence[str] = (),
    *,
    sample: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Iterator[Reliability]:
    """Compare e-values with the false positives there are.

    Parameters
    ----------
    index : Index
    labelled : LabelledRows
        From `rdsearch.labels.join` with the index's catalog.
    tiers : sequence of str, optional
        All where they are not given.
    decoys : sequence of str, optional
        Keys of `DECOYS`: these queries too, which have to be embedded.
    sample : int, optional
        Draw so many queries; all labelled rows where it is not given.
    seed : int, optional
        Of the draw, and of the shuffling.
    progress : Progress, optional

    Yields
    ------
    Reliability
        Tier by tier, the labelled rows before the decoys.

    Raises
    ------
    InputError
        The index has too few rows for e-values, or there is no such tier or decoy.
    """
    if index.significance.reason is not None:
        raise InputError(f"there are no e-values to measure: {index.significance.reason}")
    unknown = [name for name in decoys if name not in DECOYS]
    if unknown:
        raise InputError(f"there is no decoy {unknown[0]}; choose from {', '.join(DECOYS)}")
    if sample is not None and sample < 1:
        raise InputError(f"a sample has 1 query or more; found {sample}")
    random = np.random.default_rng(seed)
    positions = np.arange(len(labelled))
    if sample is not None and sample < len(positions):
        positions = np.sort(random.choice(positions, sample, replace=False))
    tiers = index.tiers if tiers is None else tiers
    for tier in tiers:
        index.entry(tier)
    made: dict[str, NDArray[np.float32]] = {}
    widest = max(tiers, key=index.tiers.index)
    for name in decoys:
        originals = sequences_of(index, labelled)
        sequences = [DECOYS[name](originals[position], random) for position in positions]
        made[name] = index.in_space(index.embed(sequences, widest, progress), widest)
    for tier in tiers:
        for kind in ("labelled", *decoys):
            advance = None
            if progress is not None:
                advance = progress.stage(f"{tier}, {kind}", len(positions))
            found = np.zeros(len(EVALUES) + len(LEVELS))
            for start in range(0, len(positions), _BLOCK):
                block = positions[start : start + _BLOCK]
                queries = (
                    made[kind][start : start + _BLOCK]
                    if kind in made
                    else index.tier(tier).vectors(labelled.rows[block])
                )
                found += _false_positives(index, labelled, block, queries, tier)
                if advance is not None:
                    advance(len(block), 0)
            a_query = found / len(positions)
            curve, levels = a_query[: len(EVALUES)], a_query[len(EVALUES) :]
            yield Reliability(
                tier,
                kind,
                len(positions),
                tuple((levels / LEVELS).tolist()),
                tuple(zip(EVALUES, curve.tolist(), strict=True)),
            )


def _false_positives(
    index: Index,
    labelled: LabelledRows,
    positions: NDArray[np.int64],
    queries: NDArray[np.float32],
    tier: str,
) -> NDArray[np.int64]:
    """How many false positives the queries have together at each e-value of the curve and levels.

    The queries stand in the space, and each has its labelled row's position.
    """
    at = np.array([*EVALUES, *LEVELS])
    size = len(labelled)
    rows = None if size == index.n_rows else labelled.rows
    tails = index.significance.tails(queries, tier)
    counts = np.zeros(len(at), dtype=np.int64)
    left, k = np.arange(len(queries)), min(_FIRST_ROWS, size)
    while len(left):
        again = []
        rankings = index.rank_in_space(queries[left], k, Funnel((tier,), ()), rows=rows)
        for query, ranking in zip(left.tolist(), rankings, strict=True):
            evalues = size * tails.survival(query, ranking.scores[:, -1])
            if k < size and evalues[-1] <= at.max():
                again.append(query)
                continue
            false = labelled.is_relation(int(positions[query]), ranking.rows, FALSE)
            counts += np.searchsorted(np.sort(evalues[false]), at, side="right")
        left, k = np.array(again, dtype=np.int64), min(4 * k, size)
    return counts
