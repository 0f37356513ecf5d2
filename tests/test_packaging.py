"""Files that run a server elsewhere: no engine is at hand here, so what they say is checked."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import click
import pytest

from rdsearch.cli_serve import serve

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "examples" / "deploy"
UNIT = DEPLOY / "rdsearch.service"
PROGRAM = "/opt/rdsearch/bin/rdsearch"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments."""
    text = (ROOT / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, rest in lines]


def of_kind(name: str) -> list[str]:
    return [rest for one, rest in instructions() if one == name]


def composed() -> dict:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(
        interpolation=None, strict=False, delimiters="=", comment_prefixes="#"
    )
    parser.optionxform = str
    parser.read_string(UNIT.read_text().replace("\\\n", " "))
    return parser


def commands() -> dict[str, list[str]]:
    """Arguments of `rdsearch serve` in each file."""
    entry = json.loads(of_kind("ENTRYPOINT")[0])
    started = shlex.split(unit()["Service"]["ExecStart"])
    examples = re.findall(r"docker run .*? rdsearch (.*)", (ROOT / "Dockerfile").read_text())
    assert entry[:2] == ["rdsearch", "serve"]
    assert started[:2] == [PROGRAM, "serve"]
    assert len(examples) == 1
    return {
        "Dockerfile": entry[2:] + json.loads(of_kind("CMD")[0]),
        "docker run": entry[2:] + shlex.split(examples[0]),
        "compose.yaml": entry[2:] + composed()["services"]["rdsearch"]["command"],
        "rdsearch.service": started[2:],
    }


@pytest.mark.parametrize("name", ["Dockerfile", "docker run", "compose.yaml", "rdsearch.service"])
def test_commands_have_options_that_there_are(name):
    arguments = commands()[name]
    context = serve.make_context("serve", list(arguments))
    assert len(context.params["indexes"]) == 1
    assert context.params["log_format"] == "json"
    assert context.params["port"] == 8000
    with pytest.raises(click.NoSuchOption):
        serve.make_context("serve", [*arguments, "--no-such-option"])


def test_readme_names_commands_and_options_that_there_are():
    from rdsearch.cli import main

    text = (DEPLOY / "README.md").read_text()
    known = {option for one in serve.params for option in one.opts} | {"--file"}
    others = {"--build", "--detach", "--now"}
    assert set(re.findall(r"--[a-z-]+", text)) - others <= known
    keys = main.commands["key"].commands
    assert set(re.findall(r"rdsearch key (\w+)", text)) == set(keys)


def test_dockerfile_passes_hadolint():
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("needs hadolint")
    done = subprocess.run([program, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_is_small_and_not_run_by_root():
    names = [name for name, _ in instructions()]
    assert names.count("FROM") == 2  # what builds does not stay
    last = names[::-1].index("FROM")
    final = instructions()[-last - 1 :]
    assert ("USER", "10001:10001") in final
    assert not [rest for name, rest in final if name == "RUN" and "pip" in rest]
    assert of_kind("EXPOSE") == ["8000"]
    assert "constraints.txt" in of_kind("RUN")[1]
    assert "[cpu,server]" in of_kind("RUN")[1]


def test_health_is_asked_where_the_server_listens():
    health = of_kind("HEALTHCHECK")[0]
    test = json.loads(health[health.index("CMD ") + 4 :])
    assert composed()["services"]["rdsearch"]["healthcheck"]["test"][1:] == test
    assert "http://127.0.0.1:8000/readyz" in test[-1]
    compile(test[-1], "HEALTHCHECK", "exec")
    # Without a server it fails, and says so by its status.
    code = test[-1].replace(":8000", ":1")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 1


def test_compose_names_what_is_here():
    project = composed()
    service = project["services"]["rdsearch"]
    assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    for volume in service["volumes"]:
        assert volume["read_only"] is True
        assert (ROOT / volume["source"]).is_dir()
    secrets = project["secrets"]
    assert service["secrets"] == list(secrets)
    options = dict(zip(service["command"], service["command"][1:], strict=False))
    assert options["--api-key-file"] == f"/run/secrets/{service['secrets'][0]}"
    # Made by the command that the file's first lines give.
    made = secrets["keys"]["file"].removeprefix("./")
    assert f"rdsearch key new lab --file {made}" in (ROOT / "compose.yaml").read_text()


def test_compose_gives_away_nothing_more_than_needed():
    service = composed()["services"]["rdsearch"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"]
    assert [one.partition(":")[0] for one in service["tmpfs"]] == ["/tmp"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_who_stops_a_server_waits_for_what_runs():
    from rdsearch.server.settings import Settings

    assert seconds(composed()["services"]["rdsearch"]["stop_grace_period"]) > Settings().grace
    assert seconds(unit()["Service"]["TimeoutStopSec"]) > Settings().grace
    proxy = (DEPLOY / "nginx.conf").read_text()
    timeout = re.search(r"location / \{[^}]*proxy_read_timeout (\w+);", proxy).group(1)
    assert seconds(timeout) > Settings().deadline
    body = re.search(r"client_max_body_size\s+(\d+)m;", proxy).group(1)
    assert int(body) << 20 >= Settings().limits.job_body_bytes


def test_the_proxy_lets_events_through_as_they_come():
    proxy = (DEPLOY / "nginx.conf").read_text()
    assert proxy.count("{") == proxy.count("}")
    events = re.search(r"location ~ (\S+events\$) \{([^}]*)\}", proxy)
    assert re.search(events.group(1), "/v1/jobs/q3Jv0cX5R1mW8uY2sT7bKA/events")
    assert re.search(r"proxy_buffering\s+off;", events.group(2))


def test_the_unit_is_locked_down():
    service = unit()["Service"]
    for name in ("NoNewPrivileges", "DynamicUser", "ProtectHome", "PrivateTmp"):
        assert service[name] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""


def test_systemd_reads_the_unit(tmp_path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    done = subprocess.run([program, "verify", copy], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    if done.returncode and not complaints:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr.strip()[:200]}")
    assert not complaints, done.stderr


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves a path out; the last line that matches decides."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    left_out = False
    for line in lines:
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted = pattern.startswith("!")
        pattern = pattern.removeprefix("!")
        parts = [path, *map(str, PurePosixPath(path).parents)][:-1]  # a folder: all that is in it
        if any(fnmatch(one, pattern) or fnmatch("/" + one, "/" + pattern) for one in parts) or (
            pattern.startswith("**/")
            and any(fnmatch(PurePosixPath(one).name, pattern[3:]) for one in parts)
        ):
            left_out = not wanted
    return left_out


@pytest.mark.parametrize(
    "path",
    [
        *(".git/config", ".venv/bin/python", "build/demo/chain.safetensors", "keys.txt"),
        *("indexes/demo/manifest.json", "tests/conftest.py", "weights/a.pt", "data.fasta"),
        *("rdsearch/__pycache__/x.pyc", "rdsearch/server/__pycache__/app.cpython-312.pyc"),
    ],
)
def test_the_build_gets_no(path):
    assert ignored(path)


def test_the_build_gets_what_it_copies():
    for rest in of_kind("COPY"):
        if rest.startswith("--from"):
            continue
        for source in rest.split()[:-1]:
            assert (ROOT / source).exists()
            assert not ignored(source)
    for path in ("rdsearch/server/app.py", "rdsearch/data/sample/proteins.fasta.gz"):
        assert (ROOT / path).exists()
        assert not ignored(path)
