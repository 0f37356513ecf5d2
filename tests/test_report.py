"""The report: everything is escaped, nothing is fetched, and a browser shows it."""

from __future__ import annotations

import io
import math
import re
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from rdsearch import outputs, report
from rdsearch.errors import DependencyError, InputError
from rdsearch.fasta import Record
from rdsearch.hits import Hit, QueryHits, TierScore
from rdsearch.reportplot import calibration_plot
from tests.results import COLUMNS, QUERY, alignment, hit, results

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}&amp;</style>"
VOID = {"meta", "img", "br", "hr", "input", "link", "col"}


def run(**given) -> outputs.Run:
    facts = {
        "settings": {"command": "rdsearch search mine q.fasta --format html", "to tier": "150M"},
        "index": {
            "path": "indexes/mine",
            "rows": 12345,
            "funnel": "8M:200 > 150M",
            "guarantee": {"recall": 0.99, "confidence": 0.9},
            "tiers": [{"name": "8M", "dims": 320, "codec": "Flat", "cells": None, "bytes": 1}],
            "segments": [{}, {}],
        },
        "notes": ("too few rows for e-values",),
        "calibration": [(0.01, 0.02), (0.1, 0.1), (1.0, 0.7), (10.0, 12.0)],
        "threshold": "score 0.4 at tier 150M: fdr at most 0.1",
        "version": "9.8.7",
        "versions": {"torch": "2.5", "numpy": "2.0"},
        "time": "2026-01-02 03:04 UTC",
    }
    return outputs.Run(**(facts | given))


def page(found=None, columns=COLUMNS, settings=None, **limits) -> Page:
    out = io.StringIO()
    found = results() if found is None else found
    report.html(found, out, columns, run() if settings is None else settings, **limits)
    return Page(out.getvalue())


class Page(HTMLParser):
    """A page as browsers see it; every tag is closed, in order.

    Attributes
    ----------
    source : str
    tags : list of (str, dict)
        With their attributes.
    texts : list of (str, str)
        The tag around it, and text.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    @property
    def text(self) -> str:
        """All that is read, without styles and scripts."""
        return "".join(text for tag, text in self.texts if tag not in ("style", "script"))

    def cells(self, name: str) -> list[str]:
        """Texts of cells with this class."""
        pattern = rf'<td class="[^"]*\b{name}\b[^"]*"[^>]*>(.*?)</td>'
        return re.findall(pattern, self.source, re.DOTALL)


def test_nothing_is_fetched():
    shown = page()
    for tag, attributes in shown.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "img")
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    style = "".join(text for tag, text in shown.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?://", shown.source)
    policy = next(one["content"] for _, one in shown.tags if "http-equiv" in one)
    assert "default-src 'none'" in policy


def test_links_lead_somewhere():
    shown = page()
    ids = [one["id"] for _, one in shown.tags if "id" in one]
    assert len(set(ids)) == len(ids)
    links = [one["href"][1:] for _, one in shown.tags if "href" in one]
    assert set(links) <= set(ids)
    assert {"q1", "q2", "q3", "q1-1", "q3-3"} <= set(links)
    referred = [one["aria-labelledby"] for _, one in shown.tags if "aria-labelledby" in one]
    assert set(referred) <= set(ids)


def test_everything_is_escaped():
    """Hostile text everywhere: the page has the tags that it has without, and shows the text."""

    def evil(text: str) -> tuple[list[QueryHits], list[str], outputs.Run]:
        one = Hit(
            query=text,
            rank=1,
            accession=text,
            score=0.5,
            scores={text: 0.5},
            row=0,
            length=len(QUERY),
            protein_name=text,
            organism=text,
            accessions=(text, text),
            columns={text: text, "list": [text], "fields": {text: text}},
            evalue=0.01,
            alignment=alignment(QUERY, QUERY, 1, 1, "5M"),
            sequence=QUERY,
            tiers=(TierScore(text, 0.5, 3), TierScore(text + text, 0.5, 4)),
        )
        found = [
            QueryHits(Record(text, text, QUERY, text, protein_name=text, organism=text), [one]),
            QueryHits(Record(text, text, QUERY, text), []),
        ]
        settings = run(
            settings={text: text},
            index={text: text, "tiers": [{"name": text, "dims": 1, "codec": text}]},
            notes=(text,),
            threshold=text,
            version=text,
            versions={text: text},
            time=text,
        )
        return found, [text, "list", "fields"], settings

    hostile, tame = page(*evil(EVIL)), page(*evil("tame"))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in tame.tags]
    assert [list(one) for _, one in hostile.tags] == [list(one) for _, one in tame.tags]
    assert hostile.text.count(EVIL) >= tame.text.count("tame") - 2
    assert hostile.text.count(EVIL) > 25
    assert "49" not in hostile.text
    scripts = [text for tag, text in hostile.texts if tag == "script"]
    assert scripts == [text for tag, text in tame.texts if tag == "script"]
    assert len(scripts) == 1


def test_hits_and_what_is_known_of_them():
    shown = page()
    text = " ".join(shown.text.split())
    for wanted in (
        "rdsearch 9.8.7 · 2026-01-02 03:04 UTC",
        "too few rows for e-values",
        "score 0.4 at tier 150M: fdr at most 0.1",
        "rdsearch search mine q.fasta --format html",
        "12,345",
        "recall: 0.99, confidence: 0.9",
        "nothing is like it · 3 residues · 0 hits",
        "first query · 22 residues · 2 hits",
        "P00001 protein 1 Homo sapiens",
        "1.23e-18",
        "Rank by model size",
        "P00001, A1",
        "GO:1;GO:2",
        "e-value of the alignment0.00346",
    ):
        assert wanted in text, wanted
    # Ranks by tier: shades from dark to light, none beyond the trace.
    assert shown.cells("tier")[:3] == ["1", "10", "100"]
    shades = [re.findall(rf'<td class="tier t(\d)"[^>]*>{one}</td>', shown.source) for one in "13"]
    assert shades[0][0] == "5"
    assert re.search(r'<td class="tier t0"[^>]*>–</td>', shown.source)
    assert len(shown.cells("rank")) == 4


def test_bars_are_as_long_as_what_they_show():
    hits = [
        hit(1, score=0.5, evalue=1e-20),
        hit(2, score=-0.5, evalue=1e-5),
        hit(3, score=2.0, evalue=7.0),
        hit(4, score=0.0, evalue=1e-80),
    ]
    shown = page([QueryHits(results()[0].query, hits)])
    widths = re.findall(
        r'class="track( e)?" aria-hidden="true"><div style="width:(.*?)%"', shown.source
    )
    assert [float(width) for kind, width in widths if not kind] == [50, 0, 100, 0]
    # Full at 1e-50: what is below is not longer.
    assert [float(width) for kind, width in widths if kind] == [40, 10, 0, 100]


def test_where_the_alignment_lies_on_the_query():
    span = re.search(r"margin-left:(.*?)%;width:(.*?)%", page().source)
    # Residues 2-16 of 22.
    assert [float(one) for one in span.groups()] == [
        pytest.approx(100 / 22, abs=0.01),
        pytest.approx(1500 / 22, abs=0.01),
    ]


def test_alignment_in_blocks():
    """Rows and marks by hand, from BLOSUM62."""
    query = "MKVL" * 20 + "WDE"
    # I against V is positive, Y against W too, P against L is not.
    target = "GG" + query[:62] + "LM" + "PP" + "KILMKILMKIPMKVLYDE"
    found = alignment(query, target, 1, 3, "62M1I2M2D18M")
    shown = page([QueryHits(Record("q", "q", query), [hit(1, alignment=found, sequence=target)])])
    blocks = [text.strip("\n").split("\n") for _, text in shown.texts if text.startswith("Query  ")]
    assert blocks == [
        [
            f"Query    1  {'MKVL' * 15}  60",
            f"            {'MKVL' * 15}",
            f"Target   3  {'MKVL' * 15}  62",
        ],
        [
            "Query   61  MKVLM--KVLMKVLMKVLMKVLWDE  83",
            "            MK LM  K+LMK+LMK+ MKVL+DE",
            "Target  63  MK-LMPPKILMKILMKIPMKVLYDE  86",
        ],
    ]


def test_a_matrix_that_is_not_there():
    with pytest.raises(InputError, match="NOSUM"):
        page(settings=run(matrix="NOSUM"))


def test_limits_are_told():
    aligned = results()[0].hits[0]
    hits = [replace(aligned, rank=at) for at in range(1, 9)]
    found = [QueryHits(results()[0].query, hits)] * 3
    shown = page(found, listed=6, aligned=4, aligned_in_all=5)
    assert Counter(tag for tag, _ in shown.tags)["pre"] == 5
    assert Counter(tag for tag, _ in shown.tags)["details"] == 5
    assert shown.text.count("The 6 best of 8 hits are listed.") == 3
    assert "shown for the 4 best hits: a report has at most 4 a query and 5 in all" in shown.text
    assert "shown for the 1 best hits" in shown.text
    assert "shown for none of these hits" in shown.text
    assert "best of" not in page(found).text


def test_columns_of_the_catalog_that_are_chosen():
    shown = page(columns=["query", "taxon_id"])
    assert "9606" in shown.text
    assert "GO:1" not in shown.text


def test_without_evalues_alignments_and_ranks():
    bare = hit(1, evalue=None, probability=None, tiers=(TierScore("150M", 0.5),))
    shown = page([QueryHits(results()[0].query, [bare])], settings=outputs.Run())
    for absent in ("E-value", "Probability", "Identity", "Rank by", "Calibration", "None"):
        assert absent not in shown.text, absent
    scores = hit(1, tiers=(TierScore("8M", 0.1), TierScore("150M", 0.9)))
    shown = page([QueryHits(results()[0].query, [scores])])
    assert "Score by model size" in shown.text
    assert shown.cells("tier") == ["0.100", "0.900"]


@pytest.mark.parametrize("found", [[], results()[1:2]])
def test_no_hits(found):
    assert "No hits" in page(found).text


# The plot.


def places(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle[^>]* cx="(.*?)" cy="(.*?)"', svg)]


def test_plot_has_its_points_where_they_belong():
    points = [(0.01, 0.01), (0.1, 0.2), (1.0, 0.5), (10.0, 10.0)]
    drawn = places(calibration_plot(points))
    assert len(drawn) == 4
    ends = re.search(
        r'class="diagonal" x1="(.*?)" y1="(.*?)" x2="(.*?)" y2="(.*?)"', calibration_plot(points)
    )
    x1, y1, x2, y2 = map(float, ends.groups())
    for (x, y), (expected, observed) in zip(drawn, points, strict=True):
        # The frame holds 0.01 to 10: three powers of ten.
        assert x == pytest.approx(x1 + (math.log10(expected) + 2) / 3 * (x2 - x1), abs=0.1)
        assert y == pytest.approx(y1 + (math.log10(observed) + 2) / 3 * (y2 - y1), abs=0.1)
    assert drawn[0] == (x1, y1)
    assert drawn[3] == (x2, y2)


@pytest.mark.parametrize(
    ("points", "n"),
    [
        ([], 0),
        ([(0.0, 1.0), (1.0, 0.0), (math.nan, 1.0), (1.0, math.inf)], 0),
        ([(1.0, 1.0)], 1),
        ([(10.0**power, 1.0) for power in range(-300, 300, 50)], 12),
    ],
)
def test_plots_of_points_that_are_few_or_far(points, n):
    svg = calibration_plot(points)
    assert len(places(svg)) == n
    assert "nan" not in svg
    assert len(re.findall(r"<text", svg)) < 25
    Page(svg)


def test_jinja_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(DependencyError, match=r"pip install 'jinja2>=3\.1'"):
        page()
