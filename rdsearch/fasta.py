"""Proteins from FASTA files.

dnaio splits the text into records and xopen unpacks it; this module numbers the lines, cleans the
sequences, and says what is wrong where.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from dnaio import FastaFormatError
from dnaio.readers import FastaReader
from xopen import xopen

from rdsearch.errors import FastaError, InputError
from rdsearch.fingerprints import Fingerprints
from rdsearch.headers import HEADER_COLUMNS, parse_header
from rdsearch.textfile import DAMAGE

__all__ = ["ALPHABET", "HEADER_COLUMNS", "ReadReport", "Record", "read"]

#: Letters of ESM-2's vocabulary that stand for residues: 20 amino acids, X, B, U, Z, O.
ALPHABET = "ACDEFGHIKLMNPQRSTVWYXBUZO"

_LOGGER = logging.getLogger(__name__)
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OUTSIDE = bytes(letter for letter in _LETTERS if letter not in ALPHABET.encode())
_TO_X = bytes.maketrans(_OUTSIDE, b"X" * len(_OUTSIDE))
_GAPS = b"-."
_STOP = b"*"
_COMMENTS = (";", "#")
# A thousand times the longest known protein; it bounds what a wrong file can take of memory.
_LONGEST_LINE = 64 << 20
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Record:
    """One protein.

    Attributes
    ----------
    id : str
        First word of the header, for example ``sp|P12345|AATM_RABIT``.
    accession : str
        UniProt's accession where the header is UniProt's, else `id`.
    sequence : str
        At least one letter of `ALPHABET`, upper case, without gaps and without the final stop.
    description : str
        The header after the id.
    entry_name, protein_name, organism, gene : str or None
        Fields of a UniProt header; protein name and organism of a UniRef header too.
    taxon_id, existence, version : int or None
        NCBI taxon, UniProt's evidence for the protein's existence (1 to 5), sequence version.
    """

    id: str
    accession: str
    sequence: str
    description: str = ""
    entry_name: str | None = None
    protein_name: str | None = None
    organism: str | None = None
    taxon_id: int | None = None
    gene: str | None = None
    existence: int | None = None
    version: int | None = None


@dataclass(slots=True)
class ReadReport:
    """What reading met; counts of all files that were read with this report.

    Attributes
    ----------
    records, residues : int
        Yielded, after cleaning.
    replaced : int
        Letters outside `ALPHABET` that became X.
    gaps : int
        Gap characters (``-`` and ``.``) that were dropped.
    stops : int
        Final ``*`` that were dropped.
    duplicates : int
        Records that were skipped: accession and sequence had been read already.
    """

    records: int = 0
    residues: int = 0
    replaced: int = 0
    gaps: int = 0
    stops: int = 0
    duplicates: int = 0


def read(
    path: str | os.PathLike[str] | BinaryIO,
    *,
    report: ReadReport | None = None,
    unique: bool = True,
) -> Iterator[Record]:
    """Read proteins, one at a time.

    Letters are upper-cased, gaps and a final ``*`` dropped, letters outside `ALPHABET` (J) become
    X; the number of those is logged as a warning when the file has been read. Blank lines and
    comment lines that begin with ``;`` or ``#`` are passed over. Line ends may be those of Unix,
    Windows or old Macs.

    Parameters
    ----------
    path : str, path or binary file
        FASTA, plain or compressed with gzip, bzip2, xz or zstd; ``"-"`` is standard input. A file
        object is read to its end and left open.
    report : ReadReport, optional
        Counts are added while records are read.
    unique : bool, optional
        Skip a record whose accession and sequence were in the file before; one whose accession
        comes again with another sequence is an error. About 45 bytes of memory a protein.

    Yields
    ------
    Record
        In the order of the file.

    Raises
    ------
    FastaError
        The file is missing, damaged, binary, not UTF-8, or holds no record; text before the first
        header; an empty header or sequence; a ``*`` inside a sequence; a character in a sequence
        that is not an ASCII letter (blanks too: they may hide a header without its ``>``); an
        accession with two sequences. Records before the error have been yielded.
    """
    report = ReadReport() if report is None else report
    name = _name(path)
    lines = _NumberedLines(name)
    replaced_before = report.replaced
    accessions = _Accessions(name) if unique else None
    found = False
    try:
        with _opened(path) as lines.source:
            reader = FastaReader(
                cast(BinaryIO, lines), sequence_class=_lines_only, keep_linebreaks=True
            )
            for sequence in cast(Iterator[str], iter(reader)):
                found = True
                text = lines.pending.popleft()
                record = _record(text, sequence, name, report)
                if accessions is not None and accessions.known(record, text.line):
                    report.duplicates += 1
                    continue
                report.records += 1
                report.residues += len(record.sequence)
                yield record
    except FastaFormatError:
        raise FastaError(
            name,
            lines.number,
            f"expected a header line that begins with '>', found {_shown(lines.text)}. "
            "Is this a FASTA file?",
        ) from None
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise FastaError(name, None, f"cannot be read: {error.strerror}") from None
        raise FastaError(
            name,
            lines.number or None,
            f"the file is damaged or cut off after this line ({error}). Fetch it again",
        ) from error
    finally:
        if report.replaced > replaced_before:
            _LOGGER.warning(
                "%s: %d letters outside the ESM-2 alphabet (%s) were read as X",
                name,
                report.replaced - replaced_before,
                ", ".join(_OUTSIDE.decode()),
            )
    if not found:
        raise FastaError(name, None, "expected proteins in FASTA format, found no record")


def _lines_only(_: str, sequence: str, __: None) -> str:
    """What dnaio makes of a record: its sequence, line ends kept."""
    return sequence


class _Text(NamedTuple):
    """Where a record stands in its file."""

    line: int
    header: str
    sequence_lines: array[int]


class _NumberedLines(io.BufferedIOBase):
    """A binary file for dnaio that knows which line dnaio has reached.

    Each read returns one line, so that nothing is consumed before it is needed. Headers are kept
    here and given to dnaio empty: it decodes them with the encoding of the user's locale.

    Attributes
    ----------
    source : binary file
    number : int
        Lines that were read.
    text : str
        The last of them.
    pending : deque of _Text
        Records that dnaio has begun and not handed back.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._split: Iterator[bytes] = iter(())
        self.source: BinaryIO = io.BytesIO()
        self.number = 0
        self.text = ""
        self.pending: deque[_Text] = deque()

    def readable(self) -> bool:
        """For `io.TextIOWrapper`."""
        return True

    def read1(self, size: int = -1, /) -> bytes:
        """The next line, as dnaio should see it."""
        line = next(self._split, None)
        if line is None:
            block = self.source.readline(_LONGEST_LINE)
            if len(block) == _LONGEST_LINE:
                raise FastaError(
                    self._name, self.number + 1, f"a line of {_LONGEST_LINE >> 20} MiB: not FASTA"
                )
            # Files end lines at "\n"; this splits at "\r\n" and the "\r" of old Macs too.
            self._split = iter(block.splitlines())
            line = next(self._split, None)
        return b"" if line is None else self._take(line)

    def _take(self, line: bytes) -> bytes:
        """Note what a line is."""
        self.number += 1
        try:
            text = line.decode("utf-8-sig" if self.number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise FastaError(
                self._name,
                self.number,
                "expected text in UTF-8, found binary data or another encoding",
            )
        self.text = text
        if not text or text.startswith(_COMMENTS):
            return b"\n"
        if text.startswith(">"):
            self.pending.append(_Text(self.number, text[1:], array("Q")))
            return b">\n"
        if self.pending:
            self.pending[-1].sequence_lines.append(self.number)
            if not text.isascii():
                odd = next(character for character in text if not character.isascii())
                raise _bad_character(self._name, self.number, odd)
        # What stands before the first header only has to be no header.
        return text.encode("ascii", "replace") + b"\n"


class _Accessions:
    """Accessions of one file, with a digest of the sequence and the line of each."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers = Fingerprints()
        self._sequences = array("Q")
        self._lines = array("Q")

    def known(self, record: Record, line: int) -> bool:
        """Whether this accession came before, with this sequence."""
        number, new = self._numbers.add(_digest(record.accession, 16))
        sequence = int.from_bytes(_digest(record.sequence, 8), "little")
        if new:
            self._sequences.append(sequence)
            self._lines.append(line)
        elif self._sequences[number] != sequence:
            raise FastaError(
                self._name,
                line,
                f"accession {record.accession} is on line {self._lines[number]} already, with "
                "another sequence. Keep one of them, or give them different accessions",
            )
        return not new


def _record(text: _Text, lines: str, name: str, report: ReadReport) -> Record:
    """Clean a sequence and parse its header."""
    if not text.header.strip():
        raise FastaError(name, text.line, "expected an id after '>', found an empty header")
    raw = lines.encode().upper()
    joined = raw.replace(b"\n", b"")
    residues = joined.translate(None, _GAPS)
    stop = residues.endswith(_STOP)
    sequence = residues[:-1] if stop else residues
    if bad := sequence.translate(None, _LETTERS):
        line = text.sequence_lines[raw.count(b"\n", 0, raw.find(bad[:1]))]
        if bad.startswith(_STOP):
            raise FastaError(
                name,
                line,
                "a stop (*) inside the sequence: translate up to the stop, or write X for a "
                "residue that is not known",
            )
        raise _bad_character(name, line, chr(bad[0]))
    if not sequence:
        identifier = _shown(text.header.split()[0])
        raise FastaError(name, text.line, f"the sequence of {identifier} is empty")
    report.gaps += len(joined) - len(residues)
    report.stops += stop
    report.replaced += sum(map(sequence.count, _OUTSIDE))
    cleaned = sequence.translate(_TO_X).decode()
    return Record(sequence=cleaned, **parse_header(text.header))


def _bad_character(name: str, line: int, character: str) -> FastaError:
    hint = " (a header without its '>'?)" if character.isspace() else ""
    return FastaError(
        name, line, f"expected letters A to Z in a sequence, found {character!r}{hint}"
    )


def _digest(text: str, size: int) -> bytes:
    return blake2b(text.encode(), digest_size=size).digest()


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def _name(path: str | os.PathLike[str] | BinaryIO) -> str:
    if isinstance(path, str | os.PathLike):
        return "standard input" if path == "-" else os.fspath(path)
    return str(getattr(path, "name", "file object"))


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
    """The uncompressed content; what was opened here is closed."""
    if isinstance(path, io.TextIOBase):
        raise InputError(f"{_name(path)} is open as text: open it in binary mode ('rb')")
    if isinstance(path, str | os.PathLike) and path != "-":
        with Path(path).open("rb") as file:
            yield xopen(file, "rb", threads=0)
    else:
        yield xopen(sys.stdin.buffer if path == "-" else path, "rb", threads=0)
