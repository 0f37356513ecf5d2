"""The manifest of an index: what it is made of, with a checksum for everything.

One JSON file, written canonically so that its own checksum covers every byte. Paths inside it
are relative to the index and stay inside it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from rdsearch.errors import IndexDamagedError, IndexMissingError, InputError
from rdsearch.funnel import Funnel
from rdsearch.guarantee import Guarantee

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "FileEntry",
    "Manifest",
    "SegmentEntry",
    "TierEntry",
    "sha256_of",
    "sync_folder",
]

FORMAT = "rdsearch index"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"

# Both ends of a file are checked on every open: headers, and what a truncated copy lacks.
_END_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an index.

    Attributes
    ----------
    path : str
        Relative to the index, with forward slashes.
    size : int
        Bytes.
    sha256 : str
        Of the whole file.
    ends_sha256 : str
        Of its first and last 64 KiB, cheap enough to check on every open.
    """

    path: str
    size: int
    sha256: str
    ends_sha256: str

    def __post_init__(self) -> None:
        pure = PurePosixPath(self.path)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise InputError(f"the path {self.path!r} leaves the index")

    @classmethod
    def of(cls, folder: Path, path: str) -> FileEntry:
        """Describe a file that was just written."""
        file = folder / path
        return cls(path, file.stat().st_size, sha256_of(file), _ends(file))

    def check(self, folder: Path, *, full: bool = False) -> None:
        """Compare with the file on disk.

        Raises
        ------
        IndexDamagedError
            Missing, another size, other bytes at its ends, or (`full`) anywhere.
        """
        file = folder / self.path
        try:
            size = file.stat().st_size
            if size != self.size:
                self._damaged(file, f"expected {self.size} bytes, found {size}")
            if full:
                if sha256_of(file) != self.sha256:
                    self._damaged(file, "its SHA-256 is not the one in the manifest")
            elif _ends(file) != self.ends_sha256:
                self._damaged(file, "its first or last bytes are not those in the manifest")
        except FileNotFoundError:
            self._damaged(file, "the file is missing")
        except OSError as error:
            self._damaged(file, f"it cannot be read ({error.strerror})")

    @staticmethod
    def _damaged(file: Path, found: str) -> None:
        raise IndexDamagedError(f"{file}: {found}. Restore it or build again", path=file)


@dataclass(frozen=True, slots=True)
class TierEntry:
    """A tier: name, prefix length, codec, and its cells if it has any."""

    name: str
    dims: int
    codec: str
    cells: int | None = None


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """An immutable part of an index.

    Attributes
    ----------
    name : str
        Its folder below ``segments``.
    rows, accessions : int
        Distinct sequences, and names for them.
    row_checksum : str
        SHA-256 over the sequences' SHA-256 digests in row order; the catalog carries the same.
    files : tuple of FileEntry
        Its tier files and its catalog.
    """

    name: str
    rows: int
    accessions: int
    row_checksum: str
    files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything an index says about itself.

    Attributes
    ----------
    created : str
        UTC time, ISO 8601.
    rdsearch : str
        Version that wrote the index.
    family : str
        Model family.
    chain_hash : str
        Hash of ``chain.safetensors``.
    embedding : dict
        The embedder's signature: the options that determine the numbers.
    space, recipe : str
        Kind of the scoring space (``space.safetensors`` holds it) and recipe name.
    tiers : tuple of TierEntry
        Coarse to fine.
    funnel : Funnel
        The default search plan.
    guarantee : Guarantee or None
        What `rdsearch tune` found out about the funnel.
    segments : tuple of SegmentEntry
        In this version exactly one.
    files : tuple of FileEntry
        Files outside the segments.
    """

    created: str
    rdsearch: str
    family: str
    chain_hash: str
    embedding: dict[str, Any]
    space: str
    recipe: str
    tiers: tuple[TierEntry, ...]
    funnel: Funnel
    guarantee: Guarantee | None
    segments: tuple[SegmentEntry, ...]
    files: tuple[FileEntry, ...]

    @property
    def rows(self) -> int:
        """Distinct sequences in the whole index."""
        return sum(segment.rows for segment in self.segments)

    def all_files(self) -> tuple[FileEntry, ...]:
        """Every file but the manifest."""
        return (*self.files, *(file for segment in self.segments for file in segment.files))

    def to_bytes(self) -> bytes:
        """The file's content."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        checksum = hashlib.sha256(_canonical(body)).hexdigest()
        return _canonical({**body, "checksum": checksum})

    @classmethod
    def from_bytes(cls, content: bytes, path: Path) -> Manifest:
        """Parse and check a manifest file.

        Parameters
        ----------
        content : bytes
            The file.
        path : Path
            Named in errors.

        Raises
        ------
        IndexDamagedError
            Not a manifest, of a newer format, or changed since it was written.
        """

        def damaged(found: str) -> IndexDamagedError:
            return IndexDamagedError(f"{path}: {found}. Restore it or build again", path=path)

        try:
            table = json.loads(content)
        except ValueError as error:
            raise damaged(f"expected JSON, found something else ({error})") from error
        if not isinstance(table, dict) or table.get("format") != FORMAT:
            raise damaged(f"expected a manifest of format {FORMAT!r}")
        version = table.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise IndexDamagedError(
                f"{path}: the index has format version {version}, this rdsearch reads up to "
                f"{FORMAT_VERSION}. Install a newer rdsearch",
                path=path,
            )
        checksum = table.pop("checksum", None)
        expected = hashlib.sha256(_canonical(table)).hexdigest()
        if checksum != expected or _canonical({**table, "checksum": checksum}) != content:
            raise damaged("its content does not fit its own checksum")
        try:
            return _parse(table)
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise damaged(f"an entry is missing or wrong ({error})") from error

    def write(self, folder: Path) -> None:
        """Publish: replace the manifest of `folder` in one atomic step."""
        temporary = folder / f".{MANIFEST}.new"
        with temporary.open("wb") as file:
            file.write(self.to_bytes())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / MANIFEST)
        sync_folder(folder)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of an index.

        Raises
        ------
        IndexMissingError
            There is no index in `folder`.
        IndexDamagedError
            See `from_bytes`.
        """
        path = folder / MANIFEST
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise IndexMissingError(
                f"{folder}: there is no index here (no {MANIFEST}). "
                f"Make one with: rdsearch build PROTEINS.fasta --chain CHAIN -o {folder}",
                path=folder,
            ) from error
        except OSError as error:
            raise IndexDamagedError(
                f"{path}: it cannot be read ({error.strerror})", path=path
            ) from error
        return cls.from_bytes(content, path)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, as fsync does for a file's content."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _parse(table: Mapping[str, Any]) -> Manifest:
    def files(entries: Any) -> tuple[FileEntry, ...]:
        return tuple(FileEntry(**entry) for entry in entries)

    values = {field.name: table[field.name] for field in fields(Manifest)}
    values["tiers"] = tuple(TierEntry(**entry) for entry in table["tiers"])
    funnel, guarantee = table["funnel"], table["guarantee"]
    values["funnel"] = Funnel(tuple(funnel["tiers"]), tuple(funnel["shortlists"]), funnel["probes"])
    values["guarantee"] = None if guarantee is None else Guarantee(**guarantee)
    values["segments"] = tuple(
        SegmentEntry(**{**entry, "files": files(entry["files"])}) for entry in table["segments"]
    )
    values["files"] = files(table["files"])
    return Manifest(**values)


def _canonical(table: Mapping[str, Any]) -> bytes:
    text = json.dumps(table, indent=1, sort_keys=True, ensure_ascii=False)
    return (text + "\n").encode()


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's content, hex."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _ends(file: Path) -> str:
    with file.open("rb") as handle:
        digest = hashlib.sha256(handle.read(_END_BYTES))
        handle.seek(max(0, file.stat().st_size - _END_BYTES))
        digest.update(handle.read(_END_BYTES))
    return digest.hexdigest()
