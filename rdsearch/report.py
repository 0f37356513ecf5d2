"""Results as one HTML file: it needs no network, prints well, and is read without a mouse.

Jinja escapes everything that comes from sequences, tables and options. The page forbids itself to
load anything, and to run another script than its own.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rdsearch.a3m import paired
from rdsearch.errors import DependencyError
from rdsearch.fasta import ALPHABET, Record
from rdsearch.hits import ATTRIBUTES, Hit, QueryHits, is_own
from rdsearch.reportplot import calibration_plot
from rdsearch.tables import evalue_text, flat, readable

if TYPE_CHECKING:
    from rdsearch.outputs import Run

__all__ = ["ALIGNED", "ALIGNED_IN_ALL", "LISTED", "html"]

#: Hits of a query that are listed, the best ones.
LISTED = 500
#: Of these, those with details and alignment.
ALIGNED = 50
#: Alignments of a whole report.
ALIGNED_IN_ALL = 2000

_FOLDER = Path(__file__).with_name("data") / "report"
_BLOCK = 60
# An e-value's bar is full at the best one of the report, or here: below, more says nothing.
_FULL = 50.0
# Ranks up to these are shown in one shade each, dark to light.
_SHADES = (1, 3, 10, 100)
# What a hit of the report shows elsewhere.
_SHOWN = frozenset({*ATTRIBUTES, "accessions"})


def html(
    results: Iterable[QueryHits],
    out: IO[str],
    columns: Sequence[str],
    run: Run,
    *,
    listed: int = LISTED,
    aligned: int = ALIGNED,
    aligned_in_all: int = ALIGNED_IN_ALL,
) -> int:
    """Write a report.

    Parameters
    ----------
    results : iterable of QueryHits
        All are collected, as text.
    out : text file
    columns : sequence of str
        Those of the catalog among them are shown with a hit's details.
    run : rdsearch.outputs.Run
    listed, aligned, aligned_in_all : int, optional
        Hits a query that are listed, and with details; alignments in the report. The report says
        what is left out.

    Returns
    -------
    int
        Hits, those that are left out too.

    Raises
    ------
    DependencyError
        jinja2 is not installed; or pyopal, which knows the matrix, and there are alignments.
    InputError
        There is no such matrix.
    """
    template = _template()
    extra = [name for name in columns if not is_own(name) and name not in _SHOWN]
    positive = _Positive(run.matrix)
    queries: list[dict[str, Any]] = []
    left = aligned_in_all
    for number, (query, hits) in enumerate(results, start=1):
        detailed = min(aligned, left)
        queries.append(_query(number, query, hits[:listed], detailed, extra, positive))
        queries[-1]["hits"] = len(hits)
        left -= sum(hit["alignment"] is not None for hit in queries[-1]["listed"])
    shown = list(chain.from_iterable(query["listed"] for query in queries))
    found = sum(query["hits"] for query in queries)
    style, script = ((_FOLDER / f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    page = template.stream(
        style=_marked(style),
        script=_marked(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        run=run,
        settings=[(flat(name), flat(str(value))) for name, value in run.settings.items()],
        facts=_facts(run.index),
        tiers=run.index.get("tiers", ()),
        plot=_marked(calibration_plot(run.calibration)) if run.calibration else None,
        queries=queries,
        n_hits=found,
        n_without=sum(not query["hits"] for query in queries),
        has={name: any(hit[name] for hit in shown) for name in ("evalue", "probability", "span")},
        evalue_bar=_evalue_bar(shown),
        evalue_text=evalue_text,
        limits={"listed": listed, "aligned": aligned, "in_all": aligned_in_all},
    )
    page.enable_buffering(64)
    page.dump(out)
    return found


class _Positive:
    """Which pairs of residues have a positive score; the matrix is read when it is needed."""

    def __init__(self, matrix: str) -> None:
        self._matrix = matrix
        self._pairs: frozenset[str] | None = None

    def __contains__(self, pair: str) -> bool:
        if self._pairs is None:
            from rdsearch.karlin import substitution_scores

            lines = zip(ALPHABET, substitution_scores(self._matrix).tolist(), strict=True)
            self._pairs = frozenset(
                one + other
                for one, scores in lines
                for other, score in zip(ALPHABET, scores, strict=True)
                if score > 0
            )
        return pair in self._pairs


def _query(
    number: int,
    query: Record,
    hits: Sequence[Hit],
    detailed: int,
    extra: Sequence[str],
    positive: _Positive,
) -> dict[str, Any]:
    """What the template shows of a query; texts are on one line."""
    ranked = any(at.rank is not None for hit in hits for at in hit.tiers)
    tiers = [at.tier for at in hits[0].tiers] if hits else []
    return {
        "number": number,
        "id": flat(query.id),
        "description": flat(query.protein_name or query.description),
        "organism": flat(query.organism or ""),
        "length": len(query.sequence),
        "ranked": ranked,
        "tiers": tiers if ranked or len(tiers) > 1 else [],
        "listed": [
            _hit(query, hit, ranked, place < detailed, extra, positive)
            for place, hit in enumerate(hits)
        ],
    }


def _hit(
    query: Record,
    hit: Hit,
    ranked: bool,
    detailed: bool,
    extra: Sequence[str],
    positive: _Positive,
) -> dict[str, Any]:
    found = hit.alignment
    line: dict[str, Any] = {
        "rank": hit.rank,
        "accession": flat(hit.accession),
        "name": flat(hit.protein_name or ""),
        "organism": flat(hit.organism or ""),
        "length": hit.length,
        "score": f"{hit.score:.3f}",
        "score_bar": _percent(hit.score),
        "number": hit.evalue,
        "evalue": None if hit.evalue is None else evalue_text(hit.evalue),
        "probability": None if hit.probability is None else f"{hit.probability:.3f}",
        "tiers": [_at_tier(at.rank, at.score, ranked) for at in hit.tiers],
        "span": None,
        "alignment": None,
        "detailed": detailed,
        "facts": _hit_facts(hit, extra) if detailed else (),
    }
    if found is not None:
        length = len(query.sequence)
        line |= {
            "span": f"{found.query_start}–{found.query_end}",
            "span_left": _percent((found.query_start - 1) / length),
            "span_width": _percent((found.query_end - found.query_start + 1) / length),
            "identity": f"{100 * found.identity:.1f}",
            "bits": f"{found.bits:.1f}",
            "aligned_evalue": evalue_text(found.evalue),
            "found": found,
        }
        if detailed and hit.sequence is not None:
            line["alignment"] = _blocks(query.sequence, hit, positive)
    return line


def _hit_facts(hit: Hit, extra: Sequence[str]) -> list[tuple[str, str]]:
    """Names and values that a hit's details list; what is empty is left out."""
    values = hit.as_dict()
    facts = [("accessions", ", ".join(hit.accessions))] if len(hit.accessions) > 1 else []
    facts += [(name, readable(name, values.get(name))) for name in extra]
    return [(flat(name), flat(value)) for name, value in facts if value]


def _at_tier(rank: int | None, score: float, ranked: bool) -> tuple[str, int]:
    """A cell of the strip, and its shade from 0, white, to 5."""
    if not ranked:
        return f"{score:.3f}", max(0, min(5, math.ceil(5 * score)))
    if rank is None:
        return "–", 0
    return f"{rank:,}", 5 - sum(rank > limit for limit in _SHADES)


def _percent(share: float) -> str:
    """A length for the style sheet."""
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def _evalue_bar(hits: Sequence[Mapping[str, Any]]) -> Callable[[float], str]:
    """Length of an e-value's bar: -log10, full at the report's best one."""

    def height(evalue: float) -> float:
        return -math.log10(evalue) if evalue > 0 else _FULL

    best = max((height(hit["number"]) for hit in hits if hit["number"] is not None), default=0.0)
    full = min(_FULL, max(best, 3.0))
    return lambda evalue: _percent(height(evalue) / full)


def _blocks(query: str, hit: Hit, positive: _Positive) -> list[str]:
    """An alignment in blocks of 60 columns, with a line between that shows what is alike."""
    found, target = hit.alignment, hit.sequence
    if found is None or target is None:
        return []
    upper, lower = paired(query, target, found)
    middle = "".join(
        one if one == other else "+" if one + other in positive else " "
        for one, other in zip(upper, lower, strict=True)
    )
    width = len(str(max(found.query_end, found.target_end)))
    one, other = found.query_start, found.target_start
    blocks = []
    for at in range(0, len(upper), _BLOCK):
        rows = [row[at : at + _BLOCK] for row in (upper, middle, lower)]
        last_one, last_other = (
            start + len(row) - row.count("-") - 1
            for start, row in ((one, rows[0]), (other, rows[2]))
        )
        # A row of gaps alone names the residue before it, as BLAST does.
        blocks.append(
            f"Query   {min(one, last_one):>{width}}  {rows[0]}  {last_one}\n"
            f"{'':{width + 10}}{rows[1]}\n"
            f"Target  {min(other, last_other):>{width}}  {rows[2]}  {last_other}"
        )
        one, other = last_one + 1, last_other + 1
    return blocks


def _facts(index: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the report says of the index; tiers have a table of their own."""
    facts = []
    for name, value in index.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{one}: {readable('', other)}" for one, other in value.items())
        if isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
            if name != "tiers":
                facts.append((name, str(len(value))))
            continue
        if isinstance(value, int) and not isinstance(value, bool):
            value = f"{value:,}"
        if (text := readable("", value)) != "":
            facts.append((flat(name.replace("_", " ")), flat(text)))
    return facts


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise DependencyError(
            "the report needs jinja2, which is not installed: pip install 'jinja2>=3.1'"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _marked(text: str) -> Any:
    """Text of our own that is HTML already."""
    from markupsafe import Markup

    return Markup(text)
