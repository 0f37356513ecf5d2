"""A service whose engine a test answers for: for tests of jobs without indexes and models."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from rdsearch.fasta import Record
from rdsearch.hits import Hit, QueryHits
from rdsearch.server import jobs as module
from rdsearch.server.job import Job
from rdsearch.server.jobs import Jobs
from rdsearch.server.problems import Problem
from rdsearch.server.schemas import Search
from rdsearch.server.settings import Limits, Settings

COLUMNS = ["query", "rank", "accession"]


class Alive(list):
    """Hits of a query, counted as long as they are in memory."""

    now = most = 0
    _lock = threading.Lock()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        with Alive._lock:
            Alive.now += 1
            Alive.most = max(Alive.most, Alive.now)

    def __del__(self) -> None:
        with Alive._lock:
            Alive.now -= 1


def found(record: Record) -> QueryHits:
    """As many hits as the query has residues."""
    hits = [
        Hit(record.id, rank, f"{record.id}-{rank}", 1 / rank, {}, rank, 9, None, None, ())
        for rank in range(1, len(record.sequence) + 1)
    ]
    return QueryHits(record, Alive(hits))


def lines(records: list[Record]) -> list[dict[str, Any]]:
    """What the file of a job holds, by the test's own count."""
    return [
        {"query": record.id, "rank": rank, "accession": f"{record.id}-{rank}"}
        for record in records
        for rank in range(1, len(record.sequence) + 1)
    ]


class Engine:
    """An engine that answers at once, or when `answer` is called.

    Attributes
    ----------
    asked : list of list of Record
        Every part, in the order in which they came.
    open : list of (Future, list of Record)
        Those that are not answered.
    open_most : int
        So many were open at most.
    urgent : set of bool
        How urgent the parts were.
    error : exception or None
        The answer, where it is not None.
    """

    def __init__(self, at_once: bool = True) -> None:
        self.at_once = at_once
        self.asked: list[list[Record]] = []
        self.open: list[tuple[Future[Any], list[Record]]] = []
        self.open_most = 0
        self.urgent: set[bool] = set()
        self.error: BaseException | None = None

    def submit(self, planned, records, *, deadline, urgent=True):
        future: Future[Any] = Future()
        self.open.append((future, records))
        self.open_most = max(self.open_most, len(self.open))
        self.asked.append(records)
        self.urgent.add(urgent)
        if self.at_once:
            self.answer()
        return future

    def answer(self) -> None:
        """Answer what is open; nothing of it is kept here."""
        while self.open:
            future, records = self.open.pop(0)
            if future.cancelled():
                continue
            if self.error is not None:
                future.set_exception(self.error)
            else:
                future.set_result([found(record) for record in records])


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class World:
    """Jobs, and what they work with.

    Parameters
    ----------
    folder : Path
        Where the results are kept.
    at_once : bool, optional
        Whether the engine answers by itself.
    jobs : int, optional
        That may wait or run.
    **settings
        Of the server.
    """

    def __init__(self, folder, *, at_once=True, jobs=16, **settings):
        self.engine, self.clock = Engine(at_once), Clock()
        self.settings = Settings(
            limits=Limits(jobs=jobs), job_folder=folder, batch_sequences=4, **settings
        )
        self.stopping = False
        self.jobs: Jobs = Jobs(self, clock=self.clock)  # type: ignore[arg-type]

    def check_open(self) -> None:
        if self.stopping:
            raise Problem(503, "stopping", "the server is stopping; try again")

    def create(self, sequences=("MA", "M", "MAV"), owner=None, **search):
        return asyncio.run(self.jobs.create(Search(sequences=list(sequences), **search), owner))

    @property
    def files(self) -> list[str]:
        """Names of what is in the folder of jobs, but for the file that says it lives."""
        folder = self.jobs.folder.path
        return sorted(one.name for one in folder.iterdir() if one.name != ".lives")

    def text(self, job) -> bytes:
        return self.jobs.folder.place(job.id).read_bytes()

    def close(self, seconds=10.0) -> None:
        asyncio.run(self.jobs.close(seconds))


class Plan(SimpleNamespace):
    """What `planning.planned` gives, as far as jobs and formats look at it."""


def plan(service, search, *, job):
    """In place of `planning.planned`."""
    assert job
    records = [
        Record(f"q{place}", f"q{place}", text) for place, text in enumerate(search.sequences)
    ]
    return Plan(
        format=search.format or "jsonl",
        records=records,
        columns=COLUMNS,
        k=search.k or 10,
        index=SimpleNamespace(columns={}, n_rows=1_000),
        details=SimpleNamespace(cuts=search.evalue is not None),
        notes=["a note"],
    )


@contextlib.contextmanager
def world(monkeypatch, tmp_path, **options) -> Iterator[World]:
    """A world, closed at the end."""
    monkeypatch.setattr(module.planning, "planned", plan)
    made = World(tmp_path / "jobs", **options)
    try:
        yield made
    finally:
        made.engine.at_once = True
        made.engine.answer()
        made.close()


def until(holds: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def running(slow: World, *arguments: Any, **named: Any) -> Job:
    """A job that waits for the engine."""
    job = slow.create(*arguments, **named)
    until(lambda: job.state == "running" and slow.engine.asked)
    return job


def raised(kind: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Problem:
    """The problem of this kind that a function raises."""
    with pytest.raises(Problem) as caught:
        function(*arguments, **named)
    assert caught.value.kind == kind
    return caught.value


def reading(made: World, job: Job, owner: str | None = None) -> None:
    """Read the results of a job, as far as that is allowed."""
    with made.jobs.reading(job.id, owner):
        pass
