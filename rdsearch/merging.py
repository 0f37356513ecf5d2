"""Merge: the segments of one index into one, or two indexes into a third."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

import rdsearch
from rdsearch import builder, durable
from rdsearch.builder import check_destination, chosen_files, save_learnt
from rdsearch.codecs import Codec, learn_in_space
from rdsearch.draft import Origin, learnt_codec
from rdsearch.errors import ChainMismatchError, InputError
from rdsearch.fileentry import FileEntry
from rdsearch.generations import FIRST, changing, counted, label, now, publish, successor
from rdsearch.index import Index
from rdsearch.layout import CHAIN, SPACE, codec_file, learnt_file
from rdsearch.manifest import SCAN, Manifest, SegmentEntry, TierEntry
from rdsearch.newcomers import Pairs, absent, check_alike, indexed
from rdsearch.progress import Progress
from rdsearch.rowsources import Chained, IndexRows, copied
from rdsearch.segmentwriter import SegmentWriter, file_entries

__all__ = ["compact", "merge"]

_SEED = 0


def compact(path: str | Path, *, progress: Progress | None = None) -> Manifest:
    """Write the segments of an index anew as one, without what was removed.

    Vectors are copied; where the recipe says another codec for so many rows, it is learnt from
    the last tier. The files before stay until `rdsearch gc`.

    Parameters
    ----------
    path : str or Path
    progress : Progress, optional

    Returns
    -------
    Manifest
        The published one; that before where there was nothing to do.

    Raises
    ------
    IndexLockedError, IndexWriteError
    """
    path = Path(path)
    with changing(path, "compact") as manifest, Index(path) as index:
        files = _files(manifest, index.n_rows)
        same = files == manifest.stored
        if len(manifest.segments) == 1 and manifest.tombstones is None and same:
            return manifest
        written, codecs = _write(
            path, manifest.generation + 1, [index], [indexed(index.catalog)], files, progress
        )
        compacted = successor(
            manifest,
            f"compact {counted(len(manifest.segments), 'segment')}",
            **_described(manifest, files, written.rows, same=same),
            segments=(written,),
            tombstones=None,
            files=(*(file for file in manifest.files if "/" not in file.path), *codecs),
        )
        publish(path, compacted)
    return compacted


def merge(
    first: str | Path,
    second: str | Path,
    output: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Unite two indexes of one chain and one space in a third.

    An accession that both have with one sequence is taken from the first.

    Parameters
    ----------
    first, second : str or Path
    output : str or Path
        The new index.
    overwrite : bool, optional
        Replace an index that is there.
    progress : Progress, optional

    Returns
    -------
    Manifest
        The new index's.

    Raises
    ------
    ChainMismatchError, WeightsError
        Different chains or spaces; different weights.
    InputError
        An accession has different sequences in the two.
    IndexExistsError
        There is something at `output`.
    IndexLockedError, IndexWriteError
        Another process makes the same index, or the disk refuses it.
    """
    output = Path(output)
    with Index(Path(first)) as a, Index(Path(second)) as b:
        for source in (a, b):
            if output.exists() and output.samefile(source.path):
                raise InputError(f"{output} is one of the two indexes: choose another path with -o")
        check_destination(output, overwrite=overwrite)
        _check_alike(a, b)
        with builder.workplace(output) as folder:
            a.chain.save(folder / CHAIN)
            a.space.save(folder / SPACE)
            files = _files(a.manifest, a.n_rows + b.n_rows)
            pairs = [indexed(a.catalog), absent(indexed(b.catalog), a.catalog)]
            written, codecs = _write(folder, FIRST, [a, b], pairs, files, progress)
            durable.sync_tree(folder)
            manifest = dataclasses.replace(
                a.manifest,
                generation=FIRST,
                operation=f"merge {a.path.name} and {b.path.name}",
                created=now(),
                rdsearch=rdsearch.__version__,
                **_described(a.manifest, files, written.rows, same=False),
                segments=(written,),
                tombstones=None,
                files=(*file_entries(folder, (CHAIN, SPACE)), *codecs),
            )
            publish(folder, manifest)
            builder.settle(folder, output)
    return manifest


def _write(
    root: Path,
    generation: int,
    indexes: Sequence[Index],
    proteins: Sequence[Pairs],
    entries: Sequence[TierEntry],
    progress: Progress | None,
) -> tuple[SegmentEntry, tuple[FileEntry, ...]]:
    """Write one segment of the proteins of indexes, and keep the codecs that it uses.

    The codecs are those of the first index where `entries` says the same as its manifest.
    """
    first = indexes[0]
    starts = np.cumsum([0, *(index.n_rows for index in indexes)])
    origin = Origin(
        (start + row, record)
        for start, pairs in zip(starts.tolist(), proteins, strict=False)
        for row, record in pairs
    )
    writer = SegmentWriter(root, label(generation), first.manifest.chain_hash)
    content = writer.catalog(origin.records(), carried=_columns(indexes), seen=origin.seen)
    parts = []
    for index, start, stop in zip(indexes, starts[:-1], starts[1:], strict=True):
        inside = origin.rows[(origin.rows >= start) & (origin.rows < stop)] - start
        parts.append(IndexRows(index, inside, _relearnt(first, index, entries)))
    vectors = Chained(parts)
    for entry in entries:
        if entry in first.manifest.stored:
            learnt = learnt_codec(first.path, first.manifest, entry.name, entry.dims)
        else:
            learnt = learn_in_space(Codec(entry.codec, entry.cells), _training(vectors, entry))
        save_learnt(root, generation, entry.name, learnt)
        writer.tier(entry.name, first.space.prefix(entry.dims), learnt, vectors, progress)
    codecs = [codec_file(generation, entry.name) for entry in entries]
    durable.sync_tree(root / "codecs")
    written = writer.finish(content, [entry.name for entry in entries])
    return written, file_entries(root, codecs)


def _columns(indexes: Sequence[Index]) -> pyarrow.Table | None:
    """User columns of all proteins; of an accession that several have the first index's."""
    tables: list[pyarrow.Table] = []
    for place, index in enumerate(indexes):
        table = index.catalog.joined()
        if table is None:
            continue
        names = table["accession"].to_pylist()
        there: set[str] = set()
        for before in indexes[:place]:
            there.update(before.catalog.rows_of(names))
        if there:
            table = table.filter(pyarrow.array([name not in there for name in names]))
        tables.append(table)
    return pyarrow.concat_tables(tables, promote_options="default") if tables else None


def _relearnt(first: Index, index: Index, entries: Sequence[TierEntry]) -> set[str]:
    """Tiers whose new codec is not the one that an index has."""
    return {
        entry.name
        for entry in entries
        if entry not in first.manifest.stored
        or _codec_checksum(first, entry) != _codec_checksum(index, entry)
    }


def _codec_checksum(index: Index, entry: TierEntry) -> str | None:
    if entry.name not in {one.name for one in index.manifest.stored}:
        return None
    return index.manifest.file(learnt_file(index.manifest, entry.name)).sha256


def _training(vectors: Chained, entry: TierEntry) -> NDArray[np.float32]:
    """Vectors that a codec learns from."""
    count = Codec(entry.codec, entry.cells).training_rows(vectors.n_rows)
    chosen = np.random.default_rng(_SEED).choice(vectors.n_rows, count, replace=False)
    return np.concatenate(list(vectors.at(np.sort(chosen)).blocks(entry.name)))


def _files(manifest: Manifest, n_rows: int) -> tuple[TierEntry, ...]:
    """Tier files with the codecs that the recipe chooses for so many rows."""
    names, dims = [one.name for one in manifest.tiers], [one.dims for one in manifest.tiers]
    tiers, scan = chosen_files(manifest.recipe, names, dims, n_rows)
    there = {one.name: one for one in manifest.stored}
    wanted = tiers if scan is None else (*tiers, scan)
    return tuple(_kept(entry, there.get(entry.name)) for entry in wanted)


def _kept(entry: TierEntry, before: TierEntry | None) -> TierEntry:
    """Cells grow with every row: they are learnt anew when their number has doubled."""
    if before is None or entry.codec != before.codec or None in (entry.cells, before.cells):
        return entry
    return before if (before.cells or 0) <= (entry.cells or 0) <= 2 * (before.cells or 0) else entry


def _described(
    manifest: Manifest, files: Sequence[TierEntry], n_rows: int, *, same: bool
) -> dict[str, Any]:
    """What a manifest says about tiers, funnel, guarantee and calibration."""
    if same:
        # Of other codes, or rows in other cells, what was measured says nothing.
        return {} if all(map(copied, files)) else {"guarantee": None, "calibration": None}
    tiers = [entry for entry in files if not entry.name.endswith(SCAN)]
    names, dims = [entry.name for entry in tiers], [entry.dims for entry in tiers]
    return {
        "tiers": tuple(tiers),
        "scan": next((entry for entry in files if entry.name.endswith(SCAN)), None),
        "funnel": manifest.recipe.funnel(names, dims, n_rows),
        "guarantee": None,
        "calibration": None,
    }


def _check_alike(a: Index, b: Index) -> None:
    """Refuse what cannot be one index."""
    check_alike(a.path, a.manifest, b.path, b.manifest.chain_hash, b.manifest.embedding)
    ours, theirs = a.space, b.space
    same = ours.kind == theirs.kind and np.array_equal(ours.mean, theirs.mean)
    if same and ours.factor is not None and theirs.factor is not None:
        same = np.array_equal(ours.factor, theirs.factor)
    if not same:
        raise ChainMismatchError(
            f"{a.path} and {b.path} have different scoring spaces, in which scores cannot be "
            f"compared: build the second with --space-from {a.path}, or add its store of vectors "
            f"with rdsearch add {a.path} STORE",
            path=b.path,
        )
