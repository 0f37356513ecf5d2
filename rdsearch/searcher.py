"""The vectors of an index: rd embeddings in, ranked rows out; neither models nor catalog."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rdsearch import gpu, tiers
from rdsearch.errors import IndexDamagedError, InputError
from rdsearch.funnel import Found, Funnel, FunnelIndex, position, selector
from rdsearch.layout import SPACE, segment_folder, tier_file
from rdsearch.manifest import Manifest, TierEntry
from rdsearch.space import Space, unit
from rdsearch.tiers import Tier

__all__ = ["NARROW", "Ranking", "Searcher", "Step"]

#: A filter that leaves a smaller share of the rows is answered at the last tier alone: scanning
#: those rows there costs less than a funnel, and is exact.
NARROW = 0.01

# Explanations take the shortest of so many runs.
_TIMED_RUNS = 3
# Queries that are read back from the index together.
_ROWS_AT_ONCE = 1024


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


class Searcher:
    """Opens the tiers of an index as they are needed.

    Parameters
    ----------
    path : Path
        The index folder.
    manifest : Manifest
    in_memory : bool, optional
        Read every tier into memory. Otherwise all but the first are mapped.
    device : str, optional
        ``"cuda"``: the first tier of a funnel goes to the GPU, if FAISS was built for one.

    Attributes
    ----------
    n_rows : int
    """

    def __init__(
        self, path: Path, manifest: Manifest, *, in_memory: bool = False, device: str = "auto"
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.in_memory = in_memory
        self._gpu = gpu.device_number(device)
        self.n_rows = manifest.rows
        self._tiers: dict[str, Tier] = {}
        self._funnels: dict[tuple[tuple[str, ...], bool], FunnelIndex] = {}

    @cached_property
    def space(self) -> Space:
        """The index's scoring space, read when it is first needed."""
        space = Space.load(self.path / SPACE)
        expected = (self.manifest.space, self.manifest.tiers[-1].dims)
        if (space.kind, space.dims) != expected:
            raise IndexDamagedError(
                f"{self.path / SPACE}: expected a {expected[0]} space of {expected[1]} "
                f"dimensions, found a {space.kind} one of {space.dims}. Restore the file or build "
                "again",
                path=self.path / SPACE,
            )
        return space

    def close(self) -> None:
        """Release the files."""
        self._funnels.clear()
        self._tiers.clear()

    def entry(self, name: str) -> TierEntry:
        """What the manifest says about a tier.

        Raises
        ------
        InputError
            No such tier.
        """
        names = [entry.name for entry in self.manifest.tiers]
        return self.manifest.tiers[position(names, name)]

    def tier(self, name: str) -> Tier:
        """A tier, opened."""
        if name not in self._tiers:
            (segment,) = self.manifest.segments
            entry = self.entry(name)
            file = segment_folder(self.path, segment) / tier_file(name)
            # The first tier is what every search reads all of, or jumps about in.
            mapped = not self.in_memory and entry is not self.manifest.tiers[0]
            self._tiers[name] = tiers.read(file, name, entry.dims, segment.rows, mapped=mapped)
        return self._tiers[name]

    def rank(
        self,
        vectors: NDArray[np.float32],
        k: int,
        funnel: Funnel | None = None,
        *,
        rows: NDArray[np.int64] | None = None,
        exclude: Sequence[int] | None = None,
        trace: bool = False,
    ) -> list[Ranking]:
        """Find the best rows for rd embeddings.

        Parameters
        ----------
        vectors : ndarray, shape (q, at least dims of the funnel's last tier), float32
        k : int
        funnel : Funnel, optional
            The index's default where it is not given.
        rows : ndarray of int64, sorted, optional
            The rows that may be found.
        exclude : sequence of int, optional
            For each query a row to leave out; -1 for none.
        trace : bool, optional
            Score the rows that were found at every tier of the funnel.

        Returns
        -------
        list of Ranking
        """
        funnel = funnel or self.manifest.funnel
        mapped = self._in_space(vectors, funnel.tiers[-1])
        return self._rank(mapped, k, funnel, rows, exclude, trace)

    def rank_rows(
        self,
        queries: Sequence[int],
        k: int,
        funnel: Funnel | None = None,
        *,
        rows: NDArray[np.int64] | None = None,
        exclude_self: bool = True,
    ) -> list[Ranking]:
        """Find the best rows for rows of the index itself.

        Parameters
        ----------
        queries : sequence of int
            Their vectors are taken from the last tier, as its codec keeps them.
        k : int
        funnel : Funnel, optional
        rows : ndarray of int64, sorted, optional
        exclude_self : bool, optional
            Leave each row out of its own result.

        Returns
        -------
        list of Ranking
        """
        funnel = funnel or self.manifest.funnel
        wanted = np.asarray(queries, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.n_rows:
            raise InputError(f"expected rows from 0 to {self.n_rows - 1}, found others")
        last = self.tier(self.manifest.tiers[-1].name)
        found: list[Ranking] = []
        for start in range(0, len(wanted), _ROWS_AT_ONCE):
            block = wanted[start : start + _ROWS_AT_ONCE]
            exclude = block.tolist() if exclude_self else None
            found += self._rank(last.vectors(block), k, funnel, rows, exclude, False)
        return found

    def score_rows(
        self, vectors: NDArray[np.float32], rows: Sequence[NDArray[np.int64]], tier: str
    ) -> list[NDArray[np.float32]]:
        """Score chosen rows at one tier.

        Parameters
        ----------
        vectors : ndarray, shape (q, at least dims of the tier), float32
            rd embeddings.
        rows : sequence of ndarray of int64
            For each query the rows to score.
        tier : str

        Returns
        -------
        list of ndarray of float32
            Cosines, shaped as `rows`.
        """
        opened = self.tier(tier)
        queries = self._in_space(vectors, tier)
        return opened.scores(unit(queries[:, : opened.dims]), rows)

    def cost(self, funnel: Funnel, allowed: int | None = None) -> list[Step]:
        """What a query is expected to read.

        Parameters
        ----------
        funnel : Funnel
        allowed : int, optional
            Rows that a filter leaves; all where it is not given.

        Returns
        -------
        list of Step
            Without times. Cells count as equally full.
        """
        return self._steps(self._carried_out(funnel, allowed), allowed)

    def _steps(self, funnel: Funnel, allowed: int | None) -> list[Step]:
        """What a query is expected to read in the funnel that is searched in fact."""
        reach = self.n_rows if allowed is None else allowed
        first = self.tier(funnel.tiers[0])
        scanned, centres = reach, 0
        if first.cells is not None:
            probes = min(funnel.probes or first.cells, first.cells)
            scanned = -(-self.n_rows * probes // first.cells)
            centres = 4 * first.dims * first.cells
        steps = [Step(first.name, scanned, scanned * first.row_bytes + centres)]
        for name, passed in zip(funnel.tiers[1:], funnel.shortlists, strict=True):
            seen = min(passed, steps[-1].rows)
            steps.append(Step(name, seen, seen * self.tier(name).row_bytes))
        return steps

    def explain(
        self,
        vectors: NDArray[np.float32],
        k: int,
        funnel: Funnel,
        rows: NDArray[np.int64] | None = None,
    ) -> Iterator[list[Step]]:
        """What each tier does for each query, measured.

        A tier's time is that of the funnel up to it less that of the funnel before it, each the
        shortest of three runs with the query alone.

        Parameters
        ----------
        vectors : ndarray, shape (q, at least dims of the funnel's last tier), float32
        k : int
        funnel : Funnel
        rows : ndarray of int64, sorted, optional
            The rows that may be found.

        Yields
        ------
        list of Step
        """
        queries = self._in_space(vectors, funnel.tiers[-1])
        count = None if rows is None else len(rows)
        allowed = None if rows is None else selector(rows, self.n_rows)
        funnel = self._carried_out(funnel, count)
        sizes = [min(size, self.n_rows) for size in (*(max(s, k) for s in funnel.shortlists), k)]
        funnel = replace(funnel, shortlists=tuple(sizes[:-1]))
        expected = self._steps(funnel, count)
        parts = [
            self._funnel(funnel.tiers[: i + 1], on_gpu=False) for i in range(len(funnel.tiers))
        ]
        for query in queries:
            before, steps = 0.0, []
            for i, (step, part) in enumerate(zip(expected, parts, strict=True)):
                runs = (
                    part.seconds(query, sizes[: i + 1], funnel.probes, allowed)
                    for _ in range(_TIMED_RUNS)
                )
                until_here = min(runs)
                scanned, size_read = step.rows, step.bytes
                if i == 0 and funnel.probes is not None:
                    scanned = self._scanned(query, funnel)
                    size_read += (scanned - step.rows) * self.tier(step.tier).row_bytes
                steps.append(Step(step.tier, scanned, size_read, max(0.0, until_here - before)))
                before = max(before, until_here)
            yield steps

    def _scanned(self, query: NDArray[np.float32], funnel: Funnel) -> int:
        """Rows in the cells that a query scans."""
        first = self.tier(funnel.tiers[0])
        if first.cells is None or funnel.probes is None:
            return self.n_rows
        probes = min(funnel.probes, first.cells)
        near = first.codec.quantizer.search(unit(query[None, : first.dims]), probes)[1][0]
        return sum(first.codec.invlists.list_size(int(cell)) for cell in near)

    def _rank(
        self,
        queries: NDArray[np.float32],
        k: int,
        funnel: Funnel,
        rows: NDArray[np.int64] | None,
        exclude: Sequence[int] | None,
        trace: bool,
    ) -> list[Ranking]:
        plan = self._carried_out(funnel, None if rows is None else len(rows))
        longest = max(plan.shortlists, default=self.n_rows)
        on_gpu = rows is None and max(longest, k) < gpu.LONGEST_SHORTLIST - k
        found = self._funnel(plan.tiers, on_gpu=on_gpu).search(
            queries, k, plan.shortlists, plan.probes, rows=rows, exclude=exclude
        )
        traced = self._trace(queries, found, funnel.tiers[:-1]) if trace else []
        return [
            Ranking(one.rows, np.stack([*(by_tier[i] for by_tier in traced), one.scores], axis=1))
            for i, one in enumerate(found)
        ]

    def _funnel(self, names: tuple[str, ...], *, on_gpu: bool) -> FunnelIndex:
        """The funnel through these tiers, the first one on the GPU if that is wanted and can be."""
        on_gpu = on_gpu and self._gpu is not None and gpu.available()
        if (names, on_gpu) not in self._funnels:
            opened = [self.tier(name) for name in names]
            if on_gpu and self._gpu is not None:
                opened[0] = gpu.on_gpu(opened[0], self._gpu)
            self._funnels[names, on_gpu] = FunnelIndex(opened)
        return self._funnels[names, on_gpu]

    def _trace(
        self, queries: NDArray[np.float32], found: Sequence[Found], names: Sequence[str]
    ) -> list[list[NDArray[np.float32]]]:
        """Scores of what was found at these tiers."""
        rows = [one.rows for one in found]
        opened = [self.tier(name) for name in names]
        return [tier.scores(unit(queries[:, : tier.dims]), rows) for tier in opened]

    def _carried_out(self, funnel: Funnel, allowed: int | None) -> Funnel:
        """The funnel that is searched in fact: a narrow filter takes the last tier alone."""
        if allowed is not None and (
            allowed < NARROW * self.n_rows or allowed <= min(funnel.shortlists, default=0)
        ):
            return Funnel(funnel.tiers[-1:], ())
        return funnel

    def _in_space(self, vectors: NDArray[np.float32], tier: str) -> NDArray[np.float32]:
        dims = self.entry(tier).dims
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] < dims:
            raise InputError(
                f"rd embeddings up to tier {tier} must have shape (n, {dims}) or be wider; found "
                f"{vectors.shape}"
            )
        if not np.isfinite(vectors).all():
            raise InputError("rd embeddings hold values that are not finite (NaN or infinity)")
        return self.space.transform(vectors[:, :dims])
