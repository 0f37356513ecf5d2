"""Build an index from an embedding store.

The index grows in a hidden folder beside its destination and gets its name in one rename when it
is complete: a crash leaves either no index or, with `overwrite`, the one before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import rdsearch
from rdsearch import recipe as recipes
from rdsearch import tiers
from rdsearch.catalog import Catalog, CatalogWriter
from rdsearch.chain import Chain
from rdsearch.errors import (
    CatalogError,
    ChainMismatchError,
    IndexExistsError,
    InputError,
    RdsearchError,
)
from rdsearch.layout import CATALOG, CHAIN, SPACE, tier_file
from rdsearch.manifest import MANIFEST, FileEntry, Manifest, SegmentEntry, TierEntry, sync_folder
from rdsearch.metadata import MetadataReport
from rdsearch.progress import Progress
from rdsearch.recipe import Recipe
from rdsearch.space import Space
from rdsearch.spacefit import AUTO, choose_space
from rdsearch.store import Store
from rdsearch.tiers import Codec

__all__ = ["DEFAULT_RECIPE", "BuildReport", "build", "building_folder"]

DEFAULT_RECIPE = "balanced"
_LOGGER = logging.getLogger(__name__)
_FIRST_SEGMENT = "000001"
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


def building_folder(output: Path) -> Path:
    """The hidden folder in which the index for `output` grows."""
    return output.parent / f".{output.name}.building"


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
    OSError
        The disk is full, or the folder cannot be written; nothing is left at `output`.
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
    with _workplace(output) as folder:
        chain.save(folder / CHAIN)
        chosen = choose_space(store, chain, space, space_from, _SEED)
        chosen.save(folder / SPACE)
        segment = folder / "segments" / _FIRST_SEGMENT
        segment.mkdir(parents=True)
        accessions, row_checksum, reports = _write_catalog(segment, store, chain, metadata)
        codecs = plan.codecs(len(chain.tiers), store.n_rows)
        for name, codec in zip(chain.tiers, codecs, strict=True):
            advance = None if progress is None else progress.stage(f"tier {name}", store.n_rows)
            part = chosen.prefix(chain.dim(name))
            _write_tier(segment / tier_file(name), store, name, codec, part, advance)
        names = [*(tier_file(name) for name in chain.tiers), CATALOG]
        prefix = f"segments/{_FIRST_SEGMENT}"
        for path in (segment, segment.parent, folder):
            _sync_files(path)
        manifest = Manifest(
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            rdsearch=rdsearch.__version__,
            family=chain.family,
            chain_hash=chain.hash,
            embedding=dict(store.signature),
            space=chosen.kind,
            recipe=plan.name,
            tiers=tuple(
                TierEntry(name, chain.dim(name), codec.name, codec.cells)
                for name, codec in zip(chain.tiers, codecs, strict=True)
            ),
            funnel=plan.funnel(chain.tiers, chain.boundaries, store.n_rows),
            guarantee=None,
            segments=(
                SegmentEntry(
                    _FIRST_SEGMENT,
                    store.n_rows,
                    accessions,
                    row_checksum,
                    tuple(FileEntry.of(folder, f"{prefix}/{name}") for name in names),
                ),
            ),
            files=tuple(FileEntry.of(folder, name) for name in (CHAIN, SPACE)),
        )
        manifest.write(folder)
        _publish(folder, output)
    return BuildReport(output, manifest, reports)


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
def _workplace(output: Path) -> Iterator[Path]:
    """An empty folder inside the hidden one; removed when something goes wrong."""
    folder = building_folder(output) / "index"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: an unfinished store may wait in there
            folder.parent.rmdir()
        raise


def _publish(folder: Path, output: Path) -> None:
    """Give the finished folder its name; the index before steps aside first."""
    aside = building_folder(output) / "replaced"
    shutil.rmtree(aside, ignore_errors=True)
    if output.exists():
        output.replace(aside)
    folder.replace(output)
    sync_folder(output.parent)
    shutil.rmtree(building_folder(output), ignore_errors=True)


def _write_catalog(
    segment: Path, store: Store, chain: Chain, metadata: tuple[str | Path, ...]
) -> tuple[int, str, tuple[MetadataReport, ...]]:
    """Catalog from the store's records: accessions, row checksum, joins."""
    writer = CatalogWriter(segment / CATALOG)
    try:
        for record in store.records():
            writer.add(record)
        reports = tuple(writer.join(table) for table in metadata)
        row_checksum = writer.finish({"chain": chain.hash, "segment": segment.name})
    except BaseException:
        writer.close()
        raise
    if row_checksum != store.row_checksum:
        raise CatalogError(
            f"the rows of {store.path} and of its catalog differ: expected row checksum "
            f"{store.row_checksum[:12]}, found {row_checksum[:12]}. The store is damaged: embed "
            "again"
        )
    with Catalog(segment / CATALOG) as catalog:
        return catalog.n_accessions, row_checksum, reports


def _write_tier(
    path: Path,
    store: Store,
    name: str,
    codec: Codec,
    space: Space,
    advance: Callable[[int, int], None] | None,
) -> None:
    def blocks() -> Iterator[NDArray[np.float32]]:
        for block in store.blocks(name):
            yield block
            if advance is not None:
                advance(len(block), 0)

    count = codec.training_rows(store.n_rows)
    chosen = np.random.default_rng(_SEED).choice(store.n_rows, count, replace=False)
    training = store.rd(np.sort(chosen), tier=name)
    written = tiers.write(path, space, codec, training, blocks())
    if written != store.n_rows:
        raise RdsearchError(f"{path}: wrote {written} rows of {store.n_rows}: the store changed")


def _sync_files(folder: Path) -> None:
    """Files and names of a folder reach the disk before the manifest names them."""
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
