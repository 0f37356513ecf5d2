"""Values of one SQL type as another, without loss.

DuckDB's casts round numbers, drop the time of a date and the fields of a structure that the other
type has not. A column that keeps the type it has in an index must not lose values that way.
"""

from __future__ import annotations

import re

__all__ = ["conversion", "read_as_text"]

_WHOLE = re.compile(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)|DECIMAL\(.*\)|BIGNUM")
_APPROXIMATE = ("FLOAT", "DOUBLE")
# Read from text, these have lost how they were written.
_GUESSED = ("BOOLEAN", "BIGINT", "DOUBLE")


def read_as_text(kind: str, wanted: str) -> bool:
    """Whether a column of a table of text is converted from its text, not from what was guessed.

    ``007`` is text where text is wanted, and a whole number beside fractions keeps its last digits.

    Parameters
    ----------
    kind : str
        SQL type that was guessed.
    wanted : str
        SQL type that the column is to have.
    """
    return kind != wanted and (wanted == "VARCHAR" or kind in _GUESSED)


def conversion(value: str, kind: str, wanted: str, from_text: bool) -> tuple[str, str]:
    """SQL that converts a value, and SQL that is true where nothing is lost.

    Parameters
    ----------
    value : str
        SQL expression; not NULL where the second is asked for.
    kind, wanted : str
        Its SQL type and the one that it is to have.
    from_text : bool
        Whether the value comes from a table of text, where a structure is written out.

    Returns
    -------
    converted, kept : str
    """
    if wanted == "VARCHAR":
        return (f"{value} ->> '$'" if kind == "JSON" else f"CAST({value} AS VARCHAR)"), "true"
    if wanted == "JSON" and not (kind == "VARCHAR" and from_text):
        return f"to_json({value})", "true"
    result = f"TRY_CAST({value} AS {wanted})"
    return result, f"({result} IS NOT NULL AND {_survives(value, result, kind, wanted)})"


def _survives(value: str, result: str, kind: str, wanted: str) -> str:
    if kind == "JSON":
        return f"CAST(to_json({result}) AS VARCHAR) = CAST(json({value}) AS VARCHAR)"
    if kind == "VARCHAR":
        return _survives_text(value, result, wanted)
    if (kind == "BOOLEAN") != (wanted == "BOOLEAN"):
        return "false"
    if wanted in _APPROXIMATE:
        return "true"
    return f"TRY_CAST({result} AS {kind}) IS NOT DISTINCT FROM {value}"


def _survives_text(value: str, result: str, wanted: str) -> str:
    if _WHOLE.fullmatch(wanted):
        return f"TRY_CAST({value} AS DOUBLE) IS NOT DISTINCT FROM CAST({result} AS DOUBLE)"
    if wanted == "DATE":
        return f"TRY_CAST({value} AS TIMESTAMP) IS NOT DISTINCT FROM CAST({result} AS TIMESTAMP)"
    if wanted == "TIMESTAMP":
        # The time zone is UTC: an offset is not passed over.
        zoned = f"TRY_CAST({value} AS TIMESTAMP WITH TIME ZONE)"
        return f"CAST({zoned} AS TIMESTAMP) IS NOT DISTINCT FROM {result}"
    if wanted.endswith("]") or "(" in wanted:
        # Lists and structures: as they are written, but for spaces and quotes.
        return " = ".join(
            f"regexp_replace(CAST({text} AS VARCHAR), '[\\s\"'']', '', 'g')"
            for text in (value, result)
        )
    return "true"
