"""One search that runs by itself: what it is, and how it runs."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rdsearch.finding import noting_full
from rdsearch.hits import QueryHits
from rdsearch.server import problems, rendering
from rdsearch.server.problems import Problem

if TYPE_CHECKING:
    from rdsearch.fasta import Record
    from rdsearch.server.jobfiles import JobFolder
    from rdsearch.server.planning import Planned
    from rdsearch.server.service import Service
    from rdsearch.server.settings import Settings

__all__ = ["STATES", "Cancelled", "Job", "Pace", "copied", "run", "stopping"]

#: States of a job; the last three are final.
STATES = ("waiting", "running", "done", "failed", "cancelled")

_FINAL = frozenset(STATES[2:])
# Parts that are asked for and not taken.
_IN_FLIGHT = 2
# Seconds that the engine is to take for a part.
_PART = 0.25
# Seconds after which a job that waits for the engine looks whether it is to stop.
_PULSE = 0.1

_LOGGER = logging.getLogger("rdsearch.server")


class Cancelled(Exception):  # noqa: N818 - no error
    """The job is to stop."""


def stopping() -> Problem:
    """Why a server does not do what it would do otherwise."""
    return Problem(503, "stopping", "the server stops; ask again when it is back")


@dataclass(eq=False, slots=True)
class Job:
    """A search that runs by itself.

    Attributes
    ----------
    id : str
    owner : str or None
        Name of the key that made it.
    planned : Planned or None
        What is to be done; gone when the job is finished.
    created : float
        Seconds since 1970, as are the other times.
    limit : float or None
        Seconds that it may run.
    format : str
    total, done : int
        Sequences, and those whose hits are written.
    hits : int
    state : str
        One of `STATES`.
    started, finished, expires : float or None
    error : Problem or None
        Why it failed, or was cancelled by the server.
    readers : int
        Answers that its file is being sent in.
    stop : threading.Event
        Set where a client cancelled it.
    """

    id: str
    owner: str | None
    planned: Planned | None
    created: float
    limit: float | None = None
    format: str = ""
    total: int = 0
    done: int = 0
    hits: int = 0
    state: str = "waiting"
    started: float | None = None
    finished: float | None = None
    expires: float | None = None
    error: Problem | None = None
    readers: int = 0
    notes: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if self.planned is not None:
            self.format, self.total = self.planned.format, len(self.planned.records)

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in _FINAL

    def finish(self, state: str, error: Problem | None, now: float, kept: float) -> None:
        """Come to an end.

        Parameters
        ----------
        state : str
        error : Problem or None
        now : float
            Seconds since 1970.
        kept : float
            Seconds until it expires.
        """
        # A copy: the traceback of an error that was raised holds all that the job had in memory.
        self.error = None if error is None else copied(error)
        self.state, self.planned = state, None
        self.finished, self.expires = now, now + kept

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        path = f"/v1/jobs/{self.id}"
        return {
            "id": self.id,
            "state": self.state,
            "format": self.format,
            "sequences": {"total": self.total, "done": self.done},
            "hits": self.hits,
            "notes": self.notes,
            "created": _text(self.created),
            "started": _text(self.started),
            "finished": _text(self.finished),
            "expires": _text(self.expires),
            "error": None if self.error is None else self.error.as_dict(),
            "links": {"self": path, "events": f"{path}/events", "result": f"{path}/result"},
        }


def copied(problem: Problem) -> Problem:
    """The same problem, not raised yet."""
    headers, facts = problem.headers, problem.facts
    return Problem(problem.status, problem.kind, problem.detail, headers=headers, **facts)


def _text(when: float | None) -> str | None:
    """ISO 8601, UTC."""
    if when is None:
        return None
    moment = datetime.fromtimestamp(when, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run(
    job: Job, service: Service, folder: JobFolder, check: Callable[[], None]
) -> tuple[str, Problem | None]:
    """Run a job; its results are a file of the folder, called as its id, where it is done.

    Parameters
    ----------
    job : Job
        Its counts rise meanwhile.
    service : Service
    folder : JobFolder
    check : callable
        Called often; raises `Cancelled` or a `Problem` where the job is to stop.

    Returns
    -------
    state : str
        A final one.
    error : Problem or None
    """
    planned = job.planned
    if planned is None:
        raise ValueError(f"job {job.id} is finished and cannot run again")
    try:
        with (
            folder.writing(job.id) as file,
            contextlib.closing(_results(job, planned, service, check)) as results,
        ):
            full: list[str] = []
            n_rows = planned.index.n_rows
            noted = noting_full(results, planned.details, planned.k, n_rows, full)
            rendering.write(planned, noted, file)
            job.notes = rendering.notes(planned, full)
    except Cancelled:
        return "cancelled", None
    except Problem as error:
        return "failed", error
    except OSError as error:
        # Of the file: the engine's are problems by now.
        _LOGGER.error("the results of a job cannot be written", exc_info=error)
        why = error.strerror or "the file cannot be written"
        return "failed", Problem(
            503,
            "job-failed",
            f"the server cannot keep the results: {why}. Try again later, or ask for fewer hits",
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, the next job is to run
        return "failed", problems.of_error(error)
    return "done", None


def _results(
    job: Job, planned: Planned, service: Service, check: Callable[[], None]
) -> Generator[QueryHits, None, None]:
    """Results in the order of the queries; of a few parts at any time, however many there are."""
    pace = Pace(service.settings)
    parts = pace.parts(planned.records)
    flying: deque[futures.Future[list[QueryHits]]] = deque()

    def ask() -> None:
        while len(flying) < _IN_FLIGHT and (part := next(parts, None)) is not None:
            future = service.engine.submit(planned, part, deadline=None, urgent=False)
            future.add_done_callback(pace.watch(part))
            flying.append(future)

    try:
        ask()
        while flying:
            _wait(flying[0], check)
            answer = _answer(flying.popleft())
            # While this is written the engine has work.
            ask()
            for result in answer:
                check()
                yield result
                job.done += 1
                job.hits += len(result.hits)
    finally:
        for future in flying:
            future.cancel()


class Pace:
    """How large the parts of a job are.

    A client's request waits for what the engine is at, and is answered together with what else is
    there. So a part is what the engine does in a fraction of a second, which are a few sequences on
    a processor and a full batch on an accelerator.

    Parameters
    ----------
    settings : Settings

    Attributes
    ----------
    residues : float
        Of the next part; one sequence may have more.
    """

    def __init__(self, settings: Settings) -> None:
        self._most, self._sequences = settings.batch_residues, settings.batch_sequences
        self.residues = self._most / 32
        self._work = self._seconds = self._last = 0.0

    def parts(self, records: Sequence[Record]) -> Iterator[list[Record]]:
        """All records in their order, as many at a time as the pace is then."""
        start = 0
        while start < len(records):
            part: list[Record] = []
            room = self.residues
            for record in records[start : start + self._sequences]:
                room -= len(record.sequence)
                if part and room < 0:
                    break
                part.append(record)
            start += len(part)
            yield part

    def watch(self, part: Sequence[Record]) -> Callable[[object], None]:
        """What is to be called when a part that is asked for now is answered."""
        asked, residues = time.monotonic(), sum(len(record.sequence) for record in part)

        def answered(_: object) -> None:
            now = time.monotonic()
            self.learn(residues, now - max(asked, self._last))
            self._last = now

        return answered

    def learn(self, residues: int, seconds: float) -> None:
        """Take in how long the engine was at a part."""
        # What was before counts half: two parts may be answered together, the second in no time.
        self._work = self._work / 2 + residues
        self._seconds = self._seconds / 2 + seconds
        right = _PART * self._work / max(self._seconds, 1e-6)
        self.residues = min(max(right, self.residues / 2, 1.0), self.residues * 2, self._most)


def _wait(future: futures.Future[list[QueryHits]], check: Callable[[], None]) -> None:
    """Wait for an answer, looking meanwhile whether the job is to stop."""
    check()
    while not future.done():
        futures.wait((future,), _PULSE)
        check()


def _answer(future: futures.Future[list[QueryHits]]) -> list[QueryHits]:
    """What the engine answers; where that is an error, a problem."""
    try:
        return future.result()
    except futures.CancelledError:
        raise stopping() from None
    except Exception as error:
        raise problems.of_error(error) from error
