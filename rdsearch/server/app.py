"""The application: routes, errors, what happens when it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI

import rdsearch
from rdsearch.server import guard, health, jobs, page, problems, routes, routes_jobs
from rdsearch.server.metrics import Timed
from rdsearch.server.service import Service

__all__ = ["create_app"]

_LOGGER = logging.getLogger("rdsearch.server")


def create_app(service: Service, failed: Callable[[], None] | None = None) -> FastAPI:
    """The API and its page.

    Parameters
    ----------
    service : Service
        Warmed when the application starts, closed when it stops.
    failed : callable, optional
        Called where the models cannot be loaded.

    Returns
    -------
    FastAPI
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.jobs = jobs.Jobs(service)
        tasks = [asyncio.create_task(_warm(service, failed)), asyncio.create_task(_follow(service))]
        _at_hangup(app, service)
        try:
            yield
        finally:
            service.stopping = True
            await service.jobs.close(service.settings.grace)
            for task in tasks:
                task.cancel()
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="rdsearch",
        version=rdsearch.__version__,
        summary="Homologous proteins by protein language models",
        lifespan=lifespan,
        # FastAPI's pages of documentation load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    problems.install(app)
    app.include_router(routes.router)
    app.include_router(routes_jobs.router)
    app.include_router(health.router)
    page.install(app)
    guard.install(app, service.settings)
    # Around the guard, whose refusals count too.
    app.add_middleware(Timed, metrics=service.metrics)
    return app


async def _warm(service: Service, failed: Callable[[], None] | None) -> None:
    try:
        await asyncio.to_thread(service.warm)
    except Exception as error:  # noqa: BLE001 - the server ends, with this as its reason
        _LOGGER.error("the models cannot be loaded: %s", error)
        if failed is not None:
            failed()
        return
    _LOGGER.info("ready: %s", ", ".join(service.names))


async def _follow(service: Service) -> None:
    """Look for new generations now and then."""
    while True:
        await asyncio.sleep(service.settings.refresh)
        if service.ready:
            await asyncio.to_thread(service.refresh)


def _at_hangup(app: FastAPI, service: Service) -> None:
    """SIGHUP: look for new generations and read the keys again, at once."""

    def hung_up() -> None:
        if app.state.keys is not None:
            app.state.keys.reload()
        asyncio.get_running_loop().run_in_executor(None, service.refresh)

    # Elsewhere than in the main thread, and on Windows, there are no such signals.
    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError, AttributeError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)
