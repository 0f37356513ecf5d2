"""Candidates that another tool found: which proteins to score for which query."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rdsearch.errors import InputError
from rdsearch.fasta import Record
from rdsearch.headers import parse_header
from rdsearch.textfile import read_text

__all__ = ["KINDS", "CandidateSource", "Candidates", "gather", "read"]

#: A list of accessions; a table with a header line; tabular output without one.
KINDS = ("list", "tsv", "blast")

# Columns of a table, the first that is there; the names that BLAST, MMseqs2, DIAMOND and rdsearch
# itself give to query and target.
_TARGETS = ("target", "accession", "sseqid", "saccver", "sacc", "subject", "entry", "id")
_QUERIES = ("query", "qseqid", "qaccver", "qacc")

# Tabular output of BLAST (-outfmt 6), MMseqs2 and DIAMOND: query, target, identity, …, e-value, bit
# score.
_TABULAR, _NUMBERS = 12, (2, 10, 11)
# What DIAMOND writes for a query that has no hit.
_NO_HIT = "*"

_Line = tuple[int, list[str]]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Accessions to score, best first as they came.

    Attributes
    ----------
    named : dict of str to tuple of str
        Accession of a query to its candidates.
    everyone : tuple of str
        Candidates of every query.
    repeated : int
        Lines that named a pair again, as a tool does that reports several alignments of one pair.
    """

    named: dict[str, tuple[str, ...]]
    everyone: tuple[str, ...] = ()
    repeated: int = 0

    @property
    def names(self) -> set[str]:
        """Every candidate of any query."""
        return {*self.everyone, *(name for found in self.named.values() for name in found)}

    def of(self, query: Record) -> tuple[str, ...]:
        """Candidates of a query, known by its accession or its id."""
        return self.named.get(query.accession, self.named.get(query.id, self.everyone))


#: A file, candidates for every query, candidates by query, or what `read` returned.
CandidateSource = str | Path | Iterable[str] | Mapping[str, Iterable[str]] | Candidates


def gather(source: CandidateSource, kind: str | None = None) -> Candidates:
    """Candidates from a file or from Python.

    Parameters
    ----------
    source : str, Path, iterable of str, mapping of str to iterable of str, or Candidates
        A file for `read`; accessions for every query; accessions by query.
    kind : str, optional
        Of a file.

    Returns
    -------
    Candidates
    """
    if isinstance(source, Candidates):
        return source
    if isinstance(source, str | Path):
        return read(source, kind)
    if isinstance(source, Mapping):
        return _collect((query, target) for query, found in source.items() for target in found)
    return _collect((None, target) for target in source)


def read(path: str | Path, kind: str | None = None) -> Candidates:
    """Read candidates.

    Parameters
    ----------
    path : str or Path
        UTF-8 text, packed or not; ``"-"`` is standard input. Blank lines and lines that begin with
        ``#`` do not count.
    kind : str, optional
        ``"list"``: an accession a line, for every query. ``"tsv"``: a table with a header line
        and a column ``target`` or ``accession``, and ``query`` unless its lines are for every
        query. ``"blast"``: query and target are the first two columns. Where it is not given,
        the first line decides.

    Returns
    -------
    Candidates
        Accessions of UniProt ids (``sp|P12345|AATM_RABIT`` is ``P12345``).

    Raises
    ------
    InputError
        The file cannot be read, is empty, or is not of its kind; with the line.
    """
    if kind is not None and kind not in KINDS:
        raise InputError(
            f"there are no candidates of kind {kind!r}; choose from {', '.join(KINDS)}"
        )
    text = read_text(path)
    lines = [
        (number, fields)
        for number, fields in _split(path, text)
        if any(fields) and not fields[0].startswith("#")
    ]
    if not lines:
        raise InputError(f"{path}: expected candidates, found none", path=path)
    readers = {"list": _list, "tsv": _table, "blast": _tabular}
    return _collect(readers[kind or _kind(path, lines[0])](path, lines))


def _split(path: str | Path, text: str) -> Iterator[_Line]:
    """Fields of each line. Only a field that begins with a quote can be quoted, as in a TSV."""
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split("\t")
        if '"' in line:
            try:
                fields = next(csv.reader([line], delimiter="\t"))
            except csv.Error as error:
                raise InputError(
                    f"{path}, line {number}: expected fields between tabs; it cannot be read "
                    f"({error})",
                    path=path,
                    line=number,
                ) from error
        yield number, [field.strip() for field in fields]


def _kind(path: str | Path, first: _Line) -> str:
    number, fields = first
    if len(fields) >= _TABULAR and all(_is_number(fields[place]) for place in _NUMBERS):
        return "blast"
    if {field.lower() for field in fields} & set(_TARGETS):
        return "tsv"
    if len(fields) == 1 and len(fields[0].split()) == 1:
        return "list"
    raise InputError(
        f"{path}, line {number}: expected an accession, a header line with a column 'target' or "
        f"'accession' (and 'query'), or the 12 columns of BLAST, MMseqs2 or DIAMOND; found "
        f"{len(fields)} columns. Add a header line, or say what it is (--candidates-format blast: "
        "query and target are the first two columns)",
        path=path,
        line=number,
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _list(path: str | Path, lines: Sequence[_Line]) -> Iterator[tuple[None, str]]:
    for number, fields in lines:
        if len(fields) > 1 or len(fields[0].split()) > 1:
            raise InputError(
                f"{path}, line {number}: expected one accession, found {' '.join(fields)!r}",
                path=path,
                line=number,
            )
        yield None, fields[0]


def _table(path: str | Path, lines: Sequence[_Line]) -> Iterator[tuple[str | None, str]]:
    number, header = lines[0]
    names = [name.lower() for name in header]
    target = next((names.index(name) for name in _TARGETS if name in names), None)
    query = next((names.index(name) for name in _QUERIES if name in names), None)
    if target is None:
        raise InputError(
            f"{path}, line {number}: expected a column 'target' or 'accession', found "
            f"{', '.join(header)}",
            path=path,
            line=number,
        )
    wanted = max(target, -1 if query is None else query)
    for number, fields in lines[1:]:
        if len(fields) <= wanted or not fields[target] or (query is not None and not fields[query]):
            raise InputError(
                f"{path}, line {number}: expected a value for each of the {len(header)} columns of "
                f"the header, found {len(fields)} fields",
                path=path,
                line=number,
            )
        yield None if query is None else fields[query], fields[target]


def _tabular(path: str | Path, lines: Sequence[_Line]) -> Iterator[tuple[str, str]]:
    for number, fields in lines:
        if len(fields) < 2 or not fields[0] or not fields[1]:
            raise InputError(
                f"{path}, line {number}: expected query and target between tabs, found "
                f"{len(fields)} fields",
                path=path,
                line=number,
            )
        if fields[1] != _NO_HIT:
            yield fields[0], fields[1]


def _collect(pairs: Iterable[tuple[str | None, str]]) -> Candidates:
    """Each query's candidates once, in order; a query without any has an entry all the same."""
    found: dict[str | None, dict[str, None]] = {}
    total = 0
    for query, target in pairs:
        name = None if query is None else _accession(query)
        found.setdefault(name, {})[_accession(target)] = None
        total += 1
    everyone = tuple(found.pop(None, ()))
    named = {str(query): tuple(targets) for query, targets in found.items()}
    return Candidates(named, everyone, total - len(everyone) - sum(map(len, named.values())))


def _accession(name: str) -> str:
    if not name.strip():
        raise InputError("a candidate and its query need a name; found an empty one")
    return parse_header(name)["accession"]
