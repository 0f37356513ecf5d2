"""Proteins that tests share: made ones, a catalog of them, packaged ones; a made calibration."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from rdsearch import fasta, samples
from rdsearch.calibration import Calibration
from rdsearch.catalog import CatalogWriter
from rdsearch.fasta import Record
from rdsearch.manifest import Manifest

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


def calibration(manifest: Manifest, scores: dict[str, float | None]) -> Calibration:
    """A calibration of the last tier with cuts at these scores."""
    tier = manifest.tiers[-1].name
    cut = {
        "answered": 0.5,
        "fdp_answered": 0.01,
        "risk": 0.01,
        "groups": 9,
        "fdp": 0.01,
        "found": 0.5,
        "hits": 1.0,
    }
    known: dict[str, Any] = {"tier": tier, "codec": "flat", "brier": 0.1, "brier_constant": 0.2}
    known |= {"scores": [-1.0, 1.0], "probabilities": [0.001, 0.999], "false_positives": []}
    known |= {
        name: None if scores.get(name) is None else {"score": scores[name], **cut}
        for name in ("fdr", "fnr")
    }
    return Calibration.from_dict(
        {
            "chain_hash": manifest.chain_hash,
            "space": manifest.space,
            "space_sha256": "0" * 64,
            "level": "superfamily",
            "fdr": 0.1,
            "fnr": None if scores.get("fnr") is None else 0.2,
            "answered": True,
            "confidence": 0.9,
            "seed": 0,
            "labels": "labels.tsv",
            "groups": 9,
            "groups_held_out": 9,
            "rows": manifest.rows,
            "rows_labelled": manifest.rows,
            "tiers": [known],
        }
    )


def distinct_proteins(longest: int, count: int) -> list[Record]:
    """The first packaged proteins of at most so many residues, each sequence once."""
    short = (one for one in fasta.read(samples.PROTEINS) if len(one.sequence) <= longest)
    distinct = {one.sequence: one for one in short}
    return list(itertools.islice(distinct.values(), count))
