"""What an alignment score means: blastp's substitution scores, statistics and formulas.

Scores of chance alignments follow a Gumbel distribution whose parameters depend on the
substitution matrix and the gap costs. With gaps they are known by simulation only, so that only
the pairs of gap costs that NCBI simulated can be used.

The numbers are those of ``blast_stat.c`` and ``sm_*.c`` in the NCBI C++ Toolkit (public domain,
United States Government work).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdsearch.errors import DependencyError, InputError
from rdsearch.fasta import ALPHABET

__all__ = [
    "MATRICES",
    "Gumbel",
    "gap_costs",
    "gumbel",
    "library",
    "recommended",
    "substitution_scores",
]

# Of each matrix: its name, the gap costs (existence, extension) that NCBI recommends, and lambda,
# K, a, alpha and sigma without gaps. Then a line a pair of gap costs: existence, extension, and
# the same with gaps.
_PUBLISHED = """
BLOSUM45 14 2 0.2291 0.0924 0.9113 9.611060 9.611060
    13 3 0.207  0.049  1.5     35.855900  35.963900
    12 3 0.199  0.039  1.8     45.693600  45.851700
    11 3 0.190  0.031  2.0     62.874100  63.103700
    10 3 0.179  0.023  2.4     88.286800  88.639100
    16 2 0.210  0.051  1.5     36.279800  36.452400
    15 2 0.203  0.041  1.7     44.825700  45.060400
    14 2 0.195  0.032  1.9     60.736200  61.102300
    13 2 0.185  0.024  2.2     85.148100  85.689400
    12 2 0.171  0.016  2.8    127.758000 128.582000
    19 1 0.205  0.040  1.9     53.071400  53.828200
    18 1 0.198  0.032  2.0     72.342400  73.403900
    17 1 0.189  0.024  2.4    103.055000 104.721000
    16 1 0.176  0.016  2.8    170.100000 173.003000
BLOSUM50 13 2 0.2318 0.112 0.6895 5.388310 5.388310
    13 3 0.212  0.063  1.1     18.113800  18.202800
    12 3 0.206  0.055  1.2     22.654600  22.777700
    11 3 0.197  0.042  1.4     29.861100  30.045700
    10 3 0.186  0.031  1.7     42.393800  42.674000
    9  3 0.172  0.022  2.1     66.069600  66.516400
    16 2 0.215  0.066  1.05    17.951800  18.092100
    15 2 0.210  0.058  1.2     21.940100  22.141800
    14 2 0.202  0.045  1.4     28.681200  28.961900
    13 2 0.193  0.035  1.6     42.059500  42.471600
    12 2 0.181  0.025  1.9     63.747600  64.397300
    19 1 0.212  0.057  1.2     26.311200  26.923300
    18 1 0.207  0.050  1.4     34.903700  35.734800
    17 1 0.198  0.037  1.6     48.895800  50.148600
    16 1 0.186  0.025  1.9     76.469100  78.443000
    15 1 0.171  0.015  2.7    140.053000 144.160000
BLOSUM62 11 1 0.3176 0.134 0.7916 4.964660 4.964660
    11 2 0.297  0.082  1.1     12.673800  12.757600
    10 2 0.291  0.075  1.3     16.474000  16.602600
    9  2 0.279  0.058  1.5     22.751900  22.950000
    8  2 0.264  0.045  1.8     35.483800  35.821300
    7  2 0.239  0.027  2.5     61.238300  61.886000
    6  2 0.201  0.012  3.3    140.417000 141.882000
    13 1 0.292  0.071  1.2     19.506300  19.893100
    12 1 0.283  0.059  1.5     27.856200  28.469900
    11 1 0.267  0.041  1.9     42.602800  43.636200
    10 1 0.243  0.024  2.5     83.178700  85.065600
    9  1 0.206  0.010  4.0    210.333000 214.842000
BLOSUM80 10 1 0.3430 0.177 0.5222 1.918130 1.918130
    25 2 0.342  0.17   0.52     1.731000   1.731300
    13 2 0.336  0.15   0.59     2.673470   2.692300
    9  2 0.319  0.11   0.76     5.576090   5.667860
    8  2 0.308  0.090  0.89     7.536950   7.686230
    7  2 0.293  0.070  1.1     11.586600  11.840400
    6  2 0.268  0.045  1.4     19.958100  20.441200
    11 1 0.314  0.095  0.90     8.808610   9.223320
    10 1 0.299  0.071  1.1     13.833800  14.533400
    9  1 0.279  0.048  1.4     24.252000  25.490400
BLOSUM90 10 1 0.3346 0.190 0.4434 1.377760 1.377760
    9  2 0.310  0.12   0.67     4.232290   4.334170
    8  2 0.300  0.099  0.76     5.797020   5.961420
    7  2 0.283  0.072  0.93     9.040880   9.321600
    6  2 0.259  0.048  1.2     16.024400  16.531600
    11 1 0.302  0.093  0.78     7.143250   7.619190
    10 1 0.290  0.075  1.04    11.483900  12.269800
    9  1 0.265  0.044  1.3     21.408300  22.840900
PAM30 9 1 0.3400 0.283 0.1938 0.161818 0.161818
    7  2 0.305  0.15   0.35     1.014010   1.162730
    6  2 0.287  0.11   0.42     1.688060   1.951430
    5  2 0.264  0.079  0.59     3.377010   3.871950
    10 1 0.309  0.15   0.35     1.372050   1.788770
    9  1 0.294  0.11   0.48     2.463920   3.186150
    8  1 0.270  0.072  0.68     5.368130   6.763480
PAM70 10 1 0.3345 0.229 0.3250 0.633439 0.633439
    8  2 0.301  0.12   0.56     2.881650   3.025710
    7  2 0.286  0.093  0.67     4.534540   4.785780
    6  2 0.264  0.064  0.90     7.942630   8.402720
    11 1 0.305  0.12   0.59     3.681400   4.108020
    10 1 0.291  0.091  0.71     6.002970   6.716570
    9  1 0.270  0.060  0.97    11.360800  12.636700
PAM250 14 2 0.2252 0.0868 0.98 11.754300 11.754300
    15 3 0.205  0.049  1.6     34.578400  34.928000
    14 3 0.200  0.043  1.7     43.353000  43.443800
    13 3 0.194  0.036  1.9     50.948500  51.081700
    12 3 0.186  0.029  2.2     69.606500  69.793600
    11 3 0.174  0.020  2.5     98.653500  98.927100
    17 2 0.204  0.047  1.7     41.583800  41.735800
    16 2 0.198  0.038  1.8     51.635200  51.843900
    15 2 0.191  0.031  2.2     67.256700  67.558500
    14 2 0.182  0.024  2.5     96.315100  96.756800
    13 2 0.171  0.017  2.9    135.653000 136.339000
    21 1 0.205  0.045  1.8     48.728200  49.218800
    20 1 0.199  0.037  1.9     60.832000  61.514100
    19 1 0.192  0.029  2.3     84.019700  84.985600
    18 1 0.183  0.021  2.6    113.829000 115.184000
    17 1 0.171  0.014  3.3    175.071000 177.196000
"""

# The matrices of the package scoring-matrices are the files of NCBI's FTP site; the program's own
# differ in these scores of B (D or N) and Z (E or Q).
_CORRECTED = {
    "BLOSUM45": "NB 5 DB 6 BB 5 RZ 1 EZ 5 BZ 1 ZZ 5",
    "BLOSUM50": "NB 5 DB 6 VB -3 BB 6 BZ 1",
    "BLOSUM62": "NB 4 QZ 4 WZ -2 BZ 0",
    "BLOSUM90": "NB 5 DB 5 EB 1 BB 5 DZ 1 QZ 5 EZ 5 ZZ 5",
}

# Its BLOSUM80 is in thirds of a bit, which the statistics above do not fit; this is NCBI's, in
# half bits: the half below and on the diagonal.
_BLOSUM80 = """
    A  5
    R -2  6
    N -2 -1  6
    D -2 -2  1  6
    C -1 -4 -3 -4  9
    Q -1  1  0 -1 -4  6
    E -1 -1 -1  1 -5  2  6
    G  0 -3 -1 -2 -4 -2 -3  6
    H -2  0  0 -2 -4  1  0 -3  8
    I -2 -3 -4 -4 -2 -3 -4 -5 -4  5
    L -2 -3 -4 -5 -2 -3 -4 -4 -3  1  4
    K -1  2  0 -1 -4  1  1 -2 -1 -3 -3  5
    M -1 -2 -3 -4 -2  0 -2 -4 -2  1  2 -2  6
    F -3 -4 -4 -4 -3 -4 -4 -4 -2 -1  0 -4  0  6
    P -1 -2 -3 -2 -4 -2 -2 -3 -3 -4 -3 -1 -3 -4  8
    S  1 -1  0 -1 -2  0  0 -1 -1 -3 -3 -1 -2 -3 -1  5
    T  0 -1  0 -1 -1 -1 -1 -2 -2 -1 -2 -1 -1 -2 -2  1  5
    W -3 -4 -4 -6 -3 -3 -4 -4 -3 -3 -2 -4 -2  0 -5 -4 -4 11
    Y -2 -3 -3 -4 -3 -2 -3 -4  2 -2 -2 -3 -2  3 -4 -2 -2  2  7
    V  0 -3 -4 -4 -1 -3 -3 -4 -4  3  1 -3  1 -1 -3 -2  0 -3 -2  4
    B -2 -1  5  5 -4  0  1 -1 -1 -4 -4 -1 -3 -4 -2  0 -1 -5 -3 -4  5
    Z -1  0  0  1 -4  4  5 -3  0 -4 -3  1 -1 -4 -2  0 -1 -3 -3 -3  0  5
"""

# Of a residue that is not known, against any.
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class _Table:
    """What is published of one matrix."""

    recommended: tuple[int, int]
    ungapped: list[float]
    gapped: dict[tuple[int, int], list[float]] = field(default_factory=dict)


def _tables() -> dict[str, _Table]:
    tables: dict[str, _Table] = {}
    for line in _PUBLISHED.strip().splitlines():
        words = line.split()
        if line[0] != " ":
            table = _Table((int(words[1]), int(words[2])), [float(word) for word in words[3:]])
            tables[words[0]] = table
        else:
            table.gapped[int(words[0]), int(words[1])] = [float(word) for word in words[2:]]
    return tables


_TABLES = _tables()

#: Substitution matrices with published statistics.
MATRICES = tuple(_TABLES)


@dataclass(frozen=True, slots=True)
class Gumbel:
    """Chance scores under one matrix and one pair of gap costs.

    Attributes
    ----------
    rate, k : float
        ``lambda``, in nats a unit of score, and ``K``.
    a, b : float
        Mean length of the sequence that a chance alignment of score y takes, ``a y + b``.
    alpha, beta : float
        Its variance, ``alpha y + beta``.
    sigma, tau : float
        Covariance of the two sequences' lengths, ``sigma y + tau``.
    """

    rate: float
    k: float
    a: float
    b: float
    alpha: float
    beta: float
    sigma: float
    tau: float

    def bits(self, score: int) -> float:
        """The score in bits, ``(lambda * score - ln K) / ln 2``: comparable across matrices."""
        return (self.rate * score - math.log(self.k)) / math.log(2)

    def evalue(self, score: int, query_length: int, target_length: int, residues: int) -> float:
        """Chance alignments expected with this score or a better one.

        The e-value that blastp prints without composition-based statistics: K exp(-lambda y)
        times the area in which an alignment of score y can end without running over an end of a
        sequence (finite-size correction: Park, Sheetlin, Ma, Madden and Spouge, BMC Research
        Notes 5:286, 2012), for this pair, times the searched residues in targets of this length.

        Parameters
        ----------
        score : int
            Raw score y.
        query_length, target_length : int
            Residues.
        residues : int
            Residues of everything that was searched.

        Returns
        -------
        float
            0.0 where it is below the smallest float.
        """
        query, query_inside = self._room(score, query_length)
        target, target_inside = self._room(score, target_length)
        covariance = max(2 * self.sigma / self.rate, self.sigma * score + self.tau)
        area = query * target + covariance * query_inside * target_inside
        pair = max(area, 0.0) * self.k * math.exp(-self.rate * score)
        return pair * residues / target_length

    def _room(self, score: int, length: int) -> tuple[float, float]:
        """Expected positive part of ``length`` less an alignment's normal length, and its chance.

        The variance is bounded below as blastp does: its line in y falls under 0 for small scores.
        """
        left = length - (self.a * score + self.b)
        variance = max(2 * self.alpha / self.rate, self.alpha * score + self.beta)
        deviation = math.sqrt(variance)
        z = left / deviation
        inside = math.erfc(-z / math.sqrt(2)) / 2
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return left * inside + deviation * density, inside


def gap_costs(matrix: str) -> list[tuple[int, int]]:
    """Pairs of gap costs (existence, extension) with published statistics.

    A gap of n residues costs ``existence + n * extension``.

    Raises
    ------
    InputError
        There is no such matrix.
    """
    return list(_table(matrix).gapped)


def recommended(matrix: str) -> tuple[int, int]:
    """The gap costs that NCBI recommends for a matrix.

    Raises
    ------
    InputError
        There is no such matrix.
    """
    return _table(matrix).recommended


def gumbel(matrix: str, gap_open: int, gap_extend: int) -> Gumbel:
    """Statistics of a matrix with these gap costs.

    Parameters
    ----------
    matrix : str
        One of `MATRICES`.
    gap_open, gap_extend : int
        One of ``gap_costs(matrix)``.

    Raises
    ------
    InputError
        No such matrix, or gap costs for which NCBI publishes no statistics.
    """
    table = _table(matrix)
    if (gap_open, gap_extend) not in table.gapped:
        costs = list(table.gapped)
        listed = ", ".join(f"{existence}/{extension}" for existence, extension in costs)
        best = "/".join(map(str, table.recommended))
        raise InputError(
            f"{matrix} has no published statistics for gap costs {gap_open}/{gap_extend} (opening/"
            f"extension); expected one of {listed}. {best} is the usual choice for {matrix}.",
            matrix=matrix,
            gap_open=gap_open,
            gap_extend=gap_extend,
            supported=costs,
        )
    _, _, ungapped_a, ungapped_alpha, _ = table.ungapped
    rate, k, a, alpha, sigma = table.gapped[gap_open, gap_extend]
    # Intercepts follow from the slopes with and without gaps (same paper, and blast_stat.c).
    twice = 2 * (gap_open + gap_extend)
    return Gumbel(
        rate=rate,
        k=k,
        a=a,
        b=twice * (ungapped_a - a),
        alpha=alpha,
        beta=twice * (ungapped_alpha - alpha),
        sigma=sigma,
        tau=twice * (ungapped_alpha - sigma),
    )


def substitution_scores(matrix: str) -> NDArray[np.int32]:
    """Scores of pairs of residues, as blastp scores them.

    X scores -1 against every residue, itself too; U (selenocysteine) scores as C, O (pyrrolysine)
    as X.

    Returns
    -------
    ndarray, shape (25, 25), int32
        Symmetric; lines and columns in the order of `rdsearch.fasta.ALPHABET`.

    Raises
    ------
    InputError
        There is no such matrix.
    DependencyError
        pyopal, which brings the matrices, is not installed.
    """
    _table(matrix)
    place = {letter: at for at, letter in enumerate(ALPHABET)}
    scores = np.full((len(ALPHABET), len(ALPHABET)), _UNKNOWN, dtype=np.int32)

    def put(one: str, other: str, score: int) -> None:
        scores[place[one], place[other]] = scores[place[other], place[one]] = score

    if matrix == "BLOSUM80":
        lines = [line.split() for line in _BLOSUM80.strip().splitlines()]
        letters = [line[0] for line in lines]
        for letter, *values in lines:
            for other, value in zip(letters, values, strict=False):
                put(letter, other, int(value))
    else:
        published = library("scoring_matrices").ScoringMatrix.from_name(matrix)
        letters = [letter for letter in published.alphabet if letter in place and letter != "X"]
        for letter in letters:
            for other in letters:
                put(letter, other, int(published[letter, other]))
        pairs = _CORRECTED.get(matrix, "").split()
        for pair, value in zip(pairs[::2], pairs[1::2], strict=True):
            put(pair[0], pair[1], int(value))
    for other in ALPHABET:
        put("U", other, int(scores[place["C"], place[other]]))
    put("U", "U", int(scores[place["C"], place["C"]]))
    return scores


def library(name: str) -> Any:
    """``pyopal``, or ``scoring_matrices``, which comes with it; `DependencyError` without."""
    try:
        return import_module(name)
    except ImportError as error:
        raise DependencyError(
            "an alignment needs pyopal, which is not installed: pip install 'pyopal>=0.7'"
        ) from error


def _table(matrix: str) -> _Table:
    if matrix not in _TABLES:
        raise InputError(
            f"no substitution matrix is called {matrix!r}; expected one of {', '.join(MATRICES)}",
            matrix=matrix,
            supported=MATRICES,
        )
    return _TABLES[matrix]
