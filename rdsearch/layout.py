"""Where the parts of an index lie in its folder, and whether they belong to each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import chainfile
from rdsearch.catalog import Catalog
from rdsearch.chain import Chain
from rdsearch.codeccheck import check_codec
from rdsearch.codecs import load_learnt
from rdsearch.errors import ChainMismatchError, IndexDamagedError, few
from rdsearch.manifest import MANIFEST, Manifest, SegmentEntry
from rdsearch.space import Space
from rdsearch.tombstones import Tombstones

__all__ = [
    "CATALOG",
    "CHAIN",
    "SPACE",
    "check_chain",
    "check_files",
    "codec_file",
    "learnt_file",
    "load_chain",
    "load_codec",
    "load_space",
    "load_tombstones",
    "open_catalog",
    "segment_folder",
    "tier_file",
    "tombstones_file",
]

CHAIN = "chain.safetensors"
SPACE = "space.safetensors"
CATALOG = "catalog.duckdb"

# What a tombstones file has beside 8 bytes for each removed accession and hidden row and 32 for
# each double: its header.
_TOMBSTONES_BYTES = 16 << 20


def segment_folder(path: Path, segment: SegmentEntry) -> Path:
    """Folder of a segment."""
    return path / "segments" / segment.name


def tier_file(name: str) -> str:
    """File name of a tier inside its segment."""
    return f"{name}.faiss"


def codec_file(generation: int, name: str) -> str:
    """Where the empty codec of a tier lies that was learnt in a generation."""
    return f"codecs/{generation:06d}/{name}.faiss"


def learnt_file(manifest: Manifest, tier: str) -> str:
    """Where the empty codec of a tier lies.

    Raises
    ------
    IndexDamagedError
        The manifest names none.
    """
    ending = f"/{tier}.faiss"
    for file in manifest.files:
        if file.path.startswith("codecs/") and file.path.endswith(ending):
            return file.path
    raise IndexDamagedError(f"the manifest names no codec of tier {tier}. Build the index again")


def tombstones_file(generation: int) -> str:
    """Where the tombstones of a generation lie."""
    return f"tombstones/{generation:06d}.safetensors"


def check_files(path: Path, manifest: Manifest) -> None:
    """Whether a manifest names the files of an index, all of them and at their places.

    Parameters
    ----------
    path : Path
        The index, for messages.
    manifest : Manifest

    Raises
    ------
    IndexDamagedError
        It does not: a file would be read that nothing was said about.
    """
    tiers = [entry.name for entry in manifest.stored]
    expected = {CHAIN, SPACE, *(learnt_file(manifest, tier) for tier in tiers)}
    for segment in manifest.segments:
        names = (CATALOG, *map(tier_file, tiers))
        expected.update(f"segments/{segment.name}/{name}" for name in names)
    if manifest.tombstones is not None:
        expected.add(manifest.tombstones.path)
    found = [file.path for file in manifest.all_files()]
    if sorted(found) != sorted(expected):
        odd = sorted(expected.symmetric_difference(found)) or sorted(found)
        raise IndexDamagedError(
            f"{path / MANIFEST}: expected each file of the index once, found that "
            f"{few(odd)} is missing, unknown or there twice. Restore it or build again",
            path=path / MANIFEST,
        )


def load_tombstones(path: Path, manifest: Manifest) -> Tombstones:
    """What the manifest's generation has removed and hidden.

    Raises
    ------
    IndexDamagedError
        The file is not the manifest's, or does not fit its segments.
    """
    if manifest.tombstones is None:
        return Tombstones()
    file = path / manifest.tombstones.path
    rows = sum(segment.rows for segment in manifest.segments)
    accessions = sum(segment.accessions for segment in manifest.segments)
    most = _TOMBSTONES_BYTES + 40 * rows + 8 * accessions
    if manifest.tombstones.size > most:
        raise IndexDamagedError(
            f"{file}: expected at most {most:,} bytes for so many rows, found "
            f"{manifest.tombstones.size:,}. Restore the file",
            path=file,
        )
    manifest.tombstones.check(path, full=True)
    sizes = {segment.name: (segment.rows, segment.accessions) for segment in manifest.segments}
    found = Tombstones.from_bytes(file.read_bytes(), file, sizes)
    for segment in manifest.segments:
        counts = (len(found.hidden_in(segment.name)), len(found.removed_in(segment.name)))
        if counts != (segment.hidden, segment.removed):
            raise IndexDamagedError(
                f"{file}: expected {segment.hidden} hidden rows and {segment.removed} removed "
                f"accessions in segment {segment.name}, found {counts[0]} and {counts[1]}. "
                "Restore the file",
                path=file,
            )
    return found


def load_space(path: Path, manifest: Manifest) -> Space:
    """The scoring space of an index, every byte checked; for all scores depend on it.

    Raises
    ------
    IndexDamagedError
        The file is not the manifest's, or another space.
    """
    manifest.file(SPACE).check(path, full=True)
    space = Space.load(path / SPACE)
    expected = (manifest.space, manifest.tiers[-1].dims)
    if (space.kind, space.dims) != expected:
        raise IndexDamagedError(
            f"{path / SPACE}: expected a {expected[0]} space of {expected[1]} dimensions, found "
            f"a {space.kind} one of {space.dims}. Restore the file or build again",
            path=path / SPACE,
        )
    return space


def load_codec(path: Path, manifest: Manifest, tier: str, dims: int) -> Any:
    """The empty codec of a tier, every byte checked; for new rows are kept as it says.

    Raises
    ------
    IndexDamagedError
        The file is not the manifest's, or not an empty codec of so many dimensions.
    """
    file = learnt_file(manifest, tier)
    manifest.file(file).check(path, full=True)
    codec = load_learnt(path / file, dims)
    check_codec(path / file, codec, dims, 0)
    return codec


def load_chain(path: Path, manifest: Manifest) -> Chain:
    """The chain of an index; `ChainMismatchError` where it is not the index's own."""
    chain = Chain.load(path / CHAIN)
    _check_hash(path, manifest, chain.hash)
    return chain


def check_chain(path: Path, manifest: Manifest) -> None:
    """`ChainMismatchError` where the chain file says that it is another; reads its header only."""
    _check_hash(path, manifest, chainfile.recorded_hash(path / CHAIN))


def _check_hash(path: Path, manifest: Manifest, found: str) -> None:
    if found != manifest.chain_hash:
        raise ChainMismatchError(
            f"{path / CHAIN}: this is chain {found[:12]}, the index was built with chain "
            f"{manifest.chain_hash[:12]}. Restore the index's own chain file",
            path=path / CHAIN,
            expected=manifest.chain_hash,
            found=found,
        )


def open_catalog(
    path: Path, segment: SegmentEntry, removed: NDArray[np.int64] | None = None
) -> Catalog:
    """The catalog of a segment; `IndexDamagedError` where it belongs to other vectors.

    Parameters
    ----------
    path : Path
        The index.
    segment : SegmentEntry
    removed : ndarray of int64, optional
        Positions of accessions that do not count.
    """
    file = segment_folder(path, segment) / CATALOG
    catalog = Catalog(file) if removed is None else Catalog(file, removed)
    found = (catalog.row_checksum, catalog.n_rows)
    if found != (segment.row_checksum, segment.rows):
        catalog.close()
        raise IndexDamagedError(
            f"{file}: this catalog belongs to other vectors: expected {segment.rows} rows with "
            f"row checksum {segment.row_checksum[:12]}, found {found[1]} with {found[0][:12]}. "
            "Restore the index's own catalog",
            path=file,
        )
    return catalog
