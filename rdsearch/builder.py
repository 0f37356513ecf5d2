"""Build an index from an embedding store.

The index grows in a hidden folder beside its destination and gets its name in one rename when it
is complete: a crash leaves either no index or, with `overwrite`, the one before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rdsearch
from rdsearch import durable, locks
from rdsearch import recipe as recipes
from rdsearch.chain import Chain
from rdsearch.codecs import Codec, learn, save_faiss
from rdsearch.errors import CatalogError, ChainMismatchError, IndexExistsError, InputError
from rdsearch.generations import FIRST, label, now, publish
from rdsearch.layout import CHAIN, SPACE, codec_file
from rdsearch.manifest import MANIFEST, SCAN, Manifest, TierEntry
from rdsearch.metadata import MetadataReport
from rdsearch.progress import Progress
from rdsearch.recipe import Recipe
from rdsearch.rowsources import StoreRows
from rdsearch.segmentwriter import SegmentWriter, file_entries
from rdsearch.spacefit import AUTO, choose_space
from rdsearch.store import Store
from rdsearch.writing import building_folder, named_errors

__all__ = [
    "DEFAULT_RECIPE",
    "BuildReport",
    "build",
    "building_folder",
    "check_destination",
    "chosen_files",
    "save_learnt",
    "settle",
    "workplace",
]

DEFAULT_RECIPE = "balanced"
_SEED = 0


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was built.

    Attributes
    ----------
    path : Path
        The index.
    manifest : Manifest
        Its manifest.
    metadata : tuple of MetadataReport
        One for each joined table: matched and unmatched lines and proteins.
    """

    path: Path
    manifest: Manifest
    metadata: tuple[MetadataReport, ...]


def build(
    store: Store,
    chain: Chain,
    output: str | Path,
    *,
    metadata: tuple[str | Path, ...] = (),
    recipe: str | Path | Recipe = DEFAULT_RECIPE,
    space: str = AUTO,
    space_from: str | Path = "indexed",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Write an index.

    Parameters
    ----------
    store : Store
        Proteins and their rd embeddings.
    chain : Chain
        The chain that made them.
    output : str or Path
        The index folder; its parents are made.
    metadata : tuple of path, optional
        Tables to join by accession.
    recipe : str, Path or Recipe, optional
    space, space_from : optional
        Kind and source of the scoring space; see `rdsearch.spacefit.choose_space`.
    overwrite : bool, optional
        Replace an index that is there. Anything else that is there is never replaced.
    progress : Progress, optional
        Told of every block of every tier.

    Returns
    -------
    BuildReport

    Raises
    ------
    ChainMismatchError
        The store was made with another chain.
    IndexExistsError
        There is something at `output`.
    MetadataError
        A table cannot be joined.
    IndexWriteError
        The disk is full, or the folder cannot be written; nothing is left at `output`.
    IndexLockedError
        Another process builds the same index.
    """
    output = Path(output)
    plan = recipe if isinstance(recipe, Recipe) else recipes.load(recipe)
    if store.chain_hash != chain.hash:
        raise ChainMismatchError(
            f"the vectors in {store.path} were made with chain "
            f"{(store.chain_hash or 'none')[:12]}, this is chain {chain.hash[:12]}. Use the chain "
            "they were made with, or embed again",
            expected=chain.hash,
            found=store.chain_hash,
        )
    if store.n_rows == 0:
        raise InputError(f"{store.path} holds no protein: there is nothing to index")
    check_destination(output, overwrite=overwrite)
    with workplace(output) as folder:
        chain.save(folder / CHAIN)
        chosen = choose_space(store, chain, space, space_from, _SEED)
        chosen.save(folder / SPACE)
        segment = SegmentWriter(folder, label(FIRST), chain.hash)
        content = segment.catalog(store.records(), metadata=metadata)
        if content.row_checksum != store.row_checksum:
            raise CatalogError(
                f"the rows of {store.path} and of its catalog differ: expected row checksum "
                f"{store.row_checksum[:12]}, found {content.row_checksum[:12]}. The store is "
                "damaged: embed again"
            )
        entries, scan = chosen_files(plan, chain.tiers, chain.boundaries, store.n_rows)
        files = [*entries, *([] if scan is None else [scan])]
        for entry in files:
            part = chosen.prefix(entry.dims)
            learnt = learn(Codec(entry.codec, entry.cells), part, _training(store, entry))
            save_learnt(folder, FIRST, entry.name, learnt)
            segment.tier(entry.name, part, learnt, StoreRows(store), progress)
        written = segment.finish(content, [entry.name for entry in files])
        durable.sync_tree(folder)
        codecs = [codec_file(FIRST, entry.name) for entry in files]
        manifest = Manifest(
            generation=FIRST,
            operation="build",
            created=now(),
            rdsearch=rdsearch.__version__,
            family=chain.family,
            chain_hash=chain.hash,
            embedding=dict(store.signature),
            space=chosen.kind,
            recipe=plan,
            tiers=entries,
            scan=scan,
            funnel=plan.funnel(chain.tiers, chain.boundaries, store.n_rows),
            guarantee=None,
            segments=(written,),
            tombstones=None,
            files=file_entries(folder, (CHAIN, SPACE, *codecs)),
        )
        publish(folder, manifest)
        settle(folder, output)
    return BuildReport(output, manifest, content.reports)


def check_destination(output: Path, *, overwrite: bool) -> None:
    """Refuse a destination that would lose something.

    Raises
    ------
    IndexExistsError
        An index is there and `overwrite` is not given, or something else is there.
    """
    if not os.path.lexists(output):
        return
    if not (output / MANIFEST).is_file():
        if output.is_dir() and not any(output.iterdir()):
            return
        raise IndexExistsError(
            f"{output} is there already and is not an index; it will not be replaced. Choose "
            "another path with -o",
            path=output,
        )
    if not overwrite:
        raise IndexExistsError(
            f"{output}: there is an index already. Add --overwrite to replace it, or choose "
            "another path with -o",
            path=output,
        )


@contextlib.contextmanager
def workplace(output: Path) -> Iterator[Path]:
    """An empty folder inside the hidden one; removed when something goes wrong.

    Parameters
    ----------
    output : Path
        Where the index will be.
    """
    building = building_folder(output)
    with named_errors(output):
        building.mkdir(parents=True, exist_ok=True)
        try:
            with locks.writing(building, operation="build"):
                folder = building / "index"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                try:
                    yield folder
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
        finally:
            with contextlib.suppress(OSError):  # not empty: an unfinished store may wait in there
                building.rmdir()


def settle(folder: Path, output: Path) -> None:
    """Give the finished folder its name, in one step even where an index has it."""
    if not output.exists() or not durable.exchange(folder, output):
        aside = building_folder(output) / "replaced"
        shutil.rmtree(aside, ignore_errors=True)
        if output.exists():
            output.replace(aside)
        durable.publish(folder, output)
    shutil.rmtree(building_folder(output), ignore_errors=True)


def save_learnt(root: Path, generation: int, name: str, learnt: Any) -> None:
    """Keep what a codec learnt, for the rows that are added later."""
    file = root / codec_file(generation, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_faiss(learnt, file)


def chosen_files(
    recipe: Recipe, tiers: Sequence[str], dims: Sequence[int], n_rows: int
) -> tuple[tuple[TierEntry, ...], TierEntry | None]:
    """Tier files, and the scan file if there is one, as a recipe wants them for so many rows."""
    codecs, scans = recipe.codecs(len(tiers), n_rows), recipe.scans(dims, n_rows)
    entries = tuple(
        TierEntry(name, width, codec.name, codec.cells)
        for name, width, codec in zip(tiers, dims, codecs, strict=True)
    )
    scanned = (
        TierEntry(name + SCAN, width, codec.name, codec.cells)
        for name, width, codec in zip(tiers, dims, scans, strict=True)
        if codec is not None
    )
    return entries, next(scanned, None)


def _training(store: Store, entry: TierEntry) -> NDArray[np.float32]:
    """rd prefixes that a tier's codec learns from."""
    count = Codec(entry.codec, entry.cells).training_rows(store.n_rows)
    chosen = np.random.default_rng(_SEED).choice(store.n_rows, count, replace=False)
    return store.rd(np.sort(chosen), tier=entry.name.removesuffix(SCAN))
