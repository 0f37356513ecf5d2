"""Generations of an index: publish the next, list them, go back, remove what none needs.

Every change makes a new generation. Its files are named after it (``segments/000007``,
``tombstones/000007.safetensors``) and never written again, so that a reader keeps what it opened.
Published is what ``manifest.json`` says, which is replaced in one atomic step; each manifest also
stays as ``generations/000007.json``. What a writer that died left behind has a number above the
published generation's, and goes when the next writer comes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import rdsearch
from rdsearch import durable, locks
from rdsearch.errors import IndexDamagedError, IndexMissingError, InputError
from rdsearch.manifest import MANIFEST, Manifest
from rdsearch.writing import named_errors, sweep_beside

__all__ = [
    "FIRST",
    "FOLDERS",
    "Collected",
    "Generation",
    "changing",
    "counted",
    "gc",
    "generation_file",
    "history",
    "label",
    "now",
    "publish",
    "rollback",
    "successor",
]

#: Number of the generation that a build makes.
FIRST = 1

#: Folders whose entries carry the number of the generation that made them.
FOLDERS = ("segments", "tombstones", "codecs", "generations")

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Generation:
    """One state of an index.

    Attributes
    ----------
    number : int
    created : str
        UTC time, ISO 8601.
    operation : str
        What made it.
    rows, accessions : int
        What it shows.
    segments : int
    current : bool
        Whether it is the published one.
    complete : bool
        Whether all its files are there: `rollback` can go to it.
    """

    number: int
    created: str
    operation: str
    rows: int
    accessions: int
    segments: int
    current: bool
    complete: bool


@dataclass(frozen=True, slots=True)
class Collected:
    """What `gc` did.

    Attributes
    ----------
    removed, in_use : tuple of int
        Generations that went, and those that stayed because a reader has them open.
    bytes : int
        Room that was freed.
    """

    removed: tuple[int, ...]
    in_use: tuple[int, ...]
    bytes: int


def label(number: int) -> str:
    """A generation's number as files and folders carry it."""
    return f"{number:06d}"


def counted(count: int, thing: str = "protein") -> str:
    """So many of a thing, in words."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def now() -> str:
    """UTC time, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def generation_file(path: Path, number: int) -> Path:
    """The copy of a generation's manifest."""
    return path / "generations" / f"{label(number)}.json"


def successor(manifest: Manifest, operation: str, **changes: Any) -> Manifest:
    """The manifest of the next generation.

    Parameters
    ----------
    manifest : Manifest
        The published one.
    operation : str
        What is done, for people.
    **changes
        Fields that differ.
    """
    return dataclasses.replace(
        manifest,
        generation=manifest.generation + 1,
        operation=operation,
        created=now(),
        rdsearch=rdsearch.__version__,
        **changes,
    )


def publish(path: Path, manifest: Manifest) -> None:
    """Make a manifest the index's, in one atomic step.

    Everything that it names is on the disk already.

    Parameters
    ----------
    path : Path
        The index folder.
    manifest : Manifest
    """
    content = manifest.to_bytes()
    copy = generation_file(path, manifest.generation)
    copy.parent.mkdir(exist_ok=True)
    durable.replace(copy, content)
    durable.sync_folder(path)
    durable.replace(path / MANIFEST, content)


@contextlib.contextmanager
def changing(path: Path, operation: str) -> Iterator[Manifest]:
    """Be the one writer of an index.

    What an earlier writer left unfinished is removed first, and what this one leaves when it
    fails, after.

    Parameters
    ----------
    path : Path
    operation : str
        Told to others that want to write.

    Yields
    ------
    Manifest
        The published one.

    Raises
    ------
    IndexMissingError, IndexDamagedError
        There is no sound manifest.
    IndexLockedError
        Another process writes.
    IndexWriteError
        Full disk, read-only folder, missing permission; the index is as before.
    """
    Manifest.read(path)
    with named_errors(path), locks.writing(path, operation=operation):
        manifest = Manifest.read(path)
        _sweep(path, manifest)
        sweep_beside(path)
        try:
            yield manifest
        except BaseException:
            with contextlib.suppress(OSError):  # the next writer tries again
                _sweep(path, Manifest.read(path))
            raise


def history(path: str | Path) -> list[Generation]:
    """The generations of an index that are still known, the latest first.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    IndexMissingError, IndexDamagedError
        There is no sound manifest.
    """
    path = Path(path)
    current = Manifest.read(path)
    known = []
    for number in reversed(_numbers(path)):
        manifest = current if number == current.generation else _read(path, number)
        if manifest is None or number > current.generation:
            continue
        known.append(
            Generation(
                number,
                manifest.created,
                manifest.operation,
                manifest.rows,
                manifest.accessions,
                len(manifest.segments),
                number == current.generation,
                _complete(path, manifest),
            )
        )
    return known


def rollback(path: str | Path, to: int) -> Manifest:
    """Make an earlier generation's content the index's again, as a new generation.

    Parameters
    ----------
    path : str or Path
    to : int
        Its number.

    Returns
    -------
    Manifest
        The new generation's.

    Raises
    ------
    InputError
        There is no such generation, or its files are gone.
    """
    path = Path(path)
    with changing(path, f"rollback to {to}") as manifest:
        earlier = _read(path, to) if 1 <= to < manifest.generation else None
        if earlier is None or not _complete(path, earlier):
            there = [one.number for one in history(path) if one.complete and not one.current]
            choice = ", ".join(map(str, there)) or "none"
            raise InputError(
                f"{path}: generation {to} cannot be gone back to: expected one before "
                f"{manifest.generation} whose files are there ({choice}). See: "
                f"rdsearch history {path}"
            )
        again = dataclasses.replace(
            earlier,
            generation=manifest.generation + 1,
            operation=f"rollback to {to}",
            created=now(),
        )
        publish(path, again)
    return again


def gc(path: str | Path, keep: int = 1) -> Collected:
    """Remove the files that no kept generation needs.

    Parameters
    ----------
    path : str or Path
    keep : int, optional
        Keep the latest so many generations; the published one always stays, and so do those that
        a reader has open.

    Returns
    -------
    Collected
    """
    if keep < 1:
        raise InputError(f"at least 1 generation must be kept; found {keep}")
    path = Path(path)
    with changing(path, "gc") as manifest:
        numbers = [number for number in _numbers(path) if number <= manifest.generation]
        kept = {manifest.generation: manifest}
        in_use, removed = [], []
        for number in reversed(numbers[:-keep]):
            if number == manifest.generation:
                continue
            claimed = locks.claim(generation_file(path, number))
            if claimed is None:
                in_use.append(number)
                continue
            with claimed:
                durable.remove(generation_file(path, number))
            removed.append(number)
        for number in {*numbers} - {*removed, manifest.generation}:
            found = _read(path, number)
            if found is None:
                raise IndexDamagedError(
                    f"{generation_file(path, number)}: it cannot be read, so that nobody knows "
                    "which files it needs. Restore it, or remove this file and run gc again",
                    path=generation_file(path, number),
                )
            kept[number] = found
        freed = _remove_unnamed(path, kept.values())
    return Collected(tuple(sorted(removed)), tuple(sorted(in_use)), freed)


def _remove_unnamed(path: Path, kept: Any) -> int:
    """Remove what is in the numbered folders and named by none of these manifests."""
    named = {Path(*Path(file.path).parts[:2]) for manifest in kept for file in manifest.all_files()}
    freed = 0
    for entry in _entries(path):
        if entry.relative_to(path) not in named and entry.parent.name != "generations":
            freed += _size(entry)
            durable.remove_tree(entry)
    return freed


def _sweep(path: Path, manifest: Manifest) -> None:
    """Remove what a writer left that did not come to publish."""
    for entry in _entries(path):
        number = entry.name.partition(".")[0]
        if int(number) > manifest.generation:
            _LOGGER.info("removing what an unfinished change left: %s", entry)
            durable.remove_tree(entry)
    places = (path, path / "generations", path / "tombstones")
    for temporary in (one for place in places for one in place.glob(".*.new")):
        durable.remove(temporary)


def _entries(path: Path) -> Iterator[Path]:
    """Files and folders that carry a generation's number."""
    for folder in FOLDERS:
        if (path / folder).is_dir():
            for entry in sorted((path / folder).iterdir()):
                if entry.name.partition(".")[0].isdecimal():
                    yield entry


def _numbers(path: Path) -> list[int]:
    """Generations whose manifests are there."""
    return sorted(
        int(entry.stem)
        for entry in _entries(path)
        if entry.parent.name == "generations" and entry.suffix == ".json"
    )


def _read(path: Path, number: int) -> Manifest | None:
    """The manifest of an earlier generation; None where it is not there or not sound."""
    file = generation_file(path, number)
    try:
        found = Manifest.read(path, str(file.relative_to(path)))
    except (IndexMissingError, IndexDamagedError) as error:
        _LOGGER.warning("generation %d is left out: %s", number, error)
        return None
    return found


def _complete(path: Path, manifest: Manifest) -> bool:
    try:
        for file in manifest.all_files():
            file.check(path)
    except IndexDamagedError as error:
        _LOGGER.debug("generation %d: %s", manifest.generation, error)
        return False
    return True


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
