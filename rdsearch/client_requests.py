"""What a client asks a server: queries read, requests built. Nothing here sends anything."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from rdsearch import fasta
from rdsearch.errors import InputError
from rdsearch.fasta import Record

__all__ = [
    "KEY_VARIABLE",
    "OPTIONS",
    "Queries",
    "checked",
    "key_of",
    "part",
    "parts",
    "records_of",
    "search_body",
    "text_of",
    "url_of",
]

#: A FASTA file (``"-"`` is standard input), FASTA text, a record, or records or sequences.
Queries = str | os.PathLike[str] | Record | Iterable[Record | str]

#: What a search can be told besides its queries, index, k and format.
OPTIONS = frozenset(
    {
        *("from_tier", "to_tier", "shortlist", "nprobe", "where", "ids", "taxon", "exclude_self"),
        *("evalues", "evalue", "dbsize", "fdr", "fnr", "trace", "columns", "map"),
        *("align", "rerank", "matrix", "gap_open", "gap_extend"),
    }
)

KEY_VARIABLE = "RDSEARCH_API_KEY"


def url_of(url: str) -> str:
    """A server's URL without the last slash.

    Raises
    ------
    InputError
        It is no URL of a server.
    """
    try:
        parsed = urlsplit(url)
        known = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        known = False
    if not known or parsed.query or parsed.fragment:
        raise InputError(
            f"expected the URL of a server, as http://127.0.0.1:8000; found {url!r}", url=url
        )
    if "@" in parsed.netloc:
        raise InputError(
            f"a URL with a name or password in it is not used; a key goes into {KEY_VARIABLE} or "
            "api_key"
        )
    return url.rstrip("/")


def key_of(given: str | None) -> str | None:
    """The key to send, from the environment where none is given; it is never shown.

    Raises
    ------
    InputError
        It cannot be sent: it is empty, or has blanks or other signs than ASCII's.
    """
    key = os.environ.get(KEY_VARIABLE) if given is None else given
    if key is None or (given is None and not key.strip()):
        return None
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(
            f"an API key is one word of ASCII letters, digits and signs; what api_key or "
            f"{KEY_VARIABLE} holds is not"
        )
    return key


def records_of(queries: Queries) -> list[Record]:
    """Queries, read and cleaned here, so that errors name the lines of the user's own file.

    Parameters
    ----------
    queries : path, str, Record, or iterable of Record or str
        A string is FASTA where it begins with ``>``, else a path. In an iterable a string is a
        sequence; they are named query1, query2, and so on.

    Raises
    ------
    FastaError
        As `rdsearch.fasta.read`.
    InputError
        There is no query, or one is of another kind.
    """
    if isinstance(queries, str) and queries.lstrip().startswith(">"):
        return list(fasta.read(_named(queries, "the FASTA text"), unique=False))
    if isinstance(queries, str | os.PathLike):
        return list(fasta.read(queries, unique=False))
    if isinstance(queries, Record):
        queries = [queries]
    if isinstance(queries, bytes) or not isinstance(queries, Iterable):
        raise InputError(
            "queries are a FASTA path, FASTA text, a Record, or a list of Records or sequences; "
            f"found {type(queries).__name__}"
        )
    records = [_record(query, place) for place, query in enumerate(queries, start=1)]
    if not records:
        raise InputError("there is no query: the list is empty")
    return records


def _record(query: Record | str, place: int) -> Record:
    if isinstance(query, str):
        if ">" in query or not query.strip():
            raise InputError(
                f"query {place} of the list: expected a sequence, found {query[:40]!r}. FASTA "
                "text and paths are given alone, not in a list"
            )
        text = f">query{place}\n{query}\n"
        return next(iter(fasta.read(_named(text, f"query {place} of the list"), unique=False)))
    if not isinstance(query, Record):
        raise InputError(
            f"query {place} of the list: expected a Record or a sequence, found "
            f"{type(query).__name__}"
        )
    sound = query.sequence.isascii() and query.sequence.isalpha()
    if query.id.split() != [query.id] or set("\r\n") & set(query.description) or not sound:
        raise InputError(
            f"query {place} of the list: a Record has an id of one word, a description of one "
            f"line and a sequence of letters; found {query.id!r}"
        )
    return query


class _Named(io.BytesIO):
    """Text that errors can name."""

    name = ""


def _named(text: str, name: str) -> io.BytesIO:
    file = _Named(text.encode())
    file.name = name
    return file


def text_of(records: Iterable[Record]) -> str:
    """Records as FASTA; the server's reader makes the same records of it."""
    return "".join(
        f">{f'{one.id} {one.description}'.rstrip()}\n{one.sequence}\n" for one in records
    )


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a search that were given; those that are None go without.

    Raises
    ------
    InputError
        There is no such option.
    """
    for name in options:
        if name not in OPTIONS:
            raise InputError(
                f"a search has no option {name!r}; it has {', '.join(sorted(OPTIONS))}", option=name
            )
    given = {name: value for name, value in options.items() if value is not None}
    for name in ("ids", "columns"):
        if isinstance(given.get(name), str):
            raise InputError(f"{name} is a list of names; found {given[name]!r}", option=name)
        if name in given:
            given[name] = list(given[name])
    return given


def search_body(
    records: Sequence[Record],
    index: str | None,
    k: int | None,
    format: str,
    options: Mapping[str, Any],
    timeout: float | None = None,
) -> bytes:
    """The body of a search."""
    body = {"fasta": text_of(records), "index": index, "k": k, "format": format, **options}
    if timeout is not None:
        body["timeout"] = min(timeout, 86_400)
    return json.dumps(
        {name: value for name, value in body.items() if value is not None}, ensure_ascii=False
    ).encode()


def parts(records: Sequence[Record], limits: Mapping[str, Any]) -> Iterator[list[Record]]:
    """Records in groups that a server takes at once."""
    group: list[Record] = []
    residues = size = 0
    for record in records:
        # An estimate of its share of the body from above: a letter takes 12 bytes at most.
        taken = len(record.sequence) + 12 * (len(record.id) + len(record.description) + 4)
        if group and (
            len(group) >= limits["sequences"]
            or residues + len(record.sequence) > limits["residues"]
            or size + taken > limits["body_bytes"] - 4096
        ):
            yield group
            group, residues, size = [], 0, 0
        group.append(record)
        residues += len(record.sequence)
        size += taken
    yield group


def part(name: str) -> str:
    """A name as one part of a URL's path."""
    return quote(str(name), safe="")
