"""What a filter expression may be: one SQL condition on the columns of a protein, and no more.

DuckDB parses the text and says what it read as a tree; every node of the tree must be known here.
Nothing is looked for in the text itself, where quotes, comments and brackets can hide anything.

Three things are kept out. What reaches beyond the line at hand: sub-queries, aggregates, window
functions, functions of files, settings, sequences, time or chance. What takes memory without bound:
functions whose result can be much longer than their arguments (``repeat``, ``replace``, ``||``);
DuckDB does not count text that is being computed against its memory limit. And what takes time
without bound inside one block of lines, between which alone DuckDB can be interrupted: functions of
quadratic time (``levenshtein``), large regular expressions, and patterns of LIKE and GLOB with many
wildcards, for each of which DuckDB before 2.0 tries every place in the text.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import duckdb

from rdsearch.errors import InputError

__all__ = ["FUNCTIONS", "check", "refusal"]

#: Longest expression, in characters.
LONGEST = 20_000
#: Deepest nesting, and most functions and casts, of an expression.
DEEPEST, MOST_CALLS = 64, 100
#: Most opening brackets: DuckDB 2.0 takes time quadratic in those that are not closed.
MOST_BRACKETS = 256
#: Size of all regular expressions together: characters plus counts in braces, times the counts
#: after brackets. ``C.{2,4}C.{12}H`` has 14 + 16.
LARGEST_PATTERNS = 128
#: Most wildcards for any text (``%``, ``*``) in a pattern of LIKE or GLOB; one at the end is not
#: counted, and each counts twice in a pattern that has wildcards for one letter.
MOST_WILDCARDS = 4


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


#: Functions and operators that an expression may use: without side effects, with results that are
#: not much longer than the arguments, in time that grows with their length.
FUNCTIONS = _words(
    # operators, under DuckDB's names for them
    "+ - * / // % ^ ** & | << >> ~~ !~~ ~~* !~~* ~~~ ->> ^@ @> <@ &&",
    "like_escape not_like_escape ilike_escape not_ilike_escape",
    # text
    "lower upper lcase ucase length len char_length character_length strlen contains prefix",
    "suffix starts_with ends_with instr strpos position left right substr substring",
    "trim ltrim rtrim reverse strip_accents ascii unicode ord split_part string_split str_split",
    "regexp_matches regexp_full_match regexp_extract hamming",
    # numbers
    "abs ceil ceiling floor round trunc sqrt cbrt exp ln log log2 log10 pow power sign mod",
    "greatest least isnan isinf isfinite if nullif",
    # dates and intervals
    "year quarter month week day hour minute second dayofweek dayofyear date_part datepart",
    "date_trunc datetrunc date_diff datediff make_date strptime try_strptime epoch",
    "to_years to_months to_weeks to_days to_hours to_minutes to_seconds",
    # lists, structures, JSON
    "list_value list_contains list_has array_contains array_has list_has_any list_has_all",
    "array_has_any array_has_all list_position list_extract list_element array_extract",
    "array_length list_min list_max list_sum struct_extract map_extract element_at cardinality",
    "json_extract json_extract_string json_value json_exists json_contains json_array_length",
    "json_type json_valid",
)

_PREFIX, _SUFFIX = "SELECT 1 FROM proteins WHERE CASE WHEN ", "\nTHEN 1 END"
_OPERATORS = _words(
    "OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL OPERATOR_COALESCE OPERATOR_TRY",
    "COMPARE_IN COMPARE_NOT_IN ARRAY_EXTRACT ARRAY_SLICE STRUCT_EXTRACT ARRAY_CONSTRUCTOR",
)
_TYPES = _words(
    "BOOLEAN TINYINT SMALLINT INTEGER INT BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT",
    "FLOAT REAL DOUBLE DECIMAL NUMERIC VARCHAR TEXT STRING DATE TIME TIMESTAMP INTERVAL JSON UUID",
    "LIST",
)
_PLAIN = frozenset({"COMPARISON", "CONJUNCTION", "BETWEEN", "CASE", "COLLATE"})
_PATTERNS = frozenset({"regexp_matches", "regexp_full_match", "regexp_extract"})
_LIKES = _words(
    "~~ !~~ ~~* !~~* ~~~ like_escape not_like_escape ilike_escape not_ilike_escape",
)
_LISTS = frozenset({"list_value", "string_split", "str_split", "ARRAY_CONSTRUCTOR"})
_KINDS = {
    "SUBQUERY": "a sub-query",
    "WINDOW": "a window function",
    "PARAMETER": "a parameter",
    "LAMBDA": "a lambda (an arrow; for JSON take ->>)",
    "STAR": "a star",
    "POSITIONAL_REFERENCE": "a column by number",
    "DEFAULT": "DEFAULT",
}
_BRACES = re.compile(r"(\)?)\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}")
_MANY_DIGITS = 9
# Of a HUGEINT, the largest type that filters know.
_MOST_DIGITS = 38
_SHOWN = 200


def refusal(expression: str, reason: str, columns: Iterable[str]) -> InputError:
    """The error of an expression that cannot be used (attributes ``expression``, ``reason``).

    Parameters
    ----------
    expression : str
    reason : str
        What is wrong with it.
    columns : iterable of str
        Columns that there are.
    """
    shown = expression if len(expression) <= _SHOWN else expression[:_SHOWN] + "…"
    return InputError(
        f"the filter {shown!r} cannot be used: {reason}. Expected one SQL condition on the columns "
        + ", ".join(columns),
        expression=expression,
        reason=reason,
    )


def check(connection: duckdb.DuckDBPyConnection, expression: str, columns: Iterable[str]) -> None:
    """Refuse an expression that is more than a condition on the columns of one protein.

    Parameters
    ----------
    connection : DuckDBPyConnection
        Only its parser is used.
    expression : str
    columns : iterable of str
        Columns that it may name; case does not count.

    Raises
    ------
    InputError
        With what is wrong and the columns there are.
    """
    names = list(columns)
    reason = _fault(connection, expression, names)
    if reason is not None:
        raise refusal(expression, reason, names)


class _FaultError(Exception):
    """What is wrong, on its way out of the tree."""


def _fault(
    connection: duckdb.DuckDBPyConnection, expression: str, columns: list[str]
) -> str | None:
    if not expression.strip():
        return "it is empty"
    if "\0" in expression:
        return "it has a NUL character"
    if any("\ud800" <= character <= "\udfff" for character in expression):
        return "it is not text in UTF-8"
    if len(expression) > LONGEST:
        return (
            f"it has {len(expression):,} characters, and {LONGEST:,} are allowed; a long list of "
            "accessions goes into a file (--ids)"
        )
    if expression.count("(") > MOST_BRACKETS:
        return f"it has more than {MOST_BRACKETS} opening brackets"
    try:
        _Walk(columns).visit(_condition(connection, expression))
    except _FaultError as fault:
        return str(fault)
    return None


def _condition(connection: duckdb.DuckDBPyConnection, expression: str) -> dict[str, Any]:
    """The tree of the expression, if it is one.

    Between CASE WHEN and THEN stands exactly one expression: whatever closes a bracket, adds a
    clause or starts a second statement gives a tree of another shape.
    """
    found = connection.execute(
        "SELECT json_serialize_sql($1::VARCHAR)", [_PREFIX + expression + _SUFFIX]
    ).fetchone()
    try:
        parsed: dict[str, Any] = json.loads(found[0]) if found else {"error": True}
    except RecursionError:  # the tree is deeper than the interpreter's stack
        raise _FaultError("it is nested too deeply") from None
    if parsed["error"]:
        if int(parsed.get("position", 0)) >= len((_PREFIX + expression).encode()):
            raise _FaultError("it is not complete")
        message = str(parsed.get("error_message")).partition("\n")[0] or "it cannot be parsed"
        if message.startswith("Max expression depth"):
            message = "it is nested too deeply"
        raise _FaultError(message)
    several = _FaultError("it is more than one expression")
    if len(parsed["statements"]) != 1:
        raise several
    node = parsed["statements"][0]["node"]
    case = node.get("where_clause")
    clean = (
        node["type"] == "SELECT_NODE"
        and not node["modifiers"]
        and not node["group_expressions"]
        and not any(node.get(clause) for clause in ("having", "sample", "qualify"))
        and len(node["select_list"]) == 1
        and node["from_table"]["type"] == "BASE_TABLE"
        and case is not None
        and case["class"] == "CASE"
        and len(case["case_checks"]) == 1
        and case["case_checks"][0]["then_expr"]["class"] == "CONSTANT"
        and case["else_expr"]["class"] == "CONSTANT"
    )
    if not clean:
        raise several
    condition: dict[str, Any] = case["case_checks"][0]["when_expr"]
    return condition


class _Walk:
    """Visits every node; the trees of DuckDB 1.1 to 2.0 differ in detail."""

    def __init__(self, columns: list[str]) -> None:
        self._columns = columns
        self._known = {name.lower() for name in columns}
        self._calls = 0
        self._patterns = 0

    def visit(self, node: Any, depth: int = 0, in_list: bool = False) -> None:
        if isinstance(node, list):
            for part in node:
                self.visit(part, depth, in_list)
        if not isinstance(node, dict):
            return
        if depth > DEEPEST:
            raise _FaultError(f"it is nested more than {DEEPEST} levels deep")
        kind = node.get("class")
        if kind is not None:
            self._check(node, str(kind))
            makes_list = node.get("function_name", node.get("type")) in _LISTS
            if makes_list and in_list:
                raise _FaultError("it has a list inside a list")
            in_list, depth = in_list or makes_list, depth + 1
        for part in node.values():
            self.visit(part, depth, in_list)

    def _check(self, node: dict[str, Any], kind: str) -> None:
        if kind == "COLUMN_REF":
            self._column([str(name) for name in node["column_names"]])
        elif kind == "FUNCTION":
            self._function(node)
        elif kind == "CAST":
            self._count()
            if "cast_type" in node:  # DuckDB before 2.0
                self._old_type(node["cast_type"])
        elif kind == "TYPE":
            self._type(str(node["type_name"]), node.get("catalog"), node.get("schema"))
        elif kind == "OPERATOR":
            if node["type"] not in _OPERATORS:
                raise _FaultError(f"it has the operator {node['type']}")
        elif kind == "CONSTANT":
            _number(node.get("literal") or {})
        elif kind not in _PLAIN:
            raise _FaultError(f"it has {_KINDS.get(kind, kind.lower())}")

    def _count(self) -> None:
        self._calls += 1
        if self._calls > MOST_CALLS:
            raise _FaultError(f"it has more than {MOST_CALLS} functions and casts")

    def _column(self, path: list[str]) -> None:
        name = path[0]
        if name.lower() == "proteins" and len(path) > 1:
            name = path[1]
        if name.lower() in self._known:
            return
        close = difflib.get_close_matches(name.lower(), sorted(self._known), n=1)
        reason = f"there is no column {name!r}"
        if close:
            nearest = next(known for known in self._columns if known.lower() == close[0])
            reason += f"; the nearest is {nearest}"
        if not name.isidentifier():
            reason += " (text stands in single quotes)"
        raise _FaultError(reason)

    def _function(self, node: dict[str, Any]) -> None:
        self._count()
        name = str(node["function_name"]).lower()
        # DuckDB 1 writes main.list_value for brackets.
        home = (node.get("catalog") or "system", node.get("schema") or "main")
        if name not in FUNCTIONS or home != ("system", "main"):
            close = difflib.get_close_matches(name, sorted(FUNCTIONS), n=1, cutoff=0.75)
            hint = f" (near: {close[0]})" if close and close[0] != name else ""
            raise _FaultError(f"{name} is not a function that a filter may use{hint}")
        if node.get("filter") or node.get("distinct") or node["order_bys"]["orders"]:
            raise _FaultError(f"{name} is used as an aggregate")
        if name in _PATTERNS:
            self._regular(_constant(node, f"{name} needs a regular expression in quotes"))
        elif name in _LIKES:
            _like(_constant(node, "LIKE and GLOB need a pattern in quotes"))

    def _regular(self, text: str) -> None:
        size, times = len(text), 1
        for group, least, most in _BRACES.findall(text):
            digits = most or least or "0"
            # More digits than Python would turn into a number are too many anyway.
            count = int(digits) if len(digits) < _MANY_DIGITS else 10**_MANY_DIGITS
            size, times = (size, times * max(count, 1)) if group else (size + count, times)
            if size * times > LARGEST_PATTERNS:
                break
        self._patterns += size * times
        if self._patterns > LARGEST_PATTERNS:
            raise _FaultError(
                f"its regular expressions have size {self._patterns:,} (characters and counts in "
                f"braces), and {LARGEST_PATTERNS} is allowed"
            )

    def _old_type(self, described: dict[str, Any]) -> None:
        facts = described.get("type_info") or {}
        if described["id"] == "USER":
            self._type(facts["user_type_name"], facts.get("catalog"), facts.get("schema"))
        else:
            self._type(str(described["id"]), None, None)
        if "child_type" in facts:
            self._old_type(facts["child_type"])

    def _type(self, name: str, catalog: str | None, schema: str | None) -> None:
        if name.upper() not in _TYPES or catalog or schema:
            raise _FaultError(f"it casts to {name}")


def _constant(node: dict[str, Any], otherwise: str) -> str:
    """The second argument of a function, which is a constant."""
    arguments = list(_arguments(node))
    if len(arguments) < 2 or arguments[1].get("class") != "CONSTANT":
        raise _FaultError(otherwise)
    constant = arguments[1]
    if "literal" in constant:
        return str(constant["literal"]["text"])
    return str(constant["value"].get("value", ""))  # NULL has none


def _number(literal: dict[str, Any]) -> None:
    """DuckDB 2.0 takes larger whole numbers, and TRY_CAST of one for an error of its own."""
    digits = sum(map(str.isdigit, str(literal.get("text", ""))))
    if literal.get("kind") == "INTEGER" and digits > _MOST_DIGITS:
        raise _FaultError(f"it has a whole number of more than {_MOST_DIGITS} digits")


def _like(pattern: str) -> None:
    several = len(re.findall(r"[%*]+(?!\Z)", pattern))
    weight = several * (2 if re.search(r"[_?\[]", pattern) else 1)
    if weight > MOST_WILDCARDS:
        raise _FaultError(
            f"its pattern has {several} wildcards for any text before its end; with _, ? or [ in "
            f"it {MOST_WILDCARDS // 2} are allowed, else {MOST_WILDCARDS}. Write it as "
            "regexp_matches, or join several conditions with AND"
        )


def _arguments(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "children" in node:
        yield from node["children"]
    for argument in node.get("arguments", ()):
        yield argument["expression"]
