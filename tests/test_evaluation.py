"""Recall against exhaustive search, plots, and the commands as processes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner

import rdsearch
from rdsearch import evaluation, homologs, labels, plots
from rdsearch.cli_evaluate import evaluate
from rdsearch.errors import DependencyError, InputError
from rdsearch.evaluation import FunnelRecall
from rdsearch.funnel import Funnel, plan
from rdsearch.searcher import Ranking, Step
from tests import oracle

DIMS = {"a": 4, "b": 8, "c": 16}


class Exact:
    """An index in NumPy: raw dot products of prefixes, shortlists carried out one by one."""

    tiers = tuple(DIMS)

    def __init__(self, vectors):
        self.vectors, self.n_rows, self.calls = vectors, len(vectors), []

    def plan(self, from_tier=None, to_tier=None, shortlists=None, probes=None):
        default = Funnel(self.tiers, (40, 15))
        return plan(default, self.tiers, from_tier, to_tier, shortlists, probes)

    def cost(self, funnel, allowed=None):
        seen = (self.n_rows, *funnel.shortlists)
        return [Step(t, n, 4 * n * DIMS[t]) for t, n in zip(funnel.tiers, seen, strict=True)]

    def score(self, query, tier, rows):
        dims = DIMS[tier]
        return (self.vectors[rows, :dims] @ query[:dims]).astype(np.float32)

    def rank(self, vectors, k, funnel):
        self.calls.append((len(vectors), funnel))
        results = []
        for query in vectors:
            rows = np.arange(self.n_rows)
            for tier, size in zip(funnel.tiers, (*funnel.shortlists, k), strict=True):
                scores = self.score(query, tier, rows)
                order = np.lexsort((rows, -scores))[:size]
                rows, scores = rows[order], scores[order]
            results.append(Ranking(rows, scores[:, None]))
        return results

    def score_rows(self, vectors, rows, tier):
        return [self.score(query, tier, r) for query, r in zip(vectors, rows, strict=True)]


@pytest.fixture(scope="module")
def exact():
    rng = np.random.default_rng(0)
    # Small whole numbers: exact products, and ties across rank k for most queries.
    return Exact(rng.integers(-1, 2, (300, 16)).astype(np.float32))


def queries(seed=1, n=25):
    return np.random.default_rng(seed).integers(-1, 2, (n, 16)).astype(np.float32)


def test_candidates_are_each_tier_alone_the_funnel_up_to_each_and_those_given(exact):
    given = [exact.plan(shortlists={"b": 9}), exact.plan(to_tier="a", shortlists={})]
    listed = evaluation.candidates(exact, given)
    assert [(one.kind, str(one.funnel)) for one in listed] == [
        ("tier", "a"),
        ("tier", "b"),
        ("tier", "c"),
        ("funnel", "a:40 > b"),
        ("funnel", "a:40 > b:15 > c"),
        ("given", "b:9 > c"),
    ]


@pytest.mark.parametrize("k", [1, 3, 10])
def test_recall_and_agreement_against_the_oracle(exact, k):
    vectors = queries()
    listed = evaluation.candidates(exact)
    true = vectors @ exact.vectors.T
    for candidate, result in zip(
        listed, evaluation.measure(exact, vectors, listed, k, rounds=1), strict=True
    ):
        found = exact.rank(vectors, k, candidate.funnel)
        expected = oracle.recall_at_k(true, [one.rows.tolist() for one in found], k)
        assert result.recall == pytest.approx(expected, abs=1e-12)
        if result.tier == "c" and k > 1:
            assert result.rank_agreement == pytest.approx(1)
        taus = [
            tau
            for one, scores in zip(found, true, strict=True)
            if (tau := kendall(one.scores[:, 0], scores[one.rows])) is not None
        ]
        assert result.rank_agreement == pytest.approx(np.mean(taus) if taus else None)
    assert [result.recall for result in evaluation.measure(exact, vectors, [listed[2]], k)] == [1]


def kendall(left, right):
    """Tau-b, pair by pair."""
    pairs = list(itertools.combinations(range(len(left)), 2))
    signs = [(np.sign(left[i] - left[j]), np.sign(right[i] - right[j])) for i, j in pairs]
    untied = [sum(1 for pair in signs if pair[side]) for side in (0, 1)]
    return sum(a * b for a, b in signs) / np.sqrt(untied[0] * untied[1]) if all(untied) else None


def test_equally_good_rows_are_right_whichever_comes_back():
    true = [np.array([3, 2, 2], dtype=np.float32)]  # a fourth row with score 2 was cut off
    assert evaluation.recall([np.array([3, 2, 2], dtype=np.float32)], true, 3) == 1
    rounding = np.array([3, 2, 2 - 2e-7], dtype=np.float32)
    assert evaluation.recall([rounding], true, 3) == 1
    worse = np.array([3, 2, 1.999], dtype=np.float32)
    assert evaluation.recall([worse], true, 3) == pytest.approx(2 / 3)
    few = np.array([3], dtype=np.float32)
    assert evaluation.recall([few], true, 3) == pytest.approx(1 / 3)
    assert evaluation.recall([few, few], [true[0], few], 3) == pytest.approx(2 / 3)


def test_times_are_medians_of_interleaved_rounds_and_cost_is_the_index_s(exact):
    ticks = itertools.count()
    # The clock is read before and after each run; a run takes 1, 2, 3 … ticks squared.
    times = (float(n) ** 2 for n in ticks)
    listed = evaluation.candidates(exact)[:2]
    exact.calls.clear()
    first, second = evaluation.measure(
        exact, queries(n=4), listed, 2, rounds=3, clock=lambda: next(times)
    )
    # Reads 2i and 2i + 1: a difference of 4i + 1, over four queries. Runs: batch, single, of the
    # first funnel, then of the second, three times over; the middle round begins at run 4.
    assert first.batch_seconds == (4 * 4 + 1) / 4
    assert first.single_seconds == (4 * 5 + 1) / 4
    assert second.batch_seconds == (4 * 6 + 1) / 4
    assert second.single_seconds == (4 * 7 + 1) / 4
    assert [n for n, _ in exact.calls].count(1) == 2 * 3 * 4
    assert first.bytes_per_query == 300 * 4 * 4
    (funnel,) = evaluation.measure(exact, queries(n=2), [evaluation.candidates(exact)[4]], 2)
    assert funnel.steps == (
        {"tier": "a", "rows": 300, "bytes": 4800},
        {"tier": "b", "rows": 40, "bytes": 1280},
        {"tier": "c", "rows": 15, "bytes": 960},
    )
    assert funnel.bytes_per_query == 7040


def test_queries_are_ranked_in_blocks(exact, monkeypatch):
    monkeypatch.setattr(evaluation, "_BLOCK", 10)
    exact.calls.clear()
    evaluation.measure(exact, queries(n=25), evaluation.candidates(exact)[:1], 2, rounds=1)
    assert max(n for n, _ in exact.calls) == 10


@pytest.mark.parametrize(
    ("n", "k", "rounds", "message"),
    [
        (0, 1, 1, "at least one query"),
        (1, 0, 1, r"k must lie in 1\.\.300, the rows of the index; found 0"),
        (1, 301, 1, "found 301"),
        (1, 1, 0, "rounds must be at least 1"),
    ],
)
def test_bad_measurements_are_named(exact, n, k, rounds, message):
    with pytest.raises(InputError, match=message):
        evaluation.measure(exact, queries(n=n), evaluation.candidates(exact), k, rounds=rounds)


# --- plots ------------------------------------------------------------------------------------


def made_recalls():
    def one(kind, name, tier, recall, seconds):
        return FunnelRecall(kind, name, tier, recall, None, seconds, 3 * seconds, 1.0, ())

    return [
        one("tier", "8M", "8M", 0.61, 2e-4),
        one("tier", "650M", "650M", 1.0, 3e-3),
        one("funnel", "8M:200 > 650M", "650M", 0.99, 3e-4),
        one("given", "8M:20 > 650M", "650M", 0.9, 2e-4),
    ]


def made_sensitivities():
    def one(kind, name, tier, share):
        level = homologs.LevelScores(share, share, share, share, share, share, 9)
        none = homologs.LevelScores(None, None, None, None, None, None, 0)
        return homologs.Measured(
            kind, name, tier, 1.0, 1.0, homologs.HomologScores(level, level, none, 9, 9, 0)
        )

    return [
        one("tier", "8M", "8M", 0.1),
        one("tier", "650M", "650M", 0.3),
        one("funnel", "8M:200 > 650M", "650M", 0.29),
        one("composition", "composition", None, 0.02),
    ]


def test_plots_are_png_and_svg_with_labels(tmp_path):
    pytest.importorskip("matplotlib")
    plots.recall_against_time(made_recalls(), tmp_path / "deep" / "recall.png", 10)
    assert (tmp_path / "deep" / "recall.png").read_bytes().startswith(b"\x89PNG")
    plots.recall_against_time(made_recalls(), tmp_path / "recall.svg", 10)
    plots.sensitivity_by_tier(made_sensitivities(), tmp_path / "a.svg")
    plots.sensitivity_by_tier(made_sensitivities(), tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    said = texts(tmp_path / "recall.svg")
    assert {"recall@10 of the exhaustive last tier", "milliseconds a query", "650M"} <= said
    assert {"family", "fold", "amino-acid composition"} <= texts(tmp_path / "a.svg")


def texts(path):
    tree = ET.parse(path)
    return {"".join(node.itertext()).strip() for node in tree.iter() if node.tag.endswith("text")}


def test_a_plot_of_another_kind_is_refused_before_the_work(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.png or \.svg; found \.pdf"):
        plots.check(tmp_path / "a.pdf")


def test_without_matplotlib_the_error_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DependencyError, match=r"pip install 'rdsearch\[plots\]'"):
        plots.check(tmp_path / "a.png")


# --- commands ---------------------------------------------------------------------------------


def run(*arguments):
    """The group as the command line runs it; named errors are raised."""
    result = CliRunner().invoke(
        evaluate, [str(argument) for argument in arguments], catch_exceptions=False
    )
    return result


@pytest.fixture(scope="module")
def made_labels(mini_index, tmp_path_factory):
    """Made-up labels of the index's proteins; two accessions of one sequence agree."""
    path = tmp_path_factory.mktemp("labels") / "labels.tsv"
    lines = ["accession\tlabel"]
    with rdsearch.open(mini_index) as index:
        for row, behind in index.catalog.proteins(range(index.n_rows)).items():
            for protein in behind:
                label = f"a.{row % 3}.{row % 2}.{row % 5}"
                lines.append(f"{protein['accession']}\t{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_homologs_of_an_index_equal_the_oracle(mini_store, mini_chain, made_labels, tmp_path):
    known = labels.read(made_labels)
    rdsearch.build(mini_store.path, mini_chain, tmp_path / "index", recipe="exact", space="centred")
    with rdsearch.open(tmp_path / "index") as index:
        data = labels.join(index.catalog, known)
        measured = list(homologs.evaluate(index, data, evaluation.candidates(index)))
        sequences = homologs.sequences_of(index, data)
        one_each = {
            str(row): known[behind[0]["accession"]]
            for row, behind in index.catalog.proteins(range(index.n_rows)).items()
        }
    assert len(data) == len(one_each) == 120
    floor = homologs.floor(sequences, data)
    expected = oracle.homologs(
        one_each,
        {
            str(i): [str(j) for j in ranked]
            for i, ranked in enumerate(oracle.composition_ranking(sequences))
        },
    )
    vectors = mini_store.rd()
    for tier in [result for result in measured if result.kind == "tier"]:
        dims = mini_chain.dim(tier.tier)
        prefix = vectors[:, :dims]
        mean = prefix.mean(axis=0, dtype=np.float64)
        rows, _ = oracle.exhaustive_search(prefix, mean, prefix, 120)
        names = {str(i): [str(j) for j in ranked] for i, ranked in enumerate(rows)}
        want = oracle.homologs(one_each, names)
        for level in labels.LEVELS:
            got = getattr(tier.scores, level)
            assert got.sensitivity_any == pytest.approx(want[level]["any"], abs=1e-9)
            assert got.map == pytest.approx(want[level]["map"], abs=1e-9)
    for level in labels.LEVELS:
        assert getattr(floor.scores, level).map == pytest.approx(expected[level]["map"])


def test_commands_print_tables_json_and_plots(mini_index, made_labels, proteins_file, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "deep" / "homologs.json"
    shown = run("homologs", mini_index, made_labels, "--json", out, "--quiet").stdout
    assert "composition" in shown
    assert "120 queries" in shown
    facts = json.loads(out.read_text())
    assert facts["labels"]["rows_labelled"] == facts["index"]["rows"] == 120
    assert [result["kind"] for result in facts["results"]][-1] == "composition"
    fold = facts["results"][0]["scores"]["fold"]
    assert set(fold) == {
        "sensitivity", "sensitivity_script", "sensitivity_any", "hit1", "hit10", "map", "queries"
    }  # fmt: skip

    few = tmp_path / "few.fasta"
    few.write_text("".join(">" + e for e in proteins_file.read_text().split(">")[1:9]))
    plot = tmp_path / "recall.png"
    found = run(
        "recall", mini_index, few, "-k", 5, "--rounds", 1, "--funnel", "0.1M:10", "--funnel", "7",
        "--json", "-", "--plot", plot, "--threads", 1,
    )  # fmt: skip
    facts = json.loads(found.stdout)  # nothing but JSON on standard output
    assert (facts["queries"], facts["k"], facts["rounds"]) == (8, 5, 1)
    by_name = {result["name"]: result for result in facts["results"]}
    assert by_name["4.8M"]["recall"] == 1
    assert by_name["0.1M:10 > 4.8M"]["kind"] == "given"
    with rdsearch.open(mini_index) as index:
        assert by_name[str(index.plan(shortlists=7))]["kind"] == "given"
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "recall@5" in run("recall", mini_index, few, "-k", 5, "--quiet").stdout


def test_matplotlib_is_loaded_for_a_plot_only(mini_index, made_labels):
    code = (
        "import sys\n"
        "from rdsearch.cli_evaluate import evaluate\n"
        f"evaluate(['homologs', {str(mini_index)!r}, {str(made_labels)!r}], "
        "standalone_mode=False)\n"
        "assert 'matplotlib' not in sys.modules, 'loaded'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


def test_bad_options_are_named(mini_index, made_labels, tmp_path):
    with pytest.raises(InputError, match="no tier '9M'"):
        run("homologs", mini_index, made_labels, "--funnel", "9M:10")
    with pytest.raises(InputError, match="ends in"):
        run("homologs", mini_index, made_labels, "--plot", tmp_path / "a.pdf")
    result = run("homologs", mini_index, made_labels, "--funnel", "x:y")
    assert result.exit_code == 2
    assert "TIER:NUMBER" in result.stderr
