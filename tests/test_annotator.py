"""Annotation transfer worked out by hand, from rankings that are given."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from rdsearch.annotation import Annotator, Support
from rdsearch.errors import InputError
from rdsearch.evidence import DOUBT, FLOOR
from rdsearch.fasta import Record
from rdsearch.funnel import Funnel
from rdsearch.hits import Hit, QueryHits
from rdsearch.rankings import Ranking


class Stub:
    """An index whose rankings are given: rows 0 to n - 1, labels of each row's proteins."""

    path = "stub"

    def __init__(self, values, rankings, evalues=None):
        self.manifest = SimpleNamespace(calibration=None)
        self.n_rows = len(values)
        self.columns = {"accession": "VARCHAR", "go": "VARCHAR", "mass": "DOUBLE"}
        self._values, self._rankings, self._evalues = values, rankings, evalues
        self.asked = 0
        self.significance = SimpleNamespace(
            reason=None if evalues else "too few rows",
            evalues=lambda queries, scores, tier, size: [
                np.array([evalues[float(score)] for score in one]) for one in scores
            ],
        )
        self.catalog = SimpleNamespace(
            proteins=lambda rows: {row: self.proteins(row) for row in rows},
            rows_where=lambda _: np.array(
                [row for row in range(self.n_rows) if any(v is not None for v in values[row])]
            ),
        )

    def proteins(self, row):
        return [
            {"accession": f"P{row}{'abc'[i]}", "go": value, "mass": 1.0}
            for i, value in enumerate(self._values[row])
        ]

    def snapshot(self):
        return self

    def plan(self, to_tier=None):
        return Funnel((to_tier or "T",), ())

    def tier(self, _):
        return SimpleNamespace(vectors=lambda rows: rows)

    def rank_rows(self, *arguments, **options):
        return list(self._ranked(*arguments, **options))

    def _ranked(self, block, k, _, *, rows, exclude_self):
        assert (exclude_self, rows) == (True, None)
        for row in block:
            found, scores = zip(*self._rankings[row][:k], strict=True)
            yield Ranking(np.array(found), np.array(scores)[:, None])

    def search(self, queries, k, *, details, exclude_self, progress, where, to_tier):
        for number, query in enumerate(queries):
            self.asked += 1
            yield QueryHits(query, list(self._hits(query, self._rankings[number][:k])))

    def _hits(self, query, ranking):
        for rank, (row, score) in enumerate(ranking, start=1):
            behind = self.proteins(row)
            own = {name: value for name, value in behind[0].items() if name != "accession"}
            yield Hit(
                query=query.id,
                rank=rank,
                accession=behind[0]["accession"],
                score=score,
                scores={"T": score},
                row=row,
                length=9,
                protein_name=None,
                organism=None,
                accessions=tuple(one["accession"] for one in behind),
                columns=own,
                evalue=None if self._evalues is None else self._evalues[score],
            )


RANKING = [(1, 0.9), (2, 0.5), (3, 0.25)]


def test_labels_of_a_query_by_hand():
    stub = Stub(
        [["x"], ["GO:0000001;GO:0000002"], [None], ["GO:0000002", "GO:0000003"]],
        {0: RANKING},
        {0.9: 1e-3, 0.5: 1.0, 0.25: 4.0},
    )
    annotator = Annotator(stub, ["go"], k=3)
    [(query, n_hits, (two, one, three))] = annotator.annotate([Record("q", "q", "MKV")])
    strong, weak = math.log(1001) + FLOOR, math.log(1.25) + FLOOR
    assert (query.id, n_hits) == ("q", 3)
    assert [label.label for label in (two, one, three)] == [f"GO:000000{i}" for i in (2, 1, 3)]
    assert two.evidence == pytest.approx((strong + weak) / (DOUBT + strong + weak))
    assert one.evidence == pytest.approx(strong / (DOUBT + strong + weak))
    assert three.evidence == pytest.approx(weak / (DOUBT + strong + weak))
    assert (two.share, one.share, three.annotated, three.confidence) == (1, 0.5, 2, None)
    # The second protein of row 3 is the one with the label.
    assert three.hits == (Support("P3b", 3, 0.25, 4.0),)
    assert two.hits == (Support("P1a", 1, 0.9, 1e-3), Support("P3a", 3, 0.25, 4.0))


def test_queries_are_taken_one_by_one():
    stub = Stub([["x"], ["y"], ["y"], [None]], {0: RANKING, 1: RANKING})
    found = Annotator(stub, ["go"], k=2).annotate(Record(n, n, "MKV") for n in "pq")
    assert stub.asked == 0
    assert next(found).labels[0].label == "y"
    assert stub.asked == 1


def test_no_hits_and_hits_without_labels():
    stub = Stub([["x"], [None], [None], ["-"]], {0: [], 1: RANKING})
    nothing, blank = Annotator(stub, ["go"], k=3).annotate([Record(n, n, "MKV") for n in "pq"])
    assert (nothing.n_hits, nothing.labels) == (0, ())
    assert (blank.n_hits, blank.labels) == (3, ())


@pytest.mark.parametrize("annotated", [49, 50])
def test_fewer_than_fifty_annotated_proteins_give_no_confidence(annotated):
    values = [["x"]] * annotated + [[None]] * 10
    rankings = {row: [((row + 1) % 60, 0.5), ((row + 2) % 60, 0.4)] for row in range(60)}
    stub = Stub(values, rankings)
    annotator = Annotator(stub, ["go"])
    annotator.calibrate()
    [one] = next(annotator.annotate([Record("q", "q", "MKV")])).labels
    notes = " ".join(annotator.notes)
    if annotated < 50:
        assert one.confidence is None
        assert "49 proteins with a label are too few" in notes
        with pytest.raises(InputError, match="no confidence"):
            annotator.annotate([], minimum_confidence=0.1)
    else:
        assert one.confidence > 0.9
        assert "no confidence" not in notes
    assert "scores weigh in place of e-values" in notes


def test_annotated_proteins_without_annotated_hits_give_no_confidence():
    values = [["x"]] * 60 + [[None]] * 3
    annotator = Annotator(Stub(values, dict.fromkeys(range(60), ((61, 0.9), (62, 0.5)))), ["go"])
    annotator.calibrate()
    assert not annotator.calibrations
    assert "none of 60 proteins with a label has an annotated hit" in annotator.notes[-1]


def test_a_calibrated_threshold_cuts_trials_too():
    stub = Stub([["x"], ["a"], ["b"], ["c"]], dict.fromkeys(range(4), RANKING))
    asked = []
    stub.manifest.calibration = SimpleNamespace(
        threshold=lambda tier, fdr: asked.append((tier, fdr)) or 0.5,
        notes=lambda manifest: "it was learnt from other rows",
        covers=lambda tier: False,
    )
    annotator = Annotator(stub, ["go"], k=3, fdr=0.2)
    assert annotator.notes[-1] == "it was learnt from other rows"
    assert [set(found) for found in annotator.trials("go").evidence] == [{"a", "b"}] * 4
    assert set(asked) == {("T", 0.2)}


def test_what_cannot_be_annotated_is_named():
    stub = Stub([["x"], [None]], {})
    with pytest.raises(InputError, match="no column 'ec'; it has accession, go, mass") as error:
        Annotator(stub, ["ec"])
    assert error.value.columns == ("accession", "go", "mass")
    with pytest.raises(InputError, match="mass is DOUBLE"):
        Annotator(stub, ["mass"])
    with pytest.raises(InputError, match="name a column"):
        Annotator(stub, [])
    with pytest.raises(InputError, match="go has no value"):
        Annotator(Stub([[None], ["-"]], {}), ["go"]).calibrate()
    with pytest.raises(InputError, match="sample"):
        Annotator(stub, ["go"]).trials("go", sample=0)
    with pytest.raises(InputError, match="below 1; found 1"):
        Annotator(stub, ["go"]).annotate([], minimum_confidence=1.0)
    with pytest.raises(InputError, match="k must be from 1 to 2"):
        Annotator(stub, ["go"], k=3)
