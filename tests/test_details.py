"""What hits carry besides their score: traces, alignments, sequences, probabilities, cuts."""

from __future__ import annotations

import re

import numpy as np
import pytest

import rdsearch
from rdsearch import details
from rdsearch.aligner import Aligner
from rdsearch.errors import CalibrationError, InputError
from rdsearch.funnel import Funnel
from rdsearch.generations import publish, successor
from rdsearch.hits import RESULT_COLUMNS, Hit
from tests.described import calibration, distinct_proteins


@pytest.fixture(scope="module")
def records():
    return distinct_proteins(120, 210)


@pytest.fixture(scope="module")
def path(tmp_path_factory, mini_chain, records):
    folder = tmp_path_factory.mktemp("details")
    file = folder / "proteins.fasta"
    file.write_text("".join(f">{r.accession}\n{r.sequence}\n" for r in records))
    table = folder / "table.tsv"
    table.write_text(f"accession\tidentity\tcolour\n{records[0].accession}\t7\tred\n")
    target = folder / "index"
    rdsearch.build(file, mini_chain, target, recipe="exact", metadata=[table], dtype="float32")
    return target


@pytest.fixture(scope="module")
def index(path):
    with rdsearch.open(path, dtype="float32") as opened:
        yield opened


@pytest.fixture
def calibrated(tmp_path, path, index):
    import shutil

    copy = shutil.copytree(path, tmp_path / "calibrated")
    with rdsearch.open(copy) as opened:
        made = calibration(opened.manifest, {"fdr": 0.5, "fnr": 0.1})
        publish(copy, successor(opened.manifest, "calibrate", calibration=made))
    with rdsearch.open(copy, dtype="float32") as opened:
        yield opened


def test_a_trace_is_the_place_in_an_exhaustive_search(index, records):
    everything = {}
    for tier in index.tiers:
        funnel = Funnel((tier,), ())
        results = index.search(records[:3], k=index.n_rows, funnel=funnel)
        everything[tier] = [{h.row: (h.rank, h.score) for h in hits} for _, hits in results]
    for place, (_, hits) in enumerate(index.search(records[:3], k=5, trace=True)):
        assert len(hits) == 5
        for hit in hits:
            assert [one.tier for one in hit.tiers] == list(index.tiers)
            for one in hit.tiers:
                rank, score = everything[one.tier][place][hit.row]
                assert one.rank == rank
                assert one.score == pytest.approx(score, abs=1e-5)
            assert hit.as_dict()[f"rank_{index.tiers[0]}"] == hit.tiers[0].rank


def test_a_trace_stops_where_the_search_does_and_leaves_the_query_out(index, records):
    middle = index.tiers[1]
    found = index.search(records[:2], to_tier=middle, trace=True, exclude_self=True)
    for query, hits in found:
        assert query.accession not in {hit.accession for hit in hits}
        assert [one.tier for one in hits[0].tiers] == list(index.tiers[:2])
        assert hits[0].tiers[-1].rank == 1


def test_ranks_beyond_the_trace_are_none(index, records, monkeypatch):
    monkeypatch.setattr(details, "TRACE_ROWS", 3)
    _, hits = next(iter(index.search(records[0], k=10, trace=True)))
    assert [hit.tiers[-1].rank for hit in hits] == [1, 2, 3] + 7 * [None]
    assert f"rank_{index.tiers[-1]}" not in hits[5].as_dict()


def test_without_a_trace_tiers_are_those_of_the_funnel(index, records):
    funnel = Funnel((index.tiers[0], index.tiers[-1]), (50,))
    _, hits = next(iter(index.search(records[0], funnel=funnel)))
    assert [(one.tier, one.rank) for one in hits[0].tiers] == [
        (index.tiers[0], None),
        (index.tiers[-1], None),
    ]


def test_alignments_are_the_aligners(index, records):
    residues = sum(len(record.sequence) for record in records)
    assert index.catalog.n_residues == residues
    aligner = Aligner("BLOSUM80", 10, 1)
    for query, hits in index.search(records[:3], k=4, align=aligner):
        sequences = index.catalog.sequences([hit.row for hit in hits])
        expected = aligner.align(query.sequence, sequences, residues=residues)
        assert [hit.alignment for hit in hits] == expected
        assert [hit.sequence for hit in hits] == sequences


def test_hits_in_the_order_of_their_alignments(index, records):
    plain = list(index.search(records[:4], k=100, align=True))
    for (_, hits), (_, ordered) in zip(
        plain, index.search(records[:4], k=5, align=True, realign=True), strict=True
    ):
        bits = [hit.alignment.bits for hit in hits if hit.alignment is not None]
        assert [hit.alignment.bits for hit in ordered] == sorted(bits, reverse=True)[:5]
        assert [hit.rank for hit in ordered] == [1, 2, 3, 4, 5]


def test_sequences_alone(index, records):
    _, hits = next(iter(index.search(records[0], k=3, sequences=True)))
    by_name = {record.accession: record.sequence for record in records}
    assert [hit.sequence for hit in hits] == [by_name[hit.accession] for hit in hits]
    _, hits = next(iter(index.search(records[0], k=3)))
    assert {hit.sequence for hit in hits} == {None}


def test_columns_are_those_of_the_hits(index, records):
    wanted = details.wanted(trace=True, align=True)
    _, hits = next(iter(index.search(records[0], details=wanted)))
    names = index.hit_columns(details=wanted)
    assert len(names) == len(set(names))
    values = hits[0].as_dict()
    assert [name for name in values if name in names] == names
    assert set(values) - set(names) == {"probability"}


def test_a_users_column_that_is_called_as_a_results_is_told_apart(index, records):
    _, hits = next(iter(index.search(records[0], k=1, align=True)))
    values = hits[0].as_dict()
    assert values["identity"] == 1.0
    assert values["metadata_identity"] == 7
    assert values["colour"] == "red"
    names = index.hit_columns(details=details.wanted(align=True))
    assert names.count("identity") == names.count("metadata_identity") == 1


def test_no_result_column_is_a_field_of_another_meaning():
    assert len(RESULT_COLUMNS) == len(set(RESULT_COLUMNS))
    fields = set(Hit.__dataclass_fields__) - {"columns", "tiers", "alignment", "scores", "row"}
    assert not fields & (set(RESULT_COLUMNS) - {"query", "rank", "score", "evalue", "probability"})


def test_a_calibrated_cut_and_probabilities(calibrated, records):
    everything = list(calibrated.search(records[:5], k=210))
    for rate, threshold in (({"fdr": 0.1}, 0.5), ({"fnr": 0.2}, 0.1)):
        for (_, hits), (_, kept) in zip(
            everything, calibrated.search(records[:5], **rate), strict=True
        ):
            expected = [hit.accession for hit in hits if hit.score >= threshold]
            assert [hit.accession for hit in kept] == expected
    for _, hits in everything:
        expected = np.interp([hit.score for hit in hits], [-1, 1], [0.001, 0.999])
        np.testing.assert_allclose([hit.probability for hit in hits], expected, rtol=1e-6)
    assert "probability" in calibrated.hit_columns()


def test_an_index_that_is_not_calibrated_refuses(index, calibrated, records):
    for rate in ({"fdr": 0.1}, {"fnr": 0.1}):
        name = next(iter(rate))
        with pytest.raises(CalibrationError, match="is not calibrated") as caught:
            index.search(records[0], **rate)
        assert f"rdsearch calibrate {index.path} LABELS.tsv --{name} 0.1" in str(caught.value)
    with pytest.raises(CalibrationError, match=re.escape("calibrated to fdr 0.1, not to 0.05")):
        calibrated.search(records[0], fdr=0.05)
    with pytest.raises(CalibrationError, match=f"tier {calibrated.tiers[0]} is not calibrated"):
        calibrated.search(records[0], fdr=0.1, to_tier=calibrated.tiers[0])
    _, hits = next(iter(calibrated.search(records[0], to_tier=calibrated.tiers[0])))
    assert hits[0].probability is None


def test_ordering_by_alignment_needs_one():
    with pytest.raises(InputError, match="only when they are aligned"):
        details.Details(realign=True)
    assert details.wanted(realign=True).aligner is not None


def test_a_calibration_survives_a_new_generation(calibrated, records):
    path = calibrated.path
    rdsearch.remove(path, [records[-1].accession])
    with rdsearch.open(path) as opened:
        assert opened.manifest.calibration == calibrated.manifest.calibration
        assert opened.info()["calibration"]["labels"] == "labels.tsv"
