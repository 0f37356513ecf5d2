"""rd embeddings of every residue, in the layout of UniProt's per-residue HDF5 files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdsearch.chain import Chain
from rdsearch.errors import EmbeddingError, InputError
from rdsearch.exchange import completed
from rdsearch.fasta import Record
from rdsearch.fingerprints import Fingerprints
from rdsearch.hdf5file import Hdf5Writer, twice

if TYPE_CHECKING:
    from rdsearch.embed import Embedder
    from rdsearch.progress import Progress

__all__ = ["BLOCK_RESIDUES", "write_residues"]

_PRECISIONS = ("float16", "float32")

#: Residues whose embeddings are in memory together. Every member is loaded once a block, so that
#: a block is large: 2.1 GB at the full width of ESM-2 15B. A longer protein is a block by itself.
BLOCK_RESIDUES = 100_000

_Floats = NDArray[np.float32]


@dataclass(slots=True)
class _Block:
    """New sequences by their first accession, and further accessions with the first of each."""

    sequences: dict[str, str] = field(default_factory=dict)
    again: list[tuple[str, str]] = field(default_factory=list)
    residues: int = 0


def write_residues(
    path: str | Path,
    records: Iterable[Record],
    embedder: Embedder,
    chain: Chain,
    *,
    precision: str = "float16",
    progress: Progress | None = None,
) -> int:
    """Write one dataset an accession, shape (length, dims), at the root of an HDF5 file.

    Identical sequences are embedded once; their accessions share one dataset. The file gets its
    name when it is complete.

    Parameters
    ----------
    path : path
    records : iterable of Record
    embedder : Embedder
        Of the chain's members.
    chain : Chain
        ``chain.upto(tier)`` cuts the prefix.
    precision : str, optional
        ``"float16"`` or ``"float32"``.
    progress : Progress, optional

    Returns
    -------
    int
        Accessions written.

    Raises
    ------
    InputError
        Unknown precision; an accession that comes twice.
    EmbeddingError
        A value does not fit float16.
    StoreError
        The file cannot be written.
    """
    if precision not in _PRECISIONS:
        raise InputError(
            f"there is no precision {precision!r}; choose from {', '.join(_PRECISIONS)}"
        )
    path = Path(path)
    count = 0
    with completed(path) as temporary, Hdf5Writer(temporary) as file:
        for block in _blocks(records):
            embedded = _embed(list(block.sequences.values()), embedder, chain, progress)
            for name, residues in zip(block.sequences, embedded, strict=True):
                with np.errstate(over="ignore"):
                    stored = residues.astype(precision)
                if not np.isfinite(stored).all():
                    raise EmbeddingError(
                        f"{name}: the embedding has values beyond {precision}'s range. Write "
                        "float32 (--precision float32)",
                        accession=name,
                    )
                file.add(name, stored)
            for name, first in block.again:
                file.link(name, first)
            count += len(block.sequences) + len(block.again)
    return count


def _blocks(records: Iterable[Record]) -> Iterator[_Block]:
    """Blocks of about `BLOCK_RESIDUES` new residues."""
    known, firsts = Fingerprints(), []
    block = _Block()
    for record in records:
        sequence = record.sequence
        number, new = known.add(hashlib.sha256(sequence.encode()).digest()[:16])
        if new:
            firsts.append(record.accession)
            if block.sequences and block.residues + len(sequence) > BLOCK_RESIDUES:
                yield block
                block = _Block()
            if record.accession in block.sequences:
                raise twice(record.accession)
            block.sequences[record.accession] = sequence
            block.residues += len(sequence)
        else:
            block.again.append((record.accession, firsts[number]))
    if block.sequences or block.again:
        yield block


def _embed(
    sequences: Sequence[str], embedder: Embedder, chain: Chain, progress: Progress | None
) -> list[_Floats]:
    """rd embeddings of the residues of each sequence; members run one after the other."""
    boundaries = chain.boundaries
    done = [np.empty((len(sequence), boundaries[-1]), np.float32) for sequence in sequences]
    for i, member in enumerate(chain.members):
        report = None if progress is None else progress.stage(member.name, len(sequences))
        below = boundaries[i - 1] if i else 0
        for position, own in embedder.residues(member, sequences, progress=report):
            rd = done[position]
            base = np.ascontiguousarray(rd[:, :below]) if i else None
            rd[:, below : boundaries[i]] = chain.part(i, base, own)
    return done
