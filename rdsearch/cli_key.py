"""The keys of a server's clients: make, list and remove them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click

from rdsearch import durable, locks
from rdsearch.errors import InputError
from rdsearch.server.keys import Key, check_name, new_key, read_keys

__all__ = ["key"]

_FILE = click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="KEYS",
    help="File of hashed keys, as `rdsearch serve --api-key-file` reads it.",
)
_MODE = 0o600
# Of a file that is there: its group may go on reading it.
_KEPT = 0o640
_HEAD = "# Keys of rdsearch serve: name:SHA-256 of the key:when it was made\n"
_RELOAD = "a running server reads the file again at SIGHUP"


@click.group()
def key() -> None:
    """Make, list and remove the keys of a server's clients.

    \b
    Example:
      rdsearch key new lab --file keys
      rdsearch serve indexes/mine --api-key-file keys
    """


@key.command()
@click.argument("name")
@_FILE
def new(name: str, path: Path) -> None:
    """Make a key for the client NAME and print it.

    It is printed this once: the file has its hash alone.

    \b
    Example:
      rdsearch key new lab --file keys.txt
    """
    check_name(name)
    with locks.writing(_folder(path), "folder of keys", operation="key new"):
        lines = _lines(path)
        if any(one.name == name for one in _keys(path)):
            raise InputError(
                f"{path}: there is a key {name!r} already. Take another name, or remove it first: "
                f"rdsearch key remove {name} --file {path}",
                path=path,
            )
        text, made = new_key(name)
        _write(path, [*lines, made.line + "\n"])
    click.echo(text)
    click.echo(f"rdsearch: {path}: added {name}; {_RELOAD}", err=True)


@key.command("list")
@_FILE
def list_(path: Path) -> None:
    """Names of the clients that have a key, with the day it was made.

    \b
    Example:
      rdsearch key list --file keys.txt
    """
    for one in read_keys(path):
        click.echo("\t".join(part for part in (one.name, one.note) if part))


@key.command()
@click.argument("name")
@_FILE
def remove(name: str, path: Path) -> None:
    """Remove the key of the client NAME; a server reads the file again at SIGHUP.

    \b
    Example:
      rdsearch key remove lab --file keys.txt
    """
    with locks.writing(_folder(path), "folder of keys", operation="key remove"):
        if all(one.name != name for one in read_keys(path)):
            raise InputError(
                f"{path}: there is no key {name[:80]!r}. "
                f"For the names that are there: rdsearch key list --file {path}",
                path=path,
            )
        _write(path, [line for line in _lines(path) if line.partition(":")[0].strip() != name])
    click.echo(f"rdsearch: {path}: removed {name}; {_RELOAD}", err=True)


def _folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent


def _keys(path: Path) -> list[Key]:
    return read_keys(path) if path.exists() else []


def _lines(path: Path) -> list[str]:
    """The file's lines, comments too, each with its end; it was read as keys before."""
    if not path.exists():
        return [_HEAD]
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return [f"{line}\n" for line in text.removesuffix("\n").split("\n")]


def _write(path: Path, lines: list[str]) -> None:
    """Replace the file in one step; others can read it at no moment.

    Where it is there, its owner and group stay: a server that runs as another user reads it.
    """
    path = path.resolve()
    temporary = durable.temporary_file(path)
    temporary.unlink(missing_ok=True)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        with os.fdopen(handle, "wb") as file:
            if path.exists():
                was = path.stat()
                if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()):
                    with contextlib.suppress(PermissionError):  # only root can give it away
                        os.fchown(handle, was.st_uid, was.st_gid)
                os.fchmod(handle, was.st_mode & _KEPT | _MODE)
            file.write("".join(lines).encode("utf-8", "surrogateescape"))
        durable.sync_file(temporary)
        durable.publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
