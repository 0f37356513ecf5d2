"""`rdsearch search --url`: real processes, and the same bytes as from the local command."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

import rdsearch
from rdsearch.cli import main
from rdsearch.fasta import read
from rdsearch.formats import FORMATS
from rdsearch.samples import QUERIES
from tests.described import distinct_proteins
from tests.serving import serving

pytestmark = pytest.mark.slow

TIMES = "html"  # a report says when it was made


@pytest.fixture(scope="module")
def many_index(tmp_path_factory, mini_chain):
    """Enough rows for e-values."""
    folder = tmp_path_factory.mktemp("many")
    file = folder / "proteins.fasta"
    lines = (f">{r.accession} name\n{r.sequence}\n" for r in distinct_proteins(120, 205))
    file.write_text("".join(lines))
    rdsearch.build(file, mini_chain, folder / "index", recipe="exact", dtype="float32")
    return folder / "index"


@pytest.fixture(scope="module")
def served(tmp_path_factory, mini_index, many_index):
    """A server of two indexes, mini and many."""
    path = tmp_path_factory.mktemp("served") / "mini"
    shutil.copytree(mini_index, path)
    # Few sequences, so that what goes through a job is quick too.
    with serving(path, f"many={many_index}", options=("--limit", "sequences=20")) as server:
        yield server


@pytest.fixture(scope="module")
def queries(tmp_path_factory, proteins_file):
    """Three queries: one of the index, one without hits below a small e-value, a UniProt header."""
    path = tmp_path_factory.mktemp("queries") / "q.fasta"
    own = list(itertools.islice(read(proteins_file), 2))
    other = next(record for record in read(QUERIES) if len(record.sequence) < 400)
    path.write_text(
        "".join(f">{r.id} {r.description}\n{r.sequence}\n" for r in (*own, other)),
        encoding="utf-8",
    )
    return path


def run(*options, code=0, env=None, **given):
    done = subprocess.run(
        [sys.executable, "-m", "rdsearch", "search", *map(str, options)],
        capture_output=True,
        timeout=200,
        check=False,
        env={**os.environ, **(env or {})},
        **given,
    )
    assert done.returncode == code, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done


def called(capfdbinary, *options, code=0):
    """The same within this process, which is faster."""
    with pytest.raises(SystemExit) as left:
        main([*map(str, ("search", *options))])
    captured = capfdbinary.readouterr()
    assert left.value.code == code, captured.err.decode()
    return captured


def both(capfdbinary, served, index, queries, *options):
    """Output and notes of the local command and of the remote one."""
    local = called(capfdbinary, index, queries, "--dtype", "float32", *options)
    name = "mini" if index.name == "mini" else "many"
    remote = called(capfdbinary, "--url", served.url, name, queries, *options)
    return local, remote


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in (TIMES, "a3m")])
@pytest.mark.parametrize(
    "options",
    [
        ("-k", 4),
        ("-k", 3, "--trace", "--align", "--to-tier", "1.2M", "--exclude-self"),
        ("--evalue", 0.5, "-k", 2, "--where", "length < 110"),
    ],
)
def test_the_same_bytes(capfdbinary, served, many_index, queries, format, options):
    local, remote = both(capfdbinary, served, many_index, queries, "--format", format, *options)
    assert remote.out == local.out
    assert remote.err == local.err
    assert local.out


@pytest.mark.parametrize(
    "options",
    [
        ("--no-evalues", "--columns", "rank,accession,score"),
        ("--rerank", "align", "--matrix", "PAM70", "--gap-open", "8", "--gap-extend", "2"),
        ("--from-tier", "0.5M", "--shortlist", "0.5M:20", "--nprobe", "1", "-k", "7"),
        ("--align", "--where", "accession > 'P'", "-k", "3"),
        ("--dbsize", "100000", "--evalue", "50"),
    ],
)
def test_options_mean_the_same(capfdbinary, served, many_index, queries, options):
    local, remote = both(capfdbinary, served, many_index, queries, "--format", "tsv", *options)
    assert (remote.out, remote.err) == (local.out, local.err)


def test_ids(capfdbinary, served, queries, tmp_path, proteins_file):
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"{r.accession}\n" for r in itertools.islice(read(proteins_file), 5)))
    local, remote = both(
        capfdbinary, served, served.index, queries, "--format", "jsonl", "--ids", ids
    )
    assert (remote.out, remote.err) == (local.out, local.err)
    assert remote.out.count(b"\n") == 15


def test_notes_are_said_as_the_local_command_says_them(capfdbinary, served, many_index, queries):
    local, remote = both(capfdbinary, served, served.index, queries, "--format", "tsv")
    assert b"no e-values: the index has 120 rows" in local.err
    assert remote.err == local.err
    options = ("--evalue", 1e6, "-k", 2, "--format", "tsv")
    local, remote = both(capfdbinary, served, many_index, queries, *options)
    assert b"3 queries have 2 hits, the most that are given: others may pass too" in local.err
    assert remote.err == local.err
    local, remote = both(capfdbinary, served, many_index, queries, *options, "--quiet")
    assert remote.err == local.err == b""


def test_files(capfdbinary, served, queries, tmp_path):
    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    local = called(
        capfdbinary, served.index, queries, "--dtype", "float32", "--format", "parquet", "-o", a
    )
    remote = called(
        capfdbinary, "--url", served.url, "mini", queries, "--format", "parquet", "-o", b
    )
    assert a.read_bytes() == b.read_bytes()
    assert remote == local
    both_to = [
        (served.index, queries, "--dtype", "float32", "-k", 5, "--format", "a3m"),
        ("--url", served.url, "mini", queries, "-k", 5, "--format", "a3m"),
    ]
    written = []
    for place, command in enumerate(both_to):
        folder = tmp_path / f"alignments{place}"
        called(capfdbinary, *command, "-o", folder)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert len(written[0]) == 3
    errors = [called(capfdbinary, *command, code=1).err for command in both_to]
    assert errors[0] == errors[1]
    assert b"an A3M file holds one query" in errors[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["a.parquet", "b.parquet", "alignments0", "alignments1"]
    )


def test_a_report(capfdbinary, served, queries, tmp_path):
    path = tmp_path / "report.html"
    called(capfdbinary, "--url", served.url, queries, "-k", 2, "--format", "html", "-o", path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert str(served.index) not in text  # where a server keeps its indexes is its own matter


def test_the_index_may_be_left_out_and_the_query_come_from_a_pipe(served, queries):
    named = run("--url", served.url, "mini", queries, "-k", 2, "--format", "tsv")
    command = ("--url", served.url, "-", "-k", 2, "--format", "tsv")
    # A proxy, here one that is not there, is not asked for what is on this machine.
    env = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    env |= {"NO_PROXY": "", "no_proxy": ""}
    piped = run(*command, input=queries.read_bytes(), env=env)
    assert piped.stdout == named.stdout
    assert named.stdout.count(b"\n") == 7


@pytest.mark.parametrize(
    "option",
    [
        ("--in-memory",),
        ("--explain",),
        ("--stream-layers",),
        ("--weights", "."),
        ("--device", "cpu"),
        ("--dtype", "float32"),
        ("--tokens-per-batch", "100"),
        ("--threads", "1"),
    ],
)
def test_options_for_this_machine(capfdbinary, queries, option):
    captured = called(capfdbinary, "--url", "http://127.0.0.1:9", queries, *option, code=2)
    assert f"{option[0]} is for a search on this machine".encode() in captured.err


def test_usage(capfdbinary, queries, tmp_path):
    url = ("--url", "http://127.0.0.1:9")
    assert b"Missing argument 'QUERY'" in called(capfdbinary, queries, code=2).err
    assert b"Missing argument 'INDEX'" in called(capfdbinary, *url, code=2).err
    missing = called(capfdbinary, *url, tmp_path / "none.fasta", code=2)
    assert b"none.fasta' does not exist" in missing.err
    assert b"need --align" in called(capfdbinary, *url, queries, "--gap-open", 3, code=2).err
    assert b"has columns of its own" in called(capfdbinary, *url, queries, "--columns", "score",
                                               code=2).err  # fmt: skip
    assert b"a server takes FASTA" in called(capfdbinary, *url, "mini", tmp_path, code=1).err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("other", "Q"), "there is no index of this name; there are mini, many"),
        (("mini", "Q", "--where", "no_such_column > 1"), "no_such_column"),
        (("mini", "Q", "--fdr", "0.1"), "calibrat"),
        (("mini", "Q", "--to-tier", "9T"), "9T"),
        (("mini", "Q", "--format", "tsv", "--columns", "none"), "the hits have no column 'none'"),
        (("mini", "Q", "-k", "100000"), "100"),
    ],
)
def test_errors(capfdbinary, served, queries, tmp_path, options, message):
    path = tmp_path / "hits"
    given = [queries if one == "Q" else one for one in options]
    captured = called(capfdbinary, "--url", served.url, *given, "-o", path, code=1)
    assert captured.err.startswith(b"rdsearch: error: ")
    assert message in captured.err.decode()
    assert captured.out == b""
    assert not list(tmp_path.iterdir())


def test_a_bad_query_names_its_line(capfdbinary, tmp_path):
    path = tmp_path / "bad.fasta"
    path.write_text(">q\nMKV\nM*K\n")
    captured = called(capfdbinary, "--url", "http://127.0.0.1:9", path, code=1)
    assert f"{path}, line 3: a stop (*)".encode() in captured.err


def test_no_server(queries, tmp_path):
    with socket.socket() as bound:  # taken, and nobody listens
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        done = run("--url", url, queries, "-o", tmp_path / "hits", code=1)
    assert f"nothing answers at {url}" in done.stderr.decode()
    assert "rdsearch serve INDEX" in done.stderr.decode()
    assert not list(tmp_path.iterdir())


def test_binary_formats_are_not_for_a_terminal(served, queries):
    pty = pytest.importorskip("pty")
    parent, child = pty.openpty()
    command = ["search", "--url", served.url, str(queries), "--format", "parquet"]
    with open(child, "wb") as terminal:  # noqa: PTH123 - a descriptor
        done = subprocess.run(
            [sys.executable, "-m", "rdsearch", *command],
            stdout=terminal,
            stderr=subprocess.PIPE,
            timeout=100,
            check=False,
        )
    os.close(parent)
    assert done.returncode == 1
    assert b"parquet is binary and not for a terminal" in done.stderr


def test_another_encoding(served, queries):
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    local = run(served.index, queries, "--dtype", "float32", env=env)
    remote = run("--url", served.url, "mini", queries, env=env)
    assert remote.stdout == local.stdout


def many(path, queries, count):
    """A file of so many queries, and none that a cache knows."""
    sequence = next(iter(read(queries))).sequence
    lines = (f">q{i}\n{sequence[i % 60 :]}{'ACDEFGHIKLMNPQRSTVWY'[i // 60 % 20]}\n"
             for i in range(count))  # fmt: skip
    path.write_text("".join(lines))
    return path


def test_large_inputs_go_through_a_job(capfdbinary, served, many_index, queries, tmp_path):
    """Other batches, other roundings of the last digit: values are compared, not bytes."""
    large = many(tmp_path / "large.fasta", queries, 24)
    local, remote = both(
        capfdbinary, served, many_index, large, "-k", 2, "--evalue", 1e6, "--format", "jsonl"
    )
    ours, theirs = (
        [json.loads(line) for line in captured.out.splitlines()] for captured in (remote, local)
    )
    assert len(theirs) == 48
    for one, other in zip(ours, theirs, strict=True):
        for name in ("query", "rank", "accession", "accessions", "length"):
            assert one[name] == other[name]
        assert one["score"] == pytest.approx(other["score"], abs=3e-6)
        assert one["evalue"] == pytest.approx(other["evalue"], rel=1e-3)
    assert b"24 queries have 2 hits" in local.err
    assert remote.err == local.err
    assert any('"path": "/v1/jobs"' in line for line in served.lines)


def test_an_interrupt_leaves_no_file_and_no_job(served, queries, tmp_path):
    large = many(tmp_path / "large.fasta", queries, 3000)
    out = tmp_path / "out"
    out.mkdir()
    before = len(served.lines)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "rdsearch", "search", "--url", served.url, "mini"),
            *(str(large), "--align", "-k", "50", "--format", "tsv", "-o", str(out / "hits.tsv")),
        ],
        stderr=subprocess.PIPE,
    )
    logged(served, before, '"POST", "path": "/v1/jobs", "status": 202')
    time.sleep(2)  # the command has to read the answer, which names the job
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert b"Traceback" not in told
    assert not list(out.iterdir())
    # 202: what was cancelled ran; what had ended would be removed, 204.
    logged(served, before, '"DELETE", "path": "/v1/jobs/{id}", "status": 202')


def logged(served, before, text):
    """Wait until the server's log says so."""
    deadline = time.monotonic() + 60
    while not any(text in line for line in served.lines[before:]):
        assert time.monotonic() < deadline, served.lines[-5:]
        time.sleep(0.05)


def test_keys(queries, mini_index, tmp_path):
    keys = tmp_path / "keys"
    made = subprocess.run(
        [sys.executable, "-m", "rdsearch", "key", "new", "test", "--file", str(keys)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    key = made.stdout.strip()
    out = tmp_path / "hits.tsv"
    command = (queries, "-k", 1, "--format", "tsv", "-o", out)
    with serving(mini_index, options=("--api-key-file", str(keys))) as server:
        for given in ({"RDSEARCH_API_KEY": ""}, {"RDSEARCH_API_KEY": "wrong"}):
            done = run("--url", server.url, *command, env=given, code=1)
            assert b"RDSEARCH_API_KEY" in done.stderr
            assert not out.exists()
        run("--url", server.url, *command, env={"RDSEARCH_API_KEY": key})
    assert out.read_text().count("\n") == 4
    assert key not in "".join(server.lines)


def test_no_heavy_library_is_loaded(served, queries):
    code = (
        "import sys\nfrom rdsearch.cli import main\n"
        f"try: main(['search', '--url', {served.url!r}, {str(queries)!r}, '-k', '1'])\n"
        "except SystemExit as left: print(left.code, [m for m in ('torch', 'faiss', 'duckdb', "
        "'fastapi', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
