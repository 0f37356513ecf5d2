"""rd embeddings of every residue, in the layout of UniProt's per-residue HDF5 files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdsearch.chain import Chain
from rdsearch.errors import EmbeddingError, InputError
from rdsearch.exchange import completed
from rdsearch.fasta import Record

if TYPE_CHECKING:
    from rdsearch.embed import Embedder
    from rdsearch.progress import Progress

__all__ = ["BLOCK_RESIDUES", "write_residues"]

_PRECISIONS = ("float16", "float32")

#: Residues whose embeddings are in memory together. Every member is loaded once a block, so that
#: a block is large: 2.1 GB at the full width of ESM-2 15B.
BLOCK_RESIDUES = 100_000

_Floats = NDArray[np.float32]


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

    Identical sequences are embedded once in a block of sequences; their accessions share one
    dataset. The file gets its name when it is complete.

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
    """
    import h5py

    if precision not in _PRECISIONS:
        raise InputError(
            f"there is no precision {precision!r}; choose from {', '.join(_PRECISIONS)}"
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with completed(path) as temporary, h5py.File(temporary, "w") as file:
        for block in _blocks(records):
            embedded = _embed(list(block), embedder, chain, progress)
            for names, residues in zip(block.values(), embedded, strict=True):
                with np.errstate(over="ignore"):
                    stored = residues.astype(precision)
                if not np.isfinite(stored).all():
                    raise EmbeddingError(
                        f"{names[0]}: the embedding has values beyond {precision}'s range. Write "
                        "float32 (--precision float32)",
                        accession=names[0],
                    )
                if twice := [name for name in names if name in file]:
                    raise InputError(
                        f"{twice[0]} is in the input twice: expected one protein for each accession"
                    )
                data = file.create_dataset(names[0], data=stored)
                for name in names[1:]:
                    file[name] = data
                count += len(names)
    return count


def _blocks(records: Iterable[Record]) -> Iterator[dict[str, list[str]]]:
    """Distinct sequences of about `BLOCK_RESIDUES`, with the names of each."""
    block: dict[str, list[str]] = {}
    residues = 0
    for record in records:
        if record.sequence not in block:
            if block and residues + len(record.sequence) > BLOCK_RESIDUES:
                yield block
                block, residues = {}, 0
            residues += len(record.sequence)
        # A slash would make an HDF5 group of what stands before it.
        name = record.accession.replace("/", "_")
        block.setdefault(record.sequence, []).append(name)
    if block:
        yield block


def _embed(
    sequences: Sequence[str], embedder: Embedder, chain: Chain, progress: Progress | None
) -> list[_Floats]:
    """rd embeddings of the residues of each sequence; members run one after the other."""
    done: list[_Floats] = []
    for i, member in enumerate(chain.members):
        report = None if progress is None else progress.stage(member.name, len(sequences))
        parts: dict[int, _Floats] = {}
        for position, own in embedder.residues(member, sequences, progress=report):
            parts[position] = chain.part(i, done[position] if i else None, own)
        done = [
            parts[k] if not i else np.concatenate([done[k], parts[k]], axis=1)
            for k in range(len(sequences))
        ]
    return done
