"""Which rows a search may find: by expression, by accession, by taxon."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdsearch.errors import InputError, few
from rdsearch.headers import parse_header
from rdsearch.metadata import quoted
from rdsearch.textfile import read_text

if TYPE_CHECKING:
    from rdsearch.catalogs import Catalogs

__all__ = ["allowed_rows", "combine", "read_ids", "rows_of_ids", "within_taxon"]

_LOGGER = logging.getLogger(__name__)

# Text of ids and nothing else.
_IDS_ALONE = r"[\s\d;,|\[\]''\"]*"


def allowed_rows(
    catalog: Catalogs,
    where: str | None = None,
    ids: Iterable[str] | None = None,
    taxon: int | None = None,
    **limits: float,
) -> NDArray[np.int64] | None:
    """Rows that pass every filter that is given.

    Parameters
    ----------
    catalog : Catalogs
    where : str, optional
        See `Catalog.rows_where`.
    ids : iterable of str, optional
        See `rows_of_ids`.
    taxon : int, optional
        See `Catalog.rows_of_taxon`.
    **limits
        `seconds` of `Catalog.rows_where`.

    Returns
    -------
    ndarray, shape (rows,), int64, or None
        Sorted, distinct; None when no filter is given: all rows.

    Raises
    ------
    InputError
        A filter that cannot be used.
    """
    return combine(
        None if where is None else catalog.rows_where(where, **limits),
        None if ids is None else rows_of_ids(catalog, ids),
        None if taxon is None else catalog.rows_of_taxon(taxon),
    )


def combine(*filters: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Rows that are in every filter.

    Parameters
    ----------
    *filters : ndarray of int64, sorted and distinct, or None
        None lets every row pass.

    Returns
    -------
    ndarray, shape (rows,), int64, or None
        Sorted, distinct; None when every filter is None.
    """
    given = [rows for rows in filters if rows is not None]
    if not given:
        return None
    return reduce(lambda a, b: np.intersect1d(a, b, assume_unique=True), given)


def rows_of_ids(catalog: Catalogs, ids: Iterable[str]) -> NDArray[np.int64]:
    """Rows of accessions; how many the index lacks is logged.

    Parameters
    ----------
    catalog : Catalogs
    ids : iterable of str
        Accessions or ids as they stand in FASTA headers: ``P12345`` and ``sp|P12345|AATM_RABIT``.

    Returns
    -------
    ndarray, shape (rows,), int64
        Sorted, distinct.

    Raises
    ------
    InputError
        None of them is in the index.
    """
    if isinstance(ids, str):
        raise InputError(f"ids are accessions, one string each; found the one string {ids!r}")
    wanted = list(dict.fromkeys(parse_header(name)["accession"] for name in ids if name.strip()))
    found = catalog.rows_of(wanted)
    missing = [accession for accession in wanted if accession not in found]
    examples = few(missing)
    if not found:
        raise InputError(
            f"none of {len(wanted):,} accessions is in the index"
            + (f" ({examples})" if missing else "")
            + ". Expected accessions as the index has them, one a line",
            missing=missing,
        )
    if missing:
        _LOGGER.warning(
            "%s of %s accessions are not in the index (%s)",
            f"{len(missing):,}",
            f"{len(wanted):,}",
            examples,
        )
    return np.unique(np.fromiter(found.values(), dtype=np.int64, count=len(found)))


def read_ids(path: str | Path) -> list[str]:
    """Accessions from a file, one a line.

    Parameters
    ----------
    path : str or Path
        UTF-8 text, packed or not; ``"-"`` is standard input. Blank lines and lines that begin
        with ``#`` do not count.

    Returns
    -------
    list of str
        In the order of the file.

    Raises
    ------
    InputError
        The file cannot be read, a line has more than one word, or there is no accession.
    """
    ids = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 1:
            raise InputError(
                f"{path}, line {number}: expected one accession, found {len(words)} words. Keep "
                "the column with the accessions",
                path=path,
                line=number,
            )
        ids.append(words[0])
    if not ids:
        raise InputError(f"{path}: expected accessions, one a line; found none", path=path)
    return ids


def within_taxon(column: str, kind: str) -> str:
    """SQL condition that is true when a lineage has taxon id ``$2``, as text.

    Text may hold ids alone, between any separators, or items that each begin with an id, as
    UniProt writes them: ``2 (superkingdom), 562 (species)``.

    Parameters
    ----------
    column : str
        Name of the column.
    kind : str
        Its SQL type: a list, or something that can be written as text.
    """
    if kind.endswith("[]"):
        return f"list_contains({quoted(column)}::VARCHAR[], $2)"
    text = f"{quoted(column)}::VARCHAR"
    return (
        f"CASE WHEN regexp_full_match({text}, '{_IDS_ALONE}') "
        rf"THEN regexp_matches({text}, '(^|\D)' || $2 || '(\D|$)') "
        rf"ELSE regexp_matches({text}, '(^|[;,|])\s*' || $2 || '\s*([(;,|]|$)') END"
    )
