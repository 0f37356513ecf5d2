"""Proteins on their way into an index that exists: which of them, and their vectors."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdsearch.errors import ChainMismatchError, InputError, StoreMismatchError, WeightsError, few
from rdsearch.fasta import Record
from rdsearch.layout import load_chain
from rdsearch.manifest import Manifest
from rdsearch.progress import Progress
from rdsearch.proteins import Fasta, read_proteins
from rdsearch.queries import QueryEmbedder
from rdsearch.store import Store

if TYPE_CHECKING:
    from rdsearch.catalogs import Catalogs

__all__ = [
    "Pairs",
    "Source",
    "absent",
    "check_alike",
    "embedded",
    "forget",
    "indexed",
    "numbered",
    "present",
]

_LOGGER = logging.getLogger(__name__)
_AT_ONCE = 4096

#: Proteins with the number of their row in the place that they come from.
Pairs = Iterator[tuple[int, Record]]

#: FASTA files, or proteins that are embedded already.
Source = Fasta | Store


def absent(pairs: Pairs, catalog: Catalogs) -> Pairs:
    """Proteins whose accession is not in the index.

    Raises
    ------
    InputError
        An accession is there with another sequence.
    """
    while batch := list(islice(pairs, _AT_ONCE)):
        rows = catalog.rows_of(record.accession for _, record in batch)
        there = sorted(set(rows.values()))
        sequences = dict(zip(there, catalog.sequences(there), strict=True))
        for row, record in batch:
            at = rows.get(record.accession)
            if at is None:
                yield row, record
            elif sequences[at] != record.sequence:
                raise InputError(
                    f"accession {record.accession} is in the index with another sequence. Replace "
                    "it with rdsearch update, or give it another accession; nothing was added",
                    accession=record.accession,
                )


def present(pairs: Pairs, catalog: Catalogs) -> Pairs:
    """Proteins, all of whose accessions must be in the index.

    Raises
    ------
    InputError
        Accessions are not there.
    """
    while batch := list(islice(pairs, _AT_ONCE)):
        rows = catalog.rows_of(record.accession for _, record in batch)
        unknown = [record.accession for _, record in batch if record.accession not in rows]
        if unknown:
            raise InputError(
                f"not in the index, so that there is nothing to update: {few(unknown)}. Add them "
                "with rdsearch add; nothing was changed",
                unknown=unknown,
            )
        yield from batch


def numbered(store: Store) -> Pairs:
    """The proteins of a store with their rows."""
    return zip(store.accession_rows.tolist(), store.records(), strict=True)


def indexed(catalog: Catalogs, rows: Sequence[int] | None = None) -> Pairs:
    """The proteins of an index with their rows, in the order of these."""
    wanted = range(catalog.n_rows) if rows is None else rows
    for start in range(0, len(wanted), _AT_ONCE):
        records = list(catalog.records(wanted[start : start + _AT_ONCE]))
        at = catalog.rows_of(record.accession for record in records)
        yield from ((at[record.accession], record) for record in records)


def embedded(
    path: Path,
    manifest: Manifest,
    source: Source,
    purpose: str,
    choose: Callable[[Pairs], Pairs],
    progress: Progress | None,
    **embedding: Any,
) -> Store | None:
    """Vectors of new proteins, made as the index's were.

    FASTA is embedded into a hidden store beside the index; the same call goes on with one that
    was not finished. `forget` removes it.

    Parameters
    ----------
    path : Path
        The index.
    manifest : Manifest
    source : Source
    purpose : str
        Part of the hidden folder's name.
    choose : callable
        Picks the proteins that are wanted.
    progress : Progress or None
    **embedding
        Options of `rdsearch.embed.Embedder`.

    Returns
    -------
    Store or None
        None where no protein is wanted.

    Raises
    ------
    ChainMismatchError, WeightsError
        A store that was made otherwise than the index.
    """
    from rdsearch.storewriter import write_store

    own = load_chain(path, manifest)
    if isinstance(source, str | Path) and Path(source).is_dir():
        source = Store.open(Path(source))
    if isinstance(source, Store):
        store = source.applied(own)
        check_alike(path, manifest, store.path, store.chain_hash, store.signature)
        return store
    # Standard input can be read only once.
    records = list(read_proteins(source)) if source == "-" else None
    folder = _hidden(path, purpose)
    embedder = QueryEmbedder(path, manifest, own, **embedding).embedder()

    def made() -> Store | None:
        again = read_proteins(source) if records is None else records
        wanted = (record for _, record in choose((-1, record) for record in again))
        first = next(wanted, None)
        if first is None:
            return None
        return write_store(folder, chain([first], wanted), embedder, own, progress=progress)

    try:
        return made()
    except StoreMismatchError:
        _LOGGER.info("unfinished work on other input or options is dropped: %s", folder)
        shutil.rmtree(folder)
        return made()


def forget(path: Path, purpose: str) -> None:
    """Remove the hidden store of new proteins."""
    shutil.rmtree(_hidden(path, purpose), ignore_errors=True)


def check_alike(
    path: Path, manifest: Manifest, other: Path, chain_hash: str | None, made: Mapping[str, Any]
) -> None:
    """Refuse vectors that were made otherwise than those of an index.

    Parameters
    ----------
    path : Path
        The index.
    manifest : Manifest
    other : Path
        The store or index that has the vectors.
    chain_hash : str or None
    made : mapping
        The options that they were embedded with.

    Raises
    ------
    ChainMismatchError
        Another chain.
    WeightsError
        Other weights, or sequences cut in another way.
    """
    if chain_hash != manifest.chain_hash:
        raise ChainMismatchError(
            f"{other}: its vectors were made with chain {(chain_hash or 'none')[:12]}, index "
            f"{path} with chain {manifest.chain_hash[:12]}. Embed again with the index's chain",
            expected=manifest.chain_hash,
            found=chain_hash,
        )
    for name, value in manifest.embedding.items():
        decides = name in ("window", "overlap") or name.startswith("weights ")
        if decides and made.get(name, value) != value:
            raise WeightsError(
                f"{other}: its vectors were made with {name} {made[name]}, those of index {path} "
                f"with {value}. Embed again as the index was",
                expected=value,
                found=made[name],
            )


def _hidden(path: Path, purpose: str) -> Path:
    return path.parent / f".{path.name}.{purpose}"
