"""From the body of a request to a search that can be run: checked against the limits."""

from __future__ import annotations

import io
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdsearch import fasta, outputs
from rdsearch.aligner import chosen
from rdsearch.details import Details, wanted
from rdsearch.errors import CalibrationError, FastaError, InputError
from rdsearch.fasta import Record
from rdsearch.formats import FORMATS
from rdsearch.funnel import Funnel
from rdsearch.server import rendering, schemas
from rdsearch.server.problems import Problem
from rdsearch.server.settings import Limits, Settings

if TYPE_CHECKING:
    from rdsearch.index import Index
    from rdsearch.server.service import Served, Service

__all__ = ["Planned", "is_small", "planned", "plan_of", "records_of"]

# Characters of a body that are read faster than a thread is woken.
_SMALL = 10_000


@dataclass(frozen=True)
class Planned:
    """A search that can be run.

    Attributes
    ----------
    name : str
        The index's.
    index : Index
        One generation of it, to the end of the search.
    records : list of Record
    funnel : Funnel
    k : int
    rows : ndarray of int64 or None
        That may be found.
    exclude_self : bool
    details : Details
    columns : list of str
        Of the answer.
    format : str
        One of `rdsearch.formats.FORMATS`, or ``json``.
    notes : list of str
        What a reader of the answer has to know.
    map : bool
    map_hits : int
    settings : dict of str to str
        What was asked for, for a report.
    """

    name: str
    index: Index
    records: list[Record]
    funnel: Funnel
    k: int
    rows: NDArray[np.int64] | None
    exclude_self: bool
    details: Details
    columns: list[str]
    format: str
    notes: list[str]
    map: bool
    map_hits: int
    settings: dict[str, str]

    @cached_property
    def key(self) -> Hashable:
        """Searches of one key can be run together."""
        return (
            id(self.index),
            self.funnel,
            self.k,
            None if self.rows is None else id(self.rows),
            self.exclude_self,
            self.details,
            self.map,
        )


def planned(
    service: Service,
    search: schemas.Search,
    *,
    job: bool = False,
    accept: str | None = None,
    format: str | None = None,
) -> Planned:
    """Plan a search.

    Parameters
    ----------
    service : Service
    search : Search
    job : bool, optional
        Whether the larger limits of a job hold.
    accept, format : str, optional
        The header, and the format of the address, which the body's goes before.

    Returns
    -------
    Planned

    Raises
    ------
    Problem
        404, 406 or 413: there is no such index or format, or the request is beyond a limit.
    InputError
        What is asked for cannot be done.
    """
    served = service.served(search.index)
    records = records_of(search, service.settings.limits, job=job)
    format = rendering.chosen(search.format or format, accept, "jsonl" if job else "json")
    return plan_of(service, served, search, records, format, job=job)


def plan_of(
    service: Service,
    served: Served,
    plan: schemas.Plan,
    records: list[Record],
    format: str,
    *,
    job: bool = False,
) -> Planned:
    """Plan a search for records; see `planned`."""
    try:
        return _planned(service.settings, served, plan, records, format, job)
    except (InputError, CalibrationError) as error:
        raise type(error)(served.public(str(error)), **error.facts) from error


def _planned(
    settings: Settings,
    served: Served,
    plan: schemas.Plan,
    records: list[Record],
    format: str,
    job: bool,
) -> Planned:
    limits, index = settings.limits, served.now
    needs = FORMATS.get(format)
    if plan.columns is not None and needs is not None and not needs.columns:
        raise InputError(f"columns cannot be chosen for {format}: it has columns of its own")
    if plan.map and format != "json":
        raise InputError(f"a map comes with format json; found {format}")
    if format == "a3m" and len(records) > 1:
        raise InputError(f"a3m is for one query at a time; found {len(records)}")
    _at_most("k", plan.k, limits.hits)
    _at_most("ids", None if plan.ids is None else len(plan.ids), limits.ids)
    _at_most("where_characters", len(plan.where or ""), limits.where_characters)
    funnel = index.plan(plan.from_tier, plan.to_tier, plan.shortlist, plan.nprobe)
    details = _details(plan, format)
    details.check(index, funnel.tiers[-1])
    asked = None if plan.shortlist is None else funnel
    k = details.hits(plan.k, index.n_rows, asked)
    if details.aligner is not None and not job:
        _at_most("aligned", len(records) * k, limits.aligned)
    rows = served.allowed(index, plan.where, plan.ids, plan.taxon, limits.where_seconds)
    at_once = min(len(records), settings.batch_sequences) if job else len(records)
    _at_most("read_bytes", at_once * _read_bytes(index, funnel, details, rows), limits.read_bytes)
    columns = index.hit_columns(funnel, details)
    return Planned(
        name=served.name,
        index=index,
        records=records,
        funnel=funnel,
        k=k,
        rows=rows,
        exclude_self=plan.exclude_self,
        details=details,
        columns=columns if plan.columns is None else outputs.chosen(columns, plan.columns),
        format=format,
        notes=details.notes(index, funnel),
        map=plan.map,
        map_hits=limits.map_hits,
        settings=_settings(plan, funnel, details),
    )


def _read_bytes(
    index: Index, funnel: Funnel, details: Details, rows: NDArray[np.int64] | None
) -> int:
    """Bytes that a query reads at all tiers; a trace looks at every row of every tier."""
    reach = index.n_rows if rows is None else len(rows)
    size = sum(step.bytes for step in index.cost(funnel, reach))
    if details.trace:
        traced = index.tiers[: index.tiers.index(funnel.tiers[-1]) + 1]
        size += reach * sum(index.tier(name).row_bytes for name in traced)
    return size


def _settings(plan: schemas.Plan, funnel: Funnel, details: Details) -> dict[str, str]:
    """What a report says of the search."""
    given = plan.model_dump(include=set(schemas.Plan.model_fields), exclude_defaults=True)
    said = {"funnel": str(funnel)}
    for name, value in given.items():
        if name not in ("format", "map"):
            shown = f"{len(value)} accessions" if name == "ids" else str(value)
            said[name.replace("_", "-")] = shown
    return said | details.settings


def _details(plan: schemas.Plan, format: str) -> Details:
    needs = FORMATS.get(format)
    report = format == "html"
    align = plan.align or plan.rerank is not None or (needs is not None and needs.needs_alignment)
    costs = (plan.matrix, plan.gap_open, plan.gap_extend)
    if not (align or report) and any(one is not None for one in costs):
        raise InputError("matrix, gap_open and gap_extend need align")
    return wanted(
        evalues=plan.evalues,
        evalue=plan.evalue,
        dbsize=plan.dbsize,
        fdr=plan.fdr,
        fnr=plan.fnr,
        trace=plan.trace or report,
        align=_aligner(*costs) if align or report else False,
        realign=plan.rerank is not None,
        sequences=needs is not None and needs.needs_sequences,
    )


#: One aligner for all searches that ask for the same.
_aligner = lru_cache(maxsize=64)(chosen)


def is_small(search: schemas.Search) -> bool:
    """Whether planning is quick: few residues, and no filter to ask the catalog for."""
    size = len(search.fasta or "") + sum(
        len(one if isinstance(one, str) else one.sequence) for one in search.sequences or ()
    )
    filters = (search.where, search.ids, search.taxon)
    return size <= _SMALL and all(one is None for one in filters)


def records_of(body: schemas.Sequences, limits: Limits, *, job: bool = False) -> list[Record]:
    """The proteins of a request.

    Parameters
    ----------
    body : Sequences
    limits : Limits
    job : bool, optional
        Whether the larger limits of a job hold.

    Returns
    -------
    list of Record
        Sequences without a name are called ``query_1``, ``query_2``, … by their places.

    Raises
    ------
    FastaError
        They are no proteins, with the line.
    Problem
        413: there are too many, or one is too long.
    """
    most = limits.job_sequences if job else limits.sequences
    residues = limits.job_residues if job else limits.residues
    hint = "" if job else "; more go into a job (POST /v1/jobs)"
    found: list[Record] = []
    total = 0
    for record in _read(body):
        total += len(record.sequence)
        if len(record.sequence) > limits.sequence_residues:
            _too_large("sequence_residues", len(record.sequence), limits.sequence_residues,
                       f"{record.id[:100]} is too long")  # fmt: skip
        if len(found) == most:
            _too_large("sequences", None, most, f"there are too many sequences{hint}")
        if total > residues:
            _too_large("residues", None, residues, f"there are too many residues{hint}")
        found.append(record)
    return found


def _read(body: schemas.Sequences) -> Iterable[Record]:
    if body.fasta is not None:
        return fasta.read(_text("fasta", body.fasta), unique=False)
    given = body.sequences or []
    if not given:
        raise InputError("sequences is empty: expected one protein at least")
    return (_one(place, item) for place, item in enumerate(given, start=1))


def _one(place: int, item: str | schemas.Sequence) -> Record:
    """A record of a sequence that came alone, cleaned as a FASTA file's is."""
    name, description, sequence = f"query_{place}", "", item
    if isinstance(item, schemas.Sequence):
        name, description, sequence = item.id, item.description, item.sequence
    header = " ".join(f"{name} {description}".split())
    where = f"sequences.{place - 1}"
    if not name.split() or ">" in str(sequence):
        raise FastaError(where, None, "expected a name and residues, without '>'")
    records = list(fasta.read(_text(where, f">{header}\n{sequence}\n"), unique=False))
    return records[0]


class _Named(io.BytesIO):
    """Text of a request, by the name of its field."""

    name = ""


def _text(name: str, text: str) -> Any:
    file = _Named(text.encode("utf-8", "replace"))
    file.name = name
    return file


def _at_most(name: str, found: int | None, limit: int) -> None:
    if found is not None and found > limit:
        _too_large(name, found, limit, f"{name.replace('_', ' ')} is beyond what the server allows")


def _too_large(name: str, found: int | None, limit: int, reason: str) -> None:
    size = "" if found is None else f"; found {found:,}"
    raise Problem(
        413,
        "too-large",
        f"{reason}: at most {limit:,} ({name}){size}",
        limit={name: limit},
        found=found,
    )
