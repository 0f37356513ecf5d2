"""The report in headless Chromium: no errors, nothing cut off, alignments on paper."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from rdsearch.fasta import Record
from rdsearch.hits import QueryHits
from tests.results import alignment, hit
from tests.test_report import page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: chromium)")


def chromium(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={path.parent / 'profile'}", "--enable-logging=stderr", *options]
    return subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )


def saved(folder: Path, source: str) -> Path:
    path = folder / "report.html"
    path.write_text(source, encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1280, 380])
def test_a_browser_shows_it(width, tmp_path):
    images = pytest.importorskip("PIL.Image")
    picture = tmp_path / "report.png"
    path = saved(tmp_path, page().source)
    done = chromium(path, f"--screenshot={picture}", f"--window-size={width},1400")
    assert "CONSOLE" not in done.stderr
    with images.open(picture) as image:
        assert image.size == (width, 1400)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    # Paper, ink, the darkest shade of the strip, the bars of score and e-value.
    wanted = {"ffffff", "1b1f24", "123f70", "1f5f99", "2d7d5a"}
    assert wanted <= {bytes(colour).hex() for colour in colours}


def test_the_browser_would_tell(tmp_path):
    """What the page must not do is seen where it is done."""
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    done = chromium(saved(tmp_path, f"<!DOCTYPE html>{policy}<script>1</script>"), "--dump-dom")
    assert "CONSOLE" in done.stderr


def test_its_script_runs_and_nothing_is_cut_off(tmp_path):
    """At 380 px no part is wider than the window; a copy without the policy measures itself."""
    source = page().source
    assert "Open all" in chromium(saved(tmp_path, source), "--dump-dom").stdout.split("<script>")[0]
    measured = re.sub(r"<meta http-equiv[^>]*>", "", source).replace(
        "</body>",
        "<script>document.querySelectorAll('details').forEach((one) => { one.open = true; });"
        "document.title = [innerWidth, document.documentElement.scrollWidth].join(' ')</script>"
        "</body>",
    )
    dom = chromium(saved(tmp_path, measured), "--dump-dom", "--window-size=380,800").stdout
    inner, whole = map(int, re.search(r"<title>(\d+) (\d+)</title>", dom).groups())
    assert inner <= 500
    assert whole <= inner


def test_print_opens_the_alignments(tmp_path):
    query = "MKVLATWHHG" * 100
    one = hit(1, alignment=alignment(query, query, 1, 1, "1000M"), sequence=query)
    found = [QueryHits(Record("q", "q", query), [replace(one, rank=at) for at in range(1, 4)])]
    pages = []
    for aligned in (0, 3):
        path, pdf = saved(tmp_path, page(found, aligned=aligned).source), tmp_path / "report.pdf"
        chromium(path, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
        pages.append(len(re.findall(rb"/Type /Page\b", pdf.read_bytes())))
    assert pages[0] >= 1
    # 51 blocks of three lines do not fit on less than two more.
    assert pages[1] >= pages[0] + 2
