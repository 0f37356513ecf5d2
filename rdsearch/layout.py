"""Where the parts of an index lie in its folder, and whether they belong to each other."""

from __future__ import annotations

from pathlib import Path

from rdsearch import chainfile
from rdsearch.catalog import Catalog
from rdsearch.chain import Chain
from rdsearch.errors import ChainMismatchError, IndexDamagedError
from rdsearch.manifest import Manifest, SegmentEntry

__all__ = [
    "CATALOG",
    "CHAIN",
    "SPACE",
    "check_chain",
    "load_chain",
    "open_catalog",
    "segment_folder",
    "tier_file",
]

CHAIN = "chain.safetensors"
SPACE = "space.safetensors"
CATALOG = "catalog.duckdb"


def segment_folder(path: Path, segment: SegmentEntry) -> Path:
    """Folder of a segment."""
    return path / "segments" / segment.name


def tier_file(name: str) -> str:
    """File name of a tier inside its segment."""
    return f"{name}.faiss"


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


def open_catalog(path: Path, segment: SegmentEntry) -> Catalog:
    """The catalog of a segment; `IndexDamagedError` where it belongs to other vectors."""
    file = segment_folder(path, segment) / CATALOG
    catalog = Catalog(file)
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
