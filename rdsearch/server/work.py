"""What waits in the engine: the sequences of a request, and those of them that are in a batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any, NamedTuple

from rdsearch.fasta import Record
from rdsearch.server.problems import Problem

if TYPE_CHECKING:
    from rdsearch.index import Index
    from rdsearch.server.planning import Planned

__all__ = ["Part", "Work"]


class Work:
    """Sequences of one request; its results come together from several batches."""

    def __init__(
        self,
        index: Index,
        tier: str,
        records: Sequence[Record],
        planned: Planned | None,
        deadline: float | None,
    ) -> None:
        self.index, self.tier, self.records = index, tier, records
        self.planned, self.deadline = planned, deadline
        self.future: Future[Any] = Future()
        self.taken = 0
        self.results: list[Any] = [None] * len(records)
        self._left = len(records)

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more; says so to those who came late."""
        if self.future.done():
            return True
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.fail(Problem(504, "deadline", "the answer took longer than the request allows"))
            return True
        return False

    def fail(self, error: BaseException) -> None:
        """Tell the request what went wrong."""
        # It may be cancelled at any moment, and then nobody listens.
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)

    def done(self, start: int, results: Sequence[Any]) -> None:
        """Take the results of a part."""
        self.results[start : start + len(results)] = results
        self._left -= len(results)
        if self._left == 0:
            with contextlib.suppress(InvalidStateError):
                self.future.set_result(self.results)


class Part(NamedTuple):
    """Sequences of a request that are in a batch."""

    work: Work
    start: int
    stop: int

    @property
    def records(self) -> Sequence[Record]:
        """The part's own."""
        return self.work.records[self.start : self.stop]
