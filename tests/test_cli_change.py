"""The commands that change an index."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

import rdsearch
from rdsearch.cli import main

NEW = ">NEW1 first\nMKTAYIAKQRQISFVKSHFSRQ\n>NEW2 second\nMSDNGPQNQRNAPRITFGGP\n"


@pytest.fixture
def copy(mini_index, tmp_path):
    return shutil.copytree(mini_index, tmp_path / "mini")


def run(*arguments, **options):
    """Standard output and standard error of a command that succeeds."""
    result = CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False, **options)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def held(path):
    """Accessions that an index has of the new proteins, and how many it has of all."""
    with rdsearch.open(path) as index:
        found = index.catalog.rows_of(["NEW1", "NEW2", "NEW3"])
        return sorted(found), index.n_accessions


def test_a_database_that_grows(copy, tmp_path):
    fasta, table, ids = (tmp_path / name for name in ("new.fasta", "new.tsv", "ids.txt"))
    fasta.write_text(NEW)
    table.write_text("accession\tbatch\nNEW1\t7\n")
    _, before = held(copy)
    out, err = run("add", copy, fasta, "--metadata", table)
    assert out == ""
    assert "2 proteins added, 0 were there already; generation 2" in err
    assert f"{before + 2} accessions in 2 segments" in err
    assert held(copy) == (["NEW1", "NEW2"], before + 2)
    out, _ = run("search", copy, fasta, "-k", 1, "--where", "batch = 7", "--format", "jsonl")
    hits = [json.loads(line) for line in out.splitlines()]
    assert {hit["accession"] for hit in hits} == {"NEW1"}
    assert "0 proteins added, 2 were there already; generation 2" in run("add", copy, fasta)[1]
    more = ">NEW2 again\nMSDNGPQNQRNAPRITFGGP\n>NEW3\nMKLVWYACDEFGH\n"
    assert "1 protein added, 1 were there" in run("add", copy, "-", input=more)[1]
    fasta.write_text(">NEW1 corrected\nMKTAYIAKQRQISFVKSHFSRA\n")
    assert "1 protein updated; generation 4" in run("update", copy, fasta)[1]
    with rdsearch.open(copy) as index:
        row = index.catalog.rows_of(["NEW1"])["NEW1"]
        assert index.catalog.sequences([row]) == ["MKTAYIAKQRQISFVKSHFSRA"]
        assert index.catalog.proteins([row])[row][0]["batch"] == 7
    ids.write_text("NEW1\nABSENT\n")
    assert "1 protein removed, 1 were not there" in run("remove", copy, "--ids", ids)[1]
    assert "1 protein removed" in run("remove", copy, "--where", "accession = 'NEW3'")[1]
    assert held(copy) == (["NEW2"], before + 1)
    assert "in 1 segment" in run("compact", copy)[1]
    table.write_text("accession\tbatch\nNEW2\t9\nABSENT\t1\n")
    assert "1 protein updated, 1 were not there" in run("update", copy, "--metadata", table)[1]
    listed = json.loads(run("history", copy, "--json")[0])
    assert [one["number"] for one in listed] == list(range(8, 0, -1))
    assert [one["current"] for one in listed] == [True] + [False] * 7
    assert "as generation 2 was; generation 9" in run("rollback", copy, "--to", 2)[1]
    assert held(copy) == (["NEW1", "NEW2"], before + 2)
    assert "current" in run("history", copy)[0].splitlines()[2]
    assert "7 generations removed" in run("gc", copy, "--keep", 2)[1]
    assert run("verify", copy)[0].count("ok ") == 19
    assert "segments/000002" not in run("info", copy)[0]
    assert "000002" in run("info", copy)[0]


def test_merge(copy, mini_store, mini_chain, tmp_path):
    other, both = tmp_path / "other", tmp_path / "both"
    fasta = tmp_path / "new.fasta"
    fasta.write_text(NEW)
    chain = tmp_path / "chain.safetensors"
    mini_chain.save(chain)
    run("build", fasta, "--chain", chain, "--space-from", copy, "-o", other, "--quiet")
    _, err = run("merge", copy, other, "-o", both)
    assert "merged; generation 1" in err
    assert held(both) == (["NEW1", "NEW2"], held(copy)[1] + 2)
    rdsearch.verify(both)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("remove", "INDEX"), "give --ids or --where"),
        (("remove", "INDEX", "--where", "true", "--ids", "-"), "give --ids or --where"),
        (("add", "INDEX"), "Missing argument"),
        (("gc", "INDEX", "--keep", "0"), "0 is not in the range"),
        (("rollback", "INDEX"), "--to"),
    ],
)
def test_wrong_usage(copy, arguments, words):
    result = CliRunner().invoke(main, [str(copy) if one == "INDEX" else one for one in arguments])
    assert result.exit_code == 2
    assert words in result.output


def test_nothing_is_lost_by_a_wrong_command(copy):
    before = (copy / "manifest.json").read_bytes()
    for arguments, words in (
        (("update", copy), "say what to update"),
        (("remove", copy, "--where", "length > 0"), "this would remove all"),
        (("rollback", copy, "--to", "7"), "generation 7 cannot be gone back to"),
        (("merge", copy, copy, "-o", copy), "is one of the two indexes"),
    ):
        result = CliRunner().invoke(main, [*map(str, arguments)])
        assert result.exit_code == 1
        assert words in result.stderr
    assert (copy / "manifest.json").read_bytes() == before
