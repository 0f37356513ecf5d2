"""The page that people search from: fixed files, read once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response

from rdsearch.errors import InputError
from rdsearch.server.problems import Problem

__all__ = ["FOLDER", "Static", "install", "read"]

#: Where the files of the page are.
FOLDER = Path(__file__).parents[1] / "data" / "page"

_INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Static:
    """A file of the page.

    Attributes
    ----------
    content : bytes
    media_type : str
    etag : str
        Of the content, in quotes as the header has it.
    """

    content: bytes
    media_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        """The file, or that the client's copy is still right."""
        # Copies are asked for each time: a new version of the server has new files.
        headers = {"ETag": self.etag, "Cache-Control": "no-cache"}
        known = [one.strip() for one in request.headers.get("if-none-match", "").split(",")]
        if self.etag in (one.removeprefix("W/") for one in known) or known == ["*"]:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def read(folder: Path = FOLDER) -> dict[str, Static]:
    """The files of the page by name.

    Parameters
    ----------
    folder : Path, optional

    Raises
    ------
    InputError
        The installation lacks the page.
    """
    files = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix in _TYPES:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:32]
            files[path.name] = Static(content, _TYPES[path.suffix], f'"{digest}"')
    if _INDEX not in files:
        raise InputError(
            f"the page's files are missing: expected {_INDEX} in {folder}; install rdsearch again"
        )
    return files


def install(app: FastAPI) -> None:
    """Serve the page at ``/`` and what it loads under ``/page/``.

    Parameters
    ----------
    app : FastAPI

    Raises
    ------
    InputError
        The installation lacks the page.
    """
    files = read()
    # One list, made here: a name from outside never becomes a path.
    parts = {name: file for name, file in files.items() if name != _INDEX}
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return files[_INDEX].answer(request)

    @router.api_route("/page/{name:path}", methods=["GET", "HEAD"])
    async def part(request: Request, name: str) -> Response:
        if name not in parts:
            raise Problem(404, "no-such-path", "the page has no such file")
        return parts[name].answer(request)

    app.include_router(router)
