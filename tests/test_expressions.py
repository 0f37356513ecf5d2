"""Filter expressions: the right rows, and expressions that must do nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import threading

import duckdb
import numpy as np
import pytest

from rdsearch import expressions
from rdsearch.catalog import Catalog
from rdsearch.errors import InputError
from rdsearch.fasta import Record
from tests.described import RECORDS, ROWS, expected, write_catalog


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_catalog(tmp_path_factory.mktemp("filters"))


@pytest.fixture(scope="module")
def catalog(path):
    with Catalog(path) as opened:
        yield opened


def number(record: Record) -> int:
    return int(record.accession[1:])


@pytest.mark.parametrize(
    ("expression", "condition"),
    [
        ("organism = 'Escherichia coli' AND length < 40",
         lambda r: r.organism == "Escherichia coli" and len(r.sequence) < 40),
        ("sequence LIKE '%KDEL'", lambda r: r.sequence.endswith("KDEL")),
        ("ORGANISM ilike 'homo%' -- a comment", lambda r: r.organism == "Homo sapiens"),
        ("organism IS NULL", lambda r: r.organism is None),
        ("NOT (organism = 'Homo sapiens')",
         lambda r: r.organism not in (None, "Homo sapiens")),
        ("NULL", lambda r: False),
        ("true", lambda r: True),
        ("taxon_id IN (9606, 1409) OR gene = 'gene3'",
         lambda r: r.taxon_id in (9606, 1409) or r.gene == "gene3"),
        ("length BETWEEN 10 AND 20 /* both */ AND \"score x\" >= 12.5",
         lambda r: 10 <= len(r.sequence) <= 20 and number(r) >= 125),
        ("found > DATE '2015-01-01' AND year(found) < 2018",
         lambda r: 5 <= number(r) % 10 <= 7),
        ("list_contains(tags, 't2') AND tags[2] = 'u0'",
         lambda r: number(r) % 4 == 2 and number(r) % 5 == 0),
        ("list_has_any(tags, ['t1', 'u4'])", lambda r: number(r) % 4 == 1 or number(r) % 5 == 4),
        ("more.depth = 3", lambda r: number(r) % 6 == 3),
        ("proteins.length = 30", lambda r: len(r.sequence) == 30),
        ("organism LIKE '%_sch%coli%' OR organism ILIKE '%h%O%s%P%'",
         lambda r: r.organism in ("Escherichia coli", "Homo sapiens")),
        ("gene GLOB '*e?e*' OR regexp_matches(gene, NULL)", lambda r: r.gene),
        ("regexp_matches(sequence, 'C.{2,4}C')",
         lambda r: re.search("C.{2,4}C", r.sequence)),
        ("CASE WHEN existence = 1 THEN length > 30 ELSE gene IS NOT NULL END",
         lambda r: len(r.sequence) > 30 if r.existence == 1 else r.gene is not None),
        ("coalesce(gene, '') <> '' AND (length % 2)::BOOLEAN",
         lambda r: r.gene and len(r.sequence) % 2),
        ('"row" = 17', lambda r: ROWS[r.sequence] == 17),
        ("accession = 'p250'", lambda r: r.accession == "p250"),
        (" OR ".join(f"length = {n}" for n in range(5, 900, 2)), lambda r: len(r.sequence) % 2),
    ],
)  # fmt: skip
def test_rows_are_those_that_python_finds(catalog, expression, condition):
    rows = catalog.rows_where(expression)
    assert rows.dtype == np.int64
    assert rows.tolist() == expected(condition)


ATTACKS = {
    "; DROP TABLE rows": "syntax error",
    "true; DROP TABLE rows": "syntax error",
    "true); DROP TABLE rows; --": "syntax error",
    "true) OR (true": "syntax error",
    "true THEN 1 END; DROP TABLE rows; SELECT CASE WHEN true": "more than one|Only SELECT",
    "true THEN 1 WHEN length = 4": "more than one expression",
    "true THEN 1 END OR CASE WHEN true": "more than one expression",
    "true THEN 1 END UNION SELECT 1 FROM proteins WHERE CASE WHEN true": "more than one",
    "true THEN 1 END GROUP BY CASE WHEN true": "more than one expression",
    "true THEN 1 END LIMIT CASE WHEN true": "more than one expression",
    "true THEN 1 END QUALIFY CASE WHEN true": "more than one expression",
    "true THEN 1 END AND EXISTS (FROM 'SECRET') OR CASE WHEN true": "more than one",
    "true UNION SELECT 1": "syntax error",
    "true LIMIT 1": "syntax error",
    "true /* open": "unterminated|syntax error",
    "true AND --": "not complete",
    "read_csv('SECRET')": "read_csv is not a function",
    "read_text('SECRET') = 'x'": "read_text is not a function",
    "EXISTS (SELECT 1 FROM read_csv('SECRET'))": "sub-query",
    "length IN (SELECT length FROM proteins)": "sub-query",
    "length = ANY (SELECT 1)": "sub-query",
    "(FROM 'SECRET') = 'x'": "sub-query",
    "length IN 'SECRET'": "cannot be used",
    "'SECRET'": "Conversion Error",
    "\"SECRET\"": "no column .*single quotes",
    "ATTACH 'SECRET' AS x": "syntax error",
    "COPY proteins TO 'STOLEN'": "syntax error",
    "PRAGMA database_list": "syntax error",
    "SET threads = 1": "syntax error",
    "EXPORT DATABASE 'STOLEN'": "syntax error",
    "INSTALL httpfs": "syntax error",
    "count(*) > 1": "count_star is not a function",
    "max(length) = 4": "max is not a function",
    "row_number() OVER () = 1": "window function",
    "sum(length) OVER () = 1": "window function",
    "? = 1": "parameter",
    "$x = 1": "parameter",
    "COLUMNS('.*') = 1": "star",
    "list_filter(tags, t -> t = 'a') = []": "list_filter is not",
    "unnest(tags) = 'a'": "unnest is not a function",
    "grouping(length) = 1": "GROUPING_FUNCTION",
    "#1 = 1": "column by number",
    "getenv('HOME') = 'x'": "getenv is not a function",
    "current_setting('threads') = 'x'": "current_setting is not",
    "getvariable('x') = 'x'": "getvariable is not",
    "nextval('s') = 1": "nextval is not",
    "random() < 2": "random is not",
    "sleep_ms(100000) IS NULL": "sleep_ms is not",
    "write_log('x') IS NULL": "write_log is not",
    "system.main.sleep_ms(1) IS NULL": "sleep_ms is not",
    "main.lower(gene) = 'x' OR other.lower(gene) = 'x'": "lower is not",
    "repeat(sequence, 1000000000) = 'x'": "repeat is not",
    "lpad(gene, 1000000000, 'x') = 'x'": "lpad is not",
    "len(range(1000000000000)) = 1": "range is not",
    "replace(sequence, 'A', sequence) = 'x'": "replace is not",
    "sequence || sequence = 'x'": r"\|\| is not",
    "hex(hex(hex(sequence))) = 'x'": "hex is not",
    "levenshtein(sequence, sequence) = 1": "levenshtein is not",
    "regexp_matches(sequence, '(A{1,100}){1,10}Z')": "size 1,170",
    "regexp_matches(sequence, 'A.{200}H')": "size 208",
    "regexp_matches(sequence, gene)": "in quotes",
    "regexp_matches(sequence, 'A{" + "9" * 5_000 + "}')": "size 1,000,005,003",
    "regexp_matches(sequence, '" + ("(A){" + "9" * 4_000 + "}") * 4 + "')": "and 128 is allowed",
    "sequence LIKE '%A_%C%D%'": "3 wildcards for any text",
    "sequence NOT ILIKE '%%A%C%D%E%F'": "5 wildcards for any text",
    "sequence GLOB '*[A-C]*D*E'": "3 wildcards for any text",
    "sequence LIKE '!%%A_%C%D%' ESCAPE '!'": "3 wildcards for any text",
    "sequence LIKE gene": "need a pattern in quotes",
    "[['a']] = []": "list inside a list",
    "gene::INTEGER[100000000] = []": "casts to",
    "gene::kind = 'a'": "casts to kind",
    "gene::other.date = 'a'": "casts to date",
    "": "empty",
    " \n ": "empty",
    "gene = 'a\0'": "NUL",
    "gene = 'a\udcff'": "not text in UTF-8",
    "TRY_CAST(" + "9" * 40 + " AS TINYINT) IS NULL": "more than 38 digits",
    "length < ": "not complete",
    "lenght < 4": "no column 'lenght'; the nearest is length",
    "length < 'a'": "Conversion Error",
    "organism > DATE '2020-01-01' + 1 + gene": "Binder Error|Conversion Error",
    "NOT " * 70 + "true": "nested more than 64",
    "NOT " * 4_000 + "true": "nested",
    "(" * 3_000 + "'" + ")" * 3_000 + "'": "more than 256 opening brackets",
    " OR ".join(["gene LIKE 'a'"] * 101): "more than 100 functions",
    "length = 1 " * 3_000: "30,000|33,000 characters",
}  # fmt: skip


@pytest.mark.parametrize("expression", ATTACKS)
def test_what_is_no_condition_does_nothing(path, expression, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret.csv"
    secret.write_text("length\n30\n")
    before = path.read_bytes()
    reason = ATTACKS[expression]
    asked = expression.replace("SECRET", str(secret)).replace("STOLEN", str(tmp_path / "stolen"))
    with Catalog(path) as catalog:
        with pytest.raises(InputError, match=reason) as caught:
            catalog.rows_where(asked)
        message = str(caught.value)
        assert "row, accession, length" in message
        assert "tags, more, sequence" in message
        assert repr(asked)[1:20] in message or not asked.strip() or "\0" in asked
        assert len(message) < 1_000
        assert caught.value.expression == asked
        catalog.check()
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.csv"]
    assert secret.read_text() == "length\n30\n"


@pytest.mark.parametrize(
    "expression",
    [
        "EXISTS (SELECT 1 FROM read_csv('SECRET'))",
        "EXISTS (FROM 'SECRET')",
        "(SELECT content FROM read_text('SECRET')) IS NOT NULL",
        "true) ; COPY rows TO 'STOLEN'; SELECT (true",
        "true); ATTACH 'STOLEN' AS stolen; SELECT (true",
        "true); DROP VIEW proteins; SELECT (true",
        "true); SET lock_configuration = false; SELECT (true",
        "true); SET enable_external_access = true; SELECT (true",
    ],
)
def test_the_connection_refuses_what_the_check_would_let_pass(
    path, expression, tmp_path, monkeypatch
):
    monkeypatch.setattr(expressions, "check", lambda *_: None)
    secret = tmp_path / "secret.csv"
    secret.write_text("length\n30\n")
    before = path.read_bytes()
    asked = expression.replace("SECRET", str(secret)).replace("STOLEN", str(tmp_path / "stolen"))
    with Catalog(path) as catalog, pytest.raises(InputError):
        catalog.rows_where(asked)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.csv"]


def test_a_runaway_expression_is_interrupted_and_the_catalog_goes_on(path, monkeypatch):
    forever = "(SELECT count(*) FROM range(1000000000000) a, range(1000000) b) > 0"
    with Catalog(path) as catalog:
        with monkeypatch.context() as patched:
            patched.setattr(expressions, "check", lambda *_: None)
            caught = []

            def run():
                with pytest.raises(InputError, match=r"took longer than 0\.3 s") as error:
                    catalog.rows_where(forever, seconds=0.3)
                caught.append(error)

            runner = threading.Thread(target=run)
            runner.start()
            # Other readers neither wait for it nor are interrupted with it.
            while runner.is_alive():
                assert catalog.rows_of(["p7"]) == {"p7": ROWS[RECORDS[7].sequence]}
            runner.join()
            assert len(caught) == 1
        everything = list(range(len(ROWS)))
        assert catalog.rows_where("true").tolist() == everything


def test_brackets_without_end_crash_nothing(path):
    code = (
        "import sys; from rdsearch.catalog import Catalog\n"
        "from rdsearch.errors import InputError\n"
        "with Catalog(sys.argv[1]) as catalog:\n"
        "    for open, close in ('()', '[]', ('CASE WHEN true THEN ', ' END'), ('-', ''),\n"
        "                        ('abs(', ')'), ('(', ''), ('', ')'), ('1+', '')):\n"
        "        for times in (60, 900, 3_000):\n"
        "            text = open * times + 'true' + close * times\n"
        "            try: catalog.rows_where(text[:20_000])\n"
        "            except InputError: pass\n"
        "    print(len(catalog.rows_where('true')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{len(ROWS)}\n"), done.stderr


def test_every_allowed_function_is_scalar_and_without_effects():
    with duckdb.connect() as connection:
        known = connection.execute(
            "SELECT function_name, bool_and(function_type IN ('scalar', 'macro')), "
            "bool_or(coalesce(has_side_effects, false)) FROM duckdb_functions() "
            "WHERE function_type NOT IN ('aggregate', 'window') GROUP BY function_name"
        ).fetchall()
        aggregates = connection.execute(
            "SELECT function_name FROM duckdb_functions() WHERE function_type = 'aggregate'"
        ).fetchall()
    plain = {name for name, scalar, effects in known if scalar and not effects}
    assert plain >= expressions.FUNCTIONS
    assert not expressions.FUNCTIONS & {name for (name,) in aggregates}


def test_expressions_can_be_asked_by_many_threads(catalog):
    wrong = []

    def ask(length: int) -> None:
        for _ in range(40):
            found = catalog.rows_where(f"length = {length}").tolist()
            if found != expected(lambda r: len(r.sequence) == length):
                wrong.append(length)

    threads = [threading.Thread(target=ask, args=(length,)) for length in range(20, 26)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
