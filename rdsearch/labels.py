"""Labels of a hierarchy: which proteins are known to be related, and how closely.

A label is a SCOPe concise classification string ``class.fold.superfamily.family``, for example
``a.1.1.1``: two proteins are of one fold, superfamily or family when their labels agree in the
first two, three or four parts.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from xopen import xopen

from rdsearch.errors import MetadataError, few
from rdsearch.textfile import DAMAGE

if TYPE_CHECKING:
    from rdsearch.catalogs import Catalogs

__all__ = ["FALSE", "ID_COLUMNS", "LABEL_COLUMNS", "LEVELS", "LabelledRows", "join", "read"]

#: Levels of relation, near to far. A relation of `FALSE` + 1, 2, 3 is fold, superfamily, family.
LEVELS = ("family", "superfamily", "fold")

#: The relation of two proteins of different folds.
FALSE = 0

#: Columns that are looked for where none is named.
ID_COLUMNS = ("sid", "accession")
LABEL_COLUMNS = ("sccs", "label")

_LOGGER = logging.getLogger(__name__)
_UNREADABLE: tuple[type[Exception], ...] = (*DAMAGE, UnicodeDecodeError, csv.Error)
_LABEL = re.compile(r"[A-Za-z0-9]+(\.[A-Za-z0-9]+){3}")


@dataclass(frozen=True)
class LabelledRows:
    """Rows of an index whose labels are known.

    Attributes
    ----------
    rows : ndarray, shape (n,), int64
        Sorted, distinct.
    codes : ndarray, shape (n, 3), int64
        Integers that name each row's family, superfamily and fold; equal where the label's first
        four, three or two parts are.
    labels_read : int
        Labelled proteins in the file.
    labels_unmatched : int
        Of these, proteins that the index does not have.
    rows_unlabelled : int
        Rows of the index without a label: neither queries nor targets.
    rows_conflicting : int
        Rows whose accessions have different labels: neither queries nor targets.
    totals : ndarray, shape (n, 3), int64
        For each row the other labelled rows of its family; of its superfamily and another family;
        of its fold and another superfamily.
    """

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    labels_read: int = 0
    labels_unmatched: int = 0
    rows_unlabelled: int = 0
    rows_conflicting: int = 0
    totals: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _places: NDArray[np.int32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = np.stack(
            [np.bincount(column, minlength=1)[column] for column in self.codes.T], axis=1
        )
        family, superfamily, fold = sizes.T
        totals = np.stack([family - 1, superfamily - family, fold - superfamily], axis=1)
        object.__setattr__(self, "totals", totals)
        # Where each row stands among the labelled; the last entry is for rows after them.
        places = np.full(int(self.rows.max(initial=-1)) + 2, len(self.rows), dtype=np.int32)
        places[self.rows] = np.arange(len(self.rows), dtype=np.int32)
        object.__setattr__(self, "_places", places)

    @classmethod
    def of(cls, rows: Sequence[int], labels: Sequence[str], **counts: int) -> LabelledRows:
        """From rows and their labels, in any order.

        Raises
        ------
        MetadataError
            A label that is not ``class.fold.superfamily.family``.
        """
        named = sorted(zip(rows, labels, strict=True))
        parts = [_parts(label) for _, label in named]
        codes = np.empty((len(named), len(LEVELS)), dtype=np.int64, order="F")
        for column, length in enumerate((4, 3, 2)):
            known: dict[tuple[str, ...], int] = {}
            codes[:, column] = [known.setdefault(part[:length], len(known)) for part in parts]
        return cls(np.array([row for row, _ in named], dtype=np.int64), codes, **counts)

    def __len__(self) -> int:
        return len(self.rows)

    def relations(self, position: int, ranked: NDArray[np.int64]) -> NDArray[np.int8]:
        """How a query is related to ranked rows.

        Parameters
        ----------
        position : int
            The query is ``rows[position]``.
        ranked : ndarray of int64
            Rows, best first. The query itself and rows without a label are left out.

        Returns
        -------
        ndarray of int8
            3 same family, 2 same superfamily and other family, 1 same fold and other superfamily,
            0 other fold.
        """
        relations = self._relations(position, ranked)
        return relations[relations >= FALSE]

    def relatives(self, level: str) -> NDArray[np.int64]:
        """For each row how many others are related at a level or nearer.

        Parameters
        ----------
        level : str
            One of `LEVELS`.

        Returns
        -------
        ndarray, shape (n,), int64
        """
        counted: NDArray[np.int64] = self.totals[:, : LEVELS.index(level) + 1].sum(axis=1)
        return counted

    def is_relation(
        self, position: int, ranked: NDArray[np.int64], relation: int
    ) -> NDArray[np.bool_]:
        """Which of the ranked rows have a relation to a query; see `relations`.

        Returns
        -------
        ndarray of bool, shaped as `ranked`
            Never true for the query itself and for rows without a label.
        """
        return self._relations(position, ranked) == relation

    def _relations(self, position: int, ranked: NDArray[np.int64]) -> NDArray[np.int8]:
        """As `relations`, with -1 for the query itself and rows without a label."""
        related = np.zeros(len(self.rows) + 1, dtype=np.int8)
        for column in self.codes.T:
            related[:-1] += column == column[position]
        related[[position, -1]] = -1
        places = self._places[np.minimum(ranked, len(self._places) - 1)]
        found: NDArray[np.int8] = related[places]
        return found


def _parts(label: str) -> tuple[str, ...]:
    if not _LABEL.fullmatch(label):
        raise MetadataError(
            f"label {label!r}: expected class.fold.superfamily.family, as in a.1.1.1",
            label=label,
        )
    return tuple(label.split("."))


def read(
    path: str | Path, id_column: str | None = None, label_column: str | None = None
) -> dict[str, str]:
    """Read labels from a table.

    Parameters
    ----------
    path : str or Path
        Tab-separated with a header line, plain or compressed (gzip, bzip2, xz, zstd).
    id_column, label_column : str, optional
        Where the accession and the label stand. The first of `ID_COLUMNS`, `LABEL_COLUMNS` that
        the table has where not given.

    Returns
    -------
    dict of str to str
        Accession to label, in the order of the file.

    Raises
    ------
    MetadataError
        The file cannot be read, a column is not there, a line has no accession, a label is not
        ``class.fold.superfamily.family``, or a protein has two different labels.
    """
    try:
        return _read(Path(path), id_column, label_column)
    except _UNREADABLE as error:
        raise MetadataError(f"{path}: labels cannot be read: {error}", path=path) from error


def _read(path: Path, id_column: str | None, label_column: str | None) -> dict[str, str]:
    labels: dict[str, str] = {}
    with xopen(path, "rt", encoding="utf-8-sig", threads=0) as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = list(reader.fieldnames or ())
        ids = _column(path, header, id_column, ID_COLUMNS, "--id-column")
        classes = _column(path, header, label_column, LABEL_COLUMNS, "--label-column")
        for line in reader:
            where = f"{path}, line {reader.line_num}"
            name, label = (line[ids] or "").strip(), (line[classes] or "").strip()
            if not name:
                raise MetadataError(f"{where}: expected an accession in column {ids!r}", path=path)
            if not _LABEL.fullmatch(label):
                raise MetadataError(
                    f"{where}: expected class.fold.superfamily.family, as in a.1.1.1, in column "
                    f"{classes!r} for {name}; found {label!r}. Correct or remove the line",
                    path=path,
                    label=label,
                )
            if labels.setdefault(name, label) != label:
                raise MetadataError(
                    f"{where}: {name} is {label} here and {labels[name]} before. Keep one of them",
                    path=path,
                    accession=name,
                )
    if not labels:
        raise MetadataError(f"{path}: expected labels after the header line, found none", path=path)
    return labels


def _column(
    path: Path, header: Sequence[str], wanted: str | None, known: Sequence[str], option: str
) -> str:
    for name in (wanted,) if wanted is not None else known:
        if name in header:
            return name
    expected = wanted or " or ".join(known)
    raise MetadataError(
        f"{path}: expected a tab-separated table with a column {expected}; its header has "
        f"{', '.join(header) or 'nothing'}. Name the column with {option}",
        path=path,
    )


def join(catalog: Catalogs, labels: Mapping[str, str]) -> LabelledRows:
    """Bring labels and the rows of an index together.

    Proteins of one sequence are one row: it is one query and one target, however many of its
    accessions have the label. Where they have different labels the row is left out, because
    neither label is more right than the other.

    Raises
    ------
    MetadataError
        Fewer than two rows have a label: nothing can be found.
    """
    found = catalog.rows_of(labels)
    by_row: dict[int, set[str]] = {}
    for accession, row in found.items():
        by_row.setdefault(row, set()).add(labels[accession])
    conflicting = sorted(row for row, different in by_row.items() if len(different) > 1)
    agreed = {row: label for row, (label, *more) in by_row.items() if not more}
    unmatched = len(labels) - len(found)
    if len(agreed) < 2:
        raise MetadataError(
            f"{len(agreed)} of the {catalog.n_rows:,} rows of the index have a label, at least 2 "
            f"are needed; {unmatched:,} of {len(labels):,} labels name no protein of it (labels: "
            f"{few(list(labels))}). Give the labels of the proteins in the index, or name their "
            "column with --id-column"
        )
    if unmatched:
        missing = [name for name in labels if name not in found]
        _LOGGER.warning(
            "%s of %s labels name no protein of the index (%s)",
            f"{unmatched:,}",
            f"{len(labels):,}",
            few(missing),
        )
    if conflicting:
        _LOGGER.warning(
            "%s rows are left out: their accessions have different labels (row %s: %s)",
            f"{len(conflicting):,}",
            conflicting[0],
            ", ".join(sorted(by_row[conflicting[0]])),
        )
    unlabelled = catalog.n_rows - len(by_row)
    if unlabelled:
        _LOGGER.warning(
            "%s of %s rows have no label: they are neither queries nor targets",
            f"{unlabelled:,}",
            f"{catalog.n_rows:,}",
        )
    return LabelledRows.of(
        list(agreed),
        list(agreed.values()),
        labels_read=len(labels),
        labels_unmatched=unmatched,
        rows_unlabelled=unlabelled,
        rows_conflicting=len(conflicting),
    )
