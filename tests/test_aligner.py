"""Alignments against a slow Smith–Waterman, and their numbers against a walk of the CIGAR."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdsearch import aligner as module
from rdsearch import fasta, karlin, samples
from rdsearch.aligner import Aligner, aligned
from rdsearch.errors import DependencyError, InputError
from rdsearch.fasta import ALPHABET

COSTS = [(matrix, *costs) for matrix in karlin.MATRICES for costs in karlin.gap_costs(matrix)]
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"

proteins = st.text(AMINO_ACIDS, min_size=1, max_size=60)
anything = st.text(ALPHABET, min_size=1, max_size=60)


@cache
def scores(matrix: str) -> dict[tuple[str, str], int]:
    table = karlin.substitution_scores(matrix).tolist()
    return {(a, b): table[i][j] for i, a in enumerate(ALPHABET) for j, b in enumerate(ALPHABET)}


def best_score(query: str, target: str, matrix: str, gap_open: int, gap_extend: int) -> int:
    """Smith–Waterman with any gap cost, cell by cell (Waterman, Smith and Beyer 1976)."""
    pair = scores(matrix)
    table = [[0] * (len(target) + 1) for _ in range(len(query) + 1)]
    for i in range(1, len(query) + 1):
        for j in range(1, len(target) + 1):
            table[i][j] = max(
                0,
                table[i - 1][j - 1] + pair[query[i - 1], target[j - 1]],
                *(table[i - n][j] - gap_open - n * gap_extend for n in range(1, i + 1)),
                *(table[i][j - n] - gap_open - n * gap_extend for n in range(1, j + 1)),
            )
    return max(map(max, table))


def walked(found, query: str, target: str, tool: Aligner) -> dict[str, float]:
    """The numbers of an alignment, a column at a time."""
    pair = scores(tool.matrix)
    columns = [o for n, o in re.findall(r"(\d+)([MID])", found.cigar) for _ in range(int(n))]
    i, j = found.query_start - 1, found.target_start - 1
    numbers = dict.fromkeys(("score", "identical", "positive", "mismatches", "gaps"), 0)
    before = ""
    for column in columns:
        if column == "M":
            numbers["score"] += pair[query[i], target[j]]
            numbers["identical"] += query[i] == target[j]
            numbers["mismatches"] += query[i] != target[j]
            numbers["positive"] += query[i] == target[j] or pair[query[i], target[j]] > 0
        else:
            opens = column != before
            numbers["gaps"] += opens
            numbers["score"] -= tool.gap_extend + tool.gap_open * opens
        i += column != "D"
        j += column != "I"
        before = column
    return {
        "score": numbers["score"],
        "identity": numbers["identical"] / len(columns),
        "positives": numbers["positive"] / len(columns),
        "query_coverage": (i - found.query_start + 1) / len(query),
        "target_coverage": (j - found.target_start + 1) / len(target),
        "query_end": i,
        "target_end": j,
        "length": len(columns),
        "mismatches": numbers["mismatches"],
        "gap_openings": numbers["gaps"],
    }


def check(found, query: str, target: str, tool: Aligner) -> None:
    assert {name: getattr(found, name) for name in walked(found, query, target, tool)} == (
        pytest.approx(walked(found, query, target, tool), abs=1e-12)
    )
    assert re.fullmatch(r"([1-9]\d*[MID])+", found.cigar)
    runs = re.findall(r"[MID]", found.cigar)
    assert runs[0] == runs[-1] == "M"
    assert all(here != after for here, after in itertools.pairwise(runs))
    assert 0 <= found.identity <= found.positives <= 1


def changed(draw, sequence: str) -> str:
    """A relative: residues replaced, runs taken out and put in."""
    pieces = []
    for letter in sequence:
        kind = draw(st.integers(0, 19))
        if kind == 0:
            continue
        pieces.append(draw(st.sampled_from(AMINO_ACIDS)) if kind in (1, 2) else letter)
        if kind == 3:
            pieces.append(draw(st.text(AMINO_ACIDS, min_size=1, max_size=9)))
    return "".join(pieces) or sequence


@st.composite
def relatives(draw) -> tuple[str, str]:
    query = draw(st.text(ALPHABET, min_size=10, max_size=45))
    return query, changed(draw, query)


@pytest.fixture(scope="module")
def tool() -> Aligner:
    return Aligner()


# Scores


@settings(max_examples=60, deadline=None)
@given(pair=st.one_of(relatives(), st.tuples(anything, anything)), costs=st.sampled_from(COSTS))
def test_the_score_is_the_best_one_and_the_cigar_reaches_it(pair, costs):
    query, target = pair
    tool = Aligner(*costs)
    (found,) = tool.align(query, [target], residues=1000)
    best = best_score(query, target, *costs)
    if found is None:
        assert best == 0
    else:
        assert found.score == best
        check(found, query, target, tool)


@settings(max_examples=60, deadline=None)
@given(pair=st.one_of(relatives(), st.tuples(anything, anything)), costs=st.sampled_from(COSTS))
def test_long_pairs_have_the_same_score_and_end(pair, costs):
    query, target = pair
    tool = Aligner(*costs)
    (by_opal,) = tool.align(query, [target], residues=1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_OPAL_CELLS", 0)
        patch.setattr(tool, "_by_opal", lambda _query, targets: iter(targets))  # unused
        (found,) = tool.align(query, [target], residues=1000)
    if by_opal is None:
        assert found is None
        return
    check(found, query, target, tool)
    for name in ("score", "query_end", "target_end", "bits", "evalue"):
        assert getattr(found, name) == getattr(by_opal, name)


def test_long_pairs_of_relatives_with_runs_in_and_out(tool, monkeypatch):
    rng = np.random.default_rng(5)
    pairs = []
    for record in itertools.islice(fasta.read(samples.PROTEINS), 40):
        query = record.sequence[:200]
        target = np.array(list(query))
        places = rng.random(len(target)) < 0.2
        target[places] = rng.choice(list(AMINO_ACIDS), places.sum())
        out, into = sorted(rng.integers(20, len(query) - 20, 2))
        run = "".join(rng.choice(list(AMINO_ACIDS), rng.integers(2, 12)))
        target = "".join(target)
        target = target[:out] + target[out + rng.integers(2, 12) : into] + run + target[into:]
        pairs += [(query, target), (target, query)]
    by_opal = [tool.align(query, [target], residues=1000)[0] for query, target in pairs]
    monkeypatch.setattr(module, "_OPAL_CELLS", 0)
    long = [tool.align(query, [target], residues=1000)[0] for query, target in pairs]
    assert any(re.search(r"[2-9]D", one.cigar) for one in long)
    assert any(re.search(r"[2-9]I", one.cigar) for one in long)
    for (query, target), one, other in zip(pairs, long, by_opal, strict=True):
        check(one, query, target, tool)
        assert (one.score, one.query_end, one.target_end) == (
            other.score,
            other.query_end,
            other.target_end,
        )


@pytest.mark.parametrize("cells", [0, module._OPAL_CELLS])
def test_of_two_best_ends_the_first_in_the_target_is_taken(tool, monkeypatch, cells):
    monkeypatch.setattr(module, "_OPAL_CELLS", cells)
    apart = "X" * 30
    query, target = f"WCH{apart}HCW", f"HCW{apart}WCH"
    (found,) = tool.align(query, [target], residues=100)
    assert (found.score, found.query_start, found.target_start) == (28, 34, 1)


def test_biopython_finds_the_same_scores(tool):
    align = pytest.importorskip("Bio.Align")
    second = align.PairwiseAligner(mode="local", open_gap_score=-12, extend_gap_score=-1)
    array = align.substitution_matrices.Array(
        ALPHABET, dims=2, data=karlin.substitution_scores("BLOSUM62").astype(float)
    )
    second.substitution_matrix = array
    targets = [record.sequence for record in fasta.read(samples.PROTEINS)][:150]
    for query in list(fasta.read(samples.QUERIES))[:4]:
        found = tool.align(query.sequence, targets, residues=1000)
        expected = [second.score(query.sequence, target) for target in targets]
        assert [one.score for one in found] == expected
        for one, target in zip(found, targets, strict=True):
            check(one, query.sequence, target, tool)


@pytest.mark.parametrize("gap", [1, 2, 7])
def test_a_gap_of_n_residues_costs_opening_and_n_extensions(gap):
    left, right = "WWWWHHHHCCCC", "MMMMFFFFYYYY"
    whole = Aligner("BLOSUM62", 9, 2).align(left + right, [left + right], residues=100)[0]
    query, target = left + "G" * gap + right, left + right
    (found,) = Aligner("BLOSUM62", 9, 2).align(query, [target], residues=100)
    assert found.cigar == f"12M{gap}I12M"
    assert found.score == whole.score - 9 - gap * 2
    (turned,) = Aligner("BLOSUM62", 9, 2).align(target, [query], residues=100)
    assert turned.cigar == f"12M{gap}D12M"
    assert turned.score == found.score


def test_a_worked_example(tool):
    (found,) = tool.align("AAAWCMHKRAAA", ["GGWCMHRRGGGG"], residues=1_000_000)
    # W 11, C 9, M 5, H 8, K:R 2, R 5
    assert found.score == 40
    assert found.cigar == "6M"
    assert (found.query_start, found.query_end) == (4, 9)
    assert (found.target_start, found.target_end) == (3, 8)
    assert (found.identity, found.positives, found.mismatches) == (5 / 6, 1.0, 1)
    assert (found.query_coverage, found.target_coverage) == (0.5, 0.5)
    assert found.bits == pytest.approx((0.267 * 40 - math.log(0.041)) / math.log(2))


@pytest.mark.parametrize("cells", [0, module._OPAL_CELLS])
def test_nothing_to_align_is_none(tool, monkeypatch, cells):
    monkeypatch.setattr(module, "_OPAL_CELLS", cells)
    assert tool.align("XXXX", ["XXXX", "W", "ACDEF"], residues=100) == [None, None, None]
    assert tool.align("AAA", ["WWW", "AAA"], residues=100)[0] is None
    assert tool.align("AAA", ["WWW", "AAA"], residues=100)[1].cigar == "3M"
    assert tool.align("AAA", [], residues=100) == []


# Properties


@settings(max_examples=60, deadline=None)
@given(pair=relatives(), costs=st.sampled_from(COSTS))
def test_query_and_target_change_places(pair, costs):
    query, target = pair
    tool = Aligner(*costs)
    (one,) = tool.align(query, [target], residues=1000)
    (other,) = tool.align(target, [query], residues=1000)
    if one is None:
        assert other is None
        return
    assert (one.score, one.bits) == (other.score, other.bits)
    turned = replace(
        other,
        cigar=other.cigar.translate(str.maketrans("ID", "DI")),
        query_start=other.target_start,
        query_end=other.target_end,
        target_start=other.query_start,
        target_end=other.query_end,
    )
    # Of several best alignments the one from the other side may be another.
    numbers = walked(turned, query, target, tool)
    assert numbers["score"] == one.score
    assert (numbers["query_end"], numbers["target_end"]) == (turned.query_end, turned.target_end)


@settings(max_examples=60, deadline=None)
@given(sequence=proteins, costs=st.sampled_from(COSTS))
def test_a_sequence_aligns_with_itself_end_to_end(sequence, costs):
    (found,) = Aligner(*costs).align(sequence, [sequence], residues=1000)
    assert found.cigar == f"{len(sequence)}M"
    assert found.identity == found.positives == 1
    assert found.query_coverage == found.target_coverage == 1
    assert (found.query_start, found.target_start, found.mismatches) == (1, 1, 0)
    assert found.score == sum(scores(costs[0])[letter, letter] for letter in sequence)


def test_targets_keep_their_order_with_threads_and_long_ones_among_them(monkeypatch):
    records = [record.sequence for record in fasta.read(samples.PROTEINS)][:60]
    query = records[7]
    alone = [Aligner().align(query, [target], residues=1000)[0] for target in records]
    assert Aligner().align(query, records, residues=1000) == alone
    assert Aligner(threads=3).align(query, records, residues=1000) == alone
    monkeypatch.setattr(module, "_OPAL_CELLS", len(query) * 250)
    mixed = Aligner(threads=2).align(query, records, residues=1000)
    assert {len(target) > 250 for target in records} == {True, False}
    for one, other, target in zip(mixed, alone, records, strict=True):
        assert (one.score, one.query_end, one.target_end) == (
            other.score,
            other.query_end,
            other.target_end,
        )
        if len(target) <= 250:
            assert one == other


def test_long_proteins_take_memory_in_proportion_to_their_length(tool):
    rng = np.random.default_rng(0)
    query = "".join(rng.choice(list(AMINO_ACIDS), 6000))
    target = query[:3000] + query[3100:] + "A" * 50
    tracemalloc.start()
    (found,) = tool.align(query, [target], residues=10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.length == 6000
    assert found.query_end - found.query_start == 5999
    check(found, query, target, tool)
    # 12 bytes a pair of residues would be 430 MB.
    assert peak < 60e6


# Errors


def test_other_wrong_options():
    with pytest.raises(InputError, match=r"'BLOSUM63'.*BLOSUM45.*PAM250"):
        Aligner("BLOSUM63")
    with pytest.raises(InputError, match="at least 1 thread, not 0"):
        Aligner(threads=0)
    with pytest.raises(InputError, match="BLOSUM99"):
        karlin.gap_costs("BLOSUM99")
    with pytest.raises(InputError, match="at least 1, not 0"):
        Aligner().align("A", ["A"], residues=0)


@pytest.mark.parametrize(
    ("query", "target", "message"),
    [
        ("ACd", "ACD", "the query has 'd' at residue 3"),
        ("ACD", "A*D", r"target 2 has '\*' at residue 2"),
        ("ACD", "-CD", "target 2 has '-' at residue 1"),
        ("ACD", "ACJ", "target 2 has 'J' at residue 3"),
        ("ACD", "AC\u0142", "target 2 has '\u0142' at residue 3"),
        ("", "ACD", "the query has no residues"),
        ("ACD", "", "target 2 has no residues"),
    ],
)
def test_sequences_that_cannot_be_aligned(tool, query, target, message):
    with pytest.raises(InputError, match=message):
        tool.align(query, ["ACD", target], residues=100)


@pytest.mark.parametrize("missing", ["pyopal", "scoring_matrices"])
def test_a_missing_library_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DependencyError, match="pip install 'pyopal"):
        Aligner()


def test_importing_loads_no_aligner():
    code = "import sys, rdsearch.aligner; print({'pyopal', 'scoring_matrices'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_hits_of_an_index(tool, mini_index):
    import rdsearch

    with rdsearch.open(mini_index) as index:
        records = [r for r in fasta.read(samples.PROTEINS) if len(r.sequence) <= 400][:3]
        results = list(index.search(records, k=5))
        done = list(aligned(results, index.catalog.sequences, tool, residues=20_000))
    for record, (query, hits) in zip(records, done, strict=True):
        assert query == record
        assert hits[0].alignment.cigar == f"{len(record.sequence)}M"
        assert hits[0].sequence == record.sequence
        for one in hits:
            assert len(one.sequence) == one.length
            check(one.alignment, record.sequence, one.sequence, tool)
