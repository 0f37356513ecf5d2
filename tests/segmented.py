"""An index of several catalogs as plain lists of proteins."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rdsearch.catalog import Catalog, CatalogWriter
from rdsearch.catalogs import Catalogs
from rdsearch.fasta import Record
from rdsearch.headers import HEADER_COLUMNS
from rdsearch.rowmap import RowMap
from rdsearch.tombstones import Tombstones

SEQUENCES = ["MKV", "ACDE", "GG", "WWWWW", "MKVL"]
ORGANISMS = [("Homo sapiens", 9606), ("Mus musculus", 10090), (None, None)]
# The user's columns of each segment. Case does not count: the first spelling is the index's.
COLUMNS = [
    {"Depth": "BIGINT"},
    {},
    {"depth": "BIGINT", "note": "VARCHAR", "Lineage": "VARCHAR"},
    {"NOTE": "VARCHAR", "organism": "VARCHAR"},
]
SPELLING = {"depth": "Depth", "note": "note", "lineage": "Lineage", "organism": "organism"}
VALUES = {
    "depth": [None, 0, 3, 7],
    "note": [None, "it's", 'a "b"'],
    "lineage": [None, "1;2;562", "1;9606"],
    "organism": [None, "Rattus"],
}
HEADERS = [name for name, _ in HEADER_COLUMNS]


@dataclass
class Protein:
    """One accession in one segment."""

    record: Record
    segment: str
    position: int
    row: int
    values: dict[str, object]
    live: bool = True

    @property
    def place(self):
        return self.segment, self.row

    def line(self, columns, row):
        """What a catalog is to say of it."""
        known = {name: getattr(self.record, name) for name in HEADERS}
        known.update(row=row, accession=self.record.accession, length=len(self.record.sequence))
        given = {name: value for name, value in self.values.items() if value is not None}
        known.update({SPELLING[name.lower()]: value for name, value in given.items()})
        return {name: known.get(name) for name in columns}


@dataclass
class Model:
    """An index as lists."""

    proteins: list[Protein] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def add(self, lines):
        """A new segment of (accession, sequence, organism, values); those there are left out."""
        name = f"{len(self.names) + 1:06d}"
        columns = COLUMNS[len(self.names) % len(COLUMNS)]
        live = {protein.record.accession for protein in self.proteins if protein.live}
        rows, segment = {}, []
        for number, text, organism, picks in lines:
            accession = f"p{number}"
            if accession in live or accession in {p.record.accession for p in segment}:
                continue
            sequence = SEQUENCES[text]
            named, taxon = ORGANISMS[organism]
            record = Record(
                f"x|{accession}", accession, sequence, f"of {name}", organism=named, taxon_id=taxon
            )
            values = {
                column: VALUES[column.lower()][pick % len(VALUES[column.lower()])]
                for column, pick in zip(columns, picks, strict=False)
            }
            row = rows.setdefault(sequence, len(rows))
            segment.append(Protein(record, name, len(segment), row, values))
        if segment:
            self.names.append(name)
            self.proteins += segment
        return segment

    def write(self, folder):
        """Its catalogs on the disk."""
        known = {}
        for name in self.names:
            segment = [protein for protein in self.proteins if protein.segment == name]
            columns = list(segment[0].values)
            with CatalogWriter(folder / name) as writer:
                assert [writer.add(p.record) for p in segment] == [p.row for p in segment]
                if columns:
                    table = folder / f"{name}.tsv"
                    lines = ["\t".join(["accession", *columns])]
                    for protein in segment:
                        cells = [cell(protein.values[column]) for column in columns]
                        lines.append("\t".join([protein.record.accession, *cells]))
                    table.write_text("\n".join(lines) + "\n")
                    # The type of a column without values would be guessed.
                    known.update({SPELLING[c.lower()]: KINDS[c.lower()] for c in columns})
                    writer.join(table, known)
                writer.finish({})

    def tombstones(self):
        """What is removed and hidden: of all living places of a sequence the first is shown."""
        places = {}
        for protein in self.proteins:
            alive = places.setdefault(protein.record.sequence, {})
            alive[protein.place] = alive.get(protein.place, False) or protein.live
        removed, hidden, doubles = {}, {}, {}
        for protein in self.proteins:
            if not protein.live:
                removed.setdefault(protein.segment, []).append(protein.position)
        for alive in places.values():
            living = [place for place, lives in alive.items() if lives]
            for segment, row in set(alive) - set(living[:1]):
                hidden.setdefault(segment, []).append(row)
            doubles.update((place, living[0]) for place in living[1:])
        as_arrays = ({k: np.array(sorted(v)) for k, v in d.items()} for d in (removed, hidden))
        return Tombstones(*as_arrays, doubles)

    def rowmap(self, tombstones):
        sizes = [1 + max(p.row for p in self.proteins if p.segment == name) for name in self.names]
        return RowMap(sizes, [tombstones.hidden_in(name) for name in self.names])

    def shown(self):
        """The sequence of each row: by the first living place of each."""
        seen = {}
        for protein in self.live():
            seen.setdefault(protein.record.sequence, protein.place)
        return sorted(seen, key=lambda sequence: seen[sequence])

    def live(self):
        return [protein for protein in self.proteins if protein.live]


KINDS = {"depth": "BIGINT", "note": "VARCHAR", "lineage": "VARCHAR", "organism": "VARCHAR"}


def cell(value):
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if '"' in text else text


def opened(model, folder, stack, tombstones=None):
    tombstones = model.tombstones() if tombstones is None else tombstones
    catalogs = [Catalog(folder / name, tombstones.removed_in(name)) for name in model.names]
    return stack.enter_context(
        Catalogs(catalogs, model.names, model.rowmap(tombstones), tombstones)
    )
