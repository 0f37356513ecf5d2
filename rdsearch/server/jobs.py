"""Searches too large to wait for: they run one after the other, and their results are kept."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from rdsearch.server import planning
from rdsearch.server.job import STATES, Cancelled, Job, copied, run, stopping
from rdsearch.server.jobfiles import JobFolder
from rdsearch.server.problems import Problem
from rdsearch.server.schemas import Search

if TYPE_CHECKING:
    from rdsearch.server.service import Service

__all__ = ["ID_PATTERN", "KEPT", "Jobs"]

#: What an id looks like: 128 bits that nobody guesses, as text for an address.
ID_PATTERN = r"^[A-Za-z0-9_-]{22}$"
#: Finished jobs that are kept of each owner; the oldest go first.
KEPT = 100

_ID_BYTES = 16
# Hits of a report, which is held in memory, with about 1.5 KB for each; other formats are streamed.
_REPORTED = 100_000
# Seconds until a client that found no room may try again.
_RETRY = 10
# The share of the time for stopping that a running job gets: the rest is for its last event.
_SHARE = 0.9
# Seconds that a cancelled job gets to come to its end.
_LAST = 5.0
# Seconds between looks for what has expired, while a job runs.
_SWEEP = 5.0

_LOGGER = logging.getLogger("rdsearch.server")


class Jobs:
    """All jobs of a server.

    One runs at a time, in a thread of its own; its parts let the requests of clients pass.

    Parameters
    ----------
    service : Service
    clock : callable, optional
        Seconds since 1970.

    Attributes
    ----------
    folder : JobFolder
    closed : bool
        Whether nothing runs any more.

    Raises
    ------
    InputError
        There is no folder for the results.
    """

    def __init__(self, service: Service, *, clock: Callable[[], float] = time.time) -> None:
        self._service, self._settings, self._clock = service, service.settings, clock
        self.folder = JobFolder(service.settings.job_folder)
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._running: Job | None = None
        self._planning = 0
        self._closing = False
        self.closed = False
        self._change = threading.Condition()
        # A daemon: `close` waits for it, as long as it is told to, and nothing else does.
        self._thread = threading.Thread(target=self._work, name="rdsearch-jobs", daemon=True)
        self._thread.start()

    async def create(self, search: Search, owner: str | None = None) -> Job:
        """Accept a search, after a look at what is asked.

        Parameters
        ----------
        search : Search
        owner : str, optional
            Name of the key that asks.

        Returns
        -------
        Job
            It waits for its turn.

        Raises
        ------
        Problem, InputError
            No room for another job, the server stops, or what `planning.planned` finds wrong.
        """
        with self._change:
            self._check_open()
            limit = self._settings.limits.jobs
            if self._planning + len(self._queue) + (self._running is not None) >= limit:
                raise Problem(
                    429,
                    "jobs-full",
                    f"{limit:,} jobs wait or run, the most at once; try again later",
                    headers={"Retry-After": str(_RETRY)},
                    limit=limit,
                )
            self._planning += 1
        try:
            planned = await anyio.to_thread.run_sync(
                lambda: planning.planned(self._service, search, job=True)
            )
            _check_report(planned)
            with self._change:
                self._check_open()
                id = secrets.token_urlsafe(_ID_BYTES)
                job = Job(id, owner, planned, self._clock(), search.timeout)
                self._jobs[id] = job
                self._queue.append(job)
                self._change.notify_all()
                return job
        finally:
            with self._change:
                self._planning -= 1

    def get(self, id: str, owner: str | None = None) -> Job:
        """A job of this owner.

        Raises
        ------
        Problem
            404: there is none, or none any more.
        """
        with self._change:
            job = self._jobs.get(id)
            if job is None or job.owner != owner or self._expired(job):
                raise Problem(
                    404,
                    "no-such-job",
                    f"there is no job {id}; a job is kept for "
                    f"{_duration(self._settings.job_seconds)} after it is finished, if it is one "
                    f"of the last {KEPT:,}",
                )
            return job

    def describe(self, job: Job) -> dict[str, Any]:
        """The JSON object of a job."""
        with self._change:
            return job.as_dict()

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self._change:
            states = [job.state for job in self._jobs.values()]
        return {state: states.count(state) for state in STATES}

    def remove(self, id: str, owner: str | None = None) -> Job | None:
        """Cancel a job that waits or runs, or forget one that is finished, and its results.

        Returns
        -------
        Job or None
            What was cancelled; one that runs stops soon. None where it was finished.

        Raises
        ------
        Problem
            404: there is none.
        """
        with self._change:
            job = self.get(id, owner)
            if job.final:
                self._forget(job)
                return None
            job.stop.set()
            if job is not self._running:
                self._queue.remove(job)
                self._finish(job, "cancelled")
            return job

    @contextlib.contextmanager
    def reading(self, id: str, owner: str | None = None) -> Iterator[Job]:
        """A job that is done, and whose file stays as long as the block lasts.

        Raises
        ------
        Problem
            404: there is none; 409: it is not done; or why it failed.
        """
        with self._change:
            job = self.get(id, owner)
            if job.state == "failed" and job.error is not None:
                raise copied(job.error)
            if job.state != "done":
                raise Problem(
                    409,
                    "job-not-done",
                    f"the job is {job.state}; it has results when it is done",
                    state=job.state,
                )
            job.readers += 1
        try:
            yield job
        finally:
            with self._change:
                job.readers -= 1
                if job.readers == 0 and self._jobs.get(id) is not job:
                    self.folder.remove(id)

    def sweep(self) -> None:
        """Forget the jobs whose time is over, and the oldest where there are too many."""
        with self._change:
            finished = [job for job in self._jobs.values() if job.final]
            newer: dict[str | None, int] = {}
            for job in sorted(finished, key=lambda job: job.finished or 0.0, reverse=True):
                newer[job.owner] = newer.get(job.owner, 0) + 1
                if newer[job.owner] > KEPT or self._expired(job):
                    self._forget(job)

    async def close(self, seconds: float) -> None:
        """Take no new jobs, wait for the one that runs, then cancel it; remove the folder.

        Jobs that wait are cancelled at once.

        Parameters
        ----------
        seconds : float
            To wait.
        """
        self._cancel_waiting()

        def wait() -> None:
            self._thread.join(seconds)
            with self._change:
                if self._running is not None:
                    self._running.stop.set()
            self._thread.join(_LAST)
            self.folder.close()
            self.closed = True

        await anyio.to_thread.run_sync(wait)

    def _check_open(self) -> None:
        self._service.check_open()
        if self._closing:
            raise stopping()

    def _expired(self, job: Job) -> bool:
        return job.expires is not None and job.expires <= self._clock()

    # The methods from here to `_work` are called under the lock.

    def _forget(self, job: Job) -> None:
        del self._jobs[job.id]
        if job.readers == 0:
            self.folder.remove(job.id)

    def _finish(self, job: Job, state: str, error: Problem | None = None) -> None:
        if state == "done" and job.stop.is_set():
            # Cancelled in the last moment: the client was told so.
            self.folder.remove(job.id)
            state = "cancelled"
        if state == "cancelled" and self._closing and error is None:
            error = stopping()
        job.finish(state, error, self._clock(), self._settings.job_seconds)
        seconds = 0.0 if job.started is None else (job.finished or 0.0) - job.started
        facts = {"state": state, "format": job.format, "seconds": round(seconds, 1)}
        facts |= {"sequences": job.total, "done": job.done, "hits": job.hits}
        _LOGGER.info("job", extra={"facts": facts})
        self._change.notify_all()

    def _next_expiry(self) -> float | None:
        """Seconds until there is something to forget; None where nothing is finished."""
        times = [job.expires for job in self._jobs.values() if job.expires is not None]
        return max(min(times) - self._clock(), 0.1) if times else None

    def _cancel_waiting(self) -> None:
        """Take no more jobs; those that wait will not run."""
        with self._change:
            self._closing = True
            while self._queue:
                self._finish(self._queue.popleft(), "cancelled")
            self._change.notify_all()

    def _work(self) -> None:
        """What the thread does."""
        while not (self._closing and not self._queue):
            self.sweep()
            with self._change:
                if not self._queue and not self._closing:
                    self._change.wait(self._next_expiry())
            self._run_next()

    def _run_next(self) -> None:
        """Run the job that is next, if there is one; nothing of it is held afterwards."""
        with self._change:
            if not self._queue:
                return
            job = self._running = self._queue.popleft()
            job.state, job.started = "running", self._clock()
        state, error = run(job, self._service, self.folder, self._checking(job))
        with self._change:
            self._running = None
            self._finish(job, state, error)

    def _checking(self, job: Job) -> Callable[[], None]:
        """What a job calls as it runs: it is where the job ends before its time."""
        began = swept = time.monotonic()
        stops: float | None = None

        def check() -> None:
            nonlocal swept, stops
            now = time.monotonic()
            if now > swept + _SWEEP:
                swept = now
                self.sweep()
            if self._service.stopping and stops is None:
                # Whoever follows the job is to see its end before the server's.
                stops = now + _SHARE * self._settings.grace
                self._cancel_waiting()
            if job.stop.is_set() or (stops is not None and now > stops):
                raise Cancelled
            if job.limit is not None and now > began + job.limit:
                raise Problem(
                    504,
                    "deadline",
                    f"the job took more than the {job.limit:g} s that its timeout allows",
                )

        return check


def _check_report(planned: planning.Planned) -> None:
    """Refuse a report that would not fit into memory, nor into a browser."""
    hits = len(planned.records) * planned.k
    if planned.format == "html" and hits > _REPORTED:
        raise Problem(
            413,
            "too-large",
            f"a report (format html) may have {_REPORTED:,} hits; found {len(planned.records):,} "
            f"queries with k {planned.k:,}. Ask for fewer hits, or another format",
            limit={"report_hits": _REPORTED},
            found=hits,
        )


def _duration(seconds: float) -> str:
    """A time for a message."""
    return f"{seconds / 60:,.0f} minutes" if seconds >= 120 else f"{seconds:,.0f} s"
