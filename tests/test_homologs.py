"""The SCOPe protocol: a hand-made example, an oracle on random rankings, labels, composition."""

from __future__ import annotations

import gzip
import logging
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from rdsearch import composition, homologs, labels
from rdsearch.errors import MetadataError
from rdsearch.evaluation import Candidate
from rdsearch.funnel import Funnel
from rdsearch.labels import LabelledRows
from rdsearch.searcher import Step
from tests import oracle

F = Fraction

DOMAINS = {
    "A": "a.1.1.1",
    "B": "a.1.1.1",
    "C": "a.1.1.1",
    "D": "a.1.1.2",
    "E": "a.1.1.2",
    "F": "a.1.2.1",
    "G": "a.1.2.1",
    "H": "b.1.1.1",
    "I": "b.1.1.1",
    "J": "b.1.1.2",
    "K": "b.2.1.1",
    "L": "c.1.1.1",
}
NAMES = list(DOMAINS)

# Worked out by hand below. E's ranking was cut off by a shortlist, G found nothing.
RANKINGS = {
    "A": "BDHCFEGIJKL",
    "B": "HACDEFGIJKL",
    "C": "ABDEFGHIJKL",
    "D": "EAFBCGLKHIJ",
    "E": "ALDB",
    "F": "GABHCDEIJKL",
    "G": "",
    "H": "JIABCDEFGKL",
    "I": "AJBCDEFGKLH",
    "J": "HIABCDEFGKL",
    "K": "LABCDEFGHIJ",
    "L": "ABCDEFGHIJK",
}

# True positives there are:  A B C: 2 2 2   D E: 1 3 2   F G: 1 0 5   H I: 1 1 0   J: 0 2 0.
# All three kinds: A B C D E. Shares before the first false positive, in that order, and then
# those of the queries that have only some kinds.
BY_HAND = {
    "family": {
        "sensitivity": (F(1, 2) + 0 + 1 + 1 + 0) / 5,
        "sensitivity_script": (F(1, 2) + 0 + 1 + 1 + 0) / 5,
        "sensitivity_any": (F(1, 2) + 0 + 1 + 1 + 0 + 1 + 0 + 1 + 0) / 9,  # and F G H I
        "hit1": F(1 + 0 + 1 + 1 + 0 + 1 + 0 + 0 + 0, 9),
        "hit10": F(1 + 1 + 1 + 1 + 1 + 1 + 0 + 1 + 0, 9),  # I's only relative is at rank 11
        # A at 1, 4; B at 2, 3; E at 3; H at 2; I at 11
        "map": (F(3, 4) + F(7, 12) + 1 + 1 + F(1, 3) + 1 + 0 + F(1, 2) + F(1, 11)) / 9,
        "queries": 9,
    },
    "superfamily": {
        "sensitivity": (F(1, 2) + 0 + 1 + 1 + F(1, 3)) / 5,
        "sensitivity_script": (F(1, 3) + 0 + F(2, 3) + F(3, 4) + F(1, 4)) / 5,
        "sensitivity_any": (F(1, 2) + 0 + 1 + 1 + F(1, 3) + 1 + 0 + 1) / 8,  # and H I J
        "hit1": F(1 + 0 + 1 + 1 + 1 + 1 + 0 + 1, 8),
        "hit10": F(1),
        # family taken out: A at 1, 4; B at 2, 3; D at 1, 3, 4; E at 1, 3 of 3; I at 2
        "map": (F(3, 4) + F(7, 12) + 1 + F(29, 36) + F(5, 9) + 1 + F(1, 2) + 1) / 8,
        "queries": 8,
    },
    "fold": {
        "sensitivity": F(0 + 0 + 1 + 1 + 0, 5),
        "sensitivity_script": (0 + 0 + F(2, 3) + F(2, 3) + 0) / 5,
        "sensitivity_any": (0 + 0 + 1 + 1 + 0 + F(2, 5) + 0) / 7,  # and F G
        "hit1": F(0 + 0 + 1 + 1 + 0 + 1 + 0, 7),
        "hit10": F(1 + 1 + 1 + 1 + 0 + 1 + 0, 7),
        # superfamily taken out: A and B at 2, 3; F at 1, 2, 4, 5, 6
        "map": (F(7, 12) + F(7, 12) + 1 + 1 + 0 + F(263, 300) + 0) / 7,
        "queries": 7,
    },
}


def labelled(names=DOMAINS) -> LabelledRows:
    return LabelledRows.of(range(len(names)), list(names.values()))


def rows(ranking) -> np.ndarray:
    return np.array([NAMES.index(name) for name in ranking], dtype=np.int64)


def values(scores, level) -> dict:
    found = getattr(scores, level)
    return {name: getattr(found, name) for name in BY_HAND[level]}


def as_oracle_names(found: dict) -> dict:
    short = {"sensitivity": "all", "sensitivity_script": "script", "sensitivity_any": "any"}
    return {short.get(name, name): value for name, value in found.items()}


def test_twelve_domains_by_hand():
    scores = homologs.score(labelled(), [rows(RANKINGS[name]) for name in NAMES])
    for level, expected in BY_HAND.items():
        exact = {name: float(value) for name, value in expected.items()}
        assert values(scores, level) == pytest.approx(exact, abs=1e-12), level
    assert (scores.queries, scores.queries_all) == (12, 5)
    assert scores.queries_without_false_positive == 1  # G


def test_the_oracle_agrees_with_the_hand():
    found = oracle.homologs(DOMAINS, {name: list(ranked) for name, ranked in RANKINGS.items()})
    for level, expected in BY_HAND.items():
        exact = as_oracle_names({name: float(value) for name, value in expected.items()})
        assert found[level] == pytest.approx(exact, abs=1e-12), level


@pytest.mark.parametrize("seed", range(4))
def test_random_rankings_against_the_oracle(seed):
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(60)]
    known = {name: f"a.{rng.integers(3)}.{rng.integers(2)}.{rng.integers(3)}" for name in names}
    places = rng.permutation(200)[: len(names)]  # rows of a larger index, in no order
    row_of = dict(zip(names, places.tolist(), strict=True))
    rankings = {}
    for name in names:
        others = [names[i] for i in rng.permutation(len(names))]
        # Relatives come early for some queries, so that long stretches without error occur.
        if rng.random() < 0.5:
            others.sort(key=lambda other: known[other][:5] != known[name][:5])
        rankings[name] = others[: rng.integers(0, len(names) + 1)]
    data = LabelledRows.of([row_of[name] for name in names], list(known.values()))
    by_row = {row: name for name, row in row_of.items()}
    strangers = sorted(set(range(200)) - set(places.tolist()))
    found = []
    for row in data.rows.tolist():
        ranked = [row_of[name] for name in rankings[by_row[row]]]
        ranked.insert(len(ranked) // 2, strangers[row % len(strangers)])  # a row without a label
        found.append(np.array(ranked, dtype=np.int64))
    scores = homologs.score(data, found)
    expected = oracle.homologs(known, rankings)
    for level in labels.LEVELS:
        assert as_oracle_names(values(scores, level)) == pytest.approx(expected[level], abs=1e-12)


def test_a_perfect_ranking_scores_one_everywhere():
    data = labelled()
    perfect = []
    for i in range(len(data)):
        relations = (data.codes == data.codes[i]).sum(axis=1)
        perfect.append(np.argsort(-relations, kind="stable"))
    scores = homologs.score(data, perfect)
    for level in labels.LEVELS:
        found = values(scores, level)
        assert found["sensitivity"] == found["sensitivity_any"] == found["map"] == 1
        assert found["hit1"] == found["hit10"] == 1


def test_nothing_to_average_over_is_none():
    scores = homologs.score(
        LabelledRows.of([0, 1], ["a.1.1.1", "b.1.1.1"]), [np.array([1]), np.array([0])]
    )
    assert scores.family.sensitivity is scores.fold.map is scores.superfamily.hit1 is None
    assert scores.queries_all == 0


def test_one_ranking_for_each_query():
    with pytest.raises(ValueError, match="shorter"):
        homologs.score(labelled(), [rows("B")])


# --- through an index -------------------------------------------------------------------------


class Ranker:
    """An index that ranks by a matrix of scores, with one funnel through two tiers."""

    def __init__(self, scores, n_rows=None):
        self.scores, self.n_rows, self.asked = scores, n_rows or len(scores), []

    def cost(self, funnel, allowed=None):
        return [Step(tier, 12, 100) for tier in funnel.tiers]

    def rank_rows(self, queries, k, funnel=None, *, rows=None, exclude_self=True):
        self.asked.append((list(queries), k, None if rows is None else rows.tolist()))
        allowed = np.arange(len(self.scores)) if rows is None else rows
        for query in queries:
            order = sorted(
                (row for row in allowed.tolist() if row != query),
                key=lambda row: (-self.scores[query][row], row),
            )
            yield SimpleNamespace(rows=np.array(order[:k], dtype=np.int64))


def test_evaluate_streams_blocks_and_equals_the_oracle(monkeypatch):
    monkeypatch.setattr(homologs, "_BLOCK", 5)
    rng = np.random.default_rng(0)
    index = Ranker(rng.integers(0, 6, (12, 12)))  # many ties: by row
    tier = Candidate("tier", Funnel(("last",), ()))
    funnel = Candidate("funnel", Funnel(("first", "last"), (4,)))
    wide, narrow = homologs.evaluate(index, labelled(), [tier, funnel])
    assert [len(queries) for queries, _, _ in index.asked] == [5, 5, 2] * 2
    assert [k for _, k, _ in index.asked] == [11] * 3 + [3] * 3  # 4 reach the last tier, self too
    assert (wide.kind, wide.tier, wide.bytes_per_query) == ("tier", "last", 100)
    assert (narrow.name, narrow.bytes_per_query) == ("first:4 > last", 200)
    for result, k in ((wide, 11), (narrow, 3)):
        rankings = {
            name: [NAMES[row] for row in np.argsort(-index.scores[i], kind="stable") if row != i][
                :k
            ]
            for i, name in enumerate(NAMES)
        }
        expected = oracle.homologs(DOMAINS, rankings)
        for level in labels.LEVELS:
            found = as_oracle_names(values(result.scores, level))
            assert found == pytest.approx(expected[level], abs=1e-12)


def test_rows_without_a_label_are_not_searched(caplog):
    data = LabelledRows.of([1, 3, 5], ["a.1.1.1", "a.1.1.1", "b.1.1.1"])
    index = Ranker(np.eye(8))
    list(homologs.evaluate(index, data, [Candidate("tier", Funnel(("last",), ()))]))
    assert index.asked == [([1, 3, 5], 2, [1, 3, 5])]
    assert not caplog.records
    # So few rows that a search would skip the funnel: said, not hidden.
    big = Ranker(np.eye(8), n_rows=10_000)
    list(homologs.evaluate(big, data, [Candidate("tier", Funnel(("last",), ()))]))
    assert "last tier alone" in caplog.text


# --- labels -----------------------------------------------------------------------------------


class FakeCatalog:
    def __init__(self, rows, n_rows):
        self.known, self.n_rows = rows, n_rows

    def rows_of(self, accessions):
        return {name: self.known[name] for name in accessions if name in self.known}


def test_labels_are_read_plain_and_packed(tmp_path):
    text = 'sid\tsccs\tseq\r\nd1\ta.1.1.1\tMK\r\nd2\tb.2.10.3\t"M\r\nd1\ta.1.1.1\tMK\r\n'
    expected = {"d1": "a.1.1.1", "d2": "b.2.10.3"}
    (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(text.encode()))
    assert labels.read(tmp_path / "a.tsv") == expected
    assert labels.read(tmp_path / "a.tsv.gz") == expected
    other = tmp_path / "b.tsv"
    other.write_text("label\tclass\taccession\nx\ta.1.1.1\tP1\n")
    assert labels.read(other, label_column="class") == {"P1": "a.1.1.1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column sid or accession; its header has nothing"),
        ("sid,sccs\nd1,a.1.1.1\n", "column sid or accession; its header has sid,sccs"),
        ("sid\tclass\nd1\ta.1.1.1\n", "column sccs or label.*--label-column"),
        ("sid\tsccs\n", "found none"),
        ("sid\tsccs\nd1\ta.1.1\n", r"line 2: expected class\.fold.*found 'a\.1\.1'"),
        ("sid\tsccs\nd1\ta.1.1.1.1\n", "line 2"),
        ("sid\tsccs\nd1\ta.1..1\n", "line 2"),
        ("sid\tsccs\nd1\n", "line 2.*found ''"),
        ("sid\tsccs\n\ta.1.1.1\n", "line 2: expected an accession"),
        ("sid\tsccs\nd1\ta.1.1.1\nd1\ta.1.1.2\n", "line 3: d1 is a.1.1.2 here and a.1.1.1 before"),
    ],
)
def test_bad_labels_are_named(tmp_path, text, message):
    path = tmp_path / "labels.tsv"
    path.write_text(text)
    with pytest.raises(MetadataError, match=message) as caught:
        labels.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.tsv.gz", b"\x1f\x8b\x08damaged"),
        ("damaged.gz", gzip.compress(b"sid\tsccs\n", mtime=0)[:10] + b"\xff" * 9),
        ("no.xz", b"sid\tsccs\nd1\ta.1.1.1\n"),
        ("no.zst", b"sid\tsccs\nd1\ta.1.1.1\n"),
        ("a.tsv", b"sid\tsccs\n\xff\xfe\n"),
        ("absent.tsv", None),
    ],
)
def test_unreadable_labels_are_named(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MetadataError, match=path.name):
        labels.read(path)


def test_join_counts_what_does_not_match(caplog):
    known = {"d1": 4, "d2": 0, "twin": 4, "x": 2, "y": 2, "d3": 1}
    found = {
        "d1": "a.1.1.1",
        "twin": "a.1.1.1",  # the same sequence with the same label: one row
        "d2": "b.1.1.1",
        "x": "c.1.1.1",
        "y": "c.1.1.2",  # the same sequence with another label: neither
        "lost": "d.1.1.1",
    }
    with caplog.at_level(logging.WARNING):
        data = labels.join(FakeCatalog(known, 6), found)
    assert data.rows.tolist() == [0, 4]
    assert (data.labels_read, data.labels_unmatched) == (6, 1)
    assert (data.rows_unlabelled, data.rows_conflicting) == (3, 1)
    assert "1 of 6 labels name no protein of the index (lost)" in caplog.text
    assert "different labels (row 2: c.1.1.1, c.1.1.2)" in caplog.text
    assert "3 of 6 rows have no label" in caplog.text


def test_labels_of_other_proteins_are_an_error():
    with pytest.raises(MetadataError, match=r"0 of the 6 rows .* \(labels: p, q") as caught:
        labels.join(FakeCatalog({"d1": 0}, 6), {"p": "a.1.1.1", "q": "a.1.1.1"})
    assert "--id-column" in str(caught.value)


# --- composition ------------------------------------------------------------------------------


def test_composition_against_the_oracle(monkeypatch):
    rng = np.random.default_rng(1)
    made = [
        "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWYXB"), rng.integers(5, 40))) for _ in range(40)
    ]
    made += [made[3][::-1], made[3], "XX"]  # order does not count: ties by position
    monkeypatch.setattr(composition, "_SCORES", 43 * 10)
    found = [ranked.tolist() for ranked in composition.rankings(made)]
    assert found == oracle.composition_ranking(made)
    assert found[3][:3] == [3, 40, 41]


def test_shares_and_standardised_values():
    values = composition.shares(["AAC", "X", "MAXC"])
    assert values[0, :2].tolist() == [2 / 3, 1 / 3]
    assert values.sum(axis=1).tolist() == pytest.approx([1, 0, 1])
    unit = composition.standardised(composition.shares(["AAC", "ACC", "MLC", "MMM"]))
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)
    # A letter that no sequence has, and one of which all have the same, tell nothing.
    assert not unit[:, composition.AMINO_ACIDS.index("W")].any()
    alike = composition.standardised(composition.shares(["AACCCGGWWD", "AACCCGGWWD", "MMCCCGGWWD"]))
    assert (np.count_nonzero(alike, axis=0) > 0).sum() == 2


def test_the_floor_ranks_sequences_of_labelled_rows():
    known = {0: "a.1.1.1", 5: "a.1.1.1", 9: "b.1.1.1"}
    data = LabelledRows.of(list(known), list(known.values()))
    result = homologs.floor(["AAAC", "AAACC", "WWWY"], data)
    assert result.scores.family.sensitivity_any == 1
    assert (result.kind, result.tier, result.bytes_per_query) == ("composition", None, None)


@pytest.mark.slow
def test_scope_composition_floor(eval_dir):
    """The figure that DESIGN-time measurements had: composition alone finds about 1 %."""
    import csv

    path = eval_dir / "scope208-20.tsv.gz"
    known = labels.read(path)
    with gzip.open(path, "rt") as file:
        sequences = [line["seq"] for line in csv.DictReader(file, delimiter="\t")]
    assert len(known) == len(sequences) == 7547
    data = LabelledRows.of(range(7547), list(known.values()))
    scores = homologs.floor(sequences, data).scores
    assert 0.005 < scores.family.sensitivity_any < 0.03
    assert scores.superfamily.hit1 < 0.1
