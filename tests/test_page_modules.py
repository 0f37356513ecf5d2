"""Modules of the page that need no browser: FASTA, filters, alignments, links, numbers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import rdsearch
from rdsearch.alignment import Alignment

FOLDER = Path(rdsearch.__file__).parent / "data" / "page"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")


def run_node(script: str):
    """What a script prints as JSON; it can import the page's modules by name."""
    source = re.sub(r'from "(\w+\.js)"', rf'from "{FOLDER.as_uri()}/\1"', script)
    command = [NODE, "--input-type=module", "-e", source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_filters_become_sql():
    cases = [
        ({"column": "organism", "type": "VARCHAR", "operator": "contains", "value": "O'Hara"},
         "contains(lower(\"organism\"), lower('O''Hara'))"),
        ({"column": 'a"b', "type": "VARCHAR", "operator": "is", "value": "x"}, "\"a\"\"b\" = 'x'"),
        ({"column": "gene", "type": "VARCHAR", "operator": "starts", "value": "H%"},
         "starts_with(lower(\"gene\"), lower('H%'))"),
        ({"column": "gene", "type": "VARCHAR", "operator": "not", "value": "x"},
         "\"gene\" IS DISTINCT FROM 'x'"),
        ({"column": "gene", "type": "VARCHAR", "operator": "is", "value": "  "}, ""),
        ({"column": "length", "type": "INTEGER", "operator": "range", "low": "100", "high": "4e2"},
         '"length" >= 100 AND "length" <= 4e2'),
        ({"column": "mass", "type": "DOUBLE", "operator": "range", "low": "", "high": ".5"},
         '"mass" <= .5'),
        ({"column": "reviewed", "type": "BOOLEAN", "operator": "false"}, 'NOT "reviewed"'),
        ({"column": "day", "type": "TIMESTAMP", "operator": "range", "low": "2020-01-31"},
         "CAST(\"day\" AS DATE) >= DATE '2020-01-31'"),
        ({"column": "ec", "type": "VARCHAR[]", "operator": "has", "value": "1.1.1.1"},
         "list_contains(\"ec\", '1.1.1.1')"),
        ({"column": "taxa", "type": "BIGINT[]", "operator": "has", "value": "9606"},
         'list_contains("taxa", 9606)'),
        ({"column": "meta", "type": "STRUCT(a INTEGER)", "operator": "present"},
         '"meta" IS NOT NULL'),
    ]  # fmt: skip
    wrong = [
        {"column": "length", "type": "BIGINT", "operator": "range", "low": "1 OR true"},
        {"column": "day", "type": "DATE", "operator": "range", "high": "yesterday"},
        {"column": "taxa", "type": "BIGINT[]", "operator": "has", "value": "x"},
    ]
    found = run_node(
        f"""
        import {{ condition, where }} from "filters.js";
        const failed = (one) => {{
          try {{ condition(one); return null; }} catch (error) {{ return error.message; }}
        }};
        const cases = {json.dumps([case for case, _ in cases])};
        const wrong = {json.dumps(wrong)};
        console.log(JSON.stringify([cases.map(condition), wrong.map(failed), where(cases)]));
        """
    )
    assert found[0] == [sql for _, sql in cases]
    assert all(found[1])
    assert found[2] == " AND ".join(sql for _, sql in cases if sql)


def test_filters_are_what_duckdb_reads(tmp_path):
    """Every kind of filter, run by DuckDB on values that try to break out."""
    import duckdb

    from rdsearch.expressions import check

    filters = [
        {"column": 'na"me', "type": "VARCHAR", "operator": "contains", "value": "IT'S"},
        {"column": 'na"me', "type": "VARCHAR", "operator": "starts", "value": "it'"},
        {"column": "n", "type": "INTEGER", "operator": "range", "low": "-1", "high": "2"},
        {"column": "ok", "type": "BOOLEAN", "operator": "true"},
        {
            "column": "day",
            "type": "TIMESTAMP",
            "operator": "range",
            "low": "2020-01-31",
            "high": "2020-01-31",
        },
        {"column": "xs", "type": "VARCHAR[]", "operator": "has", "value": "a'b"},
        {"column": "gone", "type": "VARCHAR", "operator": "missing"},
    ]
    sql = run_node(
        f"""
        import {{ where }} from "filters.js";
        console.log(JSON.stringify(where({json.dumps(filters)})));
        """
    )
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE proteins AS SELECT * FROM (VALUES "
            "('it''s one', 2, true, TIMESTAMP '2020-01-31 23:59:00', ['a''b', 'c'], NULL),"
            "('it''s two', 3, true, TIMESTAMP '2020-01-31 23:59:00', ['a''b', 'c'], NULL),"
            "('it''s six', 2, true, TIMESTAMP '2020-02-01 00:00:00', ['a''b', 'c'], NULL)) "
            't("na""me", n, ok, day, xs, gone)'
        )
        check(connection, sql, ['na"me', "n", "ok", "day", "xs", "gone"])
        found = connection.execute(f'SELECT "na""me" FROM proteins WHERE {sql}').fetchall()
    assert found == [("it's one",)]


def test_what_is_pasted_becomes_fasta():
    texts = [
        "MKV\nLAT",
        "  1 MKV lat\n 7 W*  ",
        ">a b c\r\nMK V\r\n>d\r\nL",
        "",
        "MKV?\nL",
        "\ufeff>x\nM",
    ]
    found = run_node(
        f"""
        import {{ asFasta, count, records }} from "fasta.js";
        const texts = {json.dumps(texts)};
        const read = (fasta) => [fasta, count(fasta), records(fasta)];
        console.log(JSON.stringify(texts.map((one) => read(asFasta(one)))));
        """
    )
    assert [one[0] for one in found] == [
        ">query_1\nMKV\nLAT", ">query_1\nMKVlat\nW*", ">a b c\r\nMK V\r\n>d\r\nL", "",
        ">query_1\nMKV?\nL", ">x\nM",
    ]  # fmt: skip
    assert [tuple(one[1].values()) for one in found] == [
        (1, 6),
        (1, 8),
        (2, 4),
        (0, 0),
        (1, 5),
        (1, 1),
    ]
    assert found[2][2][0] == {"id": "a", "description": "b c", "sequence": "MKV"}


def test_alignments_are_those_of_the_report():
    """Blocks as `rdsearch.report` prints them, gaps of a whole block too."""
    from rdsearch import report
    from tests.results import hit

    query, target = "MKVLATWHHG" * 12, "MRVIATW" + "HHGMKVLATW" * 9
    cigar = "7M3I60M65D10M"
    one = Alignment(9, 9.0, 1e-9, 0.5, 0.5, 1.0, 1.0, 3, 82, 2, 143, 145, 9, 2, cigar)
    target = (target * 2)[:200]
    expected = report._blocks(
        query, hit(1, alignment=one, sequence=target), report._Positive("BLOSUM62")
    )
    facts = {"cigar": cigar, "query_start": 3, "target_start": 2}
    found = run_node(
        f"""
        import {{ blockText, blocks }} from "alignment.js";
        const found = blocks({json.dumps(query)}, {json.dumps(target)}, {json.dumps(facts)});
        console.log(JSON.stringify(found.map((one) => blockText(one, 3))));
        """
    )
    assert found == expected


def test_what_is_alike_is_what_blosum62_says():
    from rdsearch.karlin import ALPHABET, substitution_scores

    scores = substitution_scores("BLOSUM62").tolist()
    found = run_node(
        f"""
        import {{ paired }} from "alignment.js";
        const letters = [...{json.dumps("".join(ALPHABET))}];
        const hit = {{ cigar: "1M", query_start: 1, target_start: 1 }};
        const line = (one) => letters.map((other) => paired(one, other, hit).middle);
        console.log(JSON.stringify(letters.map(line)));
        """
    )
    for one, letter in enumerate(ALPHABET):
        for other, second in enumerate(ALPHABET):
            alike = "+" if scores[one][other] > 0 else " "
            assert found[one][other] == (letter if letter == second else alike), letter + second


def test_links_carry_a_search():
    settings = {
        "index": "a b&c", "tier": "4.8M", "k": "25", "cut": "evalue", "evalue": "1e-3",
        "align": True, "self": False, "trace": True,
        "where": "organism = 'E. coli' AND length < 3 # 100%",
        "filters": [{"column": "x", "type": "DATE", "operator": "missing"}],
    }  # fmt: skip
    found = run_node(
        f"""
        import {{ LONGEST, decode, encode }} from "permalink.js";
        const settings = {json.dumps(settings)};
        const text = encode(settings, ">q é\\nMKV+L", 5);
        console.log(JSON.stringify([
          decode("#" + text),
          /[\\s"<>#]/.test(text),
          decode(encode(settings, "M".repeat(LONGEST + 1), LONGEST + 1)).fasta,
          decode("#results"),
          decode("#index=a&filters={{]").settings.filters,
        ]));
        """
    )
    assert found[0]["fasta"] == ">q é\nMKV+L"
    assert {key: found[0]["settings"][key] for key in settings} == settings
    assert found[1:] == [False, "", None, []]


def test_numbers_and_bars():
    found = run_node(
        """
        import { bytesText, evalueShare, evalueText, parametersText } from "numbers.js";
        import { ticksOf } from "spans.js";
        import { scaled, shadeOf } from "map.js";
        globalThis.document = null;
        console.log(JSON.stringify({
          e: [0, 1e-180, 1.9e-5, 0.00216, 0.9, 12.4, null].map(evalueText),
          bars: [0, 1e-50, 1e-25, 1, 10, 1000, null].map((one) => evalueShare(one, 0)),
          near: evalueShare(1e-3, 1e-3),
          bytes: [7, 1234, 12345678].map(bytesText),
          parameters: [110000, 6540000, 3e9].map(parametersText),
          ticks: [ticksOf(1), ticksOf(236), ticksOf(72)],
          shades: [0, 0.5, 1].map((one) => shadeOf(one, 0, 1)).concat(shadeOf(1, 1, 1)),
          place: scaled([[0, 0], [2, 1]], 220, 120, 10)([2, 1]),
        }));
        """
    )
    assert found["e"] == ["0", "1e-180", "1.9e-5", "0.0022", "0.9", "12", "–"]
    assert found["bars"] == [1, 1, pytest.approx(26 / 51), pytest.approx(1 / 51), 0, 0, 0]
    assert found["near"] == 1
    assert found["bytes"] == ["7 B", "1.2 kB", "12 MB"]
    assert found["parameters"] == ["110 thousand", "6.5 million", "3 billion"]
    assert found["ticks"][0] == [1]
    assert found["ticks"][1] == [1, 50, 100, 150, 200, 236]
    assert found["ticks"][2] == [1, 20, 40, 60, 72]
    assert found["shades"] == [0, 2, 4, 4]
    assert found["place"] == [210, 10]
