"""Hits as sequences: FASTA, and alignments to the query in A3M.

A3M (HH-suite): the query first, then each hit on the query's columns. Upper case is a residue on a
column, ``-`` a column without one, lower case a residue between two columns, which takes no column
of its own in the rows of the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import IO

from rdsearch.alignment import Alignment, runs
from rdsearch.errors import InputError
from rdsearch.fasta import Record
from rdsearch.hits import Hit, QueryHits
from rdsearch.tables import flat, note_unaligned

__all__ = ["a3m", "each", "fasta", "paired", "safe_name", "section"]

_WIDTH = 60
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
# File systems take 255 bytes; a suffix, a number and a temporary file's name go on top.
_LONGEST_NAME = 120


def fasta(results: Iterable[QueryHits], out: IO[str]) -> int:
    """The sequence of each protein that was found, once, in the order in which they come.

    Parameters
    ----------
    results : iterable of QueryHits
        Hits with sequences.
    out : text file

    Returns
    -------
    int
        Sequences.

    Raises
    ------
    InputError
        A hit has no sequence.
    """
    written: set[int] = set()
    for _, hits in results:
        for hit in hits:
            if hit.row in written:
                continue
            written.add(hit.row)
            sequence = _sequence(hit)
            lines = [sequence[at : at + _WIDTH] for at in range(0, len(sequence), _WIDTH)]
            out.write("\n".join([f">{flat(hit.accession)}{_described(hit)}", *lines]) + "\n")
    return len(written)


def a3m(results: Iterable[QueryHits], out: IO[str]) -> int:
    """The hits of one query, aligned to it.

    A row's header is ``>ACCESSION/START-END`` with the ends of the alignment in the target. What
    lies outside of the local alignment is gaps. Hits without an alignment are left out, and
    counted in a warning.

    Parameters
    ----------
    results : iterable of QueryHits
        Of one query, or none; hits with alignments and sequences.
    out : text file

    Returns
    -------
    int
        Rows besides the query's.

    Raises
    ------
    InputError
        There are several queries, or a hit has an alignment and no sequence. Nothing has been
        written then.
    """
    text = ""
    written = left_out = 0
    first: Record | None = None
    for found in results:
        if first is not None:
            raise InputError(
                f"an A3M file holds one query; found {first.id} and {found.query.id}. Name a "
                "folder with -o, and each query gets a file there",
                queries=(first.id, found.query.id),
            )
        first = found.query
        text, written = section(found)
        left_out = len(found.hits) - written
    note_unaligned(left_out)
    out.write(text)
    return written


def each(results: Iterable[QueryHits]) -> Iterator[tuple[str, str, int]]:
    """The same for many queries: a file's name, its text, and its rows besides the query's.

    Yields
    ------
    str, str, int
    """
    taken: set[str] = set()
    left_out = 0
    for found in results:
        text, written = section(found)
        left_out += len(found.hits) - written
        yield f"{safe_name(found.query.id, taken)}.a3m", text, written
    note_unaligned(left_out)


def section(found: QueryHits) -> tuple[str, int]:
    """A3M of one query, and its rows besides the query's."""
    query, hits = found
    rows = [f">{flat(f'{query.id} {query.description}'.rstrip())}\n{query.sequence}\n"]
    for hit in hits:
        if hit.alignment is not None:
            ends = f"{hit.alignment.target_start}-{hit.alignment.target_end}"
            header = f">{flat(hit.accession)}/{ends}{_described(hit)}"
            rows.append(f"{header}\n{_row(query, hit, hit.alignment)}\n")
    return "".join(rows), len(rows) - 1


def paired(query: str, target: str, found: Alignment) -> tuple[str, str]:
    """Both rows of an alignment, with ``-`` for gaps.

    Parameters
    ----------
    query, target : str
        Whole sequences.
    found : Alignment

    Returns
    -------
    query, target : str
        Of one length.

    Raises
    ------
    InputError
        The alignment is not one of these sequences.
    """
    one, other = found.query_start - 1, found.target_start - 1
    upper, lower = [], []
    for length, kind in runs(found.cigar):
        upper.append("-" * length if kind == "D" else query[one : one + length])
        lower.append("-" * length if kind == "I" else target[other : other + length])
        one += 0 if kind == "D" else length
        other += 0 if kind == "I" else length
    rows = "".join(upper), "".join(lower)
    if (
        (one, other) != (found.query_end, found.target_end)
        or one > len(query)
        or other > len(target)
    ):
        raise InputError(
            f"an alignment of residues {found.query_start}-{found.query_end} of {len(query)} with "
            f"{found.target_start}-{found.target_end} of {len(target)} has the CIGAR "
            f"{found.cigar}, which ends at {one} and {other}",
            cigar=found.cigar,
        )
    return rows


def safe_name(query_id: str, taken: set[str]) -> str:
    """A file's name for a query, without its suffix.

    Letters, digits, ``.``, ``_`` and ``-`` stay, as in ColabFold; everything else becomes ``_``.

    Parameters
    ----------
    query_id : str
    taken : set of str
        Names that were given, in lower case: some file systems tell no cases apart. The new one
        is added.
    """
    name = _UNSAFE.sub("_", query_id)[:_LONGEST_NAME].lstrip(".-") or "query"
    chosen, number = name, 1
    while chosen.lower() in taken:
        number += 1
        chosen = f"{name}-{number}"
    taken.add(chosen.lower())
    return chosen


def _row(query: Record, hit: Hit, found: Alignment) -> str:
    """A hit on the query's columns."""
    upper, lower = paired(query.sequence, _sequence(hit), found)
    columns = (
        two.lower() if one == "-" else two.upper() for one, two in zip(upper, lower, strict=True)
    )
    before, after = found.query_start - 1, len(query.sequence) - found.query_end
    return "-" * before + "".join(columns) + "-" * after


def _described(hit: Hit) -> str:
    """What follows the accession in a header."""
    name = f" {flat(hit.protein_name)}" if hit.protein_name else ""
    return name + (f" [{flat(hit.organism)}]" if hit.organism else "")


def _sequence(hit: Hit) -> str:
    if hit.sequence is None:
        raise InputError(
            f"hit {hit.accession} of {hit.query} has no sequence, which this format needs: search "
            "with sequences=True",
            accession=hit.accession,
        )
    return hit.sequence
