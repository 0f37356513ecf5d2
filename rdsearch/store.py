"""The embedding store: a folder of vectors that a killed process can go on with.

    manifest.json         what the store is: input, options, chain, block size; checksums of every
                          file once it is finished; nothing but the format while the input is read
    proteins.fasta, …     its proteins (see `rdsearch.ingest`)
    parts/8M.npy …        with a chain: the dimensions that each member adds, float32
    members/8M.npy …      the member's own pooled vectors, without a chain or when they are kept
    done/8M               one byte for each block of rows: 1 when it is on disk
    .lock                 while a process writes: which one

Tier *i* of the rd embedding is the first *i* parts side by side. A block counts as done only after
its vectors are durable; an unfinished block is computed again, from the same sequences in the same
batches, so that the result does not depend on how often the work was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch.chain import Chain
from rdsearch.errors import ChainMismatchError, InputError, StoreError
from rdsearch.family import Member
from rdsearch.fasta import Record
from rdsearch.fileentry import sha256_of
from rdsearch.ingest import Proteins

__all__ = ["FORMAT", "FORMAT_VERSION", "MANIFEST", "Store", "read_manifest"]

FORMAT = "rdsearch store"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
# What `Store.blocks` reads at a time.
_READ_BYTES = 128 << 20
# What a manifest holds as soon as the input is read, and as which type.
_FACTS: dict[str, tuple[type, ...]] = {
    "block_rows": (int,),
    "chain": (str, type(None)),
    "embedding": (dict,),
    "family": (str,),
    "input": (str,),
    "keep_members": (bool,),
    "members": (list,),
    "rows": (int,),
}

_Floats = NDArray[np.float32]


class Store:
    """A finished store.

    `Store.open` opens one, `rdsearch.storewriter.write_store` makes one.

    Attributes
    ----------
    path : Path
    family : str
    members : tuple of Member
    signature : dict
        The embedder's options.
    chain_hash : str or None
        The chain of its rd vectors.
    n_rows, n_accessions : int
        Distinct sequences, and records.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], chain: Chain | None = None) -> None:
        self.path = path
        self.family: str = manifest["family"]
        self.members = tuple(Member(**member) for member in manifest["members"])
        self.signature: dict[str, str | int] = dict(manifest["embedding"])
        self.chain_hash: str | None = manifest["chain"]
        self._manifest = manifest
        self._proteins = Proteins(path)
        self._chain = chain
        self.n_rows = len(self._proteins.lengths)
        self.n_accessions = len(self._proteins.accession_rows)

    def __repr__(self) -> str:
        names = ", ".join(member.name for member in self.members)
        return f"<rdsearch.Store {self.path}: {self.n_rows} rows, members {names}>"

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a finished store.

        Raises
        ------
        StoreError
            No store, damaged, or not finished: then it says how far it is and how to go on.
        """
        path = Path(path)
        manifest = read_manifest(path)
        if manifest is None:
            raise StoreError(
                f"{path}: there is no embedding store here (no {MANIFEST}). Make one with: "
                f"rdsearch embed PROTEINS.fasta --chain CHAIN -o {path}",
                path=path,
            )
        if "input" not in manifest:
            raise StoreError(
                f"{path}: this store is not finished: the proteins were not read to the end. The "
                "same rdsearch embed command begins again",
                path=path,
                done=0,
                total=None,
            )
        if "files" not in manifest:
            done, total = _finished_blocks(path, manifest)
            raise StoreError(
                f"{path}: this store is not finished: {done} of {total} blocks are done. The same "
                "rdsearch embed command goes on from there",
                path=path,
                done=done,
                total=total,
            )
        for name, facts in manifest["files"].items():
            size = (path / name).stat().st_size if (path / name).is_file() else None
            if size != facts["size"]:
                raise StoreError(
                    f"{path / name}: expected {facts['size']} bytes, found "
                    f"{'no file' if size is None else size}. Restore it or embed again",
                    path=path / name,
                )
        return cls(path, manifest)

    @property
    def row_checksum(self) -> str:
        """SHA-256 over the rows' SHA-256 digests, as a catalog has it."""
        return self._proteins.row_checksum

    @property
    def tiers(self) -> tuple[str, ...]:
        """Tiers of the rd vectors."""
        return tuple(member.name for member in self.members) if self.chain_hash else ()

    @property
    def accession_rows(self) -> NDArray[np.int64]:
        """Row of each record, in the order of `records`."""
        return self._proteins.accession_rows

    def records(self) -> Iterator[Record]:
        """Every protein, in the order of the input."""
        return self._proteins.records()

    @property
    def accessions(self) -> list[str]:
        """Accession of each record, in the order of `records`. Reads the whole file."""
        return [record.accession for record in self.records()]

    def rd(
        self, rows: slice | NDArray[np.integer] = slice(None), tier: str | None = None
    ) -> _Floats:
        """rd embeddings of rows.

        Parameters
        ----------
        rows : slice or array of int, optional
        tier : str, optional
            Cuts the prefix; the last tier where it is not given.

        Returns
        -------
        ndarray, shape (rows, dims of the tier), float32

        Raises
        ------
        StoreError
            The store was made without a chain.
        InputError
            No such tier.
        """
        if self.chain_hash is None:
            raise StoreError(
                f"{self.path}: this store holds raw member vectors and no rd embeddings. Give the "
                "chain to apply (--chain)",
                path=self.path,
            )
        names = self.tiers
        tier = names[-1] if tier is None else tier
        if tier not in names:
            raise InputError(f"{self.path} has no tier {tier!r}; it has {', '.join(names)}")
        upto = names[: names.index(tier) + 1]
        if self._chain is not None:
            return self._chain.upto(tier).transform(self.member(name, rows) for name in upto)
        return np.concatenate([self._array("parts", name)[rows] for name in upto], axis=1)

    def member(self, name: str, rows: slice | NDArray[np.integer] = slice(None)) -> _Floats:
        """A member's own pooled vectors, shape (rows, width).

        Raises
        ------
        StoreError
            They were not kept.
        """
        if name not in {member.name for member in self.members}:
            raise InputError(f"{self.path} has no member {name!r}")
        if not self._manifest["keep_members"]:
            raise StoreError(
                f"{self.path}: the members' own vectors were not kept. Embed again with "
                "--keep-members",
                path=self.path,
            )
        return np.array(self._array("members", name)[rows])

    def blocks(self, tier: str | None = None) -> Iterator[_Floats]:
        """rd embeddings of all rows, block by block of about 128 MB."""
        dims = self.rd(slice(0, 0), tier).shape[1]
        rows = max(1, _READ_BYTES // (4 * dims))
        for start in range(0, self.n_rows, rows):
            yield self.rd(slice(start, start + rows), tier)

    def applied(self, chain: Chain) -> Store:
        """The same proteins under another chain, computed from the kept member vectors.

        Raises
        ------
        StoreError
            The member vectors were not kept.
        ChainMismatchError
            The chain is of another family or has members that were not embedded.
        """
        if chain.hash == self.chain_hash:
            return self
        own = {member.name: member for member in self.members}
        lacking = [m.name for m in chain.members if m.name not in own]
        if chain.family != self.family or lacking:
            raise ChainMismatchError(
                f"{self.path} holds members {', '.join(own)} of family {self.family}; the chain "
                f"needs {', '.join(chain.tiers)} of family {chain.family}. Embed again",
                expected=chain.tiers,
                found=tuple(own),
            )
        if not self._manifest["keep_members"]:
            raise ChainMismatchError(
                f"the vectors in {self.path} were made with chain "
                f"{(self.chain_hash or 'none')[:12]}, this is chain {chain.hash[:12]}, and the "
                "members' own vectors were not kept. Use the chain they were made with, or embed "
                "again (--keep-members allows other chains later)",
                expected=chain.hash,
                found=self.chain_hash,
            )
        manifest = {
            **self._manifest,
            "chain": chain.hash,
            "members": [asdict(own[name]) for name in chain.tiers],
        }
        return Store(self.path, manifest, chain)

    def verify(self) -> None:
        """Read every byte and compare with the manifest.

        Raises
        ------
        StoreError
            Names the file that differs.
        """
        for name, facts in self._manifest["files"].items():
            try:
                found = sha256_of(self.path / name)
            except OSError as error:
                raise StoreError(
                    f"{self.path / name}: it cannot be read ({error.strerror}). Restore it or "
                    "embed again",
                    path=self.path / name,
                ) from error
            if found != facts["sha256"]:
                raise StoreError(
                    f"{self.path / name}: its SHA-256 is not the one in the manifest. Restore it "
                    "or embed again",
                    path=self.path / name,
                )

    def _array(self, folder: str, name: str) -> _Floats:
        array: _Floats = np.load(
            self.path / folder / f"{name}.npy", mmap_mode="r", allow_pickle=False
        )
        return array


def _finished_blocks(folder: Path, manifest: Mapping[str, Any]) -> tuple[int, int]:
    blocks = -(-manifest["rows"] // manifest["block_rows"])
    done = 0
    for member in manifest["members"]:
        path = folder / "done" / member["name"]
        done += path.read_bytes().count(1) if path.is_file() else 0
    return done, blocks * len(manifest["members"])


def read_manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path}: it cannot be read ({error}). Restore it, or choose another folder", path=path
        ) from error
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        found = table.get("format") if isinstance(table, dict) else None
        raise StoreError(
            f"{path}: expected the manifest of a store (format {FORMAT!r}), found {found!r}. "
            "Choose another folder",
            path=path,
        )
    if table.get("format_version") != FORMAT_VERSION:
        raise StoreError(
            f"{path}: the store has format version {table.get('format_version')}, this rdsearch "
            f"reads {FORMAT_VERSION}. Install another rdsearch",
            path=path,
        )
    if "input" in table and (lacking := sorted(_FACTS - table.keys())):
        raise StoreError(
            f"{path}: it lacks {', '.join(lacking)}. Restore it, or embed into another folder",
            path=path,
        )
    if damaged := sorted(_damaged(table)) if "input" in table else []:
        raise StoreError(
            f"{path}: its {', '.join(damaged)} cannot be right. Restore it, or embed into another "
            "folder",
            path=path,
        )
    return table


def _damaged(table: Mapping[str, Any]) -> Iterator[str]:
    """Entries of a manifest that no store writes."""
    wrong = [name for name, types in _FACTS.items() if type(table[name]) not in types]
    yield from wrong
    yield from (name for name in ("block_rows", "rows") if name not in wrong and table[name] < 1)
    if "members" not in wrong:
        try:
            names = [Member(**entry).name for entry in table["members"]]
            if not names or not all(isinstance(name, str) for name in names):
                yield "members"
        except (TypeError, InputError):
            yield "members"
    if "embedding" not in wrong and not all(
        isinstance(value, str | int) for value in table["embedding"].values()
    ):
        yield "embedding"
    files = table.get("files", {})
    if not isinstance(files, dict) or not all(
        isinstance(facts, dict)
        and type(facts.get("size")) is int
        and isinstance(facts.get("sha256"), str)
        for facts in files.values()
    ):
        yield "files"
