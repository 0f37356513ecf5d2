"""Files, links, jobs, keys: a search from the page, and around it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys

import pytest

from tests.browsing import OVER, as_fasta, browser, expected, records, visiting
from tests.serving import serving

pytestmark = pytest.mark.slow

__all__ = ["browser"]


@pytest.fixture(scope="module")
def queries():
    return records(3)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, mini_index):
    """A server that asks for a key and takes three sequences at once."""
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copytree(mini_index, folder / "mini")
    command = [sys.executable, "-m", "rdsearch", "key", "new", "page", "--file", folder / "keys"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    options = ("--api-key-file", folder / "keys", "--limit", "sequences=3")
    indexes = (folder / "mini", f"other={folder / 'mini'}")
    with serving(*indexes, options=list(map(str, options))) as server:
        server.key = made.stdout.split()[-1]
        yield server


def hits_of(server, body):
    headers = {"Authorization": f"Bearer {server.key}"} if hasattr(server, "key") else {}
    status, found = server.post("/v1/search", body, **headers)
    assert status == 200
    return [one["accession"] for one in found["results"][0]["hits"]]


def test_every_format_downloads_and_parses(browser, served, queries, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    body = {"fasta": as_fasta(queries[:1]), "k": 25}
    found = hits_of(served, body)
    formats = served.get("/v1/limits")[1]["formats"]
    read = {
        "json": lambda data: [one["accession"] for one in json.loads(data)["results"][0]["hits"]],
        "jsonl": lambda data: [json.loads(one)["accession"] for one in data.splitlines()],
        "tsv": lambda data: column(data, "\t"),
        "csv": lambda data: column(data, ","),
        "m8": lambda data: [one.split("\t")[1] for one in data.decode().splitlines()],
        "parquet": lambda data: parquet.read_table(io.BytesIO(data))["accession"].to_pylist(),
        "fasta": lambda data: headers(data),
        "a3m": lambda data: headers(data)[1:],
    }
    assert {*read, "table", "html"} == set(formats)
    with visiting(browser, served.url, accept_downloads=True) as visit:
        visit.open()
        visit.page.uncheck("#align")
        visit.search(body["fasta"])
        assert visit.accessions() == found
        offered = "(all) => all.map((one) => one.value)"
        assert visit.page.eval_on_selector_all("#format option", offered) == list(formats)
        for name in formats:
            path = visit.download(name, tmp_path)
            ending = "txt" if name == "table" else name
            assert path.name == f"rdsearch-sp_P41238_ABEC1_HUMAN.{ending}"
            data = path.read_bytes()
            if name in read:
                assert [
                    one.split("|")[1] if "|" in one else one for one in read[name](data)
                ] == found
            else:
                assert all(one.encode() in data for one in found)


def column(data, separator):
    return [
        one["accession"] for one in csv.DictReader(io.StringIO(data.decode()), delimiter=separator)
    ]


def headers(data):
    return [one[1:].split()[0].split("/")[0] for one in data.decode().splitlines() if one[0] == ">"]


def test_a_link_brings_the_search_back(browser, served, queries):
    with visiting(browser, served.url, permissions=["clipboard-read", "clipboard-write"]) as visit:
        visit.open().page.fill("#k", "7")
        visit.page.select_option("#tier", "1.2M")
        visit.page.check("#self")
        visit.page.uncheck("#align")
        visit.page.click(".filters summary")
        visit.page.click("#add-filter")
        visit.page.get_by_label("Column", exact=True).select_option("length")
        visit.page.get_by_label("From", exact=True).fill("50")
        visit.search(as_fasta(queries[:1]))
        found = visit.accessions()
        visit.page.click("#link")
        visit.page.wait_for_selector("text=Copied")
        link = visit.page.evaluate("() => navigator.clipboard.readText()")
    body = {"fasta": as_fasta(queries[:1]), "k": 7, "to_tier": "1.2M", "where": "length >= 50"}
    assert found == hits_of(served, {**body, "exclude_self": True})
    assert link.startswith(served.url + "/#")
    with visiting(browser, served.url) as visit:
        visit.page.goto(link)
        visit.page.wait_for_selector(OVER)
        assert visit.accessions() == found
        assert visit.page.input_value("#fasta") == as_fasta(queries[:1]).strip()
        assert visit.page.input_value("#k") == "7"
        assert visit.page.input_value("#tier") == "1.2M"
        assert visit.page.input_value("#where") == '"length" >= 50'
        assert visit.page.get_by_label("From", exact=True).input_value() == "50"
        assert visit.page.is_checked("#self")
        assert not visit.page.is_checked("#align")


def test_long_sequences_stay_out_of_the_link(browser, served, queries):
    long = [queries[2]] * 1
    text = as_fasta(long) + "".join(f">r{n}\n{queries[1].sequence}\n" for n in range(5))
    with visiting(browser, served.url) as visit:
        visit.open().search(text)
        assert "fasta=" not in visit.page.url
        assert "k=25" in visit.page.url


def test_a_large_search_is_a_job_and_can_be_cancelled(browser, guarded, queries):
    text = as_fasta(queries) + as_fasta(queries).replace(">", ">again_")
    headers = {"Authorization": f"Bearer {guarded.key}"}
    with visiting(browser, guarded.url) as visit:
        visit.page.goto(guarded.url)
        visit.page.get_by_label("API key").fill(guarded.key)
        visit.page.keyboard.press("Tab")
        visit.page.wait_for_selector("#tier option", state="attached")
        with visit.page.expect_request("**/v1/jobs"):
            visit.search(text)
        assert len(visit.texts("table.queries tbody tr")) == 6
        body = {"fasta": as_fasta(queries[:1]), "k": 25}
        assert visit.accessions() == hits_of(guarded, body)
        # One that takes long, from a file: what is too long to be edited is searched whole.
        large = "".join(
            f">p{n}\n{one.sequence[n % 50 :][:120]}\n" for n in range(700) for one in queries
        )
        visit.page.evaluate(
            """(text) => {
              const carried = new DataTransfer();
              carried.setData("text", text);
              const how = { clipboardData: carried, cancelable: true };
              const event = new ClipboardEvent("paste", how);
              document.querySelector("#fasta").select();
              document.querySelector("#fasta").dispatchEvent(event);
            }""",
            large,
        )
        assert "2,100 sequences" in visit.page.inner_text("#fasta-count")
        assert "searched as a job" in visit.page.inner_text("#fasta-count")
        with visit.page.expect_response("**/v1/jobs") as made:
            visit.page.click("#go")
        job = made.value.json()["id"]
        visit.page.wait_for_selector("#progress:not([hidden])")
        visit.page.wait_for_function(
            "() => document.querySelector('#progress-text').textContent.includes('of 2,100')"
        )
        with visit.page.expect_response(lambda one: one.request.method == "DELETE") as gone:
            visit.page.click("#cancel")
        assert gone.value.status == 202
        visit.page.wait_for_selector("#progress", state="hidden")
        assert guarded.get(f"/v1/jobs/{job}", **headers)[1]["state"] in ("cancelled", "running")
        # The results before are still there, and so is the text.
        assert len(visit.texts("table.queries tbody tr")) == 6
        assert "2,100 sequences" in visit.page.inner_text("#fasta-count")


def test_keys(browser, guarded, queries):
    with visiting(browser, guarded.url) as visit:
        visit.page.goto(guarded.url)
        key = visit.page.get_by_label("API key")
        key.wait_for()
        visit.search(as_fasta(queries[:1]))
        assert "A key is needed" in visit.page.inner_text("#error")
        key.fill("wrong")
        visit.search()
        assert "The key is wrong" in visit.page.inner_text("#error")
        assert visit.page.evaluate("() => document.activeElement.id") == "key"
        assert visit.page.input_value("#fasta") == as_fasta(queries[:1])
        expected(visit, 401)
        key.fill(guarded.key)
        visit.search()
        assert visit.accessions() == hits_of(guarded, {"fasta": as_fasta(queries[:1]), "k": 25})
        visit.page.get_by_label("Index", exact=True).select_option("other")
        visit.search()
        assert "other, generation 1" in visit.page.inner_text(".results-top")
        assert "index=other" in visit.page.url
        kept = "() => JSON.stringify([{...localStorage}, document.cookie, location.href])"
        assert guarded.key not in visit.page.evaluate(kept)
        assert guarded.key in visit.page.evaluate("() => JSON.stringify({...sessionStorage})")


def test_cuts_are_those_that_the_index_has(browser, served, queries):
    """An index with e-values, calibrated at its last tier."""
    facts = served.get("/v1/indexes")[1]
    facts["indexes"][0]["evalues"] = None
    tiers = [{"tier": "1.2M", "fdr": None}, {"tier": "4.8M", "fdr": {"score": 0.4}}]
    facts["indexes"][0]["tiers"][0]["bytes"] = 2_000_000_000
    facts["indexes"][0]["calibration"] = {"fdr": 0.05, "tiers": tiers}
    sent = []

    def answered(route):
        sent.append(route.request.post_data_json)
        route.fulfill(status=422, json={"status": 422, "detail": "enough"})

    with visiting(browser, served.url) as visit:
        visit.page.route("**/v1/indexes", lambda route: route.fulfill(json=facts))
        visit.page.route("**/v1/search", answered)
        visit.open()
        values = "(all) => all.map((one) => one.value)"

        def cuts():
            return visit.page.eval_on_selector_all("#cut option", values)

        assert cuts() == ["", "evalue", "fdr"]
        # What would read much is not asked for unless somebody wants it.
        assert not visit.page.is_checked("#trace")
        assert "2.0 GB" in visit.page.inner_text("#trace-note")
        assert "5 % (certified)" in visit.page.inner_text("#cut")
        visit.page.select_option("#cut", "fdr")
        visit.search(as_fasta(queries[:1]))
        visit.page.select_option("#tier", "1.2M")
        assert cuts() == ["", "evalue"]
        visit.page.select_option("#cut", "evalue")
        visit.page.fill("#evalue", "1e-5")
        visit.page.fill("#k", "")
        visit.search()
        visit.page.fill("#evalue", "small")
        visit.search()
        assert "found small" in visit.page.inner_text("#error")
        assert visit.page.get_attribute("#evalue", "aria-invalid") == "true"
        expected(visit, 422)
    assert [one["trace"] for one in sent] == [False, False]
    assert [(one.get("fdr"), one.get("evalue"), one.get("k")) for one in sent] == [
        (0.05, None, 25),
        (None, 1e-5, None),
    ]


def test_a_busy_server_is_asked_again(browser, served, queries):
    problem = {
        "type": "urn:rdsearch:problem:queue-full",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "the queue is full",
    }
    with visiting(browser, served.url) as visit:
        visit.open().page.route(
            "**/v1/search",
            lambda route: route.fulfill(status=429, json=problem, headers={"Retry-After": "1"}),
            times=1,
        )
        visit.search(as_fasta(queries[:1]))
        assert "The server is busy" in visit.page.inner_text("#error")
        again = visit.page.get_by_role("button", name="Try again")
        assert "in 1 second" in again.inner_text()
        assert again.is_disabled()
        again.click()
        visit.page.wait_for_selector("table.hits")
        assert visit.page.is_hidden("#error")
        expected(visit, 429)


def test_a_search_that_waits_says_so_and_can_be_cancelled(browser, served, queries):
    with visiting(browser, served.url) as visit:
        visit.open().page.route("**/v1/search", lambda route: None)
        visit.page.fill("#fasta", as_fasta(queries[:1]))
        visit.page.click("#go")
        visit.page.wait_for_selector("#progress:not([hidden])")
        assert visit.page.inner_text("#status") == "Searching"
        assert visit.page.get_attribute("#status", "aria-live") == "polite"
        visit.page.get_by_role("button", name="Cancel").click()
        visit.page.wait_for_selector("#progress", state="hidden")
        assert visit.page.inner_text("#status") == "Cancelled"
        assert visit.page.is_hidden("#error")
