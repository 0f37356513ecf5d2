"""Routes that are answered at once: search, embed, indexes and what is in them."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import time
from collections.abc import Awaitable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response

from rdsearch import tables
from rdsearch.fasta import Record
from rdsearch.finding import find_in_space
from rdsearch.formats import FORMATS
from rdsearch.karlin import MATRICES
from rdsearch.server import answers, facts, planning, rendering, schemas
from rdsearch.server.problems import Problem
from rdsearch.server.service import Service

__all__ = ["router"]

router = APIRouter(prefix="/v1")

# Work besides models and vectors: bodies, filters, formats. Its own threads, and few: what waits
# for them has a deadline, and they leave the cores to the engine.
_WORKERS = ThreadPoolExecutor(4, thread_name_prefix="rdsearch request")

# Hits whose lines are written faster than a thread is woken.
_FEW_HITS = 100

Name = Annotated[str, Path(max_length=200, description="Name of an index.", examples=["demo"])]
Accession = Annotated[str, Path(max_length=1_000, examples=["P69905"])]


def service_of(request: Request) -> Service:
    """The service behind the application."""
    service: Service = request.app.state.service
    return service


def note(request: Request, **facts: Any) -> None:
    """Facts for the log line of a request: never sequences, never expressions."""
    request.state.log.update(facts)


async def in_thread(function: Any, *arguments: Any, **named: Any) -> Any:
    """Run what would hold up other requests elsewhere."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_WORKERS, lambda: function(*arguments, **named))


class Clock:
    """When a request's time is up, and whether anybody still waits.

    Parameters
    ----------
    request : Request
    timeout : float or None
        Seconds; the server's deadline where it is None or shorter.
    """

    def __init__(self, request: Request, timeout: float | None = None) -> None:
        seconds = service_of(request).settings.deadline
        self.at = time.monotonic() + min(seconds, timeout or seconds)
        self._request = request

    async def __aenter__(self) -> Clock:
        self._gone = asyncio.ensure_future(_gone(self._request))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.cancel()

    async def awaited(self, work: Future[Any] | Awaitable[Any]) -> Any:
        """The result of work, unless time is up or the client has gone, when it is cancelled."""
        own: asyncio.Future[Any] = (
            asyncio.wrap_future(work) if isinstance(work, Future) else asyncio.ensure_future(work)
        )
        left = max(self.at - time.monotonic(), 0.0)
        try:
            await asyncio.wait({own, self._gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if own.done():
                return own.result()
            if self._gone.done():
                raise Problem(499, "client-gone", "the client has gone")
            raise Problem(504, "deadline", "the answer took longer than the request allows")
        finally:
            own.cancel()

    async def run(self, small: bool, function: Any, *arguments: Any, **named: Any) -> Any:
        """Run a function: here where it takes less than a change of threads would, else there."""
        if small:
            return function(*arguments, **named)
        return await self.awaited(in_thread(function, *arguments, **named))


async def _gone(request: Request) -> None:
    """Return when the client hangs up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.post(
    "/search",
    summary="Search for homologs",
    response_model=None,
    responses={**answers.HITS, **answers.problems(404, 406, 422, 429, 504)},
)
async def search(
    request: Request,
    body: schemas.Search,
    format: Annotated[schemas.Format | None, Query(description="As in the body.")] = None,
) -> Response:
    """Find homologs of proteins; many clients' requests are answered together."""
    service = service_of(request)
    service.check_open()
    async with Clock(request, body.timeout) as clock:
        planned = await clock.run(
            planning.is_small(body),
            planning.planned,
            service,
            body,
            accept=request.headers.get("accept"),
            format=format,
        )
        note(
            request,
            index=planned.name,
            sequences=len(planned.records),
            residues=sum(len(record.sequence) for record in planned.records),
            format=planned.format,
        )
        work = service.engine.submit(planned, planned.records, deadline=clock.at)
        results = await clock.awaited(work)
        note(request, hits=sum(len(one.hits) for one in results))
        return await _written(clock, planned, results)


async def _written(clock: Clock, planned: planning.Planned, results: Any) -> Response:
    file = io.BytesIO()
    small = planned.format in ("json", "jsonl", "tsv") and len(results) * planned.k <= _FEW_HITS
    await clock.run(small, rendering.write, planned, results, file)
    headers = rendering.headers(planned.format)
    full = [one.query.id for one in results if rendering.full(planned, one)]
    if told := rendering.notes(planned, full):
        # Formats but JSON have no place for it.
        headers["Rdsearch-Notes"] = json.dumps(told)
    if planned.format != "json":
        name = rendering.filename(planned.format)
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(
        file.getvalue(), media_type=rendering.media_type(planned.format), headers=headers
    )


@router.post(
    "/embed",
    summary="Embed proteins",
    response_model=None,
    responses={**answers.EMBEDDED, **answers.problems(404, 406, 422, 429, 504)},
)
async def embed(request: Request, body: schemas.Embedding) -> Response:
    """rd embeddings, made as those of the index were."""
    service = service_of(request)
    service.check_open()
    served = service.served(body.index)
    index = served.now
    format = body.format or _embedding_format(request.headers.get("accept"))
    tier = body.tier or index.tiers[-1]
    dims = index.entry(tier).dims
    async with Clock(request, body.timeout) as clock:
        limits = service.settings.limits
        records: list[Record] = await clock.awaited(in_thread(planning.records_of, body, limits))
        residues = sum(len(record.sequence) for record in records)
        note(request, index=served.name, sequences=len(records), residues=residues)
        work = service.engine.embed(index, tier, records, deadline=clock.at)
        vectors = await clock.awaited(work)
    if format == "npy":
        file = io.BytesIO()
        np.save(file, np.stack(vectors), allow_pickle=False)
        return Response(file.getvalue(), media_type="application/octet-stream")
    facts = {
        "index": served.name,
        "chain": index.chain.hash,
        "tier": tier,
        "dims": dims,
        "vectors": [
            {"id": record.id, "vector": vector.tolist()}
            for record, vector in zip(records, vectors, strict=True)
        ],
    }
    return _json(facts)


def _embedding_format(accept: str | None) -> str:
    kinds = {"json": "application/json", "npy": "application/octet-stream"}
    return rendering.chosen(None, accept, "json", kinds)


@router.get(
    "/indexes",
    summary="Indexes that are served",
    response_model=answers.Indexes,
    responses=answers.problems(),
)
async def indexes(request: Request) -> Any:
    """What each index is; the first is the default."""
    service = service_of(request)
    every = [
        await in_thread(facts.of_index, service, service.served(name)) for name in service.names
    ]
    return _json({"indexes": every})


@router.get(
    "/indexes/{name}",
    summary="An index",
    response_model=answers.IndexFacts,
    responses=answers.problems(404, 422),
)
async def index(request: Request, name: Name) -> Any:
    """What an index is, its columns, and what a search costs at each tier."""
    service = service_of(request)
    return _json(await in_thread(facts.of_index, service, service.served(name)))


@router.get(
    "/indexes/{name}/columns/{column}",
    summary="Values of a column",
    response_model=answers.Column,
    responses=answers.problems(404, 422),
)
async def column(
    request: Request, name: Name, column: Annotated[str, Path(max_length=1_000)]
) -> Any:
    """The most frequent values and the range of a column, for filters."""
    served = service_of(request).served(name)
    return _json(await in_thread(facts.of_column, served, column))


@router.get(
    "/indexes/{name}/proteins/{accession}",
    summary="A protein",
    response_model=answers.Protein,
    responses=answers.problems(404, 422),
)
async def protein(request: Request, name: Name, accession: Accession) -> Any:
    """A protein with its sequence and the index's columns."""
    served = service_of(request).served(name)
    return _json(await in_thread(facts.of_protein, served, accession))


@router.get(
    "/indexes/{name}/proteins/{accession}/neighbours",
    summary="Proteins near one of the index",
    response_model=None,
    responses={**answers.HITS, **answers.problems(404, 406, 413, 422, 429, 504)},
)
async def neighbours(
    request: Request,
    name: Name,
    accession: Accession,
    options: Annotated[schemas.Neighbours, Query()],
) -> Response:
    """A search with the vector that the index keeps of a protein; itself is left out."""
    service = service_of(request)
    service.check_open()
    served = service.served(name)

    def plan() -> tuple[planning.Planned, int]:
        row, entry, _ = facts.found(served.now, accession)
        record = Record(
            id=entry["accession"],
            accession=entry["accession"],
            sequence=served.now.catalog.sequences([row])[0],
            description=entry.get("protein_name") or "",
        )
        chosen = rendering.chosen(options.format, request.headers.get("accept"), "json")
        asked = schemas.Plan(**options.model_dump(exclude={"format"}, exclude_unset=True))
        return planning.plan_of(service, served, asked, [record], chosen), row

    async with Clock(request) as clock:
        planned, row = await clock.awaited(in_thread(plan))

        def find() -> Any:
            last = planned.funnel.tiers[-1]
            vector = planned.index.tier(last).vectors(np.array([row]))
            return find_in_space(
                planned.index, planned.records, vector, planned.k, planned.funnel, planned.rows,
                [row], planned.details,
            )  # fmt: skip

        results = await clock.awaited(service.engine.run(find))
        return await _written(clock, planned, results)


@router.get(
    "/limits",
    summary="What a request may ask for",
    response_model=answers.LimitFacts,
    responses=answers.problems(),
)
async def limits(request: Request) -> Any:
    """Limits, formats and matrices of this server."""
    settings = service_of(request).settings
    formats = {"json": "one JSON object with all hits"}
    formats |= {name: one.help for name, one in FORMATS.items()}
    return _json(
        {
            **dataclasses.asdict(settings.limits),
            "deadline": settings.deadline,
            "formats": formats,
            "matrices": list(MATRICES),
            "keys": settings.api_keys is not None,
        }
    )


def _json(facts: Any) -> Response:
    text = json.dumps(tables.plain(facts), ensure_ascii=False, allow_nan=False)
    return Response(text.encode("utf-8", "replace"), media_type="application/json")
