"""Write an embedding store, or go on with one that was stopped."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rdsearch import blockfile, durable, ingest, locks
from rdsearch.chain import Chain
from rdsearch.errors import (
    ChainMismatchError,
    EmbeddingError,
    InputError,
    StoreError,
    StoreMismatchError,
)
from rdsearch.family import Family, Member
from rdsearch.fasta import Record
from rdsearch.fileentry import sha256_of
from rdsearch.ingest import Proteins
from rdsearch.progress import Progress
from rdsearch.store import FORMAT, FORMAT_VERSION, MANIFEST, Store, read_manifest

__all__ = ["BLOCK_ROWS", "PoolingEmbedder", "write_store"]

#: Rows that are embedded and made durable together.
BLOCK_ROWS = 1024

# Values of a manifest up to here are shown whole; a SHA-256 is longer.
_SHOWN = 60


class PoolingEmbedder(Protocol):
    """What a store needs of an embedder; `rdsearch.embed.Embedder` is one."""

    family: Family
    members: tuple[Member, ...]

    @property
    def signature(self) -> dict[str, str | int]:
        """Every option that determines the numbers."""
        ...

    def pool(
        self, member: Member, sequences: Sequence[str], *, progress: Any = None
    ) -> NDArray[np.float32]:
        """Mean residue embedding of each sequence, shape (n, width)."""
        ...


def write_store(
    folder: str | Path,
    records: Iterable[Record],
    embedder: PoolingEmbedder,
    chain: Chain | None = None,
    *,
    keep_members: bool = False,
    block_rows: int = BLOCK_ROWS,
    progress: Progress | None = None,
) -> Store:
    """Embed proteins into a store, or go on with one that was stopped.

    Parameters
    ----------
    folder : path
        New, empty, or a store of the same input and options.
    records : iterable of Record
        Identical sequences are embedded once, whatever their accessions.
    embedder : PoolingEmbedder
        Its members are the chain's.
    chain : Chain, optional
        Applied to the pooled vectors; without one the members' own vectors are stored.
    keep_members : bool, optional
        Keep the members' own vectors beside the chain's parts.
    block_rows : int, optional
        Rows that are made durable together.
    progress : Progress, optional

    Returns
    -------
    Store

    Raises
    ------
    StoreMismatchError
        The folder holds a store of another input or other options.
    StoreError
        It holds something else, is being written by another process, cannot be written, or the
        disk is full. Finished blocks stay.
    EmbeddingError
        The embedder gave other than one finite vector of the member's width for each sequence.
    """
    folder = Path(folder)
    _refuse_foreign(folder)
    try:
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with _unless_empty(folder, new), _locked(folder):
            if new:
                durable.sync_folder(folder.parent)
            manifest = _begin(folder, records, embedder, chain, keep_members, block_rows)
            if "files" not in manifest:
                for i, member in enumerate(embedder.members):
                    _fill(folder, manifest, i, member, embedder, chain, progress)
                manifest["files"] = _describe(folder)
                _write_manifest(folder, manifest)
    except OSError as error:
        raise StoreError(
            f"{error.filename or folder}: the store cannot be written "
            f"({error.strerror or error}). Finished blocks are kept: make room or mend the "
            "permission, then run the same command again",
            path=folder,
        ) from error
    return Store.open(folder)


def _locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    return locks.writing(
        folder, "store", operation="embed", error=StoreError, unwritable=StoreError
    )


def _begin(
    folder: Path,
    records: Iterable[Record],
    embedder: PoolingEmbedder,
    chain: Chain | None,
    keep_members: bool,
    block_rows: int,
) -> dict[str, Any]:
    """The manifest of the store in this folder, which is begun where there is none."""
    if block_rows < 1:
        raise InputError(f"a block needs at least one row; found {block_rows}")
    if chain is not None and chain.members != embedder.members:
        raise ChainMismatchError(
            f"the chain needs members {', '.join(chain.tiers)}, the embedder runs "
            f"{', '.join(member.name for member in embedder.members)}",
            expected=chain.tiers,
            found=tuple(member.name for member in embedder.members),
        )
    wanted: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "family": embedder.family.name,
        "members": [asdict(member) for member in embedder.members],
        "embedding": embedder.signature,
        "chain": None if chain is None else chain.hash,
        "keep_members": keep_members or chain is None,
        "block_rows": block_rows,
    }
    found = read_manifest(folder)
    if found is None or "input" not in found:
        # From here on the files in the folder are known to be this store's.
        _write_manifest(folder, {"format": FORMAT, "format_version": FORMAT_VERSION})
        try:
            wanted["input"] = ingest.write(folder, records)
            wanted["rows"] = len(Proteins(folder).lengths)
            _write_manifest(folder, wanted)
        except BaseException:
            _discard(folder)
            raise
        return wanted
    wanted["input"] = ingest.digest(records)
    differences = dict(_differences({name: found.get(name) for name in wanted}, wanted))
    if differences:
        text = "; ".join(
            f"{name}: {_brief(old)} there, {_brief(new)} now"
            for name, (old, new) in differences.items()
        )
        raise StoreMismatchError(
            f"{folder} holds a store of something else ({text}). Choose another folder, or remove "
            "this one",
            path=folder,
            differences=differences,
        )
    return found


def _fill(
    folder: Path,
    manifest: Mapping[str, Any],
    i: int,
    member: Member,
    embedder: PoolingEmbedder,
    chain: Chain | None,
    progress: Progress | None,
) -> None:
    """Embed the blocks of one member that are not done."""
    rows, block_rows = manifest["rows"], manifest["block_rows"]
    proteins = Proteins(folder)
    before = [
        np.load(folder / "parts" / f"{earlier.name}.npy", mmap_mode="r", allow_pickle=False)
        for earlier in embedder.members[:i]
        if chain is not None
    ]
    targets = []
    if chain is not None:
        below = chain.boundaries[i - 1] if i else 0
        targets.append(("parts", chain.boundaries[i] - below))
    if manifest["keep_members"]:
        targets.append(("members", member.width))
    with blockfile.BlockFiles(
        folder, member.name, targets, rows=rows, block_rows=block_rows
    ) as files:
        pending = files.pending()
        advance = None
        if progress is not None:
            advance = progress.stage(member.name, rows, rows - files.rows_in(pending))
        for block in pending:
            start, stop = files.rows_of(block)
            pooled = embedder.pool(member, proteins.sequences(start, stop), progress=advance)
            # A chain refuses another width itself.
            width = pooled.shape[-1] if chain is not None else member.width
            _check(pooled, member, (stop - start, width))
            contents = {"members": pooled}
            if chain is not None:
                base = np.concatenate([part[start:stop] for part in before], axis=1) if i else None
                contents["parts"] = chain.part(i, base, pooled)
            files.finish(block, [contents[kind] for kind, _ in targets])


def _check(pooled: NDArray[np.float32], member: Member, shape: tuple[int, int]) -> None:
    """Refuse vectors that would damage a store."""
    if pooled.shape != shape:
        raise EmbeddingError(
            f"member {member.name}: expected vectors of shape {shape}, the embedder gave "
            f"{pooled.shape}. Check the embedder",
            member=member.name,
        )
    if not np.isfinite(pooled).all():
        raise EmbeddingError(
            f"member {member.name}: the embedder gave values that are not finite. Check its "
            "weights, or embed in float32",
            member=member.name,
        )


def _refuse_foreign(folder: Path) -> None:
    """Nothing is written to, or removed from, a folder that holds anything but a store."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file: a store is a folder. Choose another name")
    if not folder.exists() or read_manifest(folder) is not None:
        return
    own = {locks.LOCK, durable.temporary_file(folder / MANIFEST).name}
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in own)
    if foreign:
        raise StoreError(
            f"{folder} is not empty and not an embedding store ({foreign[0]} is in it). Choose "
            "another folder",
            path=folder,
        )


@contextlib.contextmanager
def _unless_empty(folder: Path, new: bool) -> Iterator[None]:
    """Leave no empty folder behind after an error."""
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _discard(folder: Path) -> None:
    """Remove a store whose input could not be read; the manifest last."""
    for name in (ingest.PROTEINS, *(f"{name}.npy" for name in ingest.ARRAYS), MANIFEST):
        (folder / name).unlink(missing_ok=True)


def _describe(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file but the manifest."""
    return {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
    }


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    content = json.dumps(manifest, indent=1, sort_keys=True).encode()
    durable.replace(folder / MANIFEST, content)


def _differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Names and values of what differs, as deep in the tables as it can be named."""
    if isinstance(old, list) and isinstance(new, list):
        before, after = ({entry["name"]: entry for entry in entries} for entries in (old, new))
        if list(before) == list(after):
            old, new = before, after
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*new, *old]):
            deeper = f"{name}.{key}" if name else key
            yield from _differences(old.get(key), new.get(key), deeper)
    elif old != new:
        yield name, (old, new)


def _brief(value: Any) -> str:
    """A value of a manifest, short enough for a message."""
    if value is None:
        return "none"
    if isinstance(value, list):
        value = ", ".join(entry["name"] for entry in value)
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else text[:12] + "…"
