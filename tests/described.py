"""Proteins whose header columns and metadata differ, and a catalog of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rdsearch.catalog import CatalogWriter
from rdsearch.fasta import Record

ORGANISMS = ("Escherichia coli", "Homo sapiens", None, "Bacillus sp. 562")
TAXA = (562, 9606, None, 1409)


def proteins() -> list[Record]:
    """300 proteins of 200 sequences, so that rows have accessions that differ."""
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), n)) for n in rng.integers(5, 60, 190)]
    texts += [text + "KDEL" for text in texts[:10]]
    records = []
    for i in range(300):
        organism = int(rng.integers(4))
        records.append(
            Record(
                f"p{i}",
                f"p{i}",
                texts[i % 200],
                organism=ORGANISMS[organism],
                taxon_id=TAXA[organism],
                gene=None if i % 3 else f"gene{i % 7}",
                existence=1 + i % 5,
            )
        )
    return records


RECORDS = proteins()
ROWS = {text: row for row, text in enumerate(dict.fromkeys(r.sequence for r in RECORDS))}


def expected(condition) -> list[int]:
    """Rows of the records that satisfy a condition."""
    return sorted({ROWS[record.sequence] for record in RECORDS if condition(record)})


def write_catalog(folder: Path) -> Path:
    """A catalog of `RECORDS` and of a table with numbers, dates, lists and structures."""
    lines = [
        {
            "accession": record.accession,
            "score x": i / 10,
            "found": f"20{10 + i % 10}-03-01",
            "tags": [f"t{i % 4}", f"u{i % 5}"],
            "more": {"depth": i % 6},
        }
        for i, record in enumerate(RECORDS)
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with CatalogWriter(folder / "c.duckdb") as writer:
        for record in RECORDS:
            writer.add(record)
        writer.join(folder / "t.jsonl")
        writer.finish({})
    (folder / "t.jsonl").unlink()
    return folder / "c.duckdb"
