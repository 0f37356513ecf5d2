"""Alignments against NCBI blastp on real proteins.

blastp searches heuristically: it may miss the best alignment, never find a better one. Where it
finds one of the same score, everything that follows from the score agrees to the digits that it
prints. Of several best alignments it may print another one than Opal.
"""

from __future__ import annotations

import itertools
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from rdsearch import fasta, karlin, samples
from rdsearch.aligner import Aligner
from rdsearch.alignment import Alignment
from rdsearch.fasta import ALPHABET

BLASTP = shutil.which("blastp")
pytestmark = pytest.mark.skipif(BLASTP is None, reason="needs blastp (Debian: ncbi-blast+)")

FIELDS = (
    "qseqid sseqid score bitscore evalue pident ppos length mismatch gapopen qstart qend sstart "
    "send qseq sseq"
)
COSTS = [(matrix, *costs) for matrix in karlin.MATRICES for costs in karlin.gap_costs(matrix)]


@dataclass(frozen=True)
class Pair:
    """blastp's best alignment of a pair, as printed, and ours."""

    query: str
    target: str
    printed: dict[str, str]
    found: Alignment

    @property
    def cigar(self) -> str:
        columns = zip(self.printed["qseq"], self.printed["sseq"], strict=True)
        kinds = ("D" if a == "-" else "I" if b == "-" else "M" for a, b in columns)
        return "".join(f"{len(list(run))}{kind}" for kind, run in itertools.groupby(kinds))

    @property
    def place(self) -> list[int]:
        return [int(self.printed[name]) for name in ("qstart", "qend", "sstart", "send")]

    @property
    def significant(self) -> bool:
        return float(self.printed["evalue"]) < 1e-3

    @property
    def same_score(self) -> bool:
        return self.found.score == int(self.printed["score"])


def blastp(
    folder: Path,
    queries: Sequence[str],
    targets: Sequence[str],
    costs: tuple[str, int, int] = ("BLOSUM62", 11, 1),
    *,
    residues: int | None = None,
    evalue: float = 1000,
) -> list[dict[str, str]]:
    """Each pair's best alignment, in blastp's order."""
    for name, sequences in (("queries", queries), ("targets", targets)):
        lines = (f">{at}\n{sequence}\n" for at, sequence in enumerate(sequences))
        (folder / name).write_text("".join(lines))
    size = sum(map(len, targets)) if residues is None else residues
    matrix, gap_open, gap_extend = costs
    options = {
        "query": folder / "queries",
        "subject": folder / "targets",
        "matrix": matrix,
        "gapopen": gap_open,
        "gapextend": gap_extend,
        "comp_based_stats": 0,
        "seg": "no",
        "soft_masking": "false",
        "dbsize": size,
        "evalue": evalue,
        "max_hsps": 1,
        "max_target_seqs": 10**6,
        "outfmt": f"6 {FIELDS}",
    }
    arguments = [word for name, value in options.items() for word in (f"-{name}", str(value))]
    done = subprocess.run([str(BLASTP), *arguments], capture_output=True, text=True, check=True)
    names = FIELDS.split()
    return [dict(zip(names, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]


def pairs(
    folder: Path,
    queries: Sequence[str],
    targets: Sequence[str],
    costs: tuple[str, int, int] = ("BLOSUM62", 11, 1),
    **options: float,
) -> Iterator[Pair]:
    """Pairs that blastp reports."""
    tool = Aligner(*costs)
    residues = sum(map(len, targets))
    printed = blastp(folder, queries, targets, costs, **options)
    for at, lines in itertools.groupby(printed, key=lambda line: int(line["qseqid"])):
        lines = list(lines)
        chosen = [targets[int(line["sseqid"])] for line in lines]
        found = tool.align(queries[at], chosen, residues=residues)
        for target, line, one in zip(chosen, lines, found, strict=True):
            yield Pair(queries[at], target, line, one)


def agrees(value: float, printed: str) -> bool:
    """Whether a value rounds to what is printed, or is cut to it (bits from 100 on)."""
    digits = re.fullmatch(r"(\d+)(?:\.(\d+))?(?:e([-+]\d+))?", printed)
    unit = 10.0 ** (int(digits[3] or 0) - len(digits[2] or ""))
    return abs(value - float(printed)) <= unit * 0.501 or (
        not digits[2] and not digits[3] and int(value) == int(printed)
    )


def raw_score(pair: Pair, cigar: str, costs: tuple[str, int, int]) -> int:
    """Of a CIGAR from where blastp's alignment begins."""
    matrix, gap_open, gap_extend = costs
    table = karlin.substitution_scores(matrix).tolist()
    i, j = pair.place[0] - 1, pair.place[2] - 1
    score = 0
    for count, kind in re.findall(r"(\d+)([MID])", cigar):
        run = int(count)
        if kind == "M":
            letters = zip(pair.query[i : i + run], pair.target[j : j + run], strict=True)
            score += sum(table[ALPHABET.index(a)][ALPHABET.index(b)] for a, b in letters)
        else:
            score -= gap_open + run * gap_extend
        i += run * (kind != "D")
        j += run * (kind != "I")
    return score


def leftmost(cigar: str, pair: Pair, costs: tuple[str, int, int]) -> str:
    """The CIGAR with each gap as far left as the same score allows, short of the gap before it."""
    table = karlin.substitution_scores(costs[0]).tolist()

    def score(i: int, j: int) -> int:
        return table[ALPHABET.index(pair.query[i])][ALPHABET.index(pair.target[j])]

    runs = [[int(count), kind] for count, kind in re.findall(r"(\d+)([MID])", cigar)]
    i, j = pair.place[0] - 1, pair.place[2] - 1
    for at, (run, kind) in enumerate(runs):
        if kind != "M" and runs[at - 1][1] == runs[at + 1][1] == "M":
            over, down = run * (kind == "I"), run * (kind == "D")
            change = shift = 0
            for back in range(1, runs[at - 1][0]):
                a, b = i - back, j - back
                change += score(a + over, b + down) - score(a, b)
                if change == 0:
                    shift = back
            runs[at - 1][0] -= shift
            runs[at + 1][0] += shift
            i, j = i - shift, j - shift
        i += run * (kind != "D")
        j += run * (kind != "I")
    return text(runs)


def text(runs: Sequence[Sequence[int | str]]) -> str:
    return "".join(f"{count}{kind}" for count, kind in runs)


def compared(found: Iterator[Pair]) -> Counter[str]:
    """Counts; what must hold of every pair is checked on the way."""
    counts: Counter[str] = Counter()
    for pair in found:
        one, printed = pair.found, pair.printed
        group = "significant" if pair.significant else "chance"
        counts[group] += 1
        # The best alignment is at least as good as one that was found.
        assert one.score >= int(printed["score"]), pair
        if not pair.same_score:
            continue
        counts[f"{group}: score"] += 1
        assert agrees(one.bits, printed["bitscore"]), pair
        # blastp prints 0.0 below 1e-180.
        assert (
            one.evalue < 1e-179
            if printed["evalue"] == "0.0"
            else agrees(one.evalue, printed["evalue"])
        ), pair
        place = [one.query_start, one.query_end, one.target_start, one.target_end]
        if place == pair.place:
            counts[f"{group}: place"] += 1
        if place == pair.place and one.cigar == pair.cigar:
            counts[f"{group}: path"] += 1
            assert agrees(100 * one.identity, printed["pident"]), pair
            assert agrees(100 * one.positives, printed["ppos"]), pair
            for field, name in (
                ("length", "length"),
                ("mismatches", "mismatch"),
                ("gap_openings", "gapopen"),
            ):
                assert getattr(one, field) == int(printed[name]), pair
    return counts


def sequences(path: Path) -> list[str]:
    return [record.sequence for record in fasta.read(path)]


def test_packaged_proteins(tmp_path):
    counts = compared(pairs(tmp_path, sequences(samples.QUERIES), sequences(samples.PROTEINS)))
    # Measured with blastp 2.12.0: 154 pairs below 1e-3, all of the best score, 147 in the same
    # place; 2,856 chance pairs, 2,383 of the best score.
    assert counts["significant"] > 140
    assert counts["significant: score"] == counts["significant"]
    assert counts["significant: place"] >= 0.9 * counts["significant"]
    assert counts["significant: path"] >= 0.7 * counts["significant"]
    assert counts["chance"] > 2500
    assert counts["chance: score"] >= 0.8 * counts["chance"]


def test_where_paths_differ_both_are_best(tmp_path):
    costs = ("BLOSUM62", 11, 1)
    queries, targets = sequences(samples.QUERIES), sequences(samples.PROTEINS)
    same = different = 0
    for pair in pairs(tmp_path, queries, targets, evalue=1e-3):
        assert raw_score(pair, pair.cigar, costs) == pair.found.score
        if [pair.found.query_start, pair.found.target_start] != [pair.place[0], pair.place[2]]:
            different += 1
            continue
        ours, theirs = (leftmost(cigar, pair, costs) for cigar in (pair.found.cigar, pair.cigar))
        same += ours == theirs
        different += ours != theirs
    # Most differ only in where a gap lies among places of equal score.
    assert same >= 0.9 * (same + different)


def test_unseen_proteins(tmp_path, data_dir):
    queries = sequences(data_dir / "uniprot-500-queries.fasta.gz")[:60]
    targets = sequences(data_dir / "uniprot-20k.fasta.gz")[:4000]
    counts = compared(pairs(tmp_path, queries, targets, evalue=1))
    assert counts["significant"] > 100
    # In the rest blastp's extension stops at a long poor stretch that a better alignment crosses.
    assert counts["significant: score"] >= 0.75 * counts["significant"]
    assert counts["significant: place"] >= 0.95 * counts["significant: score"]


@pytest.mark.parametrize("matrix", karlin.MATRICES)
def test_matrices_on_real_proteins(tmp_path, matrix):
    costs = (matrix, *karlin.recommended(matrix))
    queries, targets = sequences(samples.QUERIES)[:3], sequences(samples.PROTEINS)
    counts = compared(pairs(tmp_path, queries, targets, costs, evalue=1e-3))
    assert counts["significant"] >= 10
    # PAM30 expects close relatives; on distant ones blastp's extension stops early.
    share = 0.8 if matrix == "PAM30" else 0.95
    assert counts["significant: score"] >= share * counts["significant"]


@pytest.mark.parametrize("matrix", karlin.MATRICES)
def test_every_pair_of_letters_scores_as_in_blastp(tmp_path, matrix):
    rng = random.Random(1)
    left, right = ("".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=40)) for _ in range(2))
    between = [left + letter + right for letter in ALPHABET]
    costs = (matrix, *karlin.recommended(matrix))
    printed = blastp(tmp_path, between, between, costs)
    assert len(printed) == len(ALPHABET) ** 2
    table = karlin.substitution_scores(matrix)
    flanks = sum(int(table[ALPHABET.index(a), ALPHABET.index(a)]) for a in left + right)
    for line in printed:
        assert (line["length"], line["gapopen"]) == ("81", "0")
        here, there = int(line["qseqid"]), int(line["sseqid"])
        expected = flanks + int(table[here, there])
        assert int(line["score"]) == expected, (ALPHABET[here], ALPHABET[there])


@pytest.mark.parametrize("costs", COSTS, ids=lambda costs: "-".join(map(str, costs)))
def test_every_published_statistic(tmp_path, costs):
    targets = sequences(samples.PROTEINS)
    queries = [targets[0][:30], targets[1][:90]]
    chosen = [targets[0], targets[1], targets[1][:60]]
    gumbel = karlin.gumbel(*costs)
    printed = blastp(tmp_path, queries, chosen, costs, residues=10**6)
    assert len(printed) >= 3
    for line in printed:
        query, target = queries[int(line["qseqid"])], chosen[int(line["sseqid"])]
        score = int(line["score"])
        assert agrees(gumbel.bits(score), line["bitscore"])
        evalue = gumbel.evalue(score, len(query), len(target), 10**6)
        assert agrees(evalue, line["evalue"]), line
