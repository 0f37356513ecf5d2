"""Reranking: every candidate scored as a search scores it, those without a row too."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest

import rdsearch
from rdsearch import fasta, rerank, samples
from rdsearch.candidates import Candidates
from rdsearch.errors import InputError
from tests import oracle


@pytest.fixture(scope="module")
def index(mini_index):
    with rdsearch.open(mini_index, dtype="float32") as opened:
        yield opened


@pytest.fixture(scope="module")
def queries():
    return list(itertools.islice(fasta.read(samples.CHAIN_SAMPLE), 300, 306))


@pytest.fixture(scope="module")
def records(proteins_file):
    return list(fasta.read(proteins_file))


@pytest.fixture(scope="module")
def strangers(records):
    """Proteins that the index lacks."""
    known = {record.sequence for record in records}
    others = (r for r in fasta.read(samples.CHAIN_SAMPLE) if r.sequence not in known)
    return list(itertools.islice(others, 320, 326))


def cosines(index, query, sequences, tier):
    """Cosines in the centred space of an exact index, from the sequences."""
    vectors = index.embed([query.sequence, *sequences], tier)
    mean = index.space.mean[: vectors.shape[1]]
    return oracle.centred_cosine(vectors[0], vectors[1:], mean)


@pytest.mark.parametrize("tier", ["0.1M", "1.2M", None])
def test_scores_and_order_are_those_of_the_sequences(index, queries, records, tier):
    chosen = records[5:40:3]
    names = [record.accession for record in chosen]
    results, report = rerank.rerank(index, queries, names, tier)
    assert [result.query for result in results] == queries
    tier = tier or index.tiers[-1]
    for query, hits in results:
        expected = cosines(index, query, [record.sequence for record in chosen], tier)
        order = np.argsort(-expected, kind="stable")
        assert [hit.accession for hit in hits] == [names[i] for i in order]
        np.testing.assert_allclose([hit.score for hit in hits], expected[order], atol=5e-6)
        assert [hit.rank for hit in hits] == list(range(1, len(names) + 1))
        assert [hit.columns["candidate_rank"] for hit in hits] == [int(i) + 1 for i in order]
        assert {hit.query for hit in hits} == {query.id}
        assert all(hit.scores == {tier: hit.score} for hit in hits)
    assert (report.candidates, report.scored) == (6 * len(names), 6 * len(names))
    assert report.missing == {}


def test_all_rows_as_candidates_give_what_a_search_gives(index, queries, records):
    names = [record.accession for record in records if record.accession != "twin"]
    found = list(index.search(queries, 120, to_tier="1.2M", shortlists={}))
    results, _ = rerank.rerank(index, iter(queries), names, "1.2M")
    few, _ = rerank.rerank(index, queries, names, "1.2M", k=7)
    for searched, reranked, best in zip(found, results, few, strict=True):
        assert [hit.row for hit in reranked.hits] == [hit.row for hit in searched.hits]
        assert best.hits == reranked.hits[:7]
        for hit, other in zip(searched.hits, reranked.hits, strict=True):
            assert other.columns.pop("candidate_rank") >= 1
            assert other.score == pytest.approx(hit.score, abs=1e-6)
            assert (other.accession, other.accessions) == (hit.accession, hit.accessions)
            assert (other.columns, other.length) == (hit.columns, hit.length)


def test_each_query_has_its_own_candidates(index, queries, records, tmp_path, caplog):
    a, b = queries[:2]
    names = [record.accession for record in records]
    lines = [f"{a.id}\t{name}" for name in names[:4]] + [f"{b.id}\t{names[9]}", "Q0\tT0"]
    path = tmp_path / "candidates.tsv"
    path.write_text("\n".join(["query\ttarget", *lines]))
    with caplog.at_level(logging.WARNING, "rdsearch"):
        results, report = rerank.rerank(index, queries, path)
    found = [{hit.accession for hit in hits} for _, hits in results]
    assert found == [set(names[:4]), {names[9]}, *[set()] * 4]
    assert report.unknown_queries == ("Q0",)
    assert report.without_candidates == tuple(query.id for query in queries[2:])
    assert "1 queries of the candidates were not given (Q0)" in caplog.text
    few = ", ".join(query.id for query in queries[2:5])
    assert f"4 queries have no candidates ({few}, …)" in caplog.text


def test_candidates_that_share_a_row_are_hits_of_their_own(index, queries, records):
    first = records[0].accession
    for names in (["twin", first], [first, "twin"]):
        ((_, hits),), _ = rerank.rerank(index, queries[:1], [names[0], "absent", names[1]])
        assert [hit.accession for hit in hits] == names
        assert [hit.columns["candidate_rank"] for hit in hits] == [1, 3]
        assert {hit.row for hit in hits} == {0}
        assert hits[0].score == hits[1].score
        assert {hit.accessions for hit in hits} == {(first, "twin")}
    by_name = {hit.accession: hit for hit in hits}
    assert by_name["twin"].columns["description"] == "the first sequence again"
    assert by_name[first].columns["description"] == records[0].description


def test_candidates_that_the_index_lacks_are_named(index, queries, records, caplog):
    names = [records[3].accession, "x1", "x2", records[4].accession, "x3", "x4"]
    with caplog.at_level(logging.WARNING, "rdsearch"):
        results, report = rerank.rerank(index, queries, names)
    assert all(len(hits) == 2 for _, hits in results)
    assert report.missing == {query.id: ("x1", "x2", "x3", "x4") for query in queries}
    assert (report.candidates, report.scored, report.n_missing) == (36, 12, 24)
    assert "4 candidates are not in the index and were left out (x1, x2, x3, …)" in caplog.text


@pytest.mark.parametrize("tier", ["0.5M", None])
def test_sequences_of_missing_candidates_are_embedded(
    index, queries, records, strangers, tmp_path, monkeypatch, tier
):
    monkeypatch.setattr(rerank, "_AT_ONCE", 2)
    path = tmp_path / "more.fasta"
    given = [*strangers, records[7], strangers[0]]
    path.write_text("".join(f">{r.id} {r.description}\n{r.sequence}\n" for r in given))
    chosen = [strangers[4], records[7], strangers[1], records[20], strangers[2]]
    names = [record.accession for record in chosen]
    embedded = []
    embed = index.embed
    monkeypatch.setattr(
        index, "embed", lambda texts, *rest: (embedded.extend(texts), embed(texts, *rest))[1]
    )
    results, report = rerank.rerank(index, queries, [*names, "x1"], tier, sequences=path)
    assert sorted(embedded) == sorted(strangers[i].sequence for i in (4, 1, 2))
    assert (report.embedded, report.scored, report.candidates) == (3, 30, 36)
    assert report.missing == {query.id: ("x1",) for query in queries}
    for query, hits in results:
        expected = cosines(
            index, query, [record.sequence for record in chosen], tier or index.tiers[-1]
        )
        order = np.argsort(-expected, kind="stable")
        assert [hit.accession for hit in hits] == [names[i] for i in order]
        np.testing.assert_allclose([hit.score for hit in hits], expected[order], atol=5e-6)
        for hit in hits:
            record = chosen[names.index(hit.accession)]
            assert hit.length == len(record.sequence)
            assert (hit.row == -1) == (record in strangers)
            if hit.row == -1:
                assert hit.accessions == (record.accession,)
                assert hit.protein_name == record.protein_name
                del hit.columns["candidate_rank"]
                assert set(hit.columns.values()) == {None}
    everything = rerank.columns(index, "0.5M")
    assert len(everything) == len(set(everything))
    ((_, hits), *_), _ = rerank.rerank(index, queries, names, "0.5M", sequences=strangers)
    assert all(set(everything) <= set(hit.as_dict()) for hit in hits)
    assert [name for name in hits[0].as_dict() if name in everything] == everything


def test_only_what_a_query_needs_is_embedded(index, queries, strangers, records, monkeypatch):
    asked = {
        queries[0].accession: [records[0].accession],
        "another query": [stranger.accession for stranger in strangers],
    }
    monkeypatch.setattr(index, "embed", lambda *_: pytest.fail("embedded"))
    results, report = rerank.rerank(index, queries[:1], asked, sequences=strangers)
    assert [hit.row for hit in results[0].hits] == [0]
    assert report.embedded == 0


def test_a_store_of_queries_and_equal_vectors(index, mini_store, records):
    """An index's own sequence, embedded again, scores as its row does and comes after it."""
    copy = fasta.Record("copy", "copy", records[5].sequence)
    names = ["copy", records[5].accession, records[6].accession]
    results, _ = rerank.rerank(index, mini_store, names, sequences=[copy])
    assert [query.id for query, _ in results] == [record.id for record in records]
    for query, hits in results:
        by_name = {hit.accession: hit.score for hit in hits}
        assert by_name["copy"] == pytest.approx(by_name[records[5].accession], abs=1e-6)
        if query.id == records[5].id:
            assert by_name["copy"] == pytest.approx(1, abs=1e-6)


def test_equal_scores_are_ordered_by_row_then_as_they_came():
    scores = {"new": 0.5, "b": 0.5, "best": 0.9, "twin": 0.5, "a": 0.5}
    names = ("new", "absent", "b", "best", "twin", "a")
    asked = rerank._Asked(fasta.Record("q", "q", "M"), names, scores, None)
    rows = {"a": 1, "b": 4, "twin": 4, "best": 9}
    assert rerank._order(asked, rows, 10) == ["best", "a", "b", "twin", "new"]


def test_what_cannot_be_reranked(index, queries, records, strangers):
    name = records[0].accession
    twice = [strangers[0], fasta.Record("x", strangers[0].accession, "MKV")]
    for options, reason in (
        ({"k": 0}, "k must be at least 1; found 0"),
        ({"tier": "3B"}, "no tier '3B'"),
        ({"candidates": {"Q1": [name], "Q2": [name]}}, r"none of 6 queries.*for Q1, Q2, the quer"),
        ({"candidates": Candidates({})}, "for nobody"),
        ({"candidates": ["x1", "x2"]}, r"none of 2 candidates is in the index \(x1, x2\).*--seq"),
        ({"candidates": ["x1"], "sequences": strangers}, "none of 1 candidates"),
        ({"candidates": [strangers[0].accession], "sequences": twice}, "two sequences"),
        ({"candidates": "absent.tsv"}, "absent.tsv"),
    ):
        with pytest.raises(InputError, match=reason):
            rerank.rerank(index, **{"queries": queries, "candidates": [name], **options})


def command(*arguments: object, stdin: str = "", code: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "rdsearch", "rerank", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ.copy(),
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_the_command(mini_index, queries, records, strangers, tmp_path):
    query, more = tmp_path / "query.fasta", tmp_path / "more.fasta"
    query.write_text(f">{queries[0].id}\n{queries[0].sequence}\n")
    more.write_text(f">{strangers[0].id}\n{strangers[0].sequence}\n")
    names = [records[0].accession, strangers[0].accession, "x1", records[2].accession]
    hits = "".join(
        f"{queries[0].id}\t{name}\t0.4\t90\t63\t1\t5\t94\t3\t92\t2e-05\t{45 - i}\n"
        for i, name in enumerate(names)
    )
    out, err = command(
        mini_index, query, "-", "--sequences", more, "--tier", "0.5M", "--format", "tsv", stdin=hits
    )
    lines = list(csv.DictReader(io.StringIO(out), delimiter="\t"))
    assert {line["accession"] for line in lines} == {*names} - {"x1"}
    scores = [float(line["score_0.5M"]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert [names[int(line["candidate_rank"]) - 1] for line in lines] == [
        line["accession"] for line in lines
    ]
    assert "1 candidates are not in the index and were left out (x1)" in err
    assert "3 of 4 candidates scored, 1 of them embedded" in err

    out, err = command(
        mini_index, query, "-", "-k", 1, "--format", "jsonl", "--quiet", stdin="\n".join(names[::3])
    )
    (line,) = map(json.loads, out.splitlines())
    assert line["accession"] in names[::3]
    assert err == ""
    _, err = command(mini_index, query, "-", stdin="x1\n", code=1)
    assert err.startswith("rdsearch: error: none of 1 candidates")
    _, err = command(mini_index, "-", "-", code=2)
    assert "only one of QUERY, CANDIDATES" in err
