"""Check everything in an index.

Opening checks what is cheap; this reads every byte. Identity comes before integrity: a whole and
sound catalog or chain of another index is reported as such, not as damage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rdsearch import tiers
from rdsearch.catalog import Catalog
from rdsearch.chain import Chain
from rdsearch.errors import CatalogError, ChainError, IndexDamagedError, RdsearchError
from rdsearch.layout import (
    CATALOG,
    CHAIN,
    SPACE,
    load_chain,
    open_catalog,
    segment_folder,
    tier_file,
)
from rdsearch.manifest import MANIFEST, Manifest, SegmentEntry
from rdsearch.space import Space

__all__ = ["Check", "checks", "verify"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    Attributes
    ----------
    path : str
        The file, relative to the index.
    error : RdsearchError or None
        What is wrong with it.
    """

    path: str
    error: RdsearchError | None


def checks(path: str | Path) -> Iterator[Check]:
    """Check an index file by file.

    Parameters
    ----------
    path : str or Path

    Yields
    ------
    Check
        The manifest first; when it is wrong, nothing else can be judged and it is the last.

    Raises
    ------
    IndexMissingError
        There is no index.
    """
    path = Path(path)
    try:
        manifest = Manifest.read(path)
    except IndexDamagedError as error:
        yield Check(MANIFEST, error)
        return
    yield Check(MANIFEST, None)
    content = {
        CHAIN: lambda: _discard(load_chain(path, manifest)),
        SPACE: lambda: _discard(Space.load(path / SPACE)),
    }
    for segment in manifest.segments:
        content.update(_segment_checks(path, manifest, segment))
    for file in manifest.all_files():
        try:
            whole: IndexDamagedError | None = None
            try:
                file.check(path, full=True)
            except IndexDamagedError as error:
                whole = error
            if whole is None:
                content[file.path]()
            else:
                _explain(path, manifest, file.path, whole)
        except RdsearchError as error:
            yield Check(file.path, error)
        else:
            yield Check(file.path, None)


def verify(path: str | Path) -> None:
    """Check everything; see `checks`.

    Raises
    ------
    RdsearchError
        The one error that was found, or an `IndexDamagedError` that lists all.
    IndexMissingError
        There is no index.
    """
    errors = [check.error for check in checks(path) if check.error is not None]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise IndexDamagedError("\n".join(map(str, errors)), path=Path(path), errors=errors)


def _segment_checks(
    path: Path, manifest: Manifest, segment: SegmentEntry
) -> dict[str, Callable[[], None]]:
    """What to read in each file of a segment whose bytes are sound."""
    folder = segment_folder(path, segment)
    relative = f"segments/{segment.name}"

    def catalog() -> None:
        with open_catalog(path, segment) as opened:
            opened.check()

    def tier(name: str, dims: int) -> Callable[[], None]:
        return lambda: _discard(tiers.read(folder / tier_file(name), name, dims, segment.rows))

    return {
        f"{relative}/{CATALOG}": catalog,
        **{
            f"{relative}/{tier_file(entry.name)}": tier(entry.name, entry.dims)
            for entry in manifest.tiers
        },
    }


def _discard(_: object) -> None:
    """The check is that it could be read."""


def _explain(path: Path, manifest: Manifest, file: str, damage: IndexDamagedError) -> None:
    """Raise the better error where a changed file is whole but another index's."""
    if not (path / file).is_file():
        raise damage
    if file == CHAIN:
        try:
            Chain.load(path / CHAIN)
        except ChainError:
            raise damage from None
        load_chain(path, manifest)
    for segment in manifest.segments:
        if file == f"segments/{segment.name}/{CATALOG}":
            try:
                Catalog(path / file).close()
            except CatalogError:
                raise damage from None
            open_catalog(path, segment).close()
    raise damage
