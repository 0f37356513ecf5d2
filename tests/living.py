"""A plain model of an index that changes, and made-up proteins to change it with.

What an index holds is a tuple of proteins in the order in which they came. Those of one sequence
are one row, which stands where the first of them stands that is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rdsearch.fasta import Record
from rdsearch.headers import HEADER_COLUMNS, parse_header
from rdsearch.store import Store
from rdsearch.storewriter import write_store
from tests.stored import FAMILY, FakeEmbedder, chain, vector

CHAIN = chain()
#: A residue that the vectors do not see where it ends a sequence, if there are to be ties.
UNSEEN = "G"
_CORES = ["MKTAY", "WYWYACD", "AACDEFHIKL", "VVLKK", "PQRSTV", "HHHHHHC", "ELVIS", "NNNIDE"]
#: Few sequences and names, so that changes meet what is there.
SEQUENCES = tuple(core + tail for core in _CORES for tail in ("", UNSEEN, 2 * UNSEEN))
NAMES = tuple(f"Q{i:02}" for i in range(36))
#: Columns that tables bring, with a value for each number. Headers have a gene too.
COLUMNS: dict[str, Callable[[int], Any]] = {
    "note": lambda number: f"n{number}",
    "mass": lambda number: 100 + number,
    "gene": lambda number: f"t{number}",
    "lineage": lambda number: f"2;{500 + number}",
}
#: Expressions for a search, and the same in Python on the columns of a protein.
FILTERS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "mass > 101": lambda shown: shown.get("mass", 0) > 101,
    "note = 'n1' OR gene = 'h'": lambda shown: (
        shown.get("note") == "n1" or shown.get("gene") == "h"
    ),
    "lineage IS NULL AND length < 7": lambda shown: "lineage" not in shown and shown["length"] < 7,
}

#: Proteins to add: names with sequence and header.
Drawn = Mapping[str, tuple[str, int]]
#: One column of a table and the number of its first value.
Described = tuple[str, int] | None


@dataclass(frozen=True)
class Protein:
    """One protein of the model.

    Attributes
    ----------
    record : Record
    place : tuple of int
        The generation whose segment has it, and its row there.
    columns : dict
        What tables said.
    """

    record: Record
    place: tuple[int, int] = (0, 0)
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its accession."""
        return self.record.accession

    @property
    def shown(self) -> dict[str, Any]:
        """Every column that has a value: the tables' before the header's."""
        header = {name: getattr(self.record, name) for name, _ in HEADER_COLUMNS}
        both = {**header, **self.columns, "length": len(self.record.sequence)}
        return {name: value for name, value in both.items() if value is not None}

    def told(self, said: Mapping[str, Any]) -> Protein:
        """With what a table says."""
        return dataclasses.replace(self, columns={**self.columns, **said})


Proteins = tuple[Protein, ...]


def record(name: str, sequence: str, header: int = 0) -> Record:
    """A protein with one of three headers; the first is an accession alone."""
    headers = (
        name,
        f"sp|{name}|ONE_X Protein one OS=Org one OX=501",
        f"tr|{name}|TWO_X Protein two OS=Org two OX=502 GN=h SV=2",
    )
    return Record(sequence=sequence, **parse_header(headers[header]))


def proteins(drawn: Drawn) -> Proteins:
    """Proteins without a place."""
    return tuple(Protein(record(name, *facts)) for name, facts in drawn.items())


def rows(of: Iterable[Protein]) -> list[list[Protein]]:
    """The proteins behind each row, in the order of the rows."""
    behind: dict[str, list[Protein]] = {}
    for protein in of:
        behind.setdefault(protein.record.sequence, []).append(protein)
    return sorted(behind.values(), key=lambda group: min(protein.place for protein in group))


def by_row(of: Iterable[Protein]) -> Proteins:
    """The order in which one index holds them."""
    return tuple(protein for group in rows(of) for protein in group)


def placed(of: Iterable[Protein], generation: int) -> Proteins:
    """The same proteins in a segment of their own."""
    seen: dict[str, int] = {}
    return tuple(
        dataclasses.replace(
            protein, place=(generation, seen.setdefault(protein.record.sequence, len(seen)))
        )
        for protein in of
    )


def named(of: Iterable[Protein]) -> dict[str, Protein]:
    """By accession."""
    return {protein.name: protein for protein in of}


class Tied(FakeEmbedder):
    """Vectors that do not see an end of `UNSEEN` residues."""

    def pool(self, member, sequences, *, progress=None):
        return super().pool(member, [text.rstrip(UNSEEN) for text in sequences], progress=progress)


def store(folder: Path, of: Iterable[Protein | Record], ties: bool = False) -> Store:
    """Proteins, embedded."""
    records = [one.record if isinstance(one, Protein) else one for one in of]
    return write_store(folder, records, Tied() if ties else FakeEmbedder(), CHAIN, block_rows=64)


def vectors(sequences: Sequence[str], ties: bool = False) -> np.ndarray:
    """Their rd embeddings, shape (n, dims)."""
    seen = [text.rstrip(UNSEEN) if ties else text for text in sequences]
    return CHAIN.transform(
        [np.stack([vector(member, text) for text in seen]) for member in FAMILY.members]
    )


def table(path: Path, names: Iterable[str], described: tuple[str, int]) -> dict[str, dict]:
    """Write a table of one column; what it says of each protein."""
    column, number = described
    said = {name: {column: COLUMNS[column](number + i % 3)} for i, name in enumerate(names)}
    return write_table(path, column, said)


def write_table(path: Path, column: str, said: dict[str, dict]) -> dict[str, dict]:
    """Write what is said of one column."""
    lines = [f"{name}\t{values[column]}\n" for name, values in said.items()]
    path.write_text("".join([f"accession\t{column}\n", *lines]), encoding="utf-8")
    return said
