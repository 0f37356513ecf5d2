"""Hits with alignments, and their order by them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rdsearch.aligner import Aligner, aligned, by_alignment
from rdsearch.fasta import Record
from rdsearch.hits import Hit, QueryHits


@pytest.fixture(scope="module")
def tool() -> Aligner:
    return Aligner()


def hit(rank: int, row: int, sequence: str | None = None) -> Hit:
    return Hit(
        query="q",
        rank=rank,
        accession=f"P{row}",
        score=1 - rank / 10,
        scores={"8M": 1 - rank / 10},
        row=row,
        length=9,
        protein_name=None,
        organism=None,
        accessions=(f"P{row}",),
        sequence=sequence,
    )


def test_hits_get_alignments_and_sequences(tool):
    query = "MKTAYIAKQRQISFVKSHFSRQ"
    rows = {3: query[5:], 4: "XXXX", 9: query}
    calls = []

    def sequences(wanted):
        calls.append(list(wanted))
        return [rows[row] for row in wanted]

    hits = [hit(1, 3), hit(2, -1, query[:9]), hit(3, -1), hit(4, 4), hit(5, 9, query[2:])]
    results = [
        QueryHits(Record("q", "q", query), hits),
        QueryHits(Record("r", "r", query), [hit(1, -1)]),
        QueryHits(Record("s", "s", query), []),
    ]
    one, two, three = aligned(iter(results), sequences, tool, residues=500)
    assert calls == [[3, 4]]
    assert [found.sequence for found in one.hits] == [query[5:], query[:9], None, "XXXX", query[2:]]
    assert [found.alignment and found.alignment.cigar for found in one.hits] == [
        "17M", "9M", None, None, "20M"
    ]  # fmt: skip
    expected = tool.align(query, [query[5:]], residues=500)
    assert [one.hits[0].alignment] == expected
    assert [replace(found, alignment=None, sequence=None) for found in one.hits] == [
        replace(given, sequence=None) for given in hits
    ]
    assert (one.query, two.hits, three.hits) == (results[0].query, [hit(1, -1)], [])


def test_hits_are_ranked_by_alignment(tool):
    query = "MKTAYIAKQRQISFVKSHFSRQ"
    targets = [query[:5], "XXXX", query, query[:5], None]
    hits = [hit(at, at, target) for at, target in enumerate(targets, start=1)]
    (found,) = aligned([QueryHits(Record("q", "q", query), hits)], lambda _: [query[1:]], tool, 99)
    ranked = by_alignment(found.hits)
    assert [one.row for one in ranked] == [3, 5, 1, 4, 2]
    assert [one.rank for one in ranked] == [1, 2, 3, 4, 5]
    assert [one.score for one in ranked] == [hits[one.row - 1].score for one in ranked]
    assert by_alignment(hits) == hits
    assert by_alignment([]) == []
