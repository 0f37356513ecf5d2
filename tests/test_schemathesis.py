"""Requests made from the API's own OpenAPI document: right ones, nearly right ones, and wrong ones.

Whatever is asked, the answer is one that the document has, and never a server's error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter

import pytest
import schemathesis
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rdsearch.cli_key import key
from tests.serving import Server, serving

pytestmark = pytest.mark.slow


CONFORMS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SEQUENCES = [
    "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPN",
    "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQFEVVHSLAKWKRQ",
]
OPEN = {"/", "/healthz", "/readyz", "/openapi.json", "/v1/limits"}

# The same cases every time, and no file of failures beside the checkout.
CASES = settings(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Keyed:
    """A server that asks for a key, which is in `headers`, and what it has."""

    def __init__(self, server: Server, text: str) -> None:
        self.server, self.headers = server, {"Authorization": f"Bearer {text}"}
        self.index = self.ask("GET", "/v1/indexes")["indexes"][0]
        hits = self.ask("POST", "/v1/search", {"sequences": SEQUENCES[:1], "k": 1})
        self.accession = hits["results"][0]["hits"][0]["accession"]
        self.job = self.make_job()
        while self.ask("GET", f"/v1/jobs/{self.job}")["state"] in ("waiting", "running"):
            time.sleep(0.05)

    def ask(self, method: str, path: str, body: dict | None = None) -> dict:
        status, answer = self.server.ask(method, path, body, self.headers)
        assert status in (200, 202), answer
        return answer

    def make_job(self) -> str:
        return self.ask("POST", "/v1/jobs", {"sequences": SEQUENCES, "k": 3})["id"]

    def real(self, operation) -> dict[str, str]:
        """Path parameters that name what there is."""
        names = {"name": self.index["name"], "accession": self.accession, "column": "length"}
        names["id"] = self.make_job() if operation.method == "delete" else self.job
        return {one.name: names[one.name] for one in operation.path_parameters}

    def place(self, case) -> None:
        """Let a case ask about what there is, so that it comes past the first checks."""
        if case.operation.path_parameters:
            case.path_parameters = self.real(case.operation)
        if isinstance(case.body, dict):
            case.body.pop("fasta", None)
            case.body |= {"sequences": SEQUENCES, "index": None, "timeout": None}
        for options in (case.body, case.query):
            for name in ("tier", "from_tier", "to_tier"):
                if isinstance(options, dict) and options.get(name) not in self.index["tiers"]:
                    options.pop(name, None)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory, mini_index):
    folder = tmp_path_factory.mktemp("keyed")
    shutil.copytree(mini_index, folder / "mini")
    made = CliRunner().invoke(key, ["new", "lab", "--file", str(folder / "keys")])
    with serving(folder / "mini", options=("--api-key-file", str(folder / "keys"))) as server:
        yield Keyed(server, made.stdout.strip())


@pytest.fixture(scope="module")
def operations(keyed):
    document = schemathesis.openapi.from_url(keyed.server.url + "/openapi.json")
    return [one.ok() for one in document.get_all_operations()]


def run(server: Server, folder, *options: str) -> str:
    """What `schemathesis run` prints; it must find nothing."""
    checks = [*(one.__name__ for one in CONFORMS), "negative_data_rejection"]
    # 504 is what a client gets that gives its request no time, as generated ones do.
    statuses = '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]\n'
    (folder / "schemathesis.toml").write_text(statuses)
    command = [sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json"]
    command += ["--seed", "7", "--phases", "examples,coverage,fuzzing", "--no-color"]
    command += ["--checks", ",".join(checks), "--request-timeout", "30", "--warnings", "off"]
    command += ["--generation-database", "none", "--suppress-health-check", "all"]
    done = subprocess.run(
        [*command, *options],
        cwd=folder,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_whatever_is_asked_with_a_key(keyed, operations, tmp_path):
    """Examples, edges and random requests, right and wrong; wrong ones are refused."""
    header = f"Authorization: {keyed.headers['Authorization']}"
    text = run(keyed.server, tmp_path, "--max-examples", "15", "--header", header)
    assert int(re.search(r"Tested: (\d+)", text).group(1)) == len(operations) >= 16
    assert int(re.search(r"(\d+) generated", text).group(1)) > 300


def test_whatever_is_asked_of_a_server_without_keys(served, tmp_path):
    # Other tests use this server too: it is given no jobs.
    run(served, tmp_path, "--max-examples", "5", "--exclude-path", "/v1/jobs")


def test_what_is_asked_about_things_that_exist(keyed, operations):
    answered: Counter[tuple[str, int]] = Counter()
    for operation in operations:

        @settings(CASES, max_examples=25)
        @given(operation.as_strategy())
        def ask(case):
            keyed.place(case)
            answer = case.call(headers=keyed.headers, timeout=30)
            case.validate_response(answer, checks=CONFORMS)
            answered[case.operation.label, answer.status_code // 100] += 1

        ask()
    # Each of them has also succeeded.
    assert {label for label, status in answered if status == 2} == {o.label for o in operations}


def test_without_a_key_nothing_is_answered(keyed, operations):
    for operation in operations:

        @settings(CASES, max_examples=2)
        @given(operation.as_strategy())
        def ask(case):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}):
                answer = case.call(headers=headers, timeout=30)
                case.validate_response(answer, checks=CONFORMS)
                assert (answer.status_code == 401) == (case.operation.path not in OPEN)

        ask()
