"""What routes say of an index and of what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rdsearch.headers import parse_header
from rdsearch.server.problems import Problem

if TYPE_CHECKING:
    from rdsearch.index import Index
    from rdsearch.server.service import Served, Service

__all__ = ["found", "of_column", "of_index", "of_protein"]


def of_index(service: Service, served: Served) -> dict[str, Any]:
    """Facts of ``rdsearch info --json`` without the index's place on the server, and plans.

    Parameters
    ----------
    service : Service
    served : Served

    Returns
    -------
    dict
    """
    index = served.now
    facts = index.info()
    del facts["path"]
    return {
        "name": served.name,
        "default": service.names[0] == served.name,
        **facts,
        "evalues": index.significance.reason,
        "plans": [_plan(index, tier) for tier in index.tiers],
    }


def _plan(index: Index, tier: str) -> dict[str, Any]:
    """What a search that stops at a tier costs."""
    funnel = index.plan(to_tier=tier)
    steps = index.cost(funnel)
    members = index.chain.upto(tier).members
    return {
        "tier": tier,
        "dims": index.entry(tier).dims,
        "members": [member.name for member in members],
        "parameters": sum(member.parameters for member in members),
        "funnel": str(funnel),
        "rows": sum(step.rows for step in steps),
        "bytes": sum(step.bytes for step in steps),
    }


def found(index: Index, accession: str) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """Row and catalog entry of a protein, and the entries of all proteins of its sequence.

    Parameters
    ----------
    index : Index
    accession : str
        ``P12345``, or an id as it stands in a FASTA header: ``sp|P12345|AATM_RABIT``.

    Raises
    ------
    Problem
        404: the index has no such protein.
    """
    name = accession if not accession.strip() else str(parse_header(accession)["accession"])
    rows = index.catalog.rows_of([name])
    if name not in rows:
        raise Problem(404, "no-such-protein", "the index has no protein of this accession")
    row = rows[name]
    entries = index.catalog.proteins([row])[row]
    return row, next(entry for entry in entries if entry["accession"] == name), entries


def of_protein(served: Served, accession: str) -> dict[str, Any]:
    """A protein with its sequence and the index's columns."""
    index = served.now
    row, entry, entries = found(index, accession)
    own = {
        "accession": entry["accession"],
        "row": row,
        "length": entry["length"],
        "sequence": index.catalog.sequences([row])[0],
        "accessions": [one["accession"] for one in entries],
    }
    return own | {name: value for name, value in entry.items() if name not in own}


def of_column(served: Served, column: str) -> dict[str, Any]:
    """Values of a column of an index.

    Raises
    ------
    Problem
        404: there is no such column.
    """
    index = served.now
    name = next((one for one in index.columns if one.lower() == column.lower()), None)
    if name is None:
        raise Problem(
            404,
            "no-such-column",
            f"the index has no column of this name; it has {', '.join(index.columns)}",
        )
    found = served.summary(index, name)
    return {"name": name, "type": index.columns[name], **found._asdict()}
