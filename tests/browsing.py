"""The page in a real browser: headless Chromium, which tells of every error and every request."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rdsearch import fasta, samples

#: Where the page shows that a search is over.
OVER = "table.hits, .nothing, #error:not([hidden])"


def records(n: int) -> list[fasta.Record]:
    """The first packaged queries."""
    return list(fasta.read(samples.QUERIES))[:n]


def as_fasta(found: list[fasta.Record]) -> str:
    return "".join(f">{one.id} {one.description}\n{one.sequence}\n" for one in found)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, started once a file.

    Not once for all: while Playwright runs, nothing else of the thread can use asyncio.
    """
    driver = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs chromium (Debian: chromium)")
    with driver.sync_playwright() as play:
        started = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


class Visit:
    """A page that is open, and what it did.

    Attributes
    ----------
    page
        Playwright's page.
    complaints : list of str
        Errors of the console and of scripts; what a test expects it takes out.
    outside : list of str
        Requests that left the server.
    """

    def __init__(self, context: Any, url: str) -> None:
        self.url = url
        self.page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.complaints: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._left)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _left(self, request: Any) -> None:
        if not request.url.startswith((self.url, "blob:", "data:")):
            self.outside.append(request.url)

    def open(self, fragment: str = "", *, ready: bool = True) -> Visit:
        self.page.goto(self.url + "/" + fragment)
        if ready:
            self.page.wait_for_selector("#tier option", state="attached")
        return self

    def search(self, text: str | None = None) -> Visit:
        """Search, and wait for what comes of it."""
        if text is not None:
            self.page.fill("#fasta", text)
        self.page.evaluate("() => document.querySelector('#results').replaceChildren()")
        self.page.click("#go")
        self.page.wait_for_selector(OVER)
        return self

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def accessions(self) -> list[str]:
        """Of the rows that are shown, in their order."""
        rows = "() => [...document.querySelectorAll('table.hits tbody tr[data-accession]')]"
        return self.page.evaluate(
            f"{rows}.filter((row) => !row.hidden).map((row) => row.dataset.accession)"
        )

    def width(self) -> tuple[int, int]:
        """Of the window, and of the whole page."""
        wide = "() => [innerWidth, document.documentElement.scrollWidth]"
        return tuple(self.page.evaluate(wide))  # type: ignore[return-value]

    def download(self, format: str, folder: Path) -> Path:
        self.page.select_option("#format", format)
        with self.page.expect_download() as waiting:
            self.page.click("#download")
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path


@contextlib.contextmanager
def visiting(browser: Any, url: str, **options: Any) -> Iterator[Visit]:
    """A visit with storage of its own; at its end nothing may have gone wrong or left."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
    try:
        visit = Visit(context, url)
        yield visit
        assert visit.complaints == []
        assert visit.outside == []
    finally:
        context.close()


def expected(visit: Visit, status: int) -> None:
    """Chromium says of itself that a request failed: here it was meant to."""
    assert any(f"status of {status}" in one for one in visit.complaints), visit.complaints
    visit.complaints[:] = [one for one in visit.complaints if f"status of {status}" not in one]
