"""Change an index: add proteins, remove them, update them.

Every change writes new files beside the old ones and publishes them in one atomic step
(`rdsearch.generations`): a crash leaves the index before or the one after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdsearch.draft import drafting
from rdsearch.errors import InputError, few
from rdsearch.generations import counted
from rdsearch.headers import parse_header
from rdsearch.manifest import Manifest
from rdsearch.metadata import MetadataReport, read_keys
from rdsearch.newcomers import Pairs, Source, absent, embedded, forget, indexed, numbered, present
from rdsearch.opening import open_generation
from rdsearch.progress import Progress
from rdsearch.rowsources import IndexRows, StoreRows

if TYPE_CHECKING:
    from rdsearch.catalogs import Catalogs

__all__ = ["Change", "add", "remove", "update"]

_ADDING, _UPDATING = "adding", "updating"


@dataclass(frozen=True, slots=True)
class Change:
    """What a change did.

    Attributes
    ----------
    path : Path
    manifest : Manifest
        The published generation's; the one before where nothing was to do.
    added, removed, skipped : int
        Accessions that came, that went, and that were there already or not at all.
    metadata : tuple of MetadataReport
        One for each joined table.
    """

    path: Path
    manifest: Manifest
    added: int = 0
    removed: int = 0
    skipped: int = 0
    metadata: tuple[MetadataReport, ...] = ()


def add(
    path: str | Path,
    source: Source,
    *,
    metadata: Sequence[str | Path] = (),
    progress: Progress | None = None,
    **embedding: Any,
) -> Change:
    """Add proteins to an index, as a new segment.

    An accession that is there with the same sequence is skipped. Stopped while it embeds, the
    same call goes on where it was.

    Parameters
    ----------
    path : str or Path
        The index.
    source : path, sequence of paths, or Store
        FASTA (``"-"``: standard input), or a store made with the index's chain, or its folder.
    metadata : sequence of path, optional
        Tables to join; a column that the index has keeps its type.
    progress : Progress, optional
    **embedding
        `weights`, `device`, `dtype`, `tokens_per_batch`, `stream_layers`.

    Returns
    -------
    Change

    Raises
    ------
    InputError
        An accession is there with another sequence.
    ChainMismatchError, WeightsError
        The vectors were made otherwise than the index's.
    FastaError, MetadataError, StoreError
    IndexLockedError, IndexWriteError
    """
    path, skipped = Path(path), _Counter()
    with _reading(path) as (manifest, catalog):
        store = embedded(
            path,
            manifest,
            source,
            _ADDING,
            lambda pairs: absent(skipped.counted(pairs), catalog),
            progress,
            **embedding,
        )
    change = Change(path, manifest, skipped=skipped.seen)
    if store is not None:
        with drafting(path, "add") as draft:
            pairs = absent(numbered(store), draft.catalog)
            first = next(pairs, None)
            change = Change(path, draft.manifest, skipped=max(skipped.seen, store.n_accessions))
            if first is not None:
                content = draft.append(
                    chain([first], pairs),
                    lambda rows: StoreRows(store, rows),
                    metadata=metadata,
                    progress=progress,
                )
                change = Change(
                    path,
                    draft.publish(f"add {counted(content.accessions)}"),
                    added=content.accessions,
                    skipped=max(skipped.seen, store.n_accessions) - content.accessions,
                    metadata=content.reports,
                )
    forget(path, _ADDING)
    return change


def remove(path: str | Path, ids: Iterable[str] | None = None, where: str | None = None) -> Change:
    """Remove proteins from an index: they are not found any more; `compact` frees their room.

    Parameters
    ----------
    path : str or Path
    ids : iterable of str, optional
        Accessions, or ids as they stand in FASTA headers; those that the index lacks are counted.
    where : str, optional
        A SQL expression over the catalog's columns, as `rdsearch search --where` takes it.

    Returns
    -------
    Change

    Raises
    ------
    InputError
        Neither or both are given, none of the accessions is in the index, the expression cannot
        be used, or nothing would be left.
    IndexLockedError, IndexWriteError
    """
    path = Path(path)
    if (ids is None) == (where is None):
        raise InputError("say what to remove: accessions, or an expression, and not both")
    if isinstance(ids, str):
        raise InputError(f"ids are accessions, one string each; found the one string {ids!r}")
    with drafting(path, "remove") as draft:
        if where is not None:
            wanted = draft.catalog.accessions_where(where)
        else:
            wanted = list(dict.fromkeys(parse_header(name)["accession"] for name in ids or ()))
        found = draft.catalog.locate(wanted)
        if ids is not None and not found:
            raise InputError(
                f"none of {len(wanted):,} accessions is in the index ({few(wanted)}); nothing was "
                "removed"
            )
        if len(found) == draft.catalog.n_accessions:
            raise InputError(
                f"this would remove all {len(found):,} proteins of {path}: expected some to be "
                "left. Delete the folder, or build it again; nothing was removed"
            )
        if not found:
            return Change(path, draft.manifest)
        count = draft.remove(found)
        published = draft.publish(f"remove {counted(count)}")
    return Change(path, published, removed=count, skipped=len(wanted) - count)


def update(
    path: str | Path,
    source: Source | None = None,
    *,
    metadata: Sequence[str | Path] = (),
    progress: Progress | None = None,
    **embedding: Any,
) -> Change:
    """Replace sequences or metadata of proteins that are in an index.

    Columns that tables brought stay, but where a new table has a value. A new header replaces all
    that the old one said; a table's column still comes before the header's.

    Parameters
    ----------
    path : str or Path
    source : path, sequence of paths, or Store, optional
        New sequences and headers. Without it the sequences stay, and the proteins of the tables
        are updated; no model runs.
    metadata : sequence of path, optional
        Tables to join.
    progress : Progress, optional
    **embedding
        As in `add`.

    Returns
    -------
    Change

    Raises
    ------
    InputError
        An accession is not in the index, or nothing is given.
    ChainMismatchError, WeightsError, FastaError, MetadataError, StoreError
    IndexLockedError, IndexWriteError
    """
    path = Path(path)
    if source is None:
        if not metadata:
            raise InputError("say what to update: give proteins, or tables of metadata")
        return _update_metadata(path, metadata, progress)
    with _reading(path) as (manifest, catalog):
        store = embedded(
            path,
            manifest,
            source,
            _UPDATING,
            lambda pairs: present(pairs, catalog),
            progress,
            **embedding,
        )
    if store is None:
        raise InputError(f"{source}: expected proteins to update, found none")
    with drafting(path, "update") as draft:
        for _ in present(numbered(store), draft.catalog):
            pass  # every accession is there
        content = draft.replace(
            store.accessions,
            numbered(store),
            lambda rows: StoreRows(store, rows),
            metadata=metadata,
            progress=progress,
        )
        published = draft.publish(f"update {counted(content.accessions)}")
    forget(path, _UPDATING)
    count = content.accessions
    return Change(path, published, added=count, removed=count, metadata=content.reports)


def _update_metadata(
    path: Path, metadata: Sequence[str | Path], progress: Progress | None
) -> Change:
    """New columns for the proteins of some tables; their vectors are copied."""
    named = {
        str(parse_header(key)["accession"]) for table in metadata for key in read_keys(Path(table))
    }
    with drafting(path, "update") as draft:
        rows = draft.catalog.rows_of(sorted(named))
        if not rows:
            raise InputError(
                f"no line of {', '.join(map(str, metadata))} has the accession of a protein in "
                f"{path} ({few(sorted(named))}); nothing was changed"
            )
        before = draft.searcher()
        proteins = [
            (row, record)
            for row, record in indexed(draft.catalog, sorted(set(rows.values())))
            if record.accession in rows
        ]
        content = draft.replace(
            rows,
            iter(proteins),
            lambda chosen: IndexRows(before, chosen),
            metadata=metadata,
            progress=progress,
        )
        published = draft.publish(f"update metadata of {counted(content.accessions)}")
    return Change(
        path,
        published,
        added=content.accessions,
        removed=content.accessions,
        skipped=len(named) - content.accessions,
        metadata=content.reports,
    )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[tuple[Manifest, Catalogs]]:
    """The published generation, for what needs no lock."""
    opened = open_generation(path)
    with opened.catalogs() as catalog:
        try:
            yield opened.manifest, catalog
        finally:
            if opened.hold is not None:
                opened.hold.close()


class _Counter:
    """Counts the proteins that pass."""

    def __init__(self) -> None:
        self.seen = 0

    def counted(self, pairs: Pairs) -> Pairs:
        """The same proteins."""
        self.seen = 0
        for pair in pairs:
            self.seen += 1
            yield pair
