"""Annotation transfer on indexes: planted labels, labels by chance, what trials see."""

from __future__ import annotations

import numpy as np
import pytest

import rdsearch
from rdsearch import annotation, evidence
from rdsearch.annotation import Annotator, annotate
from rdsearch.annotation_quality import measure
from rdsearch.errors import CalibrationError, InputError

CLUSTERS, EACH, ALONE = 60, 5, 40


@pytest.fixture(scope="module")
def planted(tmp_path_factory, mini_chain):
    """Vectors in tight clusters, with labels that say which, that say nothing, and few."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLUSTERS, 256))
    vectors = np.repeat(centres, EACH, axis=0) + 0.2 * rng.standard_normal((CLUSTERS * EACH, 256))
    vectors = np.concatenate([vectors, rng.standard_normal((ALONE, 256))]).astype(np.float32)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    sequences = ["".join(rng.choice(letters, 30)) for _ in vectors]
    names = [f"d{i:04}" for i in range(len(vectors))]
    folder = tmp_path_factory.mktemp("annotated")
    (folder / "proteins.fasta").write_text(
        "".join(f">{name}\n{one}\n" for name, one in zip(names, sequences, strict=True))
    )
    (folder / "rd.ids.txt").write_text("\n".join(names) + "\n")
    np.save(folder / "rd.npy", vectors)
    lines = ["accession\tcluster\tgo\tchance\tself\tempty\tfew"]
    for i, name in enumerate(names):
        cluster = f"C{i // EACH}" if i < CLUSTERS * EACH else ""
        go = f"GO:{1000000 + i // EACH}; GO:{2000000 + i // EACH // 2}" if cluster else ""
        few = "rare" if i < 20 else ""
        lines.append(f"{name}\t{cluster}\t{go}\tr{rng.integers(8)}\tS{i}\t\t{few}")
    (folder / "table.tsv").write_text("\n".join(lines) + "\n")
    rdsearch.build(
        folder / "proteins.fasta",
        mini_chain,
        folder / "index",
        vectors=folder / "rd.npy",
        metadata=[folder / "table.tsv"],
        recipe="exact",
        space="centred",
    )
    return folder


@pytest.fixture
def index(planted):
    """The index, whose queries are its own proteins with their planted vectors."""
    vectors = np.load(planted / "rd.npy")
    with rdsearch.open(planted / "index") as opened:

        def batches(queries, tier, progress=None):
            records = list(queries)
            places = [int(record.accession[1:]) for record in records]
            return iter([(records, vectors[places])]) if records else iter([])

        opened.batches = batches
        yield opened


def own(index, count=None):
    """Records of the index's proteins."""
    return list(index.catalog.records())[:count]


@pytest.mark.parametrize("cut", [{"k": 4}, {"k": 10}, {"evalue": 1}], ids=str)
def test_a_perfect_world_is_found_whole(index, cut):
    annotator = Annotator(index, ["cluster", "go"], **cut)
    for column in annotator.columns:
        found = measure(annotator.trials(column), column)
        assert found.trials == CLUSTERS * EACH
        assert (found.best.recall, found.best.f) == (pytest.approx(1), pytest.approx(1))
        assert found.best.precision == pytest.approx(1)
        assert found.naive_best.f < 0.1
    annotator.calibrate()
    for query, _, labels in annotator.annotate(own(index, 50), exclude_self=True):
        best = labels[0]
        assert best.label == f"C{int(query.accession[1:]) // EACH}"
        assert 0.9 < best.confidence < 1
        assert {hit.row // EACH for hit in best.hits} == {int(query.accession[1:]) // EACH}
        wrong = [one for one in labels if one.column == "cluster" and one.label != best.label]
        assert max((one.confidence for one in wrong), default=0) < 0.25


def test_labels_by_chance_are_known_to_be(index):
    found = measure(Annotator(index, ["chance"]).trials("chance"), "chance")
    assert found.mean_confidence == pytest.approx(found.observed, abs=0.03)
    assert found.observed == pytest.approx(1 / 8, abs=0.03)
    labels = [
        label
        for query in annotate(index, own(index), ["chance"], exclude_self=True)
        for label in query.labels
    ]
    assert max(label.confidence for label in labels) < 0.75
    assert np.mean([label.confidence for label in labels]) == pytest.approx(1 / 8, abs=0.03)


def test_no_protein_is_its_own_witness(index):
    annotator = Annotator(index, ["self", "accession"], k=index.n_rows)
    for column in annotator.columns:
        trials = annotator.trials(column)
        assert len(trials) == index.n_rows
        for truth, found in zip(trials.truths, trials.evidence, strict=True):
            assert len(found) == index.n_rows - 1
            assert not truth & set(found)
        assert measure(trials, column).best.recall == 0
    # A query that is in the index finds itself, unless it is left out.
    for left_out in (False, True):
        results = annotator.annotate(own(index, 5), exclude_self=left_out)
        for query, _, labels in results:
            mine = {label.label for label in labels if label.column == "self"}
            assert (f"S{int(query.accession[1:])}" in mine) != left_out


@pytest.mark.parametrize(
    "cut",
    [{}, {"k": 3}, {"evalue": 14}, {"where": "accession < 'd0200'"}, {"to_tier": "0.5M"}],
    ids=str,
)
def test_trials_see_what_a_search_sees(index, cut):
    """The evidence of a trial is that of the same protein as a query, left out of its hits."""
    annotator = Annotator(index, ["go"], **cut)
    drawn = annotator._drawn("go", 40, 3)
    trials = annotator.trials("go", 40, 3)
    assert len(trials) == 40
    records = {int(record.accession[1:]): record for record in own(index)}
    entries = index.catalog.proteins(drawn)
    queries = [records[int(entries[row][0]["accession"][1:])] for row in drawn]
    found = list(annotator.annotate(queries, exclude_self=True))
    for expected, truth, (query, _, labels) in zip(
        trials.evidence, trials.truths, found, strict=True
    ):
        assert {one.label: one.evidence for one in labels} == pytest.approx(expected, rel=1e-3)
        cluster = int(query.accession[1:]) // EACH
        assert truth == {f"GO:{1000000 + cluster}", f"GO:{2000000 + cluster // 2}"}


def test_a_filter_limits_hits_and_trials(index):
    annotator = Annotator(index, ["self"], where="accession < 'd0100'")
    trials = annotator.trials("self")
    assert len(trials) == 100
    assert all(int(label[1:]) < 100 for one in trials.evidence for label in one)
    with pytest.raises(InputError, match=r"cluster has no value .* that may be found"):
        Annotator(index, ["cluster"], where="accession >= 'd0300'").trials("cluster")


def test_a_sample_is_a_seeded_draw(index):
    annotator = Annotator(index, ["cluster"])
    one, same, other = (annotator.trials("cluster", 80, seed) for seed in (0, 0, 1))
    assert len(one) == len(other) == 80
    assert one == same
    assert one != other


def test_a_few_labels_give_no_confidence(index):
    annotator = Annotator(index, ["few", "cluster"])
    annotator.calibrate()
    assert list(annotator.calibrations) == ["cluster"]
    assert "column few: 20 proteins" in annotator.notes[0]
    found = next(annotator.annotate(own(index, 1), exclude_self=True))
    sure = {label.column: label.confidence for label in found.labels}
    assert sure["few"] is None
    assert sure["cluster"] > 0


def test_a_minimum_leaves_out_what_is_less_sure(index):
    every = list(annotate(index, own(index, 20), ["cluster"]))
    most = list(annotate(index, own(index, 20), ["cluster"], minimum_confidence=0.5))
    for all_, some in zip(every, most, strict=True):
        assert some.labels == tuple(one for one in all_.labels if one.confidence >= 0.5)
        assert len(some.labels) == 1 < len(all_.labels)


def test_errors_come_before_the_first_query(index):
    with pytest.raises(InputError, match="empty has no value"):
        annotate(index, own(index), ["empty"])
    with pytest.raises(CalibrationError, match="rdsearch calibrate"):
        annotate(index, own(index), ["go"], fdr=0.1)
    with pytest.raises(InputError, match="tier"):
        annotate(index, own(index), ["go"], to_tier="650M")


def test_proteins_of_one_sequence_share_their_labels(mini_index):
    with rdsearch.open(mini_index) as index:
        annotator = Annotator(index, ["accession"], k=index.n_rows - 1)
        trials = annotator.trials("accession")
        doubles = [truth for truth in trials.truths if len(truth) > 1]
        assert len(trials) == index.n_rows
        assert [("twin" in truth, len(truth)) for truth in doubles] == [(True, 2)]
        assert any("scores weigh" in note for note in annotator.notes)
        # Found or left out together.
        for truth, found in zip(trials.truths, trials.evidence, strict=True):
            assert len(doubles[0] & set(found)) == (0 if truth == doubles[0] else 2)


def test_labels_are_the_same_in_blocks_of_any_size(index, monkeypatch):
    kept = Annotator(index, ["go"]).trials("go", 100)
    monkeypatch.setattr(evidence, "_KEPT_ROWS", 3)
    monkeypatch.setattr(annotation, "_BLOCK", 7)
    again = Annotator(index, ["go"]).trials("go", 100)
    assert again.truths == kept.truths
    for one, other in zip(again.evidence, kept.evidence, strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_segments_and_removed_proteins(living):
    path = living("exact")
    with rdsearch.open(path) as index:
        assert len(index.manifest.segments) == 2
        annotator = Annotator(index, ["accession"])
        trials = annotator.trials("accession")
        assert not any(t & set(e) for t, e in zip(trials.truths, trials.evidence, strict=True))
        behind = index.catalog.proteins(range(index.n_rows)).values()
        known = {one["accession"] for proteins in behind for one in proteins}
        store = path.parent / "b-exact-0"
        for query, n_hits, labels in annotator.annotate(store, exclude_self=True):
            named = {one.label for one in labels}
            assert query.accession not in named
            assert named <= known
            assert n_hits == 10 <= len(named)
