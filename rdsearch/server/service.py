"""What a server holds: indexes that are open, the engine that answers, the jobs."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import rdsearch
from rdsearch.columnvalues import Summary, summary
from rdsearch.errors import InputError, RdsearchError
from rdsearch.fasta import Record
from rdsearch.filters import allowed_rows
from rdsearch.index import Index
from rdsearch.server.engine import Engine
from rdsearch.server.metrics import Metrics
from rdsearch.server.problems import Problem, stopping
from rdsearch.server.settings import Settings

if TYPE_CHECKING:
    from rdsearch.server.jobs import Jobs

__all__ = ["Served", "Service", "named"]

_LOGGER = logging.getLogger("rdsearch.server")

# Answers of filters that are kept for each index.
_FILTERS_KEPT = 64
# Values of a column that are listed.
_VALUES = 50


def named(paths: Iterable[str]) -> dict[str, Path]:
    """Indexes by the names that clients call them.

    Parameters
    ----------
    paths : iterable of str
        ``indexes/mine``, which is called ``mine``, or ``NAME=indexes/mine``.

    Raises
    ------
    InputError
        Two have one name, or a name has characters that an address has not.
    """
    found: dict[str, Path] = {}
    for text in paths:
        name, given, path = text.partition("=")
        if not given or "/" in name:
            name, path = Path(text).resolve().name, text
        if not name or not all(one.isalnum() or one in "-_." for one in name):
            raise InputError(
                f"the index {text} cannot be called {name!r}: expected letters, digits, '-', '_' "
                f"and '.'. Give it another name: NAME={path}"
            )
        if name in found:
            raise InputError(
                f"two indexes are called {name}: {found[name]} and {path}. Give one another name: "
                f"OTHER={path}"
            )
        found[name] = Path(path)
    return found


class Served:
    """An index that stays open.

    Parameters
    ----------
    name : str
    index : Index

    Attributes
    ----------
    now : Index
        The generation that new requests are answered from; those that run keep theirs.
    ready : bool
        Whether its models are loaded.
    """

    def __init__(self, name: str, index: Index) -> None:
        self.name = name
        self.index = index
        self.now = index.snapshot()
        self.ready = False
        self._lock = threading.Lock()
        self._filters: OrderedDict[Hashable, NDArray[np.int64]] = OrderedDict()
        self._summaries: dict[str, Summary] = {}

    def warm(self) -> None:
        """Load what the default funnel needs; wider members are loaded when they are asked for."""
        last = self.index.default_funnel.tiers[-1]
        anything = Record("warm", "warm", "M" * 16)
        vector = self.index.embed([anything.sequence], last)
        self.index.search_vectors([anything], vector, 1)
        self.now = self.index.snapshot()
        self.ready = True

    def refresh(self) -> bool:
        """Move on to the generation that is published now, if there is another one."""
        if not self.index.refresh():
            return False
        self.warm()
        with self._lock:
            self._filters.clear()
            self._summaries.clear()
        _LOGGER.info("index %s is at generation %d", self.name, self.now.generation)
        return True

    def allowed(
        self,
        index: Index,
        where: str | None,
        ids: list[str] | None,
        taxon: int | None,
        seconds: float,
    ) -> NDArray[np.int64] | None:
        """Rows that pass the filters; the same array for the same filters of a generation."""
        if where is None and ids is None and taxon is None:
            return None
        key = (id(index.catalog), where, None if ids is None else tuple(ids), taxon)
        with self._lock:
            if key in self._filters:
                self._filters.move_to_end(key)
                return self._filters[key]
        found = allowed_rows(index.catalog, where, ids, taxon, seconds=seconds)
        if found is None:
            return None
        with self._lock:
            # Of a generation that is gone nothing is kept: its id may come again.
            if index.catalog is self.now.catalog:
                found = self._filters.setdefault(key, found)
                while len(self._filters) > _FILTERS_KEPT:
                    self._filters.popitem(last=False)
        return found

    def summary(self, index: Index, column: str) -> Summary:
        """The most frequent values of a column; of each generation they are counted once."""
        with self._lock:
            if index.catalog is self.now.catalog and column in self._summaries:
                return self._summaries[column]
        found = summary(index.catalog, column, _VALUES)
        with self._lock:
            if index.catalog is self.now.catalog:
                self._summaries[column] = found
        return found

    def public(self, text: str) -> str:
        """A message without the index's place on the server."""
        return text.replace(str(self.index.path), self.name)


class Service:
    """Everything behind the routes.

    Parameters
    ----------
    paths : mapping of str to Path
        Indexes by name; the first is the default.
    settings : Settings, optional
    **embedding
        As `rdsearch.open` takes them: `weights`, `device`, `dtype`, `in_memory`, …

    Attributes
    ----------
    settings : Settings
    engine : Engine
    jobs : Jobs
        Set when the application starts.
    stopping : bool
        No new work is taken.
    """

    jobs: Jobs

    def __init__(
        self, paths: Mapping[str, Path], settings: Settings | None = None, **embedding: Any
    ) -> None:
        if not paths:
            raise InputError("a server needs at least one index")
        self.settings = settings or Settings()
        self.metrics = Metrics()
        self.stopping = False
        # One copy of a member for all indexes.
        models: dict[Hashable, Any] = {}
        self._served = {
            name: Served(name, rdsearch.open(path, models=models, **embedding))
            for name, path in paths.items()
        }
        self.engine = Engine(self.settings, self.metrics)
        self._refreshing = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The indexes; the first is the default."""
        return list(self._served)

    @property
    def ready(self) -> bool:
        """Whether every index can be searched."""
        return all(served.ready for served in self._served.values())

    def served(self, name: str | None = None) -> Served:
        """An index by name, or the default.

        Raises
        ------
        Problem
            404: there is none of this name.
        """
        if name is None:
            return next(iter(self._served.values()))
        if name not in self._served:
            raise Problem(
                404,
                "no-such-index",
                f"there is no index of this name; there are {', '.join(self._served)}",
                indexes=self.names,
            )
        return self._served[name]

    def warm(self) -> None:
        """Load what the first search of each index would load."""
        for served in self._served.values():
            served.warm()

    def check_open(self) -> None:
        """Refuse work before the models are there and while the server stops.

        Raises
        ------
        Problem
            503, with when to try again.
        """
        if self.stopping:
            raise stopping()
        if not self.ready:
            raise Problem(
                503,
                "starting",
                "the server is loading its models; try again",
                headers={"Retry-After": "2"},
            )

    def refresh(self) -> None:
        """Look for new generations; what cannot be opened stays as it was, and is logged."""
        with self._refreshing:
            for served in self._served.values():
                try:
                    served.refresh()
                except (RdsearchError, OSError) as error:
                    self.metrics.refresh_errors.labels(served.name).inc()
                    _LOGGER.error(
                        "index %s stays at generation %d: %s",
                        served.name,
                        served.now.generation,
                        error,
                    )

    def close(self) -> None:
        """Finish what runs, and release the indexes."""
        self.engine.close()
        for served in self._served.values():
            served.index.close()
