"""The process: a socket, uvicorn, signals."""

from __future__ import annotations

import logging
import math
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from rdsearch.errors import InputError
from rdsearch.server.app import create_app
from rdsearch.server.service import Service

__all__ = ["LOOPBACK", "listen", "run"]

#: Hosts that only this machine reaches.
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_KEEP_ALIVE = 15
_BACKLOG = 1024
# Seconds; Python's own 5 ms cost a sixth of the throughput at 64 clients.
_TURN = 0.0002


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Parameters
    ----------
    host : str
    port : int
        0: any that is free.

    Raises
    ------
    InputError
        The address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"the server cannot listen at {host}:{port}: {getattr(error, 'strerror', error)}. "
            "Choose another --port (0: any that is free) or --host"
        ) from error


class _Server(uvicorn.Server):
    """uvicorn, that tells the service at once when it is to stop."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self.failed = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to stop: no new work; Ctrl-C a second time: at once.

        uvicorn's own would raise the signal again at the end, and this is no failure.
        """
        self._service.stopping = True
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
            # What it breaks off is told with a traceback otherwise.
            logging.getLogger("uvicorn.error").disabled = True
        self.should_exit = True

    def fail(self) -> None:
        """Stop, and remember why."""
        self.failed = True
        self.should_exit = True


def run(service: Service, sock: socket.socket, *, started: Callable[[], None]) -> bool:
    """Serve until a signal; requests that run are answered.

    Parameters
    ----------
    service : Service
    sock : socket
        From `listen`.
    started : callable
        Called before the first request is taken.

    Returns
    -------
    bool
        False where the models could not be loaded, or requests were broken off.
    """
    # Three threads take turns here, and each waits so long for the one that computes in Python.
    sys.setswitchinterval(_TURN)
    server: _Server | None = None

    def failed() -> None:
        if server is not None:
            server.fail()

    config = uvicorn.Config(
        create_app(service, failed),
        # httptools takes headers of any size into memory, h11 64 KiB.
        http="h11",
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(service.settings.grace),
    )
    server = _Server(config, service)
    started()
    server.run(sockets=[sock])
    return not (server.failed or server.force_exit)
