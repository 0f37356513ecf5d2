"""Filter expressions: simple ones against SQLite, all others give rows or a named error.

DuckDB runs them in a process of its own (`tests.fuzzing`), which also checks that each left the
catalog as it was and the next one is answered.
"""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import strategies as st

from rdsearch.expressions import FUNCTIONS
from tests.described import RECORDS, ROWS
from tests.fuzzing import PIECES, Process, fuzz, mutated, words


@pytest.fixture(scope="module")
def where():
    process = Process("where")
    yield process.run
    process.close()


@pytest.fixture(scope="module")
def sqlite():
    """The rows that SQLite finds: another parser, another evaluation."""
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA case_sensitive_like = ON")
    columns = ("accession", "organism", "taxon_id", "gene", "existence", "sequence")
    connection.execute(
        f'CREATE TABLE proteins ("row", length, "score x" REAL, {", ".join(columns)})'
    )
    for i, record in enumerate(RECORDS):
        values = [getattr(record, name) for name in columns]
        line = [ROWS[record.sequence], len(record.sequence), i / 10, *values]
        connection.execute(f"INSERT INTO proteins VALUES ({','.join('?' * len(line))})", line)

    def rows(expression: str) -> list[int]:
        found = connection.execute(
            f'SELECT DISTINCT "row" FROM proteins WHERE ({expression}\n) ORDER BY "row"'
        )
        return [row for (row,) in found]

    yield rows
    connection.close()


# Expressions that mean the same in DuckDB and in SQLite. Operands stand in brackets, for the
# dialects differ in precedence; NOT, AND and OR do not need them. Each level is made of the one
# below it.
QUOTED = st.one_of(
    st.sampled_from(["", "gene1", "Homo sapiens", "ACD", "KDEL", "p1", "é", "b'c", "--"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6),
).map(lambda text: "'" + text.replace("'", "''") + "'")  # fmt: skip
PATTERN = st.lists(
    st.sampled_from(["%", "_", "A", "K", "ene", "Homo", " ", "''", "."]), max_size=5
).map("".join).filter(lambda text: text.count("%") < 3)  # fmt: skip
COMPARISON = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">=", "IS DISTINCT FROM"])
NOT = st.sampled_from(["", "NOT "])


def simple(depth: int) -> tuple[st.SearchStrategy[str], ...]:
    """Numbers, texts and conditions up to a depth."""
    number = st.one_of(
        st.sampled_from(["length", "taxon_id", "existence", '"score x"', "proteins.length"]),
        st.sampled_from(["LENGTH", "0.5", "562", "1e1", "NULL"]),
        st.integers(-99, 999).map(str),
        st.integers(1, 9).map("(length % {})".format),
    )  # fmt: skip
    text = st.one_of(
        st.sampled_from(["accession", "organism", "gene", "sequence", "Gene", '"organism"']),
        st.sampled_from(["upper(gene)", "lower(sequence)", "LOWER ( accession )"]),
        QUOTED,
    )
    condition = st.one_of(
        st.sampled_from(["true", "FALSE", "NULL"]),
        st.builds("({}) {} ({})".format, number, COMPARISON, number),
        st.builds("({}) {} ({})".format, text, COMPARISON, text),
        st.builds("{} {}LIKE '{}'".format, st.sampled_from(["gene", "sequence", "organism"]), NOT,
                  PATTERN),
    )  # fmt: skip
    for _ in range(depth):
        number, text, condition = (
            st.one_of(
                number,
                st.builds("({} {} {})".format, number, st.sampled_from("+-"), number),
                st.builds("({} * {})".format, number, st.integers(-9, 9)),
                st.builds("{}({}, {})".format, st.sampled_from(["coalesce", "nullif"]), number,
                          number),
                st.builds("(CASE WHEN {} THEN {} ELSE {} END)".format, condition, number, number),
                st.builds("abs({})".format, number),
                st.builds("length({})".format, text),
            ),
            st.one_of(
                text,
                st.builds("substr({}, {}, {})".format, text, st.integers(1, 9), st.integers(0, 9)),
                st.builds("coalesce({}, {})".format, text, text),
            ),
            st.one_of(
                st.builds("({}) {} ({})".format, number, COMPARISON, number),
                st.builds("({}) {} ({})".format, text, COMPARISON, text),
                st.builds("({}) {}BETWEEN ({}) AND ({})".format, number, NOT, number, number),
                st.builds("({}) {}IN ({}, {}, {})".format, number, NOT, number, number, number),
                st.builds("({}) {}IN ({}, {})".format, text, NOT, text, text),
                st.builds("({}) IS {}NULL".format, st.one_of(number, text), NOT),
                st.builds("NOT {}".format, condition),
                st.lists(condition, min_size=2, max_size=5).map(" AND ".join),
                st.builds("{}{}{}{}{}".format, condition, JOINTS, condition, JOINTS, condition),
                st.builds("({})".format, condition),
            ),
        )  # fmt: skip
    return number, text, condition


JOINTS = st.sampled_from([" AND ", " or ", "\nAND ", " AND/* OR */", " OR -- AND\n"])
*_, CONDITION = simple(2)


@fuzz(CONDITION, examples=100)
def test_simple_expressions_find_what_sqlite_finds(where, sqlite, expression):
    assert where(expression) == sqlite(expression)


LEAVES = st.sampled_from([
    "row", "length", "accession", "gene", "organism", "taxon_id", "sequence", '"score x"', "found",
    "tags", "more", "more.depth", "tags[1]", "proteins.tags", "proteins", "id", "NULL", "true", "0",
    "-1", "1e308", "9223372036854775807", "1e-400", "0.1", "''", "'a'", "'%'", "'2020-02-29'",
    "DATE '2020-01-01'", "TIMESTAMP '1-1-1 1:1:1'", "INTERVAL 1 DAY", "[1, NULL]", "[]",
    "['a', gene]", "{'a': 1}", "MAP {'a': 1}", "'{\"a\": [1]}'::JSON", "'$.a[0]'", "'$..*'",
    "'C.{2}C'", "'('", "'nan'::DOUBLE", "'%Y-%m'", "'day'", "x'00'", "'\U0001f9ec'", "e'\\n'",
    "$$a$$", "9" * 50, "INTERVAL '99999' YEAR", "5::UTINYINT", "ROW(1)", "1::HUGEINT",
])  # fmt: skip
BETWEEN = st.sampled_from([
    *words("+ - * / // % ^ ** & | << >> -> ->> ^@ @> <@ && ~ !~ || = <> < >= LIKE ILIKE GLOB AND"),
    *words("OR IN ~~ !~~* ~~~ IS COLLATE"),
    *("SIMILAR TO", "IS DISTINCT FROM", "NOT LIKE", "AT TIME ZONE"),
])  # fmt: skip
NAMES = st.sampled_from(sorted(name for name in FUNCTIONS if name.isidentifier()))
TYPES = st.sampled_from([
    *words("BOOLEAN TINYINT INTEGER HUGEINT UBIGINT DOUBLE DECIMAL(3,1) DECIMAL(38,38) VARCHAR"),
    *words("DATE TIME TIMESTAMP INTERVAL JSON UUID BLOB BIT INTEGER[] TIMESTAMPTZ VARINT"),
    "UNION(a INT)",
])  # fmt: skip


def deeper(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{}({})".format, NAMES, value),
        st.builds("{}({}, {})".format, NAMES, value, value),
        st.builds("{}({}, {}, {})".format, NAMES, value, value, value),
        st.builds("({} {} {})".format, value, BETWEEN, value),
        st.builds("({}{})".format, st.sampled_from(["NOT ", "-", "~", "+", "@", "!"]), value),
        st.builds("{}::{}".format, value, TYPES),
        st.builds("TRY_CAST({} AS {})".format, value, TYPES),
        st.builds("{}[{}:{}]".format, value, value, value),
        st.builds("{}[{}]".format, value, value),
        st.builds("extract({} FROM {})".format, st.sampled_from(["year", "epoch", "x"]), value),
        st.builds("{} BETWEEN {} AND {}".format, value, value, value),
        st.builds("CASE {} WHEN {} THEN {} END".format, value, value, value),
    )


ONE = LEAVES | deeper(LEAVES)


@fuzz(deeper(ONE) | deeper(LEAVES | deeper(ONE)), examples=150)
def test_any_functions_of_anything(where, expression):
    """Types that do not fit, places outside, overflow: rows, or what is wrong."""
    answered(where(expression))


def answered(answer: list[int] | str) -> None:
    if isinstance(answer, str):
        assert answer.startswith("InputError: the filter "), answer
    else:
        assert set(answer) <= set(ROWS.values())


TOKENS = st.sampled_from([
    *words("SELECT FROM WHERE ORDER BY GROUP HAVING LIMIT UNION WITH AS CASE WHEN THEN ELSE END"),
    *words("""( ) [ ] { } , ; . : :: ' " $ $1 ? # @ * % -- /* */ \\ $$ e' x' '' "" => -> := ! ~"""),
    *words("proteins rows accessions length gene sequence tags more row true NULL AND OR NOT IS"),
    *words("read_csv COPY ATTACH DROP PRAGMA SET INSERT EXISTS VALUES TABLE unnest range lambda"),
    *words("1 -1 1e9 0x1F 1_0 .5 5. 'a' 'b''c'"),
    *("\n", "\t", "\r", "\x0b", "\u00a0", "\u200b", "\ufeff", "é", "\U0001f9ec"),
])  # fmt: skip


@fuzz(
    st.one_of(
        st.lists(TOKENS, max_size=25).map(" ".join),
        st.lists(st.one_of(TOKENS, CONDITION), max_size=8).map(" ".join),
        st.lists(st.one_of(TOKENS, CONDITION), max_size=8).map("".join),
        st.text(max_size=60),
        st.lists(st.sampled_from(PIECES), max_size=4).map(
            lambda pieces: b"length".join(pieces).decode("utf-8", "surrogateescape")
        ),
        st.builds(lambda text, n: text * n, st.sampled_from(
            ["(", "NOT ", "[", "-", "1+", "a.", "CASE WHEN ", "'a'||", "(SELECT ", "{'a':", "::INT",
             "length IN (1) AND ", "coalesce(", "\"a\".", "(1,"]), st.integers(1, 3_000)),
    ),
    examples=150,
)  # fmt: skip
def test_anything_else(where, expression):
    answered(where(expression))


@fuzz(st.data(), CONDITION, examples=100)
def test_mutated_expressions(where, data, expression):
    text = data.draw(mutated(expression.encode())).decode("utf-8", "replace")
    answered(where(text))
