"""Every format is read back by a reader that people use; files appear whole or not at all."""

from __future__ import annotations

import io
import os
import random
import signal
import string
import subprocess
import sys
from pathlib import Path

import pytest

from rdsearch import durable, outfiles, outputs
from rdsearch.errors import InputError
from tests.results import COLUMNS, TYPES, results

ALL = list(outputs.FORMATS)
TEXT = [name for name, one in outputs.FORMATS.items() if not one.binary]


# Nothing found, and what cannot be written.


@pytest.mark.parametrize("found", [[], results()[1:2]], ids=["no query", "no hits"])
@pytest.mark.parametrize("format_", ALL)
def test_no_hits_are_no_error(format_, found, tmp_path):
    path = tmp_path / f"hits.{format_}"
    assert outputs.write(found, path, format_, COLUMNS, types=TYPES) == 0
    if format_ in ("tsv", "csv"):
        assert len(path.read_text().splitlines()) == 1
    if format_ in ("jsonl", "m8", "fasta"):
        assert path.read_bytes() == b""
    if format_ == "parquet":
        from pyarrow import parquet

        table = parquet.read_table(path)
        assert (table.num_rows, table.column_names) == (0, COLUMNS)
        assert str(table.schema.field("taxon_id").type) == "int32"
    if format_ == "html":
        assert "No hits" in path.read_text()


def test_formats_that_are_not_there():
    with pytest.raises(InputError, match="no format 'xml'; there are table, tsv, csv"):
        outputs.write([], "-", "xml", COLUMNS)


def test_parquet_needs_bytes():
    with pytest.raises(InputError, match="expected a binary file, found one of text"):
        outputs.write([], io.StringIO(), "parquet", COLUMNS)


@pytest.mark.parametrize("format_", TEXT)
def test_a_binary_file_takes_text_and_stays_open(format_, tmp_path):
    found = results()[:1]
    file, path = io.BytesIO(), tmp_path / "hits.txt"
    run = outputs.Run(time="now")
    outputs.write(found, file, format_, COLUMNS, run=run)
    outputs.write(found, path, format_, COLUMNS, run=run)
    assert file.getvalue() == path.read_bytes()


# Files.


def broken(error: BaseException):
    yield results()[0]
    raise error


@pytest.mark.parametrize("format_", ALL)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("no"), OSError(5, "input")])
def test_a_search_that_fails_leaves_the_old_file(format_, error, tmp_path):
    path = tmp_path / "hits.out"
    path.write_text("old")
    with pytest.raises((KeyboardInterrupt, InputError)):
        outputs.write(broken(error), path, format_, COLUMNS, types=TYPES)
    assert [one.name for one in tmp_path.iterdir()] == ["hits.out"]
    assert path.read_text() == "old"


def test_errors_about_other_files_keep_their_names(tmp_path):
    error = FileNotFoundError(2, "gone", "/somewhere/8M.faiss")
    with pytest.raises(FileNotFoundError, match=r"8M\.faiss"):
        outputs.write(broken(error), tmp_path / "hits.tsv", "tsv", COLUMNS)


def test_a_killed_process_leaves_no_half_file(tmp_path):
    path = tmp_path / "hits.tsv"
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom rdsearch import outputs\n"
        "from tests.results import COLUMNS, results\n"
        "def search():\n    yield from results()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"outputs.write(search(), Path({str(path)!r}), 'tsv', COLUMNS)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    # What is left over is overwritten the next time.
    outputs.write(results(), path, "tsv", COLUMNS)
    assert [one.name for one in tmp_path.iterdir()] == ["hits.tsv"]


def test_a_file_is_complete_and_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path = tmp_path / "hits.tsv"
    steps = []

    def on_step(step: str) -> None:
        if step.startswith("replace") and not path.exists():
            assert len(durable.temporary_file(path).read_text().splitlines()) == 5
        steps.append(step.split()[0])

    monkeypatch.setattr(durable, "on_step", on_step)
    outputs.write(results(), path, "tsv", COLUMNS)
    assert list(dict.fromkeys(steps)) == ["sync", "replace"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.tsv").write_text("old")
    (tmp_path / "link.tsv").symlink_to("real.tsv")
    outputs.write(results(), tmp_path / "link.tsv", "tsv", COLUMNS)
    assert (tmp_path / "link.tsv").is_symlink()
    assert len((tmp_path / "real.tsv").read_text().splitlines()) == 5


def test_a_pipe_with_a_name_is_written_to(tmp_path):
    """As a device would be; not tried on one, which a mistake would replace."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    # Open at both ends, so that neither waits for the other.
    keep = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        outputs.write(results()[:1], path, "m8", COLUMNS)
        read = os.read(keep, 1 << 16)
    finally:
        os.close(keep)
    assert read.startswith(b"q1\tP00001\t")
    assert path.is_fifo()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a folder; expected the name of a file"),
        ("absent/hits.tsv", "no folder .*absent: make it first"),
        ("file/hits.tsv", "no folder|Not a directory"),
    ],
)
def test_places_that_cannot_be_written(name, message, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        outputs.write(results(), tmp_path / name, "tsv", COLUMNS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("format_", ["tsv", "parquet", "html"])
def test_a_full_disk_is_named(format_, tmp_path, monkeypatch):
    def full(path: Path, binary: bool):
        path.touch()
        return Path("/dev/full").open("wb" if binary else "w")

    monkeypatch.setattr(outfiles, "_opened", full)
    path = tmp_path / "hits.out"
    with pytest.raises(InputError, match=r"cannot be written to .*hits\.out: No space left"):
        outputs.write(results(), path, format_, COLUMNS, types=TYPES)
    assert list(tmp_path.iterdir()) == []


# Standard output.


@pytest.mark.parametrize("format_", ["table", "tsv", "csv", "jsonl", "m8", "fasta"])
def test_hits_are_written_as_they_come(format_):
    out = io.StringIO()
    lengths = []

    def search():
        for one in results():
            lengths.append(len(out.getvalue()))
            yield one

    outputs.write(search(), out, format_, COLUMNS)
    assert outputs.FORMATS[format_].streaming
    assert lengths[0] < lengths[1] <= lengths[2] < len(out.getvalue())


@pytest.mark.parametrize("format_", TEXT)
def test_a_locale_without_the_letters(format_):
    code = (
        "from rdsearch import outputs\nfrom rdsearch.hits import QueryHits\n"
        "from tests.results import COLUMNS, hit, results\n"
        "found = [QueryHits(results()[0].query, [hit(1, protein_name='é…', sequence='MK')])]\n"
        f"outputs.write(found, '-', {format_!r}, COLUMNS)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    if format_ == "table":
        assert "é?" in done.stdout.decode("latin-1")
    elif format_ not in ("m8", "a3m"):
        assert "é…" in done.stdout.decode("utf-8")


@pytest.mark.parametrize("format_", ALL)
def test_standard_output_is_a_pipe(format_, tmp_path):
    code = (
        "from rdsearch import outputs\nfrom tests.results import COLUMNS, TYPES, results\n"
        f"found = results()[:1]\nrun = outputs.Run(time='now')\n"
        f"outputs.write(found, '-', {format_!r}, COLUMNS, types=TYPES, run=run)\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        check=True,
        timeout=60,
    )
    path = tmp_path / "hits.out"
    run = outputs.Run(time="now")
    outputs.write(results()[:1], path, format_, COLUMNS, types=TYPES, run=run)
    assert done.stdout == path.read_bytes()


def test_importing_loads_no_heavy_library():
    heavy = ("torch", "faiss", "duckdb", "pyarrow", "scipy", "h5py", "pandas", "jinja2", "pyopal")
    code = f"import sys, rdsearch.outputs; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_versions_are_those_installed():
    import numpy as np

    assert outputs.versions()["numpy"] == np.__version__
    assert outputs.Run().version


def test_safe_names():
    from rdsearch.a3m import safe_name

    taken: set[str] = set()
    rng = random.Random(0)
    for _ in range(300):
        name = safe_name(
            "".join(rng.choices(string.printable + "é/\\", k=rng.randint(0, 3))), taken
        )
        assert set(name) <= set(string.ascii_letters + string.digits + "._-")
        assert not name.startswith((".", "-"))
    assert len(taken) == 300
