"""Figures for Prometheus."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rdsearch.server.service import Service

__all__ = ["CONTENT_TYPE", "Metrics", "Timed"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "rdsearch_requests", "Requests by route and status", ("route", "status"), **own
        )
        self.seconds = Histogram(
            "rdsearch_request_seconds", "Time to the whole answer", ("route",), buckets=_SECONDS,
            **own,
        )  # fmt: skip
        self.stage_seconds = Histogram(
            "rdsearch_batch_seconds", "Time of a batch", ("stage",), buckets=_SECONDS, **own
        )
        self.batch = Histogram(
            "rdsearch_batch_sequences", "Sequences of a batch", buckets=_SIZES, **own
        )
        self.sequences = Counter("rdsearch_sequences", "Sequences answered", **own)
        self.cached = Counter("rdsearch_cached_vectors", "Embeddings that were at hand", **own)
        self.refused = Counter("rdsearch_refused", "Requests that the queue had no room for", **own)
        self.waiting = Gauge("rdsearch_waiting_sequences", "Sequences that wait", **own)
        self.jobs = Gauge("rdsearch_jobs", "Jobs by state", ("state",), **own)
        self.generation = Gauge("rdsearch_generation", "Generation of an index", ("index",), **own)
        self.rows = Gauge("rdsearch_rows", "Rows of an index", ("index",), **own)
        self.refresh_errors = Counter(
            "rdsearch_refresh_errors", "New generations that could not be opened", ("index",), **own
        )

    def text(self, service: Service) -> bytes:
        """All figures in Prometheus' text format."""
        for name in service.names:
            now = service.served(name).now
            self.generation.labels(name).set(now.generation)
            self.rows.labels(name).set(now.n_rows)
        self.waiting.set(service.engine.waiting)
        for state, number in service.jobs.counts().items():
            self.jobs.labels(state).set(number)
        return bytes(generate_latest(self.registry))


class Timed:
    """Counts requests by the route that took them, not by paths, which are without number."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
