"""The serve command."""

from __future__ import annotations

import dataclasses
import socket
import sys
from pathlib import Path
from typing import Any

import click

from rdsearch.cli_options import EMBEDDING, say, together, working
from rdsearch.errors import DependencyError
from rdsearch.server.settings import Limits, Settings

__all__ = ["serve"]

_DEFAULTS = Settings()

#: Limits that can be set: those of `rdsearch.server.settings.Limits`, by name.
_LIMITS = together(
    click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="NAME=NUMBER",
        help="Change a limit of requests, for example sequences=500; GET /v1/limits lists them.",
    )
)


def _setting(name: str, kind: Any, text: str) -> Any:
    """An option that is a field of `Settings`, with the default that stands there."""
    default = getattr(_DEFAULTS, name)
    shown = default if not isinstance(default, float) else f"{default:g}"
    return click.option(f"--{name.replace('_', '-')}", type=kind, help=f"{text} [default: {shown}]")


_BATCHING = together(
    _setting("batch_sequences", click.IntRange(1), "Sequences of one model call at most."),
    _setting("batch_residues", click.IntRange(1), "Residues of one model call at most."),
    _setting("batch_wait", float, "Seconds that a batch waits for company."),
    _setting(
        "queue_sequences", click.IntRange(1), "Sequences that may wait; more are answered 429."
    ),
    _setting("deadline", float, "Seconds that a request may take."),
    _setting("grace", float, "Seconds that what runs has at the end."),
    _setting("refresh", float, "Seconds between looks for new generations."),
    _setting("cached_vectors", click.IntRange(0), "Embeddings kept for sequences that come again."),
    click.option(
        "--job-folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where results of jobs are kept. [default: a temporary folder]",
    ),
    _setting("job_seconds", float, "Seconds that results of jobs are kept."),
)

_EDGE = together(
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at."),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8000,
        show_default=True,
        help="0: any that is free.",
    ),
    click.option(
        "--host-name",
        "hosts",
        multiple=True,
        metavar="NAME",
        help="Answer to this name only; can be given again. [default: where only this machine "
        "reaches the server its own names, else any]",
    ),
    click.option(
        "--api-key-file",
        "api_keys",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Ask for a key; rdsearch key new makes one.",
    ),
    click.option(
        "--cors-origin",
        "cors_origins",
        multiple=True,
        metavar="ORIGIN",
        help="Let web pages of this origin ask; can be given again. [default: none]",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["auto", "json", "text"]),
        default="auto",
        show_default=True,
        help="auto: text on a terminal, else JSON lines.",
    ),
)


@click.command()
@click.argument("indexes", nargs=-1, required=True, metavar="INDEX…")
@_EDGE
@_BATCHING
@_LIMITS
@click.option("--in-memory", is_flag=True, help="Read the tiers into memory.")
@EMBEDDING
@click.option("--threads", type=click.IntRange(1), help="CPU threads. [default: all]")
def serve(
    indexes: tuple[str, ...],
    host: str,
    port: int,
    hosts: tuple[str, ...],
    log_format: str,
    limits: tuple[str, ...],
    threads: int | None,
    in_memory: bool,
    **options: Any,
) -> None:
    """Serve each INDEX over HTTP: a page at /, the API under /v1.

    INDEX is a folder, or NAME=FOLDER; the first is the default. SIGTERM and Ctrl-C end the server
    when what runs is answered; SIGHUP looks for new generations and reads the keys again.

    \b
    Examples:
      rdsearch serve indexes/mine
      rdsearch serve swissprot=indexes/a lab=indexes/b --host 0.0.0.0 --api-key-file keys.txt
    """
    try:
        from rdsearch.server import logs, run, service
    except ImportError as error:
        raise DependencyError(
            f"the server needs {error.name}, which is not installed: pip install 'rdsearch[server]'"
        ) from error

    chosen = {field.name for field in dataclasses.fields(Settings)}
    given = {name: options.pop(name) for name in sorted(options.keys() & chosen)}
    settings = Settings(
        limits=Limits(**_numbers(limits, [field.name for field in dataclasses.fields(Limits)])),
        hosts=hosts or (_own_names() if host in run.LOOPBACK else ()),
        **{name: value for name, value in given.items() if value is not None},
    )
    paths = service.named(indexes)
    sock = run.listen(host, port)
    with sock, working(threads, quiet=False):
        opened = service.Service(paths, settings, in_memory=in_memory, **options)
        address = f"[{host}]" if ":" in host else host
        names, at = ", ".join(opened.names), f"http://{address}:{sock.getsockname()[1]}"

        def started() -> None:
            say(f"rdsearch: serving {names} at {at}")
            logs.install(sys.stderr, _is_json(log_format))

        done = run.run(opened, sock, started=started)
    if not done:
        click.get_current_context().exit(1)


def _is_json(log_format: str) -> bool:
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())


def _own_names() -> tuple[str, ...]:
    return ("127.0.0.1", "localhost", "::1", socket.gethostname())


def _numbers(given: tuple[str, ...], names: list[str]) -> dict[str, Any]:
    """``sequences=500`` as arguments of `Limits`."""
    found: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in names:
            raise click.BadParameter(
                f"there is no limit {name!r}; there are {', '.join(names)}", param_hint="--limit"
            )
        try:
            found[name] = float(value) if name.endswith("seconds") else int(value)
        except ValueError:
            raise click.BadParameter(
                f"expected {name}=NUMBER, found {text!r}", param_hint="--limit"
            ) from None
    return found
