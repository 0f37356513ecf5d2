"""``rdsearch search --url``: the search command, where a server does the work."""

from __future__ import annotations

import codecs
import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import click

from rdsearch import outfiles
from rdsearch.cli_options import QUERY, say, working
from rdsearch.errors import InputError
from rdsearch.formats import FORMATS

__all__ = ["search_from", "search_remote"]

# What concerns the machine that searches, or that only a search on it can show.
_LOCAL = (
    *("in_memory", "explain", "threads"),
    *("weights", "device", "dtype", "tokens_per_batch", "stream_layers"),
)

# The command's options that the server has under the same name.
_SAME = (
    *("from_tier", "to_tier", "shortlist", "nprobe", "where", "taxon", "exclude_self", "evalue"),
    *("dbsize", "fdr", "fnr", "trace", "rerank", "matrix", "gap_open", "gap_extend"),
)


def search_from(context: click.Context, *, align: bool) -> None:
    """The search that a command line with ``--url`` asks for.

    Parameters
    ----------
    context : click.Context
        Of the search command, parsed. Where one argument is left out it is INDEX.
    align : bool
        Whether hits are to be aligned, for whatever reason.

    Raises
    ------
    click.UsageError
        An option that is for a search on this machine.
    RdsearchError
    """
    given = context.params
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in _LOCAL and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{parameter.opts[0]} is for a search on this machine; with --url the server's "
                "own settings hold"
            )
    index, query = given["index"], given["query"]
    if query is None:
        query = QUERY.convert(str(index), None, context)
        index = None
    options = {name: given[name] for name in _SAME if given[name] not in (None, False)}
    if given["no_evalues"]:
        options["evalues"] = False
    if given["ids"] is not None:
        from rdsearch import filters

        options["ids"] = filters.read_ids(given["ids"])
    if align:
        options["align"] = True
    search_remote(
        given["url"],
        None if index is None else str(index),
        query,
        given["output"],
        given["format_"],
        given["chosen"],
        {"k": given["k"], **options},
        quiet=given["quiet"],
    )


def search_remote(
    url: str,
    index: str | None,
    query: str,
    output: str,
    format: str,
    chosen: list[str] | None,
    options: Mapping[str, Any],
    *,
    quiet: bool = False,
    api_key: str | None = None,
) -> None:
    """Let a server search, and write its results as a search on this machine writes them.

    Parameters
    ----------
    url : str
    index : str or None
        Its name on the server; the server's first where it is None.
    query : str
        FASTA file; ``"-"`` is standard input.
    output : str
        File, or for A3M of several queries a folder; ``"-"`` is standard output.
    format : str
        One of `rdsearch.formats.FORMATS`.
    chosen : list of str or None
        Columns.
    options : mapping
        Of `rdsearch.client.Client.search`, k among them.
    quiet : bool, optional
        No progress and no notes.
    api_key : str, optional
        ``RDSEARCH_API_KEY`` where it is not given. There is no option for it: every user of a
        machine can read its command lines, and shells keep them.

    Raises
    ------
    RdsearchError
        The query cannot be read, the server refuses or does not answer, or the results cannot be
        written; no file has appeared then.
    """
    from rdsearch import client, client_requests

    if Path(query).is_dir():
        raise InputError(
            f"{query}: a server takes FASTA; the vectors of a store are searched on this machine, "
            "without --url"
        )
    path = None if output == "-" else Path(output)
    folder = (
        format == "a3m"
        and path is not None
        and (path.is_dir() or (not path.suffix and not path.exists()))
    )
    plan = {"format": format, "index": index, "columns": chosen, **options}
    notes: dict[str, None] = {}
    with working(None, quiet) as progress, client.Client(url, api_key=api_key) as server:
        records = client_requests.records_of(query)
        if format == "a3m" and len(records) > 1 and not folder:
            first, second = records[0].id, records[1].id
            raise InputError(
                f"an A3M file holds one query; found {first} and {second}. Name a folder with -o, "
                "and each query gets a file there",
                queries=(first, second),
            )
        if folder and path is not None:
            from rdsearch import a3m

            taken: set[str] = set()
            with outfiles.named(path):
                path.mkdir(parents=True, exist_ok=True)
                for record in records:
                    file = path / f"{a3m.safe_name(record.id, taken)}.a3m"
                    written = server.search_to(file, record, progress=progress, **plan)
                    notes |= dict.fromkeys(written.notes)
        else:
            with _place(path, format) as out:
                written = server.search_to(out, records, progress=progress, **plan)
            notes |= dict.fromkeys(written.notes)
    for note in notes:
        say(note, quiet=quiet)


class _Decoded:
    """A place for bytes of UTF-8 where text is wanted."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def write(self, content: bytes) -> int:
        self._text.write(self._decoder.decode(content))
        return len(content)


@contextlib.contextmanager
def _place(path: Path | None, format: str) -> Iterator[Any]:
    """Where the bytes of a format go: a file that appears when it is complete, or the output."""
    if path is not None:
        with outfiles.named(path), outfiles.new_file(path, binary=True) as file:
            yield file
    elif FORMATS[format].binary:
        yield outfiles.bytes_of(sys.stdout, format)
    else:
        with outfiles.text_of(sys.stdout, format) as text:
            yield _Decoded(text)
