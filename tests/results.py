"""Results made by hand, for the tests of the formats."""

from __future__ import annotations

import datetime
import random
from decimal import Decimal
from itertools import groupby
from typing import Any

from rdsearch.alignment import Alignment
from rdsearch.fasta import Record
from rdsearch.hits import Hit, QueryHits, TierScore, columns

TIERS = ("8M", "35M", "150M")
TYPES = {
    "accession": "VARCHAR",
    "length": "INTEGER",
    "taxon_id": "INTEGER",
    "go": "VARCHAR[]",
    "mass": "DOUBLE",
    "day": "DATE",
    "price": "DECIMAL(10,2)",
    "reviewed": "BOOLEAN",
    "note": "VARCHAR",
    "place": "STRUCT(x INTEGER, y VARCHAR)",
}
COLUMNS = columns(TIERS, TYPES, evalue=True, probability=True, traced=True, aligned=True)

QUERY = "MKVLATWHHGDEENPQRSTVWY"


def alignment(query: str, target: str, start: int, target_start: int, cigar: str) -> Alignment:
    """What a CIGAR says of two sequences, counted column by column; bits and e-value made up."""
    kinds = [kind for count, kind in runs(cigar) for _ in range(count)]
    one, other = start - 1, target_start - 1
    equal = 0
    for kind in kinds:
        equal += kind == "M" and query[one] == target[other]
        one += kind != "D"
        other += kind != "I"
    gaps = sum(kind != "M" for kind, _ in groupby(kinds))
    return Alignment(
        score=31,
        bits=16.544,
        evalue=0.00345678,
        identity=equal / len(kinds),
        positives=equal / len(kinds),
        query_coverage=(one - start + 1) / len(query),
        target_coverage=(other - target_start + 1) / len(target),
        query_start=start,
        query_end=one,
        target_start=target_start,
        target_end=other,
        length=len(kinds),
        mismatches=kinds.count("M") - equal,
        gap_openings=gaps,
        cigar=cigar,
    )


def runs(cigar: str) -> list[tuple[int, str]]:
    """Counts and kinds."""
    found, digits = [], ""
    for letter in cigar:
        if letter.isdigit():
            digits += letter
        else:
            found.append((int(digits), letter))
            digits = ""
    return found


def hit(rank: int, **given: Any) -> Hit:
    """A hit with every field; some differ by rank."""
    scores = {tier: 0.9 / rank - 0.1 * at for at, tier in enumerate(reversed(TIERS))}
    fields: dict[str, Any] = {
        "query": "q1",
        "rank": rank,
        "accession": f"P{rank:05}",
        "score": scores["150M"],
        "scores": scores,
        "row": rank - 1,
        "length": 24,
        "protein_name": f"protein {rank}",
        "organism": "Homo sapiens",
        "accessions": (f"P{rank:05}", f"A{rank}"),
        "columns": {
            "taxon_id": 9606,
            "go": ["GO:1", "GO:2"],
            "mass": 1.23456789012e-9,
            "day": datetime.date(2020, 2, 29),
            "price": Decimal("12.50"),
            "reviewed": True,
            "note": "plain",
            "place": {"x": 1, "y": "here"},
        },
        "evalue": 1.23456e-30 * 10.0 ** (12 * min(rank, 3)),
        "probability": 0.9876543210 / rank,
        "tiers": tuple(
            TierScore(tier, scores[tier], None if rank == 3 and at == 0 else rank * 10**at)
            for at, tier in enumerate(TIERS)
        ),
    }
    return Hit(**(fields | given))


def results() -> list[QueryHits]:
    """Three queries: one with an alignment, a bare hit and awkward text, one without, one more."""
    target = "GGKVLTWHAAHGDEENPPQRSTVW"
    aligned = alignment(QUERY, target, 2, 3, "3M1I3M2D8M")
    awkward = 'tab\there, "quoted";\r\nnext line\rand <b>é</b>'
    first = [
        hit(1, alignment=aligned, sequence=target),
        hit(
            2,
            protein_name=awkward,
            organism=None,
            evalue=None,
            probability=None,
            columns={"note": awkward, "mass": float("nan"), "go": None},
            sequence="MKV",
        ),
    ]
    last = [
        hit(3, query="q3", sequence="W" * 130),
        hit(1, query="q3", alignment=aligned, sequence=target),
    ]
    return [
        QueryHits(Record("q1", "q1", QUERY, "first query"), first),
        QueryHits(Record("q2", "q2", "MKV", "nothing is like it"), []),
        QueryHits(Record("q3", "q3", QUERY, "third query"), last),
    ]


def mutated(rng: random.Random, query: str) -> tuple[str, Alignment]:
    """A target and an alignment of a random path; any CIGAR that begins and ends with a pair."""
    start = rng.randint(1, len(query))
    kinds, left = ["M"], len(query) - start
    while left and rng.random() < 0.9:
        kind = rng.choice("MMMID")
        kinds.append(kind)
        left -= kind != "D"
    while kinds[-1] != "M":
        kinds.pop()
    cigar = "".join(f"{len(list(run))}{kind}" for kind, run in groupby(kinds))
    target_start = rng.randint(1, 5)
    inside = sum(kind != "I" for kind in kinds)
    target = "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=target_start - 1 + inside + 3))
    return target, alignment(query, target, start, target_start, cigar)
