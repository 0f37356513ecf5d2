"""The page's files as the server gives them."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request

import pytest

pytest.importorskip("fastapi", reason="needs rdsearch[server]")

from rdsearch.errors import InputError
from rdsearch.server import page

pytestmark = pytest.mark.slow


def asked(url: str, **headers: str):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_every_file_is_served_as_what_it_is(served):
    files = page.read()
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for name, file in files.items():
        path = "/" if name == "index.html" else f"/page/{name}"
        status, headers, body = asked(served.url + path)
        assert (status, body) == (200, (page.FOLDER / name).read_bytes())
        expected = kinds.get("." + name.rpartition(".")[2], "text/html")
        assert headers["Content-Type"].partition(";")[0] == expected
        assert headers["Cache-Control"] == "no-cache"
        assert headers["ETag"] == file.etag
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        status, headers, body = asked(served.url + path, **{"If-None-Match": f'"x", {file.etag}'})
        assert (status, body) == (304, b"")
        assert asked(served.url + path, **{"If-None-Match": '"x"'})[0] == 200


@pytest.mark.parametrize(
    "name", ["none.js", "index.html", "..%2Fpage%2Fmain.js", "%2e%2e/%2e%2e/server/page.py", ""]
)
def test_there_is_nothing_else(served, name):
    status, headers, body = asked(f"{served.url}/page/{name}")
    assert status == 404
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["type"] == "urn:rdsearch:problem:no-such-path"


def test_every_part_is_there_and_nothing_is_inline():
    files = page.read()
    source = files["index.html"].content.decode()
    parts = re.findall(r'(?:src|href)="(?!#)([^"]+)"', source)
    assert {"page/main.js", "page/page.css", "page/theme.js", "page/icon.svg"} <= set(parts)
    for part in parts:
        assert part == "openapi.json" or part.removeprefix("page/") in files
    # The policy would refuse them.
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", source)
    for name, file in files.items():
        text = file.content.decode()
        assert len(text.splitlines()) < 400
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert imported in files, (name, imported)
        if name.endswith(".js"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text
            )
            assert set(re.findall(r"https?://[\w.]+", text)) <= {
                "http://www.w3.org", "https://www.uniprot.org", "https://alphafold.ebi.ac.uk",
            }  # fmt: skip
        else:
            assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_an_installation_without_the_page_says_so(tmp_path):
    with pytest.raises(InputError, match=r"expected index\.html"):
        page.read(tmp_path)
