"""The manifest of an index: what it is made of, with a checksum for everything.

One JSON file, written canonically so that its own checksum covers every byte. Paths inside it
are relative to the index and stay inside it. Each manifest is one *generation* of the index;
`rdsearch.generations` publishes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rdsearch.calibration import Calibration
from rdsearch.errors import IndexDamagedError, IndexMissingError, InputError
from rdsearch.fileentry import FileEntry, open_file
from rdsearch.funnel import Funnel
from rdsearch.guarantee import Guarantee
from rdsearch.plainvalues import UNFIT, entry
from rdsearch.recipe import Cells, Recipe, Scan

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "SCAN",
    "Manifest",
    "SegmentEntry",
    "TierEntry",
]

FORMAT = "rdsearch index"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"

# No manifest comes near it: 20,000 segments of six tiers would.
_LARGEST = 64 << 20

# Far beyond any protein language model. FAISS makes room for dims * dims numbers.
_MOST_DIMS = 16_384
_MOST_ROWS = 1 << 62

_SHOWN = 300

#: Ends the name of a scan file: few bits a dimension, and the same rows as the tier's own file.
SCAN = ".scan"


@dataclass(frozen=True, slots=True)
class TierEntry:
    """A tier file: name, prefix length, codec, and its cells if it has any.

    A scan file is called after its tier, with `SCAN` behind it.
    """

    name: str
    dims: int
    codec: str
    cells: int | None = None

    def __post_init__(self) -> None:
        if not self.name.isprintable() or any(sign in self.name for sign in ("/", "\\")):
            raise InputError(f"a tier's name is part of a file name; found {self.name!r}")
        if not 1 <= self.dims <= _MOST_DIMS:
            raise InputError(
                f"tier {self.name}: expected 1 to {_MOST_DIMS:,} dimensions, found {self.dims}"
            )


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """An immutable part of an index.

    Attributes
    ----------
    name : str
        Its folder below ``segments``.
    rows, accessions : int
        Distinct sequences, and names for them.
    hidden, removed : int
        How many of these rows this generation does not show, and how many of the accessions are
        removed in it.
    row_checksum : str
        SHA-256 over the sequences' SHA-256 digests in row order; the catalog carries the same.
    files : tuple of FileEntry
        Its tier files and its catalog.
    """

    name: str
    rows: int
    accessions: int
    hidden: int
    removed: int
    row_checksum: str
    files: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        # Tombstones keep it as a number.
        if not (self.name.isascii() and self.name.isdecimal() and len(self.name) < 19):
            raise InputError(f"a segment's name is a number; found {self.name!r}")
        if not (0 < self.rows <= self.accessions < _MOST_ROWS):
            raise InputError(
                f"segment {self.name}: expected rows, and as many accessions or more; found "
                f"{self.rows} and {self.accessions}"
            )
        if not (0 <= self.hidden <= self.rows and 0 <= self.removed <= self.accessions):
            raise InputError(
                f"segment {self.name}: {self.hidden} rows hidden of {self.rows}, and "
                f"{self.removed} accessions removed of {self.accessions}"
            )


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything an index says about itself.

    Attributes
    ----------
    generation : int
        Grows by 1 with every change, from 1.
    operation : str
        What was done to the generation before, for people.
    created : str
        UTC time of this generation, ISO 8601.
    rdsearch : str
        Version that wrote the index.
    family : str
        Model family.
    chain_hash : str
        Hash of ``chain.safetensors``.
    embedding : dict
        The embedder's signature: the options that determine the numbers.
    space : str
        Kind of the scoring space; ``space.safetensors`` holds it.
    recipe : Recipe
        What decided on codecs and funnel, and will again when segments are merged.
    tiers : tuple of TierEntry
        Coarse to fine.
    scan : TierEntry or None
        A second file of one tier, which funnels that begin there scan in place of the tier's own.
    funnel : Funnel
        The default search plan.
    guarantee : Guarantee or None
        What `rdsearch tune` found out about the funnel.
    segments : tuple of SegmentEntry
        In the order in which their rows are numbered.
    tombstones : FileEntry or None
        What was removed from the segments since they were written.
    files : tuple of FileEntry
        Files outside the segments.
    calibration : Calibration or None
        What `rdsearch calibrate` found out about the scores. A manifest without one does not
        name it.
    """

    generation: int
    operation: str
    created: str
    rdsearch: str
    family: str
    chain_hash: str
    embedding: dict[str, Any]
    space: str
    recipe: Recipe
    tiers: tuple[TierEntry, ...]
    scan: TierEntry | None
    funnel: Funnel
    guarantee: Guarantee | None
    segments: tuple[SegmentEntry, ...]
    tombstones: FileEntry | None
    files: tuple[FileEntry, ...]
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        names = [segment.name for segment in self.segments]
        if not names or len(set(names)) != len(names):
            raise InputError(f"an index needs segments of different names; found {names}")
        if not self.tiers or self.generation < 1:
            raise InputError("an index needs tiers, and generations count from 1")
        dims = [tier.dims for tier in self.tiers]
        tiers = [tier.name for tier in self.tiers]
        if dims != sorted(set(dims)) or len(set(tiers)) != len(tiers):
            raise InputError(f"tiers need different names and growing dimensions; found {dims}")
        if [name for name in tiers if name in self.funnel.tiers] != [*self.funnel.tiers]:
            raise InputError(f"the funnel {self.funnel} does not go through tiers {tiers}")
        if self.tombstones is None and any(one.hidden or one.removed for one in self.segments):
            raise InputError("something is hidden or removed, and no tombstones say what")

    @property
    def stored(self) -> tuple[TierEntry, ...]:
        """All tier files of a segment: the tiers', and the scan file if there is one."""
        return self.tiers if self.scan is None else (*self.tiers, self.scan)

    @property
    def rows(self) -> int:
        """Distinct sequences that the index shows."""
        return sum(segment.rows - segment.hidden for segment in self.segments)

    @property
    def accessions(self) -> int:
        """Accessions of all sequences."""
        return sum(segment.accessions - segment.removed for segment in self.segments)

    def all_files(self) -> tuple[FileEntry, ...]:
        """Every file but the manifest."""
        own = self.files if self.tombstones is None else (*self.files, self.tombstones)
        return (*own, *(file for segment in self.segments for file in segment.files))

    def file(self, path: str) -> FileEntry:
        """What it says about a file outside the segments; `KeyError` where that is nothing."""
        return {file.path: file for file in self.files}[path]

    def to_bytes(self) -> bytes:
        """The file's content."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        if self.calibration is None:
            del body["calibration"]
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
        except (ValueError, RecursionError) as error:
            raise damaged(f"expected JSON, found something else ({error})") from error
        if not isinstance(table, dict) or table.get("format") != FORMAT:
            raise damaged(f"expected a manifest of format {FORMAT!r}")
        version = table.get("format_version")
        if type(version) is not int:
            raise damaged(f"expected a format version, found {reprlib.repr(version)}")
        if version != FORMAT_VERSION:
            step = "Install a newer rdsearch" if version > FORMAT_VERSION else "Build it again"
            raise IndexDamagedError(
                f"{path}: the index has format version {version}, this rdsearch reads version "
                f"{FORMAT_VERSION}. {step}",
                path=path,
            )
        try:
            checksum = table.pop("checksum", None)
            expected = hashlib.sha256(_canonical(table)).hexdigest()
            if checksum != expected:
                raise damaged("its content does not fit its own checksum")
            manifest = _parse(table)
            if manifest.to_bytes() != content:
                raise damaged("it is not written as what has its own checksum is")
            return manifest
        except UNFIT as error:
            reason = str(error)
            shown = reason if len(reason) <= _SHOWN else f"{reason[:_SHOWN]}…"
            raise damaged(f"an entry is missing or wrong ({shown})") from error

    @classmethod
    def read(cls, folder: Path, name: str = MANIFEST) -> Manifest:
        """Read the manifest of an index.

        Parameters
        ----------
        folder : Path
            The index.
        name : str, optional
            The file, relative to it: a copy of an earlier generation's.

        Raises
        ------
        IndexMissingError
            There is no index in `folder`.
        IndexDamagedError
            See `from_bytes`.
        """
        path = folder / name
        try:
            if name == MANIFEST and not os.path.lexists(path):
                raise IndexMissingError(
                    f"{folder}: there is no index here (no {MANIFEST}). "
                    f"Make one with: rdsearch build PROTEINS.fasta --chain CHAIN -o {folder}",
                    path=folder,
                )
            with open_file(folder, name) as file:
                content = file.read(_LARGEST + 1)
        except OSError as error:
            raise IndexDamagedError(
                f"{path}: it cannot be read ({error.strerror})", path=path
            ) from error
        if len(content) > _LARGEST:
            raise IndexDamagedError(
                f"{path}: expected at most {_LARGEST:,} bytes, found more: this is no manifest",
                path=path,
            )
        return cls.from_bytes(content, path)


def _parse(table: Mapping[str, Any]) -> Manifest:
    def file(values: Mapping[str, Any]) -> FileEntry:
        skipped = tuple(map(tuple, values["skipped"]))
        return entry(FileEntry, {**values, "skipped": skipped})

    def files(entries: Any) -> tuple[FileEntry, ...]:
        return tuple(map(file, entries))

    calibration = table.get("calibration")
    given = {"calibration": calibration, **table}
    values = {field.name: given[field.name] for field in fields(Manifest)}
    if calibration is not None:
        values["calibration"] = Calibration.from_dict(calibration)
    scan = table["scan"]
    values["scan"] = None if scan is None else entry(TierEntry, scan)
    values["tiers"] = tuple(entry(TierEntry, one) for one in table["tiers"])
    funnel, guarantee, tombstones = table["funnel"], table["guarantee"], table["tombstones"]
    through = {key: tuple(funnel[key]) for key in ("tiers", "shortlists")}
    values["funnel"] = entry(Funnel, {**funnel, **through})
    values["guarantee"] = None if guarantee is None else entry(Guarantee, guarantee)
    cells = table["recipe"]["cells"]
    cells = None if cells is None else entry(Cells, cells)
    scan = table["recipe"]["scan"]
    scan = None if scan is None else entry(Scan, scan)
    values["recipe"] = entry(Recipe, {**table["recipe"], "cells": cells, "scan": scan})
    values["segments"] = tuple(
        entry(SegmentEntry, {**one, "files": files(one["files"])}) for one in table["segments"]
    )
    values["tombstones"] = None if tombstones is None else file(tombstones)
    values["files"] = files(table["files"])
    return entry(Manifest, values)


def _canonical(table: Mapping[str, Any]) -> bytes:
    text = json.dumps(table, indent=1, sort_keys=True, ensure_ascii=False)
    return (text + "\n").encode()
