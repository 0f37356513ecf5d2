"""Tables of metadata on disk: formats, column names, and where a line stands.

DuckDB reads them. Python reads the header, whose repeated names DuckDB would change in silence,
and finds the line when something is wrong.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import duckdb
import pyarrow
import pyarrow.parquet

from rdsearch.errors import MetadataError

__all__ = ["TableFile", "named_errors"]

_TEXT_ENDINGS = (".tsv", ".tab", ".txt", ".csv")
_JSON_ENDINGS = (".jsonl", ".ndjson")
_PARQUET_ENDINGS = (".parquet", ".pq")


class TableFile:
    """A table on disk, as its name says it is.

    Parameters
    ----------
    path : Path
        ``.tsv``, ``.tab``, ``.txt`` (tabs), ``.csv`` (commas, or semicolons where the header has
        no comma), ``.jsonl``, ``.ndjson``, each also with ``.gz``; ``.parquet``, ``.pq``. Text is
        UTF-8; tables of text begin with a header line; ``"`` quotes a field.

    Raises
    ------
    MetadataError
        Another ending, or no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        endings = [ending.lower() for ending in path.suffixes]
        self.packed = endings[-1:] == [".gz"]
        self.ending = (endings[:-1] if self.packed else endings)[-1:]
        known = {*_TEXT_ENDINGS, *_JSON_ENDINGS}
        if not (known if self.packed else known | {*_PARQUET_ENDINGS}).issuperset(self.ending) or (
            not self.ending
        ):
            raise MetadataError(
                f"{path}: expected a name that ends in {', '.join(sorted(known))} (or with .gz "
                f"after it), {', '.join(_PARQUET_ENDINGS)}; found {path.name!r}",
                path=path,
            )
        if not path.is_file():
            reason = "is not a file" if path.exists() else "there is no such file"
            raise MetadataError(f"{path}: {reason}", path=path)
        try:
            os.fsencode(path.absolute()).decode()
        except UnicodeDecodeError:
            raise MetadataError(
                f"{path}: expected a path in UTF-8, which is what DuckDB opens. Rename it",
                path=path,
            ) from None
        if self.packed:
            # DuckDB 1.1 takes a file that was cut off for a whole one.
            with self._open() as file:
                while file.read(1 << 20):
                    pass
        self.is_text = self.ending[0] in _TEXT_ENDINGS
        self.is_json = self.ending[0] in _JSON_ENDINGS
        self.delimiter = "\t"
        if self.ending == [".csv"]:
            with self._open() as file:
                header = file.readline()
            self.delimiter = ";" if "," not in header and ";" in header else ","

    @contextlib.contextmanager
    def _open(self) -> Iterator[TextIO]:
        """The text, unpacked."""
        opener: Any = gzip.open if self.packed else open
        try:
            with opener(self.path, "rt", encoding="utf-8-sig", newline="") as file:
                yield file
        except UnicodeDecodeError as error:
            raise MetadataError(f"{self.path}: expected text in UTF-8 ({error})") from None
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            raise MetadataError(f"{self.path}: cannot be read: {error}", path=self.path) from error

    def lines(self) -> Iterator[tuple[int, list[str]]]:
        """Number of the last line, and the fields, of each record of a text table."""
        with self._open() as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            for fields in reader:
                if fields:
                    yield reader.line_num, fields

    def column_names(self) -> list[str]:
        """The names as they are in the file; DuckDB renames those that are there twice."""
        if self.is_text:
            _, names = next(self.lines(), (0, []))
            return [name.strip() for name in names]
        if self.is_json:
            with named_errors(self), duckdb.connect() as connection:
                found = connection.execute(
                    "SELECT DISTINCT unnest(json_keys(json)) AS name FROM read_ndjson_objects(?)",
                    [self.argument],
                ).fetchall()
                names = [name for (name,) in found]
                if len({name.lower() for name in names}) < len(names):
                    return sorted(names)
                described = connection.execute(
                    f"DESCRIBE SELECT * FROM {self.reader([], [])}", [self.argument]
                ).fetchall()
            return [name for name, *_ in described]
        try:
            return list(pyarrow.parquet.read_schema(self.path).names)
        except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
            raise MetadataError(f"{self.path}: cannot be read: {error}", path=self.path) from error

    def reader(self, columns: list[str], text: list[str]) -> str:
        """DuckDB's reader for the path that is its parameter.

        `columns` are names for the columns of a text table; those in `text` are not guessed.
        Nothing about the layout is guessed, types are inferred from every line, and a table of
        many columns with few values each stays a table, where DuckDB would make it one map.
        """
        if self.is_text:
            return (
                f"read_csv(?, delim='{self.delimiter}', header=true, quote='\"', escape='\"', "
                f"comment='', skip=0, sample_size=-1, names={columns}, "
                f"types={dict.fromkeys(text, 'VARCHAR')})"
            )
        if self.is_json:
            return (
                "read_json(?, format='newline_delimited', records=true, sample_size=-1, "
                "map_inference_threshold=-1)"
            )
        return "read_parquet(?)"

    @property
    def argument(self) -> str:
        """The path as DuckDB's readers take it: they expand wildcards."""
        text = str(self.path.absolute())
        return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)

    def places(self, records: list[int]) -> str:
        """Where records, counted from 0, stand in the file."""
        if self.is_text:
            numbers = dict(enumerate((line for line, _ in self.lines()), start=-1))
            places = [str(numbers.get(record)) for record in records]
        else:
            places = [str(record + 1) for record in records]
        word = "line" if self.is_text or self.is_json else "row"
        return f"{word}{'s' if len(places) > 1 else ''} {' and '.join(places)}"

    def ragged_line(self) -> str | None:
        """The first line of a text table that has not as many fields as the header."""
        expected = 0
        for line, fields in self.lines() if self.is_text else ():
            expected = expected or len(fields)
            if len(fields) != expected:
                return f"line {line}: expected {expected} columns, found {len(fields)}"
        return None


@contextlib.contextmanager
def named_errors(source: TableFile) -> Iterator[None]:
    """DuckDB's errors, with the file and, where it can be found, the line."""
    try:
        yield
    except duckdb.Error as error:
        reason = source.ragged_line() or str(error).partition("\n\n")[0]
        raise MetadataError(f"{source.path}: {reason}", path=source.path) from error
