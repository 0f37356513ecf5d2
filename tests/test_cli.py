"""The commands as a user runs them: real processes, real files."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import click
import pytest

from rdsearch import samples
from rdsearch.cli import main

ONE = """>query one protein
MSTNPKPQRKTKRNTNRRPQDVKFPGGGQIVGGVYLLPRRGPRLGVRATRKTSERSQPRGRRQPIPKARRPEGRTWAQ
"""


def run(*arguments: object, stdin: str | bytes = "", code: int = 0, **environment: str):
    """Run rdsearch; returns (stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "rdsearch", *map(str, arguments)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=300,
        env={**os.environ, **environment},
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code, f"exit code {done.returncode}\n{out}\n{err}"
    assert "Traceback" not in err, err
    return out, err


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Forty short proteins and a chain file made by the commands."""
    folder = tmp_path_factory.mktemp("cli")
    with gzip.open(samples.CHAIN_SAMPLE, "rt") as file:
        entries = file.read().split(">")[1:41]
    (folder / "sample.fasta").write_text("".join(">" + entry for entry in entries))
    out, err = run(
        "fit", folder / "sample.fasta", "--family", "mini", "-o", folder / "chain.safetensors"
    )
    assert out == ""
    assert re.search(r"0\.5M\s+96\s+\d+\s+0\.\d+", err)
    return folder


def test_the_whole_path(small, tmp_path):
    fasta, chain = small / "sample.fasta", small / "chain.safetensors"
    extra = tmp_path / "extra.tsv"
    first = fasta.read_text().split()[0][1:]
    extra.write_text(f"accession\tweight\n{first}\t12\nUNKNOWN\t1\n")
    out, err = run("embed", fasta, "--chain", chain, "-o", tmp_path / "vectors")
    assert out == ""
    assert "40 sequences" in err
    target = tmp_path / "deep" / "indexes" / "one"
    out, err = run(
        "build", tmp_path / "vectors", "--chain", chain, "--metadata", extra, "-o", target
    )
    assert out == ""
    assert "40 sequences" in err
    assert "1 of 2 lines and of 40 proteins matched (no protein for UNKNOWN)" in err

    out, _ = run("search", target, fasta, "-k", 3, "--format", "tsv")
    lines = list(csv.DictReader(io.StringIO(out), delimiter="\t"))
    assert len(lines) == 120
    assert list(lines[0])[:4] == ["query", "rank", "accession", "score"]
    assert all(line["query"] == line["accession"] for line in lines if line["rank"] == "1")
    assert lines[0]["weight"] == "12"
    assert lines[1]["weight"] == ""

    out, _ = run("search", target, "-", "-k", 2, "--format", "jsonl", stdin=ONE)
    objects = [json.loads(line) for line in out.splitlines()]
    assert [found["rank"] for found in objects] == [1, 2]
    assert list(objects[0]) == list(lines[0])

    out, _ = run("search", target, "-", "--to-tier", "0.5M", "--shortlist", "0.1M:20", stdin=ONE)
    assert "0.1M" in out.splitlines()[1]
    assert "1.2M" not in out.splitlines()[1]

    out, _ = run("info", target)
    assert "0.1M:2000 > 4.8M" in out
    facts = json.loads(run("info", target, "--json")[0])
    assert facts["rows"] == 40
    assert facts["columns"]["weight"] == "BIGINT"

    out, _ = run("verify", target)
    assert out.count("ok ") == 13
    broken = target / "segments" / "000001" / "1.2M.faiss"
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes(content)
    out, err = run("verify", target, code=1)
    assert "WRONG  segments/000001/1.2M.faiss" in out
    assert "SHA-256" in err


@pytest.mark.slow
def test_build_from_fasta_leaves_only_the_index(small, tmp_path):
    target = tmp_path / "index"
    arguments = ("build", small / "sample.fasta", "--chain", small / "chain.safetensors")
    run(*arguments, "-o", target)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    _, err = run(*arguments, "-o", target, code=1)
    assert "there is an index already. Add --overwrite" in err
    run(*arguments, "-o", target, "--overwrite")
    run("verify", target)


@pytest.mark.slow
def test_members_can_be_chosen(small, tmp_path):
    chain = tmp_path / "short.safetensors"
    _, err = run(
        "fit", small / "sample.fasta", "--family", "mini", "--members", "0.1M,1.2M", "-o", chain
    )
    assert re.search(r"1\.2M\s+128\s+\d+", err)
    assert "0.5M" not in err
    run("build", small / "sample.fasta", "--chain", chain, "-o", tmp_path / "index")
    out, _ = run("search", tmp_path / "index", small / "sample.fasta", "-k", 1)
    assert "1.2M" in out.splitlines()[1]


def test_ctrl_c_leaves_no_index_and_the_same_command_goes_on(small, tmp_path):
    target = tmp_path / "index"
    command = [sys.executable, "-m", "rdsearch", "build", str(small / "sample.fasta")]
    command += ["--chain", str(small / "chain.safetensors"), "-o", str(target)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        done = tmp_path / ".index.building" / "vectors" / "done" / "0.1M"
        while not done.exists() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not target.exists()
    assert done.exists()
    run(*command[3:])
    run("verify", target)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.mark.slow
def test_vectors_out_and_in(small, tmp_path):
    fasta, chain = small / "sample.fasta", small / "chain.safetensors"
    run("embed", fasta, "--chain", chain, "--keep-members", "-o", tmp_path / "vectors")
    run("export", tmp_path / "vectors", "-o", tmp_path / "rd.parquet")
    build = ("build", fasta, "--chain", chain, "--vectors", tmp_path / "rd.parquet")
    run(*build, "-o", tmp_path / "a")
    run("build", tmp_path / "vectors", "--chain", chain, "-o", tmp_path / "b")
    search = [run("search", tmp_path / name, fasta, "--format", "tsv", "-k", 3)[0] for name in "ab"]
    assert search[0] == search[1]
    _, err = run(
        "embed", fasta, "--chain", chain, "--per-residue", "--tier", "0.5M",
        "-o", tmp_path / "residues.h5",
    )  # fmt: skip
    assert "40 sequences" in err
    other = tmp_path / "other.safetensors"
    run("fit", fasta, "--family", "mini", "--members", "0.1M,1.2M", "-o", other)
    run("build", tmp_path / "vectors", "--chain", other, "-o", tmp_path / "c")
    run("verify", tmp_path / "c")
    _, err = run("embed", fasta, "--chain", other, "-o", tmp_path / "vectors", code=1)
    assert "holds a store of something else (members: 0.1M, 0.5M, 1.2M, 4.8M there" in err


@pytest.mark.slow
def test_a_protein_in_two_files_counts_once(small, tmp_path):
    fasta, chain = small / "sample.fasta", small / "chain.safetensors"
    first = fasta.read_text().split(">")[1]
    (tmp_path / "again.fasta").write_text(f">{first}>new\nMKV\n")
    (tmp_path / "other.fasta").write_text(f">{first.split()[0]}\nMKV\n")
    options = ("--chain", chain, "--block-rows", "8")
    _, err = run("embed", fasta, tmp_path / "again.fasta", *options, "-o", tmp_path / "v")
    assert "41 sequences" in err
    _, err = run("embed", fasta, tmp_path / "other.fasta", *options, "-o", tmp_path / "w", code=1)
    assert "stands in another file with another sequence" in err


def test_quiet_says_nothing(small, tmp_path):
    fasta, chain = small / "sample.fasta", small / "chain.safetensors"
    out, err = run("embed", fasta, "--chain", chain, "-o", tmp_path / "v", "--quiet")
    assert out + err == ""


def test_weights_commands(tmp_path):
    out, _ = run("weights", "list", "--family", "mini")
    assert out.count(".safetensors") == 4
    out, err = run("weights", "list", "--weights", tmp_path)
    assert out.count("not on this machine") <= 6
    assert f"looked in {tmp_path}" in err
    out, _ = run("weights", "path", "0.1M", "4.8M", "--family", "mini")
    assert out.count("\n") == 2
    out, _ = run("weights", "fetch", "0.1M", "--family", "mini")
    assert "fingerprint" in out
    _, err = run("weights", "path", "8M", "--weights", tmp_path, code=1, TORCH_HOME=str(tmp_path))
    assert "rdsearch weights fetch 8M" in err


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["search", "absent", "-"], ONE, "no index here"),
        (["info", "absent"], "", "no index here"),
        (["verify", "absent"], "", "no index here"),
        (["fit", "-", "--family", "mini", "-o", "x"], ">a\nMKV\n", "3 residues, fewer than"),
        (["fit", "-", "--family", "mini", "-o", "x"], "", "standard input: expected"),
        (["fit", "-", "--family", "mini", "-o", "x"], b"\x00\x01\x02", "standard input"),
        (["fit", "-", "--family", "mini", "--members", "3B", "-o", "x"], ONE, "no member '3B'"),
    ],
)
def test_errors_are_named(tmp_path, monkeypatch, arguments, stdin, words):
    monkeypatch.chdir(tmp_path)
    _, err = run(*arguments, stdin=stdin, code=1)
    assert err.startswith("rdsearch: error: ")
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_there_are_named(small, tmp_path):
    empty = tmp_path / "weights"
    empty.mkdir()
    _, err = run(
        "fit", small / "sample.fasta", "--members", "8M", "--weights", empty, "-o", tmp_path / "c",
        code=1, TORCH_HOME=str(tmp_path / "torch"),
        HTTPS_PROXY="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9",
    )  # fmt: skip
    assert "esm2_t6_8M_UR50D.pt" in err
    assert str(empty) in err
    assert "https://" in err


def test_usage_errors_leave_with_two():
    run("search", code=2)
    run("nonsense", code=2)
    _, err = run("search", "x", "-", "--shortlist", "many", code=2)
    assert "expected a number, or TIER:NUMBER" in err


def test_a_closed_pipe_is_no_error(mini_index, proteins_file):
    command = f"{sys.executable} -m rdsearch search {mini_index} {proteins_file} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_tsv_without_hits_has_its_header(mini_index, tmp_path):
    empty = tmp_path / "one.fasta"
    empty.write_text(ONE)
    out, _ = run("search", mini_index, empty, "--format", "tsv", "-k", 1)
    assert out.startswith("query\trank\taccession\tscore\tscore_0.1M\t")


@pytest.mark.skipif(shutil.which("script") is None, reason="needs util-linux script")
def test_progress_is_only_for_terminals(small, tmp_path):
    build = (
        f"{sys.executable} -m rdsearch embed {small / 'sample.fasta'} "
        f"--chain {small / 'chain.safetensors'} -o {tmp_path / 'v'}"
    )
    done = subprocess.run(
        ["script", "-qec", f"stty cols 120 rows 30; {build}", "/dev/null"],
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert b"residues/s" in done.stdout


def commands(group: click.Group, prefix: tuple[str, ...] = ()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command


@pytest.mark.parametrize("path", [path for path, _ in commands(main)], ids=" ".join)
def test_every_command_shows_an_example(path):
    command = dict(commands(main))[path]
    assert "rdsearch " + " ".join(path) in (command.help or "")
