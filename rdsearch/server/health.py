"""Whether the server lives, whether it can answer, and its figures."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from rdsearch.server import answers
from rdsearch.server.metrics import CONTENT_TYPE
from rdsearch.server.routes import in_thread, service_of

__all__ = ["router"]

router = APIRouter()


@router.get("/healthz", summary="Whether the process lives", responses=answers.problems())
async def healthz() -> dict[str, str]:
    """Always ok while the process answers at all."""
    return {"status": "ok"}


@router.get("/readyz", summary="Whether searches are answered", responses=answers.problems())
async def readyz(request: Request) -> dict[str, Any]:
    """503 while models are loaded, and when the server stops."""
    service = service_of(request)
    service.check_open()
    return {"status": "ready", "indexes": service.names}


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **answers.problems(),
    },
)
async def metrics(request: Request) -> Response:
    """Requests, batches, waiting sequences, generations."""
    service = service_of(request)
    text = await in_thread(service.metrics.text, service)
    return Response(text, media_type=CONTENT_TYPE)
