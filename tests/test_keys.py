"""Keys of a server's clients, and the commands that make and remove them."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
import subprocess
import sys

import pytest
from click.testing import CliRunner

from rdsearch.cli_key import key as command
from rdsearch.errors import InputError, RdsearchError
from rdsearch.server import keys
from rdsearch.server.keys import Keys


def line(name: str, text: str, note: str = "") -> str:
    return f"{name}:{hashlib.sha256(text.encode()).hexdigest()}{note}\n"


@pytest.fixture
def file(tmp_path):
    """A file of keys `alpha` and `beta` of the clients a and b."""
    path = tmp_path / "keys"
    path.write_text(f"# keys\n\n{line('a', 'alpha')}{line('b', 'beta', ':2026-01-02')}")
    path.chmod(0o600)
    return path


def run(*arguments: object):
    return CliRunner().invoke(command, [str(one) for one in arguments])


def test_a_key_has_the_name_of_its_line_and_nothing_else_has_one(file):
    known = Keys.read(file)
    assert known.names == ["a", "b"]
    assert (known.name_of("alpha"), known.name_of("beta")) == ("a", "b")
    for wrong in ("", "Alpha", "alpha ", "alphabeta", "a", "\udcff", "x" * 10_000):
        assert known.name_of(wrong) is None
    # The hash that stands in the file is not the key.
    assert known.name_of(hashlib.sha256(b"alpha").hexdigest()) is None


def test_every_key_is_compared_in_constant_time(file, monkeypatch):
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
    assert Keys.read(file).name_of("alpha") == "a"
    assert len(compared) == 2  # not only until the first that fits


@pytest.mark.parametrize(
    ("text", "number", "reason"),
    [
        ("nonsense\n", 1, "expected name:hash"),
        ("a:123\n", 1, "expected name:hash"),
        (f"# one\n\n:{'0' * 64}\n", 3, "expected name:hash"),
        (f"a b:{'0' * 64}\n", 1, "expected name:hash"),
        ("a:rds_this-is-the-key-itself\n", 1, "expected name:hash"),
        (line("a", "x") + "# between\n" + line("a", "y"), 3, "the name of line 1 again"),
        (line("a", "x") + line("b", "x"), 2, "the key of line 1 again"),
    ],
)
def test_a_line_that_is_no_key_is_named_and_not_repeated(tmp_path, text, number, reason):
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(reason)) as caught:
        Keys.read(path)
    assert f"{path}, line {number}: " in str(caught.value)
    assert "this-is-the-key" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_file_of_keys(tmp_path):
    with pytest.raises(InputError, match="rdsearch key new"):
        Keys.read(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        Keys.read(tmp_path)
    (tmp_path / "large").write_bytes(b"#" * (2 << 20))
    with pytest.raises(InputError, match="1 MiB"):
        Keys.read(tmp_path / "large")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="line 1"):
        Keys.read(tmp_path / "bytes")


def test_a_reload_adds_and_revokes_and_a_bad_file_changes_nothing(file, caplog):
    known = Keys.read(file)
    file.write_text(line("b", "beta") + line("c", "gamma"))
    assert known.reload()
    assert [known.name_of(one) for one in ("alpha", "beta", "gamma")] == [None, "b", "c"]
    file.write_text("nonsense\n")
    with caplog.at_level(logging.ERROR, "rdsearch.server"):
        assert not known.reload()
    assert f"{file}, line 1" in caplog.text
    assert known.name_of("beta") == "b"
    file.unlink()
    assert not known.reload()
    assert known.name_of("beta") == "b"


def test_the_last_key_can_be_revoked(file, caplog):
    known = Keys.read(file)
    file.write_text("# nobody\n")
    with caplog.at_level(logging.WARNING, "rdsearch.server"):
        assert known.reload()
    assert "nobody can ask" in caplog.text
    assert known.name_of("alpha") is None


@pytest.mark.parametrize(("mode", "remarked"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_others_can_read_is_remarked(file, caplog, mode, remarked):
    file.chmod(mode)
    with caplog.at_level(logging.WARNING, "rdsearch.server"):
        Keys.read(file)
    assert ("chmod 600" in caplog.text) == remarked


def test_new_prints_a_key_once_and_keeps_its_hash(tmp_path):
    path = tmp_path / "folder" / "keys"
    texts = []
    for name in ("lab", "pipeline"):
        result = run("new", name, "--file", path)
        assert result.exit_code == 0, result.output
        texts.append(result.stdout.removesuffix("\n"))
        assert texts[-1] not in result.stderr
    assert all(re.fullmatch(r"rds_[A-Za-z0-9_-]{43}", text) for text in texts)
    assert texts[0] != texts[1]
    content = path.read_text()
    assert all(text not in content and text[4:] not in content for text in texts)
    assert [Keys.read(path).name_of(text) for text in texts] == ["lab", "pipeline"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(one.name for one in path.parent.iterdir()) == ["keys"]
    listed = run("list", "--file", path).stdout
    assert re.fullmatch(r"lab\t\d{4}-\d\d-\d\d\npipeline\t\d{4}-\d\d-\d\d\n", listed)


def test_remove_leaves_the_other_lines_as_they_were(file):
    file.write_bytes(file.read_bytes() + b"# \xff caf\xc3\xa9\x0b and more\n")
    before = file.read_bytes()
    result = run("remove", "a", "--file", file)
    assert result.exit_code == 0
    assert file.read_bytes() == before.replace(line("a", "alpha").encode(), b"")
    assert Keys.read(file).names == ["b"]


def test_a_group_may_go_on_reading_and_others_not(file):
    file.chmod(0o644)
    assert run("new", "lab", "--file", file).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_the_file_stays(file):
    os.chown(file, 12345, 23456)
    assert run("new", "lab", "--file", file).exit_code == 0
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 23456)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("new", "a"), "already"),
        (("new", "a:b"), "letters, digits"),
        (("new", "../x y"), "letters, digits"),
        (("new", "x" * 65), "letters, digits"),
        (("remove", "c"), "no key 'c'"),
    ],
)
def test_commands_that_cannot_be_done_change_nothing(file, arguments, reason):
    before = file.read_bytes()
    result = run(*arguments, "--file", file)
    assert isinstance(result.exception, RdsearchError)
    assert reason in str(result.exception)
    assert file.read_bytes() == before
    assert [one.name for one in file.parent.iterdir()] == ["keys"]


def test_a_damaged_file_is_not_written_over(tmp_path):
    path = tmp_path / "keys"
    path.write_text("nonsense\n")
    assert "line 1" in str(run("new", "lab", "--file", path).exception)
    assert path.read_text() == "nonsense\n"


def test_keys_made_at_once_are_all_kept(tmp_path):
    code = (
        "import sys, time; from rdsearch.cli_key import key; from rdsearch.errors import *\n"
        "while True:\n"
        "    try: key(sys.argv[1:], standalone_mode=False); break\n"
        "    except IndexLockedError: time.sleep(0.01)\n"
    )
    path = tmp_path / "keys"
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", code, "new", f"n{i}", "--file", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(4)
    ]
    texts = [maker.communicate(timeout=60)[0].strip() for maker in makers]
    known = Keys.read(path)
    assert [known.name_of(text) for text in texts] == ["n0", "n1", "n2", "n3"]
