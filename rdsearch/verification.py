"""Check everything in an index.

Opening checks what is cheap; this reads every byte. Identity comes before integrity: a whole and
sound catalog or chain of another index is reported as such, not as damage.

What is found wrong is noted in the index folder (`rdsearch.damage`): the index is not opened any
more until a later check finds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from rdsearch import damage, tiers
from rdsearch.catalog import Catalog
from rdsearch.chain import Chain
from rdsearch.codeccheck import codec_of
from rdsearch.errors import (
    CatalogError,
    ChainError,
    DependencyError,
    IndexDamagedError,
    RdsearchError,
)
from rdsearch.fileentry import FileEntry, locate
from rdsearch.generations import generation_file
from rdsearch.holding import check_quickly, published, swapped
from rdsearch.layout import (
    CATALOG,
    CHAIN,
    SPACE,
    check_files,
    learnt_file,
    load_chain,
    load_codec,
    load_space,
    load_tombstones,
    open_catalog,
    segment_folder,
    tier_file,
)
from rdsearch.manifest import MANIFEST, Manifest, SegmentEntry, TierEntry
from rdsearch.tombstones import Tombstones

__all__ = ["Check", "checks", "verify", "verify_generation"]

# Doubles that are compared together.
_AT_ONCE = 20_000


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
    """Check the published generation of an index, file by file.

    What is wrong is noted in the folder when the last check was taken; where nothing is wrong an
    earlier note goes.

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
        manifest, held = published(path)
    except IndexDamagedError as error:
        # No note: whoever opens the index sees it too.
        yield Check(MANIFEST, error)
        return
    with held or nullcontext():
        yield from _noted(path, manifest)


def verify(path: str | Path) -> None:
    """Check everything; see `checks`.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    RdsearchError
        The one error that was found, or an `IndexDamagedError` that lists all.
    IndexMissingError
        There is no index.
    """
    _raise(Path(path), checks(path))


def verify_generation(path: Path, manifest: Manifest) -> None:
    """As `verify`, of a generation that is held already.

    Parameters
    ----------
    path : Path
    manifest : Manifest
        The published one.
    """
    _raise(path, _noted(path, manifest))


def _raise(path: Path, found: Iterator[Check]) -> None:
    errors = [check.error for check in found if check.error is not None]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise IndexDamagedError("\n".join(map(str, errors)), path=path, errors=errors)


def _noted(path: Path, manifest: Manifest) -> Iterator[Check]:
    """All checks, and the note about them."""
    errors: dict[str, RdsearchError] = {}
    complete = False
    try:
        for check in _checks(path, manifest):
            if check.error is not None:
                errors[check.path] = check.error
            yield check
        complete = True
    finally:
        # Who may not read a file has not found damage, and no hit comes from a copy of a manifest.
        noted = {
            file: error
            for file, error in errors.items()
            if not isinstance(error.__cause__, PermissionError)
            and not file.startswith("generations/")
        }
        if noted:
            damage.note(path, manifest.generation, noted)
        elif complete and not errors:
            damage.clear(path)


def _checks(path: Path, manifest: Manifest) -> Iterator[Check]:
    first = _checked(MANIFEST, partial(_check_manifest, path, manifest))
    yield first
    if first.error is not None:
        return
    for number in _generations(path, manifest.generation):
        copy = str(generation_file(path, number).relative_to(path))
        yield _checked(copy, partial(_check_copy, path, copy, number, manifest))
    content = _contents(path, manifest)
    for file in manifest.all_files():
        read = content.get(file.path, lambda: None)
        yield _checked(file.path, partial(_check_file, path, manifest, file, read))


def _checked(file: str, check: Callable[[], object]) -> Check:
    try:
        check()
    except DependencyError:
        raise
    except RdsearchError as error:
        return Check(file, error)
    return Check(file, None)


def _check_manifest(path: Path, manifest: Manifest) -> None:
    check_files(path, manifest)
    if swapped(path, manifest):
        check_quickly(path, manifest)


def _generations(path: Path, current: int) -> list[int]:
    """Numbers of generations; later ones than the published one are leftovers."""
    names = [file.stem for file in generation_file(path, current).parent.glob("*.json")]
    there = {int(name) for name in names if name.isascii() and name.isdecimal()}
    return sorted(number for number in there | {current} if number <= current)


def _check_copy(path: Path, copy: str, number: int, manifest: Manifest) -> None:
    """Whether `rdsearch gc` and `rollback` can go by the copy of a generation's manifest."""
    found = Manifest.read(path, copy)
    own = found.generation == number and found.chain_hash == manifest.chain_hash
    if not own or (number == manifest.generation and found != manifest):
        raise IndexDamagedError(
            f"{path / copy}: expected a copy of this index's {MANIFEST} of generation {number}, "
            f"found another. Restore it; if {number} is not the published generation, remove it",
            path=path / copy,
        )


def _check_file(
    path: Path, manifest: Manifest, file: FileEntry, content: Callable[[], object]
) -> None:
    """First the bytes, then what they mean."""
    try:
        file.check(path, full=True)
    except IndexDamagedError as error:
        _explain(path, manifest, file.path, error)
    content()


def _contents(path: Path, manifest: Manifest) -> dict[str, Callable[[], object]]:
    """What to read in each file whose bytes are sound."""
    contents: dict[str, Callable[[], object]] = {
        CHAIN: partial(_check_chain, path, manifest),
        SPACE: partial(load_space, path, manifest),
    }
    for segment in manifest.segments:
        folder = f"segments/{segment.name}"
        contents[f"{folder}/{CATALOG}"] = partial(_check_catalog, path, segment)
        for entry in manifest.stored:
            file = f"{folder}/{tier_file(entry.name)}"
            contents[file] = partial(_check_tier, path / file, entry, segment.rows)
    for entry in manifest.stored:
        file = learnt_file(manifest, entry.name)
        contents[file] = partial(load_codec, path, manifest, entry.name, entry.dims)
    if manifest.tombstones is not None:
        contents[manifest.tombstones.path] = partial(_check_tombstones, path, manifest)
    return contents


def _check_chain(path: Path, manifest: Manifest) -> None:
    chain = load_chain(path, manifest)
    expected = {entry.name: entry.dims for entry in manifest.tiers}
    found = {tier: chain.dim(tier) for tier in chain.tiers}
    if found != expected or chain.family != manifest.family:
        raise IndexDamagedError(
            f"{path / CHAIN}: expected tiers {expected} of family {manifest.family}, found "
            f"{found} of {chain.family}. Restore the index",
            path=path / CHAIN,
        )


def _check_catalog(path: Path, segment: SegmentEntry) -> None:
    with open_catalog(path, segment) as opened:
        opened.check()
        if opened.n_accessions != segment.accessions:
            raise IndexDamagedError(
                f"{opened.path}: expected {segment.accessions} accessions, found "
                f"{opened.n_accessions}. Restore the index's own catalog",
                path=opened.path,
            )


def _check_tier(file: Path, entry: TierEntry, n_rows: int) -> None:
    # Mapped: memory does not have to hold the largest tier.
    found = codec_of(tiers.read(file, entry.name, entry.dims, n_rows, mapped=True).codec)
    if found is None or (found.name, found.cells or 1) != (entry.codec, entry.cells or 1):
        raise IndexDamagedError(
            f"{file}: expected codec {entry.codec} with {entry.cells or 1} cells, found {found}. "
            "Restore the file or build again",
            path=file,
        )


def _check_tombstones(path: Path, manifest: Manifest) -> None:
    """Whether what is shown and hidden is what the catalogs lead to."""
    tombstones = load_tombstones(path, manifest)
    catalogs: dict[str, Catalog] = {}
    try:
        for segment in manifest.segments:
            removed = tombstones.removed_in(segment.name)
            catalogs[segment.name] = open_catalog(path, segment, removed)
        for fault in _faults(manifest, tombstones, catalogs):
            file = path / (manifest.tombstones.path if manifest.tombstones else MANIFEST)
            raise IndexDamagedError(f"{file}: {fault}. Restore the index", path=file)
    finally:
        for catalog in catalogs.values():
            catalog.close()


def _faults(
    manifest: Manifest, tombstones: Tombstones, catalogs: dict[str, Catalog]
) -> Iterator[str]:
    double_rows: dict[str, set[int]] = {}
    by_segments: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for (name, row), (head, shown) in tombstones.doubles.items():
        double_rows.setdefault(name, set()).add(row)
        by_segments.setdefault((name, head), []).append((row, shown))
    for segment in manifest.segments:
        name = segment.name
        hidden = set(tombstones.hidden_in(name).tolist())
        doubles = double_rows.get(name, set())
        inhabited = catalogs[name].inhabited(range(segment.rows))
        if not doubles <= hidden:
            yield f"segment {name} shows rows that are doubles of others"
        if inhabited != set(range(segment.rows)) - (hidden - doubles):
            yield f"segment {name} shows rows without proteins, or hides rows with some"
    for (name, head), rows in by_segments.items():
        if np.isin([shown for _, shown in rows], tombstones.hidden_in(head)).any():
            yield f"segment {name} has doubles of hidden rows"
        for start in range(0, len(rows), _AT_ONCE):
            ours, theirs = zip(*rows[start : start + _AT_ONCE], strict=True)
            if catalogs[name].sequences(ours) != catalogs[head].sequences(theirs):
                yield f"segment {name} has doubles of rows with other sequences"


def _explain(path: Path, manifest: Manifest, file: str, damaged: IndexDamagedError) -> None:
    """Raise the better error where a changed file is whole but another index's."""
    try:
        locate(path, file)
    except IndexDamagedError:
        raise damaged from None
    if file == CHAIN:
        try:
            Chain.load(path / CHAIN)
        except ChainError:
            raise damaged from None
        load_chain(path, manifest)
    for segment in manifest.segments:
        if file == f"segments/{segment.name}/{CATALOG}":
            try:
                Catalog(segment_folder(path, segment) / CATALOG).close()
            except CatalogError:
                raise damaged from None
            open_catalog(path, segment).close()
    raise damaged
