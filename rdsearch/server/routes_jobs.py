"""Routes of jobs: make one, follow it, fetch its results, cancel it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from rdsearch.server import answers, problems, rendering, schemas
from rdsearch.server.job import Job
from rdsearch.server.jobs import ID_PATTERN, Jobs
from rdsearch.server.problems import Problem
from rdsearch.server.routes import note, service_of

__all__ = ["JobFacts", "router"]

router = APIRouter(prefix="/v1/jobs")

# Seconds between looks at a job that is followed, and between signs of life where nothing changes.
_LOOK = 0.25
_KEEP_ALIVE = 15.0

_ID = "q3Jv0cX5R1mW8uY2sT7bKA"

Id = Annotated[str, Path(pattern=ID_PATTERN, description="Id of a job.", examples=[_ID])]


class Progress(BaseModel):
    """How far a job is."""

    total: int = Field(description="Sequences of the job.")
    done: int = Field(description="Those whose hits are found.")


class Links(BaseModel):
    """Where more of a job is."""

    self: str
    events: str
    result: str


class ProblemFacts(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str


class JobFacts(BaseModel):
    """A search that runs by itself; times are ISO 8601, UTC."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _ID,
                    "state": "running",
                    "format": "jsonl",
                    "sequences": {"total": 20_000, "done": 1_280},
                    "hits": 12_800,
                    "notes": [],
                    "created": "2026-01-05T10:00:00.000Z",
                    "started": "2026-01-05T10:00:00.012Z",
                    "finished": None,
                    "expires": None,
                    "error": None,
                    "links": {
                        "self": f"/v1/jobs/{_ID}",
                        "events": f"/v1/jobs/{_ID}/events",
                        "result": f"/v1/jobs/{_ID}/result",
                    },
                }
            ]
        }
    )

    id: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    format: str = Field(description="Of the results.")
    sequences: Progress
    notes: list[str] = Field(description="What a reader of the results has to know, at the end.")
    hits: int = Field(description="Found so far.")
    created: str
    started: str | None
    finished: str | None
    expires: str | None = Field(description="When job and results are removed.")
    error: ProblemFacts | None = Field(description="Why it failed, or why the server cancelled it.")
    links: Links


def _jobs(request: Request) -> Jobs:
    return service_of(request).jobs


def _owner(request: Request) -> str | None:
    """Name of the key that asks; None where there are no keys."""
    name: str | None = getattr(request.state, "key_name", None)
    return name


@router.post(
    "",
    summary="Start a job",
    status_code=202,
    response_model=JobFacts,
    responses={
        202: {
            "description": "The job, which waits for its turn.",
            "headers": {
                "Location": {"description": "The job's address.", "schema": {"type": "string"}}
            },
        },
        **answers.problems(404, 413, 422, 429),
    },
)
async def create(request: Request, body: schemas.Search) -> Response:
    """A search of many sequences.

    What is wrong with it is answered at once. It goes on when the client leaves; its results, in
    format jsonl if none is asked for, are kept for a time. A `timeout` is the time that it may run.
    """
    jobs = _jobs(request)
    job = await jobs.create(body, _owner(request))
    note(request, sequences=job.total, format=job.format)
    facts = jobs.describe(job)
    return JSONResponse(facts, status_code=202, headers={"Location": facts["links"]["self"]})


@router.get(
    "/{id}",
    summary="A job",
    response_model=JobFacts,
    responses=answers.problems(404, 422),
)
async def get(request: Request, id: Id) -> Response:
    """State and progress of a job."""
    jobs = _jobs(request)
    return JSONResponse(jobs.describe(jobs.get(id, _owner(request))))


@router.get(
    "/{id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events called `job`, each with the job as its data: one at "
            "once, then one at every change, until the job is done, failed or cancelled.",
            "content": {
                "text/event-stream": {
                    # Of one event, as OpenAPI 3.2 means it.
                    "schema": {
                        "type": "object",
                        "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
                    },
                    "example": f'event: job\ndata: {{"id": "{_ID}", "state": "running"}}\n\n',
                }
            },
        },
        **answers.problems(404, 422),
    },
)
async def events(request: Request, id: Id) -> Response:
    """Progress of a job as it comes; the job does not mind when nobody listens any more."""
    jobs = _jobs(request)
    job = jobs.get(id, _owner(request))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(jobs, job), media_type="text/event-stream", headers=headers)


async def _events(jobs: Jobs, job: Job) -> AsyncIterator[str]:
    told, when = None, 0.0
    while True:
        # Looking costs less than being told: the thread of the job need not know who listens, and
        # no client gets more than a few events a second.
        final, facts = job.final or jobs.closed, jobs.describe(job)
        now = time.monotonic()
        if facts != told:
            told, when = facts, now
            yield f"event: job\ndata: {json.dumps(facts)}\n\n"
        elif now - when >= _KEEP_ALIVE:
            when = now
            yield ": keep-alive\n\n"
        if final:
            return
        await asyncio.sleep(_LOOK)


@router.get(
    "/{id}/result",
    summary="Results of a job",
    response_class=FileResponse,
    responses={
        200: {"description": "Hits in the job's format.", "content": answers.HITS[200]["content"]},
        206: {"description": "The part that the header Range asks for."},
        416: {"description": "The results have no such part."},
        **answers.problems(404, 409, 416, 422, 504),
    },
)
async def result(request: Request, id: Id) -> Response:
    """What the job found; 409 as long as it is not done, and the job's own error if it failed."""
    jobs, owner = _jobs(request), _owner(request)
    with jobs.reading(id, owner) as job:
        note(request, hits=job.hits, format=job.format)
        return _Results(jobs, job)


class _Results(FileResponse):
    """The file of a job, which stays until it is sent, should the job expire meanwhile."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        headers = {"Cache-Control": "no-store", **rendering.headers(job.format)}
        super().__init__(
            jobs.folder.place(job.id),
            headers=headers,
            media_type=rendering.media_type(job.format),
            filename=None if job.format == "json" else rendering.filename(job.format),
        )
        self._jobs, self._job = jobs, job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = 0

        async def sending(message: Message) -> None:
            # A wrong Range is answered with plain text, where every error is to be a problem.
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused = message["status"]
            if not refused:
                await send(message)

        try:
            with self._jobs.reading(self._job.id, self._job.owner):
                await super().__call__(scope, receive, sending)
        except Problem as problem:
            await problems.answer(problem)(scope, receive, send)
            return
        if refused:
            why = f"the results have no such part: {HTTPStatus(refused).phrase.lower()}"
            await problems.answer(Problem(refused, "range", why))(scope, receive, send)


@router.delete(
    "/{id}",
    summary="Cancel or remove a job",
    status_code=202,
    response_model=JobFacts,
    responses={
        202: {"description": "The job, which is cancelled or soon will be."},
        204: {"description": "The job was finished; it is removed, and its results."},
        **answers.problems(404, 422),
    },
)
def remove(request: Request, id: Id) -> Response:
    """Cancel a job that waits or runs; remove one that is finished."""
    jobs = _jobs(request)
    job = jobs.remove(id, _owner(request))
    if job is None:
        return Response(status_code=204)
    return JSONResponse(jobs.describe(job), status_code=202)
