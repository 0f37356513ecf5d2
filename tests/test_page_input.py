"""What a person can give the page: files, plain sequences, mistakes."""

from __future__ import annotations

import gzip

import pytest

from tests.browsing import as_fasta, browser, expected, records, visiting

pytestmark = pytest.mark.slow

__all__ = ["browser"]


@pytest.fixture(scope="module")
def queries():
    return records(3)


@pytest.mark.parametrize(
    ("text", "found"), [(">a\nMKV1LAT\n", "found '1'"), (">a\n>b\nMKV\n", "b"), ("MKV?LAT", "?")]
)
def test_a_bad_sequence_shows_what_the_api_says(browser, served, text, found):
    with visiting(browser, served.url) as visit:
        visit.open().search(text)
        sent = text if text.startswith(">") else f">query_1\n{text}"
        status, problem = served.post("/v1/search", {"fasta": sent.strip()})
        assert status == 422
        shown = visit.page.inner_text("#error")
        assert problem["detail"].rstrip(".").lower() in shown.lower()
        assert visit.page.input_value("#fasta") == text
        expected(visit, 422)


def test_nothing_to_search_and_numbers_that_are_none(browser, served):
    with visiting(browser, served.url) as visit:
        visit.open().search("  \n")
        assert "no sequence yet" in visit.page.inner_text("#error")
        visit.page.fill("#k", "2.5")
        visit.search("MKVLAT")
        assert "whole number" in visit.page.inner_text("#error")
        assert visit.page.evaluate("() => document.activeElement.id") == "k"
        visit.page.fill("#k", "100000")
        visit.search()
        assert "1,000" in visit.page.inner_text("#error").replace("1000", "1,000")
        expected(visit, 413)


def test_a_plain_sequence_and_files(browser, served, queries, tmp_path):
    body = {"sequences": [queries[1].sequence], "k": 25}
    hits = [one["accession"] for one in served.post("/v1/search", body)[1]["results"][0]["hits"]]
    text = as_fasta(queries[1:2])
    packed = tmp_path / "one.fasta.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    with visiting(browser, served.url) as visit:
        visit.open().search(queries[1].sequence.lower())
        assert visit.page.inner_text(".of-query h3") == "query_1"
        assert visit.accessions() == hits
        visit.page.set_input_files("#file", packed)
        visit.page.wait_for_function("() => document.querySelector('#fasta').value.startsWith('>')")
        assert visit.page.input_value("#fasta") == text
        visit.page.fill("#fasta", "")
        visit.page.evaluate(
            """(text) => {
              const carried = new DataTransfer();
              carried.items.add(new File([text], "two.fa"));
              const how = { dataTransfer: carried, bubbles: true, cancelable: true };
              const event = new DragEvent("drop", how);
              document.querySelector("#drop").dispatchEvent(event);
            }""",
            text,
        )
        visit.page.wait_for_function("() => document.querySelector('#fasta').value.startsWith('>')")
        assert "1 sequence, 392 residues" in visit.page.inner_text("#fasta-count")
        visit.search()
        assert visit.accessions() == hits
        broken = tmp_path / "broken.gz"
        broken.write_bytes(packed.read_bytes()[:50])
        visit.page.set_input_files("#file", broken)
        visit.page.wait_for_selector("#error:not([hidden])")
        assert "roken.gz cannot be read" in visit.page.inner_text("#error")
