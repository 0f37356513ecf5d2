"""The vectors of an index: rd embeddings in, ranked rows out; neither models nor catalog."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rdsearch import gpu, tiers
from rdsearch.errors import InputError
from rdsearch.funnel import Funnel, position
from rdsearch.funnelindex import FunnelIndex
from rdsearch.joined import JoinedFunnel, JoinedTier
from rdsearch.layout import load_space, segment_folder, tier_file
from rdsearch.manifest import SCAN, Manifest, SegmentEntry, TierEntry
from rdsearch.rankings import Ranking, Step
from rdsearch.rowmap import RowMap
from rdsearch.space import Space, unit
from rdsearch.tiers import Tier
from rdsearch.tombstones import Tombstones

__all__ = ["NARROW", "Ranking", "Searcher", "Step"]

#: A filter that leaves a smaller share of the rows is answered at the last tier alone: scanning
#: those rows there costs less than a funnel, and is exact.
NARROW = 0.01

# Explanations take the shortest of so many runs.
_TIMED_RUNS = 3
# Queries that are read back from the index together.
_ROWS_AT_ONCE = 1024


class Searcher:
    """Opens the tiers of an index as they are needed.

    Parameters
    ----------
    path : Path
        The index folder.
    manifest : Manifest
    tombstones : Tombstones
        What the manifest's generation hides.
    in_memory : bool, optional
        Read every tier into memory. Otherwise all but the first are mapped.
    device : str, optional
        ``"cuda"``: the first tier of a funnel goes to the GPU, if FAISS was built for one.

    Attributes
    ----------
    n_rows : int
    rowmap : RowMap
        Which row of which segment each row is.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        tombstones: Tombstones,
        *,
        in_memory: bool = False,
        device: str = "auto",
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.in_memory = in_memory
        self._gpu = gpu.device_number(device)
        self.rowmap = RowMap(
            [segment.rows for segment in manifest.segments],
            [tombstones.hidden_in(segment.name) for segment in manifest.segments],
        )
        self.n_rows = self.rowmap.n_rows
        self._tiers: dict[str, Tier | JoinedTier] = {}
        self._funnels: dict[tuple[tuple[str, ...], bool], FunnelIndex | JoinedFunnel] = {}

    @cached_property
    def space(self) -> Space:
        """The index's scoring space, read when it is first needed."""
        return load_space(self.path, self.manifest)

    def close(self) -> None:
        """Release the files."""
        self._funnels, self._tiers = {}, {}

    def entry(self, name: str) -> TierEntry:
        """What the manifest says about a tier.

        Raises
        ------
        InputError
            No such tier.
        """
        names = [entry.name for entry in self.manifest.tiers]
        return self.manifest.tiers[position(names, name)]

    def file(self, name: str) -> TierEntry:
        """What the manifest says about a tier's own file, or about the scan file."""
        scan = self.manifest.scan
        return scan if scan is not None and scan.name == name else self.entry(name)

    def files(self, funnel: Funnel) -> tuple[str, ...]:
        """The files that a funnel goes through: it begins with the scan file of its first tier.

        Where the first tier is the last too, its own file gives the scores.
        """
        first, *later = funnel.tiers
        scan = self.manifest.scan
        scanned = bool(later) and scan is not None and scan.name == first + SCAN
        return (first + SCAN if scanned else first, *later)

    def tier(self, name: str) -> Tier | JoinedTier:
        """A tier or scan file, opened: all segments together where there are several."""
        if name not in self._tiers:
            parts = [self._part(name, segment) for segment in self.manifest.segments]
            self._tiers[name] = parts[0] if self.rowmap.plain else JoinedTier(parts, self.rowmap)
        return self._tiers[name]

    def _part(self, name: str, segment: SegmentEntry) -> Tier:
        """A tier of one segment."""
        entry = self.file(name)
        file = segment_folder(self.path, segment) / tier_file(name)
        # These are what a search reads all of, or jumps about in.
        scanned = entry in (self.manifest.tiers[0], self.manifest.scan)
        mapped = not self.in_memory and not scanned
        return tiers.read(file, name, entry.dims, segment.rows, mapped=mapped)

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
        mapped = self.in_space(vectors, funnel.tiers[-1])
        return self.rank_in_space(mapped, k, funnel, rows=rows, exclude=exclude, trace=trace)

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
            found += self.rank_in_space(last.vectors(block), k, funnel, rows=rows, exclude=exclude)
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
        return self.trace(self.in_space(vectors, tier), rows, [tier])[0]

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
        first = self.tier(self.files(funnel)[0])
        scanned, centres = reach, 0
        if first.cells is not None:
            probes = min(funnel.probes or first.cells, first.cells)
            scanned = -(-self.n_rows * probes // first.cells)
            centres = 4 * first.dims * first.cells
        steps = [Step(funnel.tiers[0], scanned, scanned * first.row_bytes + centres)]
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
        queries = self.in_space(vectors, funnel.tiers[-1])
        count = None if rows is None else len(rows)
        funnel = self._carried_out(funnel, count)
        sizes = [min(size, self.n_rows) for size in (*(max(s, k) for s in funnel.shortlists), k)]
        funnel = replace(funnel, shortlists=tuple(sizes[:-1]))
        expected = self._steps(funnel, count)
        files = self.files(funnel)
        parts = [self._funnel(files[: i + 1], on_gpu=False) for i in range(len(files))]
        for query in queries:
            before, steps = 0.0, []
            for i, (step, part) in enumerate(zip(expected, parts, strict=True)):
                runs = (
                    part.seconds(query, sizes[: i + 1], funnel.probes, rows)
                    for _ in range(_TIMED_RUNS)
                )
                until_here = min(runs)
                scanned, size_read = step.rows, step.bytes
                if i == 0 and funnel.probes is not None:
                    scanned = self._scanned(query, funnel)
                    size_read += (scanned - step.rows) * self.tier(files[0]).row_bytes
                steps.append(Step(step.tier, scanned, size_read, max(0.0, until_here - before)))
                before = max(before, until_here)
            yield steps

    def _scanned(self, query: NDArray[np.float32], funnel: Funnel) -> int:
        """Rows in the cells that a query scans."""
        first = self.tier(self.files(funnel)[0])
        if first.cells is None or funnel.probes is None:
            return self.n_rows
        return first.scanned(unit(query[None, : first.dims])[0], funnel.probes)

    def rank_in_space(
        self,
        queries: NDArray[np.float32],
        k: int,
        funnel: Funnel,
        *,
        rows: NDArray[np.int64] | None = None,
        exclude: Sequence[int] | None = None,
        trace: bool = False,
    ) -> list[Ranking]:
        """Find the best rows for queries that are in the index's space; see `rank`."""
        plan = self._carried_out(funnel, None if rows is None else len(rows))
        longest = max(plan.shortlists, default=self.n_rows)
        on_gpu = rows is None and max(longest, k) < gpu.LONGEST_SHORTLIST - k
        found = self._funnel(self.files(plan), on_gpu=on_gpu).search(
            queries, k, plan.shortlists, plan.probes, rows=rows, exclude=exclude
        )
        rows_found = [one.rows for one in found]
        traced = self.trace(queries, rows_found, funnel.tiers[:-1]) if trace else []
        return [
            Ranking(one.rows, np.stack([*(by_tier[i] for by_tier in traced), one.scores], axis=1))
            for i, one in enumerate(found)
        ]

    def _funnel(self, names: tuple[str, ...], *, on_gpu: bool) -> FunnelIndex | JoinedFunnel:
        """The funnel through these tiers, the first one on the GPU if that is wanted and can be."""
        on_gpu = on_gpu and self.rowmap.plain and self._gpu is not None and gpu.available()
        if (names, on_gpu) not in self._funnels:
            self._funnels[names, on_gpu] = self._composed(names, on_gpu)
        return self._funnels[names, on_gpu]

    def _composed(self, names: tuple[str, ...], on_gpu: bool) -> FunnelIndex | JoinedFunnel:
        opened = [self.tier(name) for name in names]
        joined = [tier for tier in opened if isinstance(tier, JoinedTier)]
        if joined:
            return JoinedFunnel(joined)
        alone = [tier for tier in opened if isinstance(tier, Tier)]
        if on_gpu and self._gpu is not None:
            alone[0] = gpu.on_gpu(alone[0], self._gpu)
        return FunnelIndex(alone)

    def trace(
        self,
        queries: NDArray[np.float32],
        rows: Sequence[NDArray[np.int64]],
        names: Sequence[str],
    ) -> list[list[NDArray[np.float32]]]:
        """For each of these tiers the scores of chosen rows; queries are in the index's space."""
        opened = [self.tier(name) for name in names]
        return [tier.scores(unit(queries[:, : tier.dims]), rows) for tier in opened]

    def _carried_out(self, funnel: Funnel, allowed: int | None) -> Funnel:
        """The funnel that is searched in fact: a narrow filter takes the last tier alone."""
        if allowed is not None and (
            allowed < NARROW * self.n_rows or allowed <= min(funnel.shortlists, default=0)
        ):
            return Funnel(funnel.tiers[-1:], ())
        return funnel

    def in_space(self, vectors: NDArray[np.float32], tier: str) -> NDArray[np.float32]:
        """rd embeddings mapped into the index's space, up to a tier; not normalised.

        Raises
        ------
        InputError
            They are too narrow, or hold values that are not finite.
        """
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
