"""Tune the funnel of an index: the cheapest whose recall is guaranteed.

There are two sets of queries, which share none. On the first, some rows of the index, candidate
funnels are measured from cheap to expensive, and those that no cheaper one reaches in recall are
put in a sequence by falling cost, the exhaustive search first. On the second the sequence is
tested up to the first failure (`rdsearch.certification`): it is fixed with respect to these
queries, so that one can test any number of funnels without paying for it in confidence. The last
one that passes is the cheapest. Cost is the bytes a query reads: the same in every run, as times
are not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdsearch import fasta, generations
from rdsearch.certification import Target, Trial, certify
from rdsearch.errors import InputError, TuningError
from rdsearch.funnel import Funnel
from rdsearch.guarantee import SAMPLE, Guarantee
from rdsearch.manifest import Manifest

if TYPE_CHECKING:
    from rdsearch.index import Index
    from rdsearch.progress import Progress
    from rdsearch.searcher import Ranking

__all__ = ["Recall", "Tuning", "bytes_read", "candidates", "choose", "store", "tune"]

# Rows of the index that choose the sequence, and the part of a small index they take at most.
_CHOOSING = 500
_CHOOSING_PART = 4
# The first of them tell the hopeless: the mean recall of so many is hardly off by so much.
_SCREENING = 64
_HOPELESS = 0.05
# Shortlists before the last tier grow by this from k on; the first of several is so many times
# as long as the last.
_GROWTH = math.sqrt(2)
_WIDER = (4, 16)
# Cells that are scanned: all of them divided by these.
_CELL_SHARES = (4, 16, 64, 256)
# Above the number of rows of any index on one machine.
_MOST_ROWS = 1 << 40
# Steps between the best that was measured and the exhaustive search.
_SAFER = (2, 4)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was found out.

    Attributes
    ----------
    funnel : Funnel
        The cheapest that is certified.
    guarantee : Guarantee
        What may be said about it.
    trials : tuple of Trial
        The funnels that were tested, in order; the last one may have failed.
    """

    funnel: Funnel
    guarantee: Guarantee
    trials: tuple[Trial[Funnel], ...]


class Recall:
    """Recall of funnels against the exhaustive search, on a set of queries.

    Parameters
    ----------
    rank : callable
        Funnel to one ranking for each query.
    exact : Funnel
        The exhaustive search at the tier where all funnels end.

    Attributes
    ----------
    queries : int
    """

    def __init__(self, rank: Callable[[Funnel], Sequence[Ranking]], exact: Funnel) -> None:
        self._rank = rank
        self._exact = exact
        truth = rank(exact)
        self.queries = len(truth)
        self._wanted = np.array([len(ranking.rows) for ranking in truth])
        self._least = np.array([ranking.scores[-1:, -1].sum() for ranking in truth], np.float32)
        self._pairs = self._numbered(truth)[1]

    def __call__(self, funnel: Funnel) -> NDArray[np.float64]:
        """Recall of each query, shape (queries,).

        Right is a row that the exhaustive search returns, or one that scores as high as its last:
        which of several equal rows is returned does not matter.
        """
        if funnel == self._exact:
            return np.ones(self.queries)
        found = self._rank(funnel)
        query, pairs = self._numbered(found)
        scores = np.concatenate([ranking.scores[:, -1] for ranking in found])
        right = np.isin(pairs, self._pairs) | (scores >= self._least[query])
        counts = np.bincount(query, weights=right, minlength=self.queries)
        return np.where(self._wanted, np.minimum(1, counts / np.maximum(1, self._wanted)), 1.0)

    def _numbered(self, rankings: Sequence[Ranking]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The query of each row that was found, and a number for each pair of query and row."""
        query = np.repeat(np.arange(self.queries), [len(ranking.rows) for ranking in rankings])
        rows = np.concatenate([ranking.rows for ranking in rankings])
        return query, query * _MOST_ROWS + rows


def bytes_read(index: Index, funnel: Funnel) -> int:
    """Bytes that a query is expected to read."""
    return sum(step.bytes for step in index.cost(funnel))


def candidates(index: Index, to_tier: str, k: int) -> list[Funnel]:
    """Funnels that end at a tier, cheapest first; the exhaustive search is not among them.

    Each tier before it alone, the first with each other, and all of them; shortlists from k on in
    steps of √2; where the first tier has cells, from a few of them to all. The index's own funnel
    too, if it ends there and was not tuned.

    Parameters
    ----------
    index : Index
    to_tier : str
    k : int

    Returns
    -------
    list of Funnel
        Only those that read less than the exhaustive search.
    """
    before = index.tiers[: index.tiers.index(to_tier)]
    paths = [(), *((tier,) for tier in before), *((before[0], tier) for tier in before[1:])]
    if len(before) > 2:
        paths.append(before)
    made = {
        Funnel((*path, to_tier), shortlists, probes)
        for path in paths
        for shortlists in _shortlists(len(path), k, index.n_rows)
        for probes in _probes(index, (*path, to_tier)[0])
    }
    own = index.manifest.funnel
    # One that was tuned may come from the very queries that are to test it now.
    if own.tiers[-1] == to_tier and index.manifest.guarantee is None:
        made.add(own)
    cost = {funnel: bytes_read(index, funnel) for funnel in made}
    most = bytes_read(index, Funnel((to_tier,), ()))
    # Equal costs are common where shortlists exceed the rows; the text makes the order certain.
    return sorted((f for f in made if cost[f] < most), key=lambda f: (cost[f], str(f)))


def _shortlists(steps: int, k: int, n_rows: int) -> Iterator[tuple[int, ...]]:
    """Shortlists of so many steps, each below the number of rows."""
    if steps == 0:
        yield ()
        return
    for last in itertools.takewhile(
        lambda size: size < n_rows, (round(k * _GROWTH**i) for i in itertools.count())
    ):
        for wider in (1,) if steps == 1 else _WIDER:
            # Geometric from `wider * last` down to `last`.
            powers = (1 - i / max(1, steps - 1) for i in range(steps))
            sizes = tuple(round(last * wider**power) for power in powers)
            if sizes[0] < n_rows:
                yield sizes


def _probes(index: Index, tier: str) -> list[int | None]:
    """Numbers of cells to scan; None is all."""
    cells = index.entry(tier).cells
    if cells is None:
        return [None]
    return [None, *sorted({max(1, cells // share) for share in _CELL_SHARES})]


def choose(
    index: Index,
    exact: Funnel,
    funnels: Iterable[Funnel],
    recall: Callable[[Funnel], NDArray[np.float64]],
) -> list[Funnel]:
    """The sequence to test, by falling cost.

    Parameters
    ----------
    index : Index
    exact : Funnel
        The exhaustive search; it comes first.
    funnels : iterable of Funnel
        See `candidates`; cheapest first.
    recall : callable
        Funnel to recalls, on queries that take no part in the test.

    Returns
    -------
    list of Funnel
        The exhaustive search, wider versions of the best candidate, then the Pareto front of
        recall against bytes read. Recall 1 ends the search: what costs more is not better.
    """
    front: list[Funnel] = []
    best = -1.0
    for funnel in funnels:
        measured = float(np.mean(recall(funnel)))
        if measured > best:
            if front and bytes_read(index, front[-1]) == bytes_read(index, funnel):
                front.pop()
            front.append(funnel)
            best = measured
        if best == 1:
            break
    if not front:
        return [exact]
    most = bytes_read(index, exact)
    wider = dict.fromkeys(_widened(index, front[-1], factor) for factor in _SAFER)
    safer = [funnel for funnel in wider if bytes_read(index, funnel) < most]
    return [exact, *reversed(safer), *reversed([f for f in front if f not in safer])]


def _widened(index: Index, funnel: Funnel, factor: int) -> Funnel:
    """The funnel with all shortlists and probes multiplied, as far as there are rows and cells."""
    cells = index.entry(funnel.tiers[0]).cells
    probes = None if funnel.probes is None or cells is None else min(cells, funnel.probes * factor)
    shortlists = tuple(min(index.n_rows, size * factor) for size in funnel.shortlists)
    return Funnel(funnel.tiers, shortlists, probes)


def tune(
    index: Index,
    *,
    recall: float = 0.99,
    confidence: float = 0.95,
    k: int = 10,
    queries: str | Path | None = None,
    sample: int = 1000,
    to_tier: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tuning:
    """Find the cheapest funnel whose expected recall is guaranteed. Nothing is written.

    Parameters
    ----------
    index : Index
    recall, confidence : float
        See `Guarantee`; 0.99 and 0.95 need 299 queries at least, more find cheaper funnels.
    k : int, optional
        Nearest rows that count.
    queries : str or Path, optional
        FASTA file of independent queries like those to come. All of them test.
    sample : int, optional
        Without `queries`: so many rows of the index, drawn without replacement, each left out of
        its own result. Up to 500 other rows choose the sequence.
    to_tier : str, optional
        Where the funnels and the exhaustive search end; the index's last tier where not given.
    seed : int, optional
        Of the draw.
    progress : Progress, optional
        Told of every query that is embedded or measured.

    Returns
    -------
    Tuning

    Raises
    ------
    TuningError
        Too few queries for this target.
    InputError
        A target outside (0, 1), k or a sample that does not fit the index, an unknown tier.
    """
    target = Target(recall, confidence)
    _check(index, k, seed)
    exact = index.plan(to_tier=to_tier or index.tiers[-1], shortlists={})
    choosing = max(1, min(_CHOOSING, index.n_rows // _CHOOSING_PART))
    rng = np.random.default_rng(seed)
    if queries is None:
        _check_sample(sample, index.n_rows - choosing, target)
        drawn = rng.choice(index.n_rows, choosing + sample, replace=False)
        tested = Recall(lambda funnel: index.rank_rows(drawn[choosing:].tolist(), k, funnel), exact)
        source = SAMPLE
    else:
        source = "standard input" if str(queries) == "-" else Path(queries).name
        records = list(fasta.read(queries, unique=False))
        _check_enough(len(records), source, target)
        sequences = [record.sequence for record in records]
        vectors = index.embed(sequences, exact.tiers[-1], progress)
        drawn = rng.choice(index.n_rows, choosing, replace=False)
        tested = Recall(lambda funnel: index.rank(vectors, k, funnel), exact)
    first = drawn[:choosing].tolist()
    chosen = Recall(lambda funnel: index.rank_rows(first, k, funnel), exact)
    screen = Recall(lambda funnel: index.rank_rows(first[:_SCREENING], k, funnel), exact)
    funnels = candidates(index, exact.tiers[-1], k)
    screened = _told(screen, progress, "choose", len(funnels))
    hopeful = (f for f in funnels if screened(f).mean() > recall - _HOPELESS)
    sequence = choose(index, exact, hopeful, chosen)
    trials = certify(sequence, _told(tested, progress, "test", len(sequence)), target)
    # The exhaustive search has recall 1, and there are enough queries for that: one passed.
    passed = [trial for trial in trials if trial.certified][-1]
    guarantee = Guarantee(recall, confidence, k, tested.queries, passed.recall, source, seed)
    return Tuning(passed.candidate, guarantee, tuple(trials))


def store(index: Index, tuning: Tuning) -> Manifest:
    """Make the funnel the index's default, with its guarantee, in one atomic step.

    An index that is open keeps the manifest it was opened with.

    Raises
    ------
    TuningError
        The index on disk is not the one that was tuned any more; it stays as it is.
    """
    with generations.changing(index.path, "tune") as manifest:
        if manifest != index.manifest:
            raise TuningError(
                f"{index.path} was changed while it was tuned: the result belongs to the index "
                "before. Tune again"
            )
        tuned = generations.successor(
            manifest, f"tune: {tuning.funnel}", funnel=tuning.funnel, guarantee=tuning.guarantee
        )
        generations.publish(index.path, tuned)
    return tuned


def _check(index: Index, k: int, seed: int) -> None:
    if k < 1:
        raise InputError(f"k must be at least 1; found {k}")
    if k >= index.n_rows:
        raise InputError(
            f"k must be smaller than the {index.n_rows:,} rows of the index, of which every funnel "
            f"would find all; found {k}"
        )
    if seed < 0:
        raise InputError(f"the seed must be 0 or more; found {seed}")


def _check_sample(sample: int, most: int, target: Target) -> None:
    if sample < 1:
        raise InputError(f"a sample needs at least 1 row; found {sample}")
    _check_enough(sample, "the sample", target)
    if sample > most:
        raise InputError(
            f"a sample of at most {most:,} rows can be drawn from this index, for a part of its "
            f"rows chooses the funnels to test; found {sample:,}. Give --sample {most} or less, "
            "or queries of your own"
        )


def _check_enough(found: int, name: str, target: Target) -> None:
    if found < target.queries_needed:
        raise TuningError(
            f"{name}: a recall of {target.recall:g} with confidence {target.confidence:g} needs "
            f"at least {target.queries_needed:,} queries, even if all of them find everything; "
            f"found {found:,}. Give more queries, or a lower recall or confidence",
            needed=target.queries_needed,
            found=found,
        )


def _told(
    recall: Recall, progress: Progress | None, stage: str, most: int
) -> Callable[[Funnel], NDArray[np.float64]]:
    """The same, and progress is told of the queries of `most` funnels at most."""
    if progress is None:
        return recall
    advance = progress.stage(stage, most * recall.queries)

    def measure(funnel: Funnel) -> NDArray[np.float64]:
        measured = recall(funnel)
        advance(recall.queries, 0)
        return measured

    return measure
