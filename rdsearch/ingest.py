"""The proteins of a store: records as a FASTA file, rows as arrays.

    proteins.fasta        every record, cleaned, one line a sequence
    accession_rows.npy    int64, for each record the row of its sequence
    row_offsets.npy       int64, where each row's sequence begins in proteins.fasta
    row_lengths.npy       int32, its residues
    row_sha256.npy        32 bytes a row, SHA-256 of its sequence

A row is a distinct sequence, numbered by first appearance.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rdsearch import durable, fasta
from rdsearch.errors import InputError, StoreError
from rdsearch.fasta import Record
from rdsearch.fingerprints import Fingerprints

__all__ = ["ARRAYS", "PROTEINS", "Proteins", "digest", "write"]

PROTEINS = "proteins.fasta"
ARRAYS = ("accession_rows", "row_offsets", "row_lengths", "row_sha256")


def _lines(record: Record) -> tuple[bytes, bytes]:
    """The two lines of a record; what is read back is the same record."""
    header = f">{record.id} {record.description}".rstrip()
    return f"{header}\n".encode(), f"{record.sequence}\n".encode()


def digest(records: Iterable[Record]) -> str:
    """What identifies an input: SHA-256 over its cleaned records."""
    total = hashlib.sha256()
    for record in records:
        for line in _lines(record):
            total.update(line)
    return total.hexdigest()


def write(folder: Path, records: Iterable[Record]) -> str:
    """Write the proteins of a new store, durably.

    Returns
    -------
    str
        The `digest` of the records.
    """
    total = hashlib.sha256()
    known = Fingerprints()
    rows, offsets, lengths, hashes = array("q"), array("q"), array("i"), bytearray()
    position = 0
    with (folder / PROTEINS).open("wb") as file:
        for record in records:
            header, sequence = _lines(record)
            sha256 = hashlib.sha256(sequence[:-1]).digest()
            row, new = known.add(sha256[:16])
            rows.append(row)
            if new:
                offsets.append(position + len(header))
                lengths.append(len(record.sequence))
                hashes += sha256
            for line in (header, sequence):
                file.write(line)
                total.update(line)
                position += len(line)
    durable.sync_file(folder / PROTEINS)
    if not rows:
        raise InputError("there is no protein to embed: the input holds no record")
    contents: tuple[NDArray[np.generic], ...] = (
        np.frombuffer(rows, dtype=np.int64),
        np.frombuffer(offsets, dtype=np.int64),
        np.frombuffer(lengths, dtype=np.int32),
        np.frombuffer(hashes, dtype=np.uint8).reshape(-1, 32),
    )
    for name, content in zip(ARRAYS, contents, strict=True):
        path = folder / f"{name}.npy"
        with path.open("wb") as file:
            # `np.save` writes past Python's file: on a full disk it may lose the end in silence.
            layout = np.lib.format.header_data_from_array_1_0(content)
            np.lib.format.write_array_header_1_0(file, layout)
            file.write(content.data)
        durable.sync_file(path)
    return total.hexdigest()


class Proteins:
    """The proteins of a store, read where they are needed.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    accession_rows : ndarray, shape (accessions,), int64
    lengths : ndarray, shape (rows,), int32
    sha256 : ndarray, shape (rows, 32), uint8

    Raises
    ------
    StoreError
        A file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            loaded = [
                np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in ARRAYS
            ]
            self._text: NDArray[np.uint8] = np.memmap(folder / PROTEINS, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{folder}: the proteins of this store cannot be read ({error}). Embed again "
                "into a new folder",
                path=folder,
            ) from error
        self.accession_rows, self._offsets, self.lengths, self.sha256 = loaded

    @property
    def row_checksum(self) -> str:
        """SHA-256 over the rows' SHA-256 digests, hex: what ties vectors to a catalog."""
        return hashlib.sha256(self.sha256.tobytes()).hexdigest()

    def sequences(self, start: int, stop: int) -> list[str]:
        """Sequences of a range of rows, compared with their SHA-256.

        Raises
        ------
        StoreError
            The file was changed since it was written.
        """
        offsets, lengths = self._offsets[start:stop].tolist(), self.lengths[start:stop].tolist()
        places = zip(offsets, lengths, strict=True)
        letters = [self._text[offset : offset + length].tobytes() for offset, length in places]
        for row, (sequence, sha256) in enumerate(
            zip(letters, self.sha256[start:stop], strict=True), start
        ):
            if hashlib.sha256(sequence).digest() != sha256.tobytes():
                raise StoreError(
                    f"{self._folder / PROTEINS}: the sequence of row {row} is not the one that "
                    "was written. Remove this store and embed again",
                    path=self._folder / PROTEINS,
                    row=row,
                )
        return [sequence.decode() for sequence in letters]

    def records(self) -> Iterator[Record]:
        """Every record, in the order of the input."""
        return fasta.read(self._folder / PROTEINS, unique=False)
