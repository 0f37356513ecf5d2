"""FASTA headers: what UniProt and UniRef write into them.

The forms are described at https://www.uniprot.org/help/fasta-headers.
"""

from __future__ import annotations

import re
from typing import TypedDict

__all__ = ["HEADER_COLUMNS", "HeaderFields", "parse_header"]

#: What a header yields beside the accession, and as which type.
HEADER_COLUMNS: tuple[tuple[str, type[str] | type[int]], ...] = (
    ("id", str),
    ("description", str),
    ("entry_name", str),
    ("protein_name", str),
    ("organism", str),
    ("taxon_id", int),
    ("gene", str),
    ("existence", int),
    ("version", int),
)

_UNIPROT = re.compile(r"(?:sp|tr)\|([A-Za-z0-9]+(?:-[0-9]+)?)\|(\S+)\Z")
_UNIREF = re.compile(r"UniRef(?:50|90|100)_\S+\Z")
# A tag counts only as a word of its own: "OS=… SK52 = DSM 20563" has an equals sign in its value.
_UNIPROT_TAG = re.compile(r"(?:^|(?<=\s))(OS|OX|GN|PE|SV)=")
_UNIREF_TAG = re.compile(r"(?:^|(?<=\s))(n|Tax|TaxID|RepID)=")
# MMseqs2 appends this to the headers of the databases it splits.
_SPLIT = re.compile(r"Split=[0-9]+\Z")
# More digits than any database uses; also what a 64-bit column holds.
_NUMBER = re.compile(r"[0-9]{1,18}\Z")


class HeaderFields(TypedDict):
    """Parsed header; the names are those of `rdsearch.fasta.Record`."""

    id: str
    accession: str
    description: str
    entry_name: str | None
    protein_name: str | None
    organism: str | None
    taxon_id: int | None
    gene: str | None
    existence: int | None
    version: int | None


def parse_header(header: str) -> HeaderFields:
    """Take a FASTA header apart.

    Fields are found by their tag, in any order; one that is absent, empty or not of its type is
    None. A tag that occurs twice keeps its last value: the database writes it after the name.

    Parameters
    ----------
    header : str
        Without the leading ``>``; not blank.

    Returns
    -------
    HeaderFields
        `accession` is UniProt's where the header is UniProt's (with its isoform number:
        ``P12345-2``), else the id. UniRef headers give protein name, organism and taxon id;
        others id and description alone.

    Examples
    --------
    >>> fields = parse_header("sp|P12345-2|AATM_RABIT Isoform 2 of X OS=Oryctolagus OX=9984")
    >>> fields["accession"], fields["protein_name"], fields["organism"], fields["taxon_id"]
    ('P12345-2', 'Isoform 2 of X', 'Oryctolagus', 9984)
    """
    words = header.split(None, 1)
    identifier = words[0]
    description = words[1].strip() if len(words) > 1 else ""
    fields = HeaderFields(
        id=identifier,
        accession=identifier,
        description=description,
        entry_name=None,
        protein_name=None,
        organism=None,
        taxon_id=None,
        gene=None,
        existence=None,
        version=None,
    )
    if match := _UNIPROT.match(identifier):
        fields["accession"], fields["entry_name"] = match.groups()
        name, tags = _tagged(_without_split(description), _UNIPROT_TAG)
        fields["protein_name"] = name
        fields["organism"] = tags.get("OS")
        fields["taxon_id"] = _number(tags.get("OX"))
        fields["gene"] = tags.get("GN")
        fields["existence"] = _number(tags.get("PE"))
        fields["version"] = _number(tags.get("SV"))
    elif _UNIREF.match(identifier):
        name, tags = _tagged(description, _UNIREF_TAG)
        fields["protein_name"] = name
        fields["organism"] = tags.get("Tax")
        fields["taxon_id"] = _number(tags.get("TaxID"))
    return fields


def _tagged(text: str, tag: re.Pattern[str]) -> tuple[str | None, dict[str, str]]:
    """Text before the first tag, and each tag's text up to the next one."""
    parts = tag.split(text)
    values = {name: value.strip() for name, value in zip(parts[1::2], parts[2::2], strict=True)}
    return parts[0].strip() or None, {name: value for name, value in values.items() if value}


def _without_split(description: str) -> str:
    words = description.rsplit(None, 1)
    return "".join(words[:-1]) if words and _SPLIT.match(words[-1]) else description


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.match(text) else None
