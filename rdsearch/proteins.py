"""Proteins from one FASTA file or several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from rdsearch import fasta
from rdsearch.errors import InputError
from rdsearch.fasta import Record
from rdsearch.fingerprints import Fingerprints

__all__ = ["Fasta", "read_proteins"]

#: One FASTA file (``"-"``: standard input) or several.
Fasta = str | Path | Sequence[str | Path]


def read_proteins(proteins: Fasta) -> Iterator[Record]:
    """Records of all files; a protein that stands in several of them counts once.

    Parameters
    ----------
    proteins : path or sequence of paths

    Yields
    ------
    Record

    Raises
    ------
    FastaError
        A file cannot be read.
    InputError
        Two files have one accession with different sequences.
    """
    paths = [proteins] if isinstance(proteins, str | Path) else proteins
    accessions, pairs = Fingerprints(), Fingerprints()
    for path in paths:
        for record in fasta.read(path):
            named = blake2b(record.accession.encode(), digest_size=16)
            new = accessions.add(named.digest())[1]
            named.update(b"\0" + record.sequence.encode())
            if pairs.add(named.digest())[1] and not new:
                raise InputError(
                    f"{path}: {record.accession} stands in another file with another sequence: "
                    "expected one sequence for each accession"
                )
            if new:
                yield record
