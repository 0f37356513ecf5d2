"""Requests of all clients, batched into one model call and one FAISS call.

Two threads: one embeds, the other searches what was embedded before. A batch is what waits when the
models are free, so that it grows with the load by itself; it takes from every request in turn, so
that a large one does not keep small ones waiting.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdsearch.fasta import Record
from rdsearch.finding import find_in_space
from rdsearch.hits import QueryHits
from rdsearch.queries import own_rows
from rdsearch.server import landscape
from rdsearch.server.problems import Problem, stopping
from rdsearch.server.settings import Settings
from rdsearch.server.work import Part, Work

if TYPE_CHECKING:
    from rdsearch.index import Index
    from rdsearch.server.metrics import Metrics
    from rdsearch.server.planning import Planned

__all__ = ["Engine", "Located"]

# Batches that are embedded and wait to be searched.
_AHEAD = 2
# Share of a batch that jobs get however many clients ask.
_JOBS_SHARE = 4
_LONGEST_WAIT = 60


class Located(QueryHits):
    """A query and its hits with their places on a map (attribute ``map``)."""

    map: dict[str, Any] | None = None


class Engine:
    """Answers requests in batches.

    Parameters
    ----------
    settings : Settings
    metrics : Metrics
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._changed = threading.Condition()
        self._urgent: deque[Work] = deque()
        self._patient: deque[Work] = deque()
        self._waiting = 0
        self._closed = False
        self._company = False
        self._rate = 10.0
        self._cache: OrderedDict[tuple[Any, ...], NDArray[np.float32]] = OrderedDict()
        self._embedded: SimpleQueue[Any] = SimpleQueue()
        self._ahead = threading.Semaphore(_AHEAD)
        self._threads = [
            threading.Thread(target=one, name=f"rdsearch {name}", daemon=True)
            for name, one in (("embedding", self._embedding), ("searching", self._searching))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Sequences of clients that wait."""
        return self._waiting

    def submit(
        self,
        planned: Planned,
        records: Sequence[Record],
        *,
        deadline: float | None = None,
        urgent: bool = True,
    ) -> Future[list[QueryHits]]:
        """Search for proteins.

        Parameters
        ----------
        planned : Planned
        records : sequence of Record
            Those of the plan, or some of them.
        deadline : float, optional
            When nobody waits any more, by `time.monotonic`.
        urgent : bool, optional
            Whether a client waits; the parts of a job let requests of clients pass.

        Returns
        -------
        Future of list of QueryHits
            In the order of the records. One that is cancelled is not answered.

        Raises
        ------
        Problem
            429: too many sequences wait already, with when to try again.
        """
        work = Work(planned.index, planned.funnel.tiers[-1], records, planned, deadline)
        return self._put(work, urgent)

    def embed(
        self, index: Index, tier: str, records: Sequence[Record], deadline: float | None = None
    ) -> Future[list[NDArray[np.float32]]]:
        """rd embeddings of proteins, each of shape (dims of the tier,); see `submit`."""
        return self._put(Work(index, tier, records, None, deadline), urgent=True)

    def run(self, function: Callable[[], Any]) -> Future[Any]:
        """Run a function where searches run: an index is searched by one thread at a time.

        Raises
        ------
        Problem
            429: too much waits already.
        """
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise stopping()
            if self._embedded.qsize() >= self._settings.queue_sequences:
                raise self._full(self._embedded.qsize())
            self._embedded.put((function, future))
        return future

    def close(self) -> None:
        """Answer what waits, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _put(self, work: Work, urgent: bool) -> Future[Any]:
        if not work.records:
            work.future.set_result([])
            return work.future
        with self._changed:
            if self._closed:
                raise stopping()
            if urgent:
                # What a request may hold is bounded elsewhere: an empty queue takes any.
                most = self._settings.queue_sequences
                if self._waiting and self._waiting + len(work.records) > most:
                    raise self._full(self._waiting)
                self._waiting += len(work.records)
            (self._urgent if urgent else self._patient).append(work)
            self._changed.notify_all()
        return work.future

    def _full(self, waiting: int) -> Problem:
        """There is no room, and when there will be."""
        self._metrics.refused.inc()
        wait = min(max(1, math.ceil(waiting / self._rate)), _LONGEST_WAIT)
        return Problem(
            429,
            "queue-full",
            f"{waiting} sequences wait already, and {self._settings.queue_sequences} may; try "
            f"again in {wait} s",
            headers={"Retry-After": str(wait)},
            waiting=waiting,
        )

    # The first thread: what waits, embedded.

    def _embedding(self) -> None:
        while True:
            batch = self._next()
            if batch is None:
                self._embedded.put(None)
                return
            began = time.perf_counter()
            ready = list(self._vectors(batch))
            seconds = time.perf_counter() - began
            self._metrics.stage_seconds.labels("embed").observe(seconds)
            size = sum(part.stop - part.start for part in batch)
            self._metrics.batch.observe(size)
            self._rate += 0.2 * (size / max(seconds, 1e-3) - self._rate)
            self._ahead.acquire()
            self._embedded.put(ready)

    def _next(self) -> list[Part] | None:
        """The next batch; None when the engine is closed and nothing waits."""
        with self._changed:
            while True:
                while not (self._urgent or self._patient):
                    if self._closed:
                        return None
                    self._changed.wait()
                # Where clients came together they will again; alone, a client does not wait.
                if self._company and len(self._urgent) < self._settings.batch_sequences:
                    self._changed.wait_for(
                        lambda: len(self._urgent) >= self._settings.batch_sequences,
                        self._settings.batch_wait,
                    )
                room = self._settings.batch_sequences
                batch = self._taken(self._urgent, room, self._settings.batch_residues)
                self._waiting = sum(len(one.records) - one.taken for one in self._urgent)
                self._company = len(batch) > 1
                # A client waits for all of its batch: a job's part of it is small then.
                share = _JOBS_SHARE if batch else 1
                left = self._settings.batch_residues // share
                batch += self._taken(self._patient, max(room // share, 1), left)
                if batch:
                    return batch

    @staticmethod
    def _taken(queue: deque[Work], room: int, residues: int) -> list[Part]:
        """Sequences from every request in turn, as far as there is room; one at least."""
        parts: list[Part] = []
        while queue and room > 0 and residues > 0:
            work = queue.popleft()
            if work.gone:
                continue
            share = max(1, room // (len(queue) + 1))
            start = stop = work.taken
            while stop < len(work.records) and stop - start < share:
                length = len(work.records[stop].sequence)
                if length > residues and (parts or stop > start):
                    break
                stop, residues = stop + 1, residues - length
            if stop == start:
                queue.appendleft(work)
                break
            work.taken, room = stop, room - (stop - start)
            parts.append(Part(work, start, stop))
            if stop < len(work.records):
                queue.append(work)
        return parts

    def _vectors(self, batch: Iterable[Part]) -> Iterator[tuple[Part, NDArray[np.float32]]]:
        """Parts with their vectors; those that fail are told and left out."""
        for (index, tier), parts in _grouped(batch, lambda part: (part.work.index, part.work.tier)):
            try:
                yield from zip(parts, self._embedded_parts(index, tier, parts), strict=True)
                continue
            except Exception as error:  # noqa: BLE001 - it is told to whom it concerns
                if len(parts) == 1:
                    parts[0].work.fail(error)
                    continue
            # One of them may be the cause: each alone.
            for part in parts:
                try:
                    yield part, self._embedded_parts(index, tier, [part])[0]
                except Exception as error:  # noqa: BLE001
                    part.work.fail(error)

    def _embedded_parts(
        self, index: Index, tier: str, parts: Sequence[Part]
    ) -> list[NDArray[np.float32]]:
        made = tuple(sorted((name, str(value)) for name, value in index.manifest.embedding.items()))
        about = (index.chain.hash, made, tier)
        wanted = dict.fromkeys(record.sequence for part in parts for record in part.records)
        known = {one: self._cache[about, one] for one in wanted if (about, one) in self._cache}
        self._metrics.cached.inc(len(known))
        new = [sequence for sequence in wanted if sequence not in known]
        if new:
            known |= zip(new, index.embed(new, tier), strict=True)
        for sequence, vector in known.items():
            self._cache[about, sequence] = vector
            self._cache.move_to_end((about, sequence))
        while len(self._cache) > self._settings.cached_vectors:
            self._cache.popitem(last=False)
        return [np.stack([known[record.sequence] for record in part.records]) for part in parts]

    # The second thread: what was embedded, searched.

    def _searching(self) -> None:
        while (item := self._embedded.get()) is not None:
            if isinstance(item, tuple):
                function, future = item
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(function())
                    except Exception as error:  # noqa: BLE001 - it is told to whom it concerns
                        future.set_exception(error)
                continue
            self._ahead.release()
            began = time.perf_counter()
            for part, vectors in item:
                if part.work.planned is None:
                    part.work.done(part.start, list(vectors))
            searched = [one for one in item if one[0].work.planned and not one[0].work.gone]
            for _, group in _grouped(searched, lambda one: one[0].work.planned.key):
                self._search(group)
            self._metrics.stage_seconds.labels("search").observe(time.perf_counter() - began)

    def _search(self, group: Sequence[tuple[Part, NDArray[np.float32]]]) -> None:
        """Search for parts of one plan together."""
        planned = group[0][0].work.planned
        if planned is None:
            return
        records = [record for part, _ in group for record in part.records]
        try:
            results = _found(planned, records, np.concatenate([vectors for _, vectors in group]))
        except Exception as error:  # noqa: BLE001 - it is told to whom it concerns
            for part, _ in group:
                part.work.fail(error)
            return
        self._metrics.sequences.inc(len(records))
        start = 0
        for part, vectors in group:
            part.work.done(part.start, results[start : start + len(vectors)])
            start += len(vectors)


def _found(
    planned: Planned, records: Sequence[Record], vectors: NDArray[np.float32]
) -> list[QueryHits]:
    index, funnel = planned.index, planned.funnel
    exclude = own_rows(index.catalog, records) if planned.exclude_self else None
    mapped = index.in_space(vectors, funnel.tiers[-1])
    results = find_in_space(
        index, records, mapped, planned.k, funnel, planned.rows, exclude, planned.details
    )
    if not planned.map:
        return results
    located: list[QueryHits] = []
    for result, vector in zip(results, mapped, strict=True):
        one = Located(*result)
        one.map = landscape.places(index, funnel.tiers[-1], vector, result.hits, planned.map_hits)
        located.append(one)
    return located


def _grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> list[tuple[Any, list[Any]]]:
    """Items of one key together, in the order in which the keys come."""
    found: dict[Any, list[Any]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.items())
