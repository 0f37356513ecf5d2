"""The labels of rows, and the evidence that hits give for labels.

A hit with e-value E weighs ``w = ln((1 + E) / E) + FLOOR``: among one relative and E rows that
chance gives, the share of chance is E / (1 + E), and weights add up to the log of the chance that
all of these hits are chance. `FLOOR` counts the votes of hits that chance gives: alone they say
little, and many of them what is frequent among proteins like the query. The evidence for a label
is its share of the weight of all annotated hits and of a doubt that speaks against every label::

    evidence = sum of w over hits with the label / (DOUBT + sum of w over annotated hits)

It lies in (0, 1), grows with every hit that carries the label and with its weight, and falls with
those that carry others. Hits without a value in the column take no part: not to be annotated
speaks neither for nor against (the open world of annotations). An index without e-values takes
scores as weights.

Tried on gene and protein names of 2,000 Swiss-Prot proteins and on superfamilies of SCOPe domains:
by log loss of the confidences that are learnt from it, it comes before the share of the hits, their
best weight and the sum of their weights on names, and close to the share on domains of at most 20 %
identity, most of whose hits chance gives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdsearch.errors import InputError
from rdsearch.hits import ATTRIBUTES

if TYPE_CHECKING:
    from rdsearch.hits import Hit
    from rdsearch.index import Index

__all__ = ["DOUBT", "FLOOR", "RowLabels", "check_column", "evidence", "split", "weighed"]

#: What speaks against every label: as much as a hit that one search in twenty has by chance.
DOUBT = -float(np.log(0.05))
#: What every annotated hit weighs at least.
FLOOR = 0.1
# Doubt where scores are the weights.
_DOUBT_OF_SCORES = 0.5

# Rows whose labels are kept.
_KEPT_ROWS = 1 << 17
# What is text or a whole number, and lists of it.
_LABELS = re.compile(
    r"(VARCHAR|BOOLEAN|UUID|DATE|U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)|ENUM\(.*\))(\[\d*\])?"
)
_SEPARATORS = re.compile(r"[;|]")
_LOOSE = re.compile(r"[,\s]+")
# GO:0005524 and G3DSA:1.10.510.10; 2.7.11.1, 2.7.-.- and CATH's; a.1.1.1; PF00069, IPR000719.
_IDENTIFIER = re.compile(
    r"[A-Za-z][\w.]*:[\w.:-]*\d[\w.:-]*|[1-9]\d*(\.(\d+|-|n\d+)){2,3}|[a-z](\.\d+){3}"
    r"|[A-Za-z]{1,7}_?\d{3,}(\.\d+)?"
)


def check_column(column: str, columns: Mapping[str, str]) -> None:
    """Refuse a column that an index has not, or that holds no labels.

    Parameters
    ----------
    column : str
    columns : mapping of str to str
        ``index.columns``.

    Raises
    ------
    InputError
        There is no such column (attributes ``column``, ``columns``), or it holds measured values,
        structures or bytes.
    """
    if column not in columns:
        raise InputError(
            f"the index has no column {column!r}; it has {', '.join(columns)}",
            column=column,
            columns=tuple(columns),
        )
    if not _LABELS.fullmatch(columns[column]):
        raise InputError(
            f"column {column} is {columns[column]}; expected labels: text, whole numbers, truth "
            "values, or a list of these",
            column=column,
        )


def split(value: Any) -> tuple[str, ...]:
    """The labels in a value of a column.

    Parameters
    ----------
    value : object
        A list has a label an element. Text is split at ``;`` and ``|``, and what is between them
        at commas and blanks too where every piece is an identifier (``GO:0005524``, ``2.7.11.1``,
        ``PF00069``, ``a.1.1.1``): names have commas and blanks of their own. Whole numbers, dates
        and truth values are one label.

    Returns
    -------
    tuple of str
        Distinct, without surrounding blanks; pieces without a letter or digit are left out.

    Examples
    --------
    >>> split("GO:0005524, GO:0016301; ATP binding, cytosol;")
    ('GO:0005524', 'GO:0016301', 'ATP binding, cytosol')
    """
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        pieces = [_text(one) for one in value if one is not None]
    else:
        pieces = []
        for part in _SEPARATORS.split(_text(value)):
            loose = _LOOSE.split(part.strip(" ,\t\r\n"))
            pieces += loose if all(map(_IDENTIFIER.fullmatch, loose)) else [part]
    found = (piece.strip() for piece in pieces)
    return tuple(dict.fromkeys(one for one in found if any(map(str.isalnum, one))))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def evidence(
    weights: Sequence[float], labels: Sequence[Mapping[str, object]], doubt: float
) -> dict[str, float]:
    """Evidence for each label of some hits; see the module.

    Parameters
    ----------
    weights : sequence of float
        Of the hits, 0 or more.
    labels : sequence of mapping
        The labels of each hit are the keys; a hit without takes no part.
    doubt : float
        Above 0.

    Returns
    -------
    dict of str to float
    """
    total, sums = doubt, dict[str, float]()
    for weight, own in zip(weights, labels, strict=True):
        total += weight if own else 0.0
        for label in own:
            sums[label] = sums.get(label, 0.0) + weight
    return {label: value / total for label, value in sums.items()}


def weighed(
    scores: NDArray[np.float64], evalues: NDArray[np.float64] | None
) -> tuple[list[float], float]:
    """Weights of hits, and the doubt that belongs to them.

    Parameters
    ----------
    scores : ndarray, shape (hits,), float64
    evalues : ndarray, shape (hits,), float64, or None
        Where they are given, scores do not count.
    """
    if evalues is None:
        return np.maximum(scores, FLOOR).tolist(), _DOUBT_OF_SCORES
    least = np.maximum(evalues, np.finfo(np.float64).tiny)
    return (np.logaddexp(0.0, -np.log(least)) + FLOOR).tolist(), DOUBT


class RowLabels:
    """The labels of rows of an index in some columns, read once.

    All proteins of a sequence count: the labels of a row are those of any of them.
    """

    def __init__(self, index: Index, columns: Sequence[str]) -> None:
        self._index, self.columns = index, columns
        self._kept: dict[int, dict[str, dict[str, str]]] = {}

    def of(self, rows: Sequence[int]) -> dict[int, dict[str, dict[str, str]]]:
        """By row and column the labels, each with the first accession that has it."""
        if len(self._kept) > _KEPT_ROWS:
            self._kept.clear()
        missing = sorted({row for row in rows if row not in self._kept})
        for row, proteins in (self._index.catalog.proteins(missing) if missing else {}).items():
            self._keep(row, proteins)
        return {row: self._kept[row] for row in rows}

    def of_hits(self, hits: Sequence[Hit]) -> dict[int, dict[str, dict[str, str]]]:
        """The same of hits, which hold what is to be known of a sequence with one protein."""
        for hit in hits:
            if hit.row not in self._kept and len(hit.accessions) == 1:
                known = hit.columns | {name: getattr(hit, name) for name in ATTRIBUTES}
                self._keep(hit.row, [known])
        return self.of([hit.row for hit in hits])

    def _keep(self, row: int, proteins: Sequence[Mapping[str, Any]]) -> None:
        found: dict[str, dict[str, str]] = {column: {} for column in self.columns}
        for protein in proteins:
            for column, labels in found.items():
                for label in split(protein[column]):
                    labels.setdefault(label, protein["accession"])
        self._kept[row] = found
