"""A search from the page, as a person does it: what is shown is what the API answers."""

from __future__ import annotations

import json
import re

import pytest

from rdsearch import fasta, report, samples
from rdsearch.alignment import ALIGNMENT_COLUMNS, Alignment
from tests.browsing import as_fasta, browser, records, visiting
from tests.results import hit

pytestmark = pytest.mark.slow

__all__ = ["browser"]


@pytest.fixture(scope="module")
def queries():
    return records(3)


@pytest.fixture(scope="module")
def answer(served, queries):
    """What the API gives for the first query, as the page asks."""
    body = {"fasta": as_fasta(queries[:1]), "k": 25, "align": True, "trace": True, "map": True}
    status, found = served.post("/v1/search", body)
    assert status == 200
    return found


@pytest.fixture(scope="module")
def results(browser, served, queries):
    """The first query's results; tests leave them as they are."""
    with visiting(browser, served.url) as visit:
        yield visit.open().search(as_fasta(queries[:1]))


def test_hits_are_those_of_the_api(results, answer):
    hits = answer["results"][0]["hits"]
    assert results.accessions() == [one["accession"] for one in hits]
    assert results.texts("table.hits td.rank") == [str(one["rank"]) for one in hits]
    first, tiers = hits[0], results.texts("table.hits tbody tr:first-child td.tier")
    assert [re.sub(r"\s+", " ", one) for one in tiers] == [
        f"{one['score']:.2f} #{one['rank']}" for one in first["tiers"]
    ]
    assert f"{100 * first['identity']:.1f} %" in results.texts("tbody tr:first-child td.n")
    assert results.page.inner_text("table.hits tbody tr:first-child i") == first["organism"]
    assert "25 hits" in results.page.inner_text("#results")


def test_bars_are_as_long_as_the_scores(results, answer):
    widths = results.page.eval_on_selector_all(
        "table.hits td.tier .track", "(all) => all.map((one) => one.firstChild.style.width)"
    )
    scores = [one["score"] for each in answer["results"][0]["hits"] for one in each["tiers"]]
    assert [float(one.rstrip("%")) for one in widths] == pytest.approx(
        [100 * max(score, 0) for score in scores], abs=0.06
    )
    shown = results.page.eval_on_selector("td.tier .track > div", "(one) => one.offsetWidth")
    assert shown > 0


def test_the_map_is_that_of_the_api(results, answer):
    found, hits = answer["results"][0]["map"], answer["results"][0]["hits"]
    places = results.page.eval_on_selector_all(
        "svg.map circle.hit",
        """(all) => all.map((one) =>
          [one.dataset.accession, one.cx.baseVal.value, one.cy.baseVal.value])""",
    )
    by_accession = {one: (x, y) for one, x, y in places}
    assert len(by_accession) == len(hits) == len(found["hits"])
    # The picture's places are the answer's, moved and enlarged; y points upwards.
    hits_at = dict(zip((one["accession"] for one in hits), found["hits"], strict=True))
    left, right = min(hits_at, key=hits_at.get), max(hits_at, key=hits_at.get)
    scale = (by_accession[right][0] - by_accession[left][0]) / (
        hits_at[right][0] - hits_at[left][0]
    )
    for accession, (x, y) in by_accession.items():
        assert x - by_accession[left][0] == pytest.approx(
            scale * (hits_at[accession][0] - hits_at[left][0]), abs=0.5
        )
        assert y - by_accession[left][1] == pytest.approx(
            -scale * (hits_at[accession][1] - hits_at[left][1]), abs=0.5
        )
    assert len(results.texts("svg.map circle.other")) == len(found["others"])
    assert f"{100 * found['explained']:.0f} % of the variance" in results.page.inner_text(
        "figure.map"
    )


def test_columns_sort_both_ways(browser, served, queries, answer):
    hits = answer["results"][0]["hits"]
    with visiting(browser, served.url) as visit:
        visit.open().search(as_fasta(queries[:1]))
        length = visit.page.get_by_role("button", name="Residues", exact=True)
        head = visit.page.locator("th[data-key=length]")
        assert head.get_attribute("aria-sort") == "none"
        length.click()
        rising = sorted(hits, key=lambda one: (one["length"], one["rank"]))
        assert visit.accessions() == [one["accession"] for one in rising]
        assert head.get_attribute("aria-sort") == "ascending"
        length.click()
        falling = sorted(hits, key=lambda one: (-one["length"], one["rank"]))
        assert visit.accessions() == [one["accession"] for one in falling]
        assert head.get_attribute("aria-sort") == "descending"
        visit.page.get_by_role("button", name="Identity", exact=True).click()
        alike = sorted(hits, key=lambda one: (-one["identity"], one["rank"]))
        assert visit.accessions() == [one["accession"] for one in alike]


def test_text_filters_the_hits_and_columns_can_be_chosen(browser, served, queries, answer):
    hits = answer["results"][0]["hits"]
    with visiting(browser, served.url) as visit:
        visit.open().search(as_fasta(queries[:1]))
        word = hits[3]["organism"].split()[0].upper()
        visit.page.get_by_label("Find in these hits").fill(f"  {word} ")
        kept = [
            one["accession"]
            for one in hits
            if word.lower() in json.dumps(one, ensure_ascii=False).lower()
        ]
        assert visit.accessions() == kept
        assert f"{len(kept)} of 25 hits" in visit.page.inner_text(".table-tools")
        visit.page.get_by_label("Find in these hits").fill("no such protein")
        assert visit.accessions() == []
        visit.page.get_by_label("Find in these hits").fill("")
        visit.page.click(".menu summary")
        visit.page.get_by_label("genus", exact=True).check()
        visit.page.get_by_label("Identity", exact=True).uncheck()
        visit.page.keyboard.press("Escape")
        heads = visit.texts("table.hits thead th[data-key]")
        assert "genus" in heads
        assert "Identity" not in heads
        cells = visit.texts("table.hits tbody tr > td:last-child")
        assert cells == [one["genus"] or "" for one in hits]


def test_many_hits_come_in_two_steps(browser, served, queries):
    body = {"fasta": as_fasta(queries[:1]), "k": 110}
    hits = [one["accession"] for one in served.post("/v1/search", body)[1]["results"][0]["hits"]]
    with visiting(browser, served.url) as visit:
        visit.open().page.fill("#k", "110")
        visit.search(as_fasta(queries[:1]))
        assert visit.accessions() == hits[:100]
        # Filters and sorting are of all of them.
        visit.page.get_by_label("Find in these hits").fill(hits[-1])
        assert visit.accessions() == [hits[-1]]
        visit.page.get_by_label("Find in these hits").fill("")
        visit.page.get_by_role("button", name="Show 10 more").click()
        assert visit.accessions() == hits
        assert visit.page.evaluate("() => document.activeElement.textContent") == hits[100]


def test_an_alignment_is_right(results, answer, served, queries):
    first = answer["results"][0]["hits"][1]
    results.page.get_by_role("button", name=first["accession"], exact=True).first.click()
    results.page.wait_for_selector("tr.details .block")
    # As the report prints it, from the target's sequence of another route.
    target = served.get(f"/v1/indexes/mini/proteins/{first['accession']}")[1]["sequence"]
    found = Alignment(**{name: first[column] for column, name in ALIGNMENT_COLUMNS.items()})
    blocks = report._blocks(
        queries[0].sequence,
        hit(1, alignment=found, sequence=target),
        report._Positive("BLOSUM62"),
    )
    shown = results.page.locator("tr.details pre").text_content()
    assert shown.rstrip("\n") == "\n".join(blocks)
    details = results.page.locator("tr.details")
    assert first["description"] in details.inner_text()
    links = details.get_by_role("link")
    assert [one.get_attribute("href") for one in links.all()] == [
        f"https://www.uniprot.org/uniprotkb/{first['accession']}/entry",
        f"https://alphafold.ebi.ac.uk/entry/{first['accession']}",
    ]
    assert {one.get_attribute("rel") for one in links.all()} == {"noopener noreferrer"}
    results.page.get_by_role("button", name=first["accession"], exact=True).first.click()
    assert results.page.locator("tr.details").count() == 0


def test_a_hit_on_the_map_opens_its_row(browser, served, queries, answer):
    hits = answer["results"][0]["hits"]
    with visiting(browser, served.url) as visit:
        visit.open().search(as_fasta(queries[:1]))
        mark = visit.page.locator(f"svg.map circle.hit[data-accession={hits[2]['accession']}]")
        mark.dispatch_event("pointerenter")
        assert hits[2]["accession"] in visit.page.inner_text("figure.map .said")
        mark.dispatch_event("click")
        assert (
            visit.page.locator("tr.opened").get_attribute("data-accession") == hits[2]["accession"]
        )
        # One stop for Tab; arrows walk by rank.
        visit.page.locator("svg.map circle.hit[tabindex='0']").focus()
        visit.page.keyboard.press("ArrowRight")
        assert hits[1]["accession"] in visit.page.inner_text("figure.map .said")
        visit.page.keyboard.press("Enter")
        assert visit.page.locator("tr.opened").count() == 2


def test_a_filter_is_sent_as_the_condition_that_is_shown(browser, served, queries):
    with visiting(browser, served.url) as visit:
        visit.open().page.click(".filters summary")
        visit.page.click("#add-filter")
        visit.page.get_by_label("Column", exact=True).select_option("length")
        visit.page.get_by_label("From", exact=True).fill("100")
        visit.page.get_by_label("To", exact=True).fill("250")
        visit.page.click("#add-filter")
        second = visit.page.get_by_role("group", name="Filter 2")
        second.get_by_label("Column", exact=True).select_option("organism")
        second.get_by_label("Test", exact=True).select_option("contains")
        visit.page.wait_for_selector("datalist option", state="attached")
        values = visit.page.eval_on_selector_all(
            "datalist option", "(all) => all.map((o) => o.value)"
        )
        listed = served.get("/v1/indexes/mini/columns/organism")[1]["values"]
        assert values == [one for one, _ in listed]
        second.get_by_label("Value", exact=True).fill("A")
        where = visit.page.input_value("#where")
        assert where == (
            '"length" >= 100 AND "length" <= 250 AND contains(lower("organism"), lower(\'A\'))'
        )
        visit.search(as_fasta(queries[:1]))
        body = {"fasta": as_fasta(queries[:1]), "k": 25, "where": where}
        hits = served.post("/v1/search", body)[1]["results"][0]["hits"]
        assert visit.accessions() == [one["accession"] for one in hits] != []
        # A value that is none is said before anything is sent.
        visit.page.get_by_label("From", exact=True).fill("many")
        visit.search()
        assert "many is not a number" in visit.page.inner_text("#error")
        # What is written by hand is what counts.
        visit.page.fill("#where", "length = 1")
        visit.search()
        assert "No hits" in visit.page.inner_text("#results")


def test_several_queries_have_a_list(browser, served, queries):
    body = {"fasta": as_fasta(queries), "k": 25}
    found = served.post("/v1/search", body)[1]["results"]
    with visiting(browser, served.url) as visit:
        visit.open().search(as_fasta(queries))
        assert visit.texts("table.queries tbody th") == [one["query"]["id"] for one in found]
        assert visit.texts("table.queries td:nth-child(3)") == [
            str(len(one["hits"])) for one in found
        ]
        for one in (found[2], found[0]):
            visit.page.get_by_role("button", name=one["query"]["id"], exact=True).click()
            assert visit.accessions() == [each["accession"] for each in one["hits"]]
            assert visit.page.inner_text(".of-query h3") == one["query"]["id"]
        visit.page.get_by_role("button", name="Next").click()
        assert visit.accessions() == [each["accession"] for each in found[1]["hits"]]


def test_search_from_a_hit(browser, served, queries, answer):
    hits = answer["results"][0]["hits"]
    near = f"/v1/indexes/mini/proteins/{hits[0]['accession']}"
    sequence = served.get(near)[1]["sequence"]
    with visiting(browser, served.url) as visit:
        visit.open().search(as_fasta(queries[:1]))
        visit.page.get_by_role("button", name=hits[0]["accession"], exact=True).first.click()
        visit.page.get_by_role("button", name="Search from this hit").click()
        visit.page.wait_for_selector(f".of-query h3:text-is('{hits[0]['accession']}')")
        kept = visit.page.input_value("#fasta")
        assert "".join(kept.splitlines()[1:]) == sequence
        body = {"sequences": [sequence], "k": 25, "exclude_self": True}
        found = served.post("/v1/search", body)[1]["results"][0]["hits"]
        assert visit.accessions() == [one["accession"] for one in found]
        assert hits[0]["accession"] not in visit.accessions()
        # The search before is a step back.
        visit.page.go_back()
        visit.page.wait_for_selector(f".of-query h3:text-is('{queries[0].id}')")
        assert visit.accessions() == [one["accession"] for one in hits]


def test_nothing_from_the_server_becomes_html(browser, served, queries, answer):
    """An answer full of markup, e-values and probabilities: text, and nothing runs."""
    evil = "<img src=x onerror=\"console.error('run')\"><script>console.error('run')</script>"
    changed = json.loads(json.dumps(answer))
    changed["notes"] = [evil]
    changed["results"][0]["query"]["description"] = evil
    values = [1e-60, 2e-5, 0.5, 3.0]
    for one, evalue in zip(changed["results"][0]["hits"], values, strict=False):
        one.update(protein_name=evil, organism=evil, genus=evil, evalue=evalue, probability=0.25)
    with visiting(browser, served.url) as visit:
        visit.page.route("**/v1/search", lambda route: route.fulfill(json=changed))
        visit.open().search(as_fasta(queries[:1]))
        visit.page.get_by_role(
            "button", name=changed["results"][0]["hits"][0]["accession"], exact=True
        ).first.click()
        visit.page.wait_for_selector("tr.details .block")
        assert visit.page.locator("#results img, #results script").count() == 0
        assert visit.texts("table.hits tbody tr:not(.details) .organism")[0] == evil
        assert visit.page.inner_text("#results .notes") == evil
        cells = visit.page.locator("table.hits tbody tr:not(.details)").locator("td:nth-of-type(2)")
        assert cells.all_inner_texts()[:4] == ["1e-60", "2e-5", "0.5", "3"]
        widths = visit.page.eval_on_selector_all(
            ".track.e > div", "(all) => all.map((one) => parseFloat(one.style.width))"
        )
        assert widths[0] == 100
        assert widths == sorted(widths, reverse=True)
        assert visit.texts("table.hits tbody tr:not(.details) td:nth-of-type(3)")[0] == "25 %"


def test_why_there_are_no_evalues_is_said(results, served):
    reason = served.get("/v1/indexes/mini")[1]["evalues"]
    assert reason
    assert reason in results.page.inner_text("#results")
    assert reason in results.page.inner_text("#cut-note")
    assert results.texts("#cut option") == ["any score"]
    assert "mini: for demonstration; not a good homology model" in results.page.inner_text(
        "#notice"
    )


def test_the_tier_has_its_cost(browser, served, queries):
    facts = served.get("/v1/indexes/mini")[1]
    with visiting(browser, served.url) as visit:
        visit.open()
        for plan in facts["plans"]:
            visit.page.select_option("#tier", plan["tier"])
            cost = visit.page.inner_text("#cost")
            assert f"{plan['dims']} dimensions" in cost
            assert f"{len(plan['members'])} model" in cost
            assert f"{plan['rows']:,} row" in cost
        visit.page.select_option("#tier", facts["tiers"][0]["name"])
        visit.search(as_fasta(queries[:1]))
        body = {"fasta": as_fasta(queries[:1]), "k": 25, "to_tier": facts["tiers"][0]["name"]}
        found = served.post("/v1/search", body)[1]["results"][0]["hits"]
        assert visit.accessions() == [one["accession"] for one in found]
        # Without a trace there are the funnel's tiers, and no ranks.
        visit.page.select_option("#tier", facts["tiers"][-1]["name"])
        visit.page.uncheck("#trace")
        visit.search()
        del body["to_tier"]
        found = served.post("/v1/search", body)[1]
        first = found["results"][0]["hits"][0]
        shown = visit.texts("table.hits tbody tr:first-child td.tier")
        assert shown == [f"{first[f'score_{tier}']:.2f}" for tier in found["tiers"]]


def test_the_example_is_packaged():
    from rdsearch.server import page

    source = (page.FOLDER / "example.js").read_text()
    text = source.partition("`")[2].rpartition("`")[0]
    lines = text.splitlines()
    sequence = "".join(lines[1:])
    known = {one.sequence for one in fasta.read(samples.QUERIES)}
    assert sequence in known
