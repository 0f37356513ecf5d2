"""What the fuzz tests share: how long they try, mutations of valid input, and a process to crash.

In the ordinary suite each property is tried with one fixed seed, so that a change seldom turns red
what it did not touch. ``RDSEARCH_FUZZ_SECONDS=4 pytest tests/test_fuzz*.py`` tries each with new
seeds for so many seconds; a failure logs its seed, and ``RDSEARCH_FUZZ_SEED=…`` repeats it.

``python -m tests.fuzzing KIND`` is the process in which input meets C++ that it might kill.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import inspect
import json
import logging
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from rdsearch.errors import RdsearchError

SECONDS = float(os.environ.get("RDSEARCH_FUZZ_SECONDS", "0"))
SEED = os.environ.get("RDSEARCH_FUZZ_SEED")
#: A single example that takes longer hangs; none needs a second.
HANGS = 60

_LOGGER = logging.getLogger(__name__)


def fuzz(*strategies: Any, examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Try a property on examples; those of the strategies are its last arguments.

    The arguments before them are fixtures. Each example has `HANGS` seconds.
    """

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        names = list(inspect.signature(check).parameters)
        fixtures = names[: len(names) - len(strategies)]

        @functools.wraps(check)
        def test(**given_fixtures: Any) -> None:
            def limited(example: tuple[Any, ...]) -> None:
                with _no_hang():
                    check(*(given_fixtures[name] for name in fixtures), *example)

            limited.__name__ = check.__name__  # hypothesis prints it
            for number in _seeds():
                try:
                    seed(number)(_settings(examples)(given(st.tuples(*strategies))(limited)))()
                except BaseException:
                    _LOGGER.error("repeat it with RDSEARCH_FUZZ_SEED=%d", number)
                    raise

        test.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in fixtures]
        )
        del test.__wrapped__  # pytest would look for the strategies' arguments as fixtures
        return test

    return decorate


def _seeds() -> Iterator[int]:
    """0 in the ordinary suite, else new ones until the time is over."""
    if SEED is not None:
        yield int(SEED)
    elif not SECONDS:
        yield 0
    else:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            yield random.SystemRandom().randrange(1 << 32)


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        print_blob=False,  # it repeats functions of modules; the seed does here
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def _no_hang() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"one example took more than {HANGS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANGS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def words(*lines: str) -> list[str]:
    """The words of some lines."""
    return " ".join(lines).split()


# Pieces that have broken readers of text before: as text, and as bytes that are none.
_TEXTS = (
    *words(
        """, ; " "" ' ` \\ | > >> . * - # ## = == % { } [ ] ( ) {} [] {{ [[ : null true NaN""",
        r"""-Infinity 1e999 -0 "\ud800" "\u0000" accession sequence row id OS= OX= GN= PE= SV=""",
        "Tax= TaxID= Split=0 sp|P1|A_B UniRef50_ ../x /etc/passwd 2024-02-30 99999-01-01 24:00:00",
        "+-1 0x10 1_000",
    ),
    *("\0", "\n", "\r", "\r\n", "\n\n", "\t", "\t\t", "a\0b", " Split=1", "\x1c", "\x0b", "\x0c"),
    *("\ufeff", "\x85", "\u2028", "\u00a0", "\u202e", "\u0130", "\ufb01", "\u1e9e", "\U0001f9ec"),
    *("9" * 40, "9" * 5_000, " " * 3_000, "A" * 200_000, "[" * 3_000, "\t" * 3_000),
)
_NO_TEXTS = words("fffe feff c080 eda080 f4908080 80 ff")
PIECES = (*(text.encode() for text in _TEXTS), *map(bytes.fromhex, _NO_TEXTS))


@st.composite
def mutated(draw: Any, whole: bytes, most: int = 6) -> bytes:
    """`whole` after up to `most` changes: bits, bytes, slices, pieces."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, most))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from((1, 1, 2, 4, 16, 256, 4096)))
        change = draw(st.sampled_from(("bit", "byte", "cut", "end", "again", "piece", "set")))
        if change == "bit" and start < len(data):
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif change == "byte" and start < len(data):
            data[start] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFE, 0xFF, 10, 13, 32, 34)))
        elif change == "set":
            filler = draw(st.sampled_from((b"\0", b"\xff", b"\x80")))
            data[start : start + length] = filler * min(length, len(data) - start)
        elif change == "cut":
            del data[start : start + length]
        elif change == "end":
            del data[start:]
        elif change == "again":
            data[start:start] = data[start : start + length]
        elif change == "piece":
            data[start:start] = draw(st.sampled_from(PIECES))
    return bytes(data)


class Process:
    """Runs cases in another process, which is started again when it dies.

    Parameters
    ----------
    kind : str
        A function of `_KINDS`.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)

    def run(self, *case: str | bytes | None) -> Any:
        """What the function returns; a named error is the string of its name and message.

        Anything else that happens to it fails the test.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzzing", self._kind],
                cwd=Path(__file__).parents[1],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([_packed(part) for part in case]).encode() + b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], HANGS)[0]:
            self._end()
            pytest.fail(f"no answer in {HANGS} s")
        answer = process.stdout.readline()
        if not answer:
            code = process.wait()
            self._end()
            self._log.seek(0)
            pytest.fail(f"the process died ({code}): {self._log.read()[-2000:].decode('replace')}")
        result = json.loads(answer)
        if "escaped" in result:
            pytest.fail(result["escaped"])
        return result["result"]

    def close(self) -> None:
        """End the process."""
        self._end()
        self._log.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _packed(part: str | bytes | None) -> Any:
    return {"bytes": base64.b64encode(part).decode()} if isinstance(part, bytes) else part


def _unpacked(part: Any) -> Any:
    return base64.b64decode(part["bytes"]) if isinstance(part, dict) else part


def _metadata_cases(folder: Path) -> Callable[..., Any]:
    """Join a table to three proteins: its values, as text, by accession."""
    import duckdb

    from rdsearch.metadata import join_table, quoted

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        "CREATE TABLE accessions AS SELECT i AS position, 'P' || i AS accession, "
        "format('sp|P{}|P{}_X', i, i) AS id FROM range(1, 4) r(i)"
    )

    def join(ending: str, content: bytes) -> dict[str, dict[str, str | None]]:
        table = folder / f"t{ending}"
        table.write_bytes(content)
        try:
            report = join_table(connection, table, "joined", [])
            columns = "".join(f", {quoted(name)}::VARCHAR" for name in report.columns)
            lines = connection.execute(f"SELECT accession{columns} FROM joined").fetchall()
            return {name: dict(zip(report.columns, values, strict=True)) for name, *values in lines}
        finally:
            # Whatever the table was, the database goes on working.
            for name in ("staged", "staged_keys", "joined"):
                connection.execute(f"DROP TABLE IF EXISTS {name}")
            assert connection.execute("SELECT count(*) FROM accessions").fetchall() == [(3,)]
            table.unlink()

    return join


def _where_cases(folder: Path) -> Callable[..., Any]:
    """Rows of the catalog of `tests.described` that satisfy an expression."""
    from rdsearch.catalog import Catalog
    from tests.described import ROWS, write_catalog

    catalog = Catalog(write_catalog(folder))

    def rows(expression: str) -> list[int]:
        try:
            return list(map(int, catalog.rows_where(expression)))
        finally:
            # The expression has changed nothing, and the next one will be answered.
            assert len(catalog.rows_where("true")) == len(ROWS)
            assert [path.name for path in folder.iterdir()] == ["c.duckdb"]

    return rows


_KINDS = {"metadata": _metadata_cases, "where": _where_cases}


def _main(kind: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        run = _KINDS[kind](Path(name))
        for line in sys.stdin:
            case = [_unpacked(part) for part in json.loads(line)]
            answer: dict[str, Any]
            try:
                answer = {"result": run(*case)}
            except RdsearchError as error:
                answer = {"result": f"{type(error).__name__}: {error}"}
                if "path" in error.facts and not str(error).startswith(str(error.facts["path"])):
                    answer = {"escaped": f"its path is not in front: {error}"}
            except Exception:  # noqa: BLE001 (the test fails with it)
                answer = {"escaped": traceback.format_exc()}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    _main(sys.argv[1])
