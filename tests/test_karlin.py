"""Published statistics and scores; every one of them against blastp in test_aligner_blastp.py."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rdsearch import karlin
from rdsearch.aligner import Aligner
from rdsearch.errors import InputError
from rdsearch.fasta import ALPHABET

COSTS = [(matrix, *costs) for matrix in karlin.MATRICES for costs in karlin.gap_costs(matrix)]


def test_published_numbers_of_blosum62():
    found = karlin.gumbel("BLOSUM62", 11, 1)
    assert (found.rate, found.k, found.a, found.alpha) == (0.267, 0.041, 1.9, 42.6028)
    assert found.b == pytest.approx(2 * 12 * (0.7916 - 1.9))
    assert karlin.recommended("BLOSUM62") == (11, 1)
    assert [len(karlin.gap_costs(matrix)) for matrix in karlin.MATRICES] == [
        13, 15, 11, 9, 7, 6, 6, 15
    ]  # fmt: skip
    for matrix in karlin.MATRICES:
        assert karlin.recommended(matrix) in karlin.gap_costs(matrix)


@pytest.mark.parametrize("costs", COSTS, ids=lambda costs: "-".join(map(str, costs)))
def test_evalues(costs):
    gumbel = karlin.gumbel(*costs)
    falling = [gumbel.evalue(score, 300, 250, 10**6) for score in range(30, 600, 5)]
    assert all(here > after > 0 for here, after in itertools.pairwise(falling))
    assert gumbel.evalue(100, 300, 250, 3 * 10**6) == pytest.approx(
        3 * gumbel.evalue(100, 300, 250, 10**6)
    )
    # Far from any end the correction vanishes: K m n exp(-lambda S).
    plain = gumbel.k * 1e9 * 1e9 * math.exp(-gumbel.rate * 60)
    assert gumbel.evalue(60, 10**9, 10**9, 10**9) == pytest.approx(plain, rel=1e-5)
    # Near the ends there is less room than that.
    assert gumbel.evalue(60, 100, 100, 100) < gumbel.k * 100 * 100 * math.exp(-gumbel.rate * 60)
    assert gumbel.evalue(10**6, 10**6, 10**6, 10**6) == 0.0


def test_substitution_scores_are_symmetric_and_fit_their_lambda():
    # Without gaps lambda solves sum p_i p_j exp(lambda s_ij) = 1 under the background frequencies
    # of Robinson and Robinson 1991, which NCBI used.
    letters = "ALGSVETKDPIRNQFYMHCW"
    frequencies = np.array(
        [
            [78.05, 90.19, 73.77, 71.20, 64.41, 62.95, 58.41, 57.44, 53.64, 52.03],
            [51.42, 51.29, 44.87, 42.64, 38.56, 32.16, 22.43, 21.99, 19.25, 13.30],
        ]
    ).ravel()
    frequencies /= frequencies.sum()
    rates = [0.2291, 0.2318, 0.3176, 0.3430, 0.3346, 0.3400, 0.3345, 0.2252]
    for matrix, rate in zip(karlin.MATRICES, rates, strict=True):
        table = karlin.substitution_scores(matrix)
        assert (table == table.T).all()
        chosen = [ALPHABET.index(letter) for letter in letters]
        table = table[np.ix_(chosen, chosen)]
        total = frequencies @ np.exp(rate * table) @ frequencies
        assert total == pytest.approx(1, abs=0.002), matrix


@pytest.mark.parametrize(
    ("query", "target", "score", "identity", "positives"),
    [
        ("WWUWW", "WWCWW", 44 + 9, 0.8, 1.0),  # selenocysteine scores as cysteine
        ("WWUWW", "WWUWW", 44 + 9, 1.0, 1.0),
        ("WWOWW", "WWKWW", 44 - 1, 0.8, 0.8),  # pyrrolysine as an unknown residue
        ("WWXWW", "WWXWW", 44 - 1, 1.0, 1.0),  # equal letters are identical, as in blastp
        ("WWBWW", "WWDWW", 44 + 4, 0.8, 1.0),
        ("WWZWW", "WWQWW", 44 + 4, 0.8, 1.0),
    ],
)
def test_letters_beside_the_twenty(query, target, score, identity, positives):
    (found,) = Aligner().align(query, [target], residues=100)
    assert found.cigar == "5M"
    assert found.score == score
    assert (found.identity, found.positives) == (identity, positives)


def test_gap_costs_without_statistics_name_those_that_have_them():
    with pytest.raises(InputError, match=r"BLOSUM62 .*11/5.*11/2, .*11/1.*usual") as caught:
        Aligner("BLOSUM62", 11, 5)
    assert caught.value.supported == karlin.gap_costs("BLOSUM62")
    with pytest.raises(InputError, match="9/1 is the usual choice for PAM30"):
        Aligner("PAM30")
