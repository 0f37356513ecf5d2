"""The edge of the server: who may ask, from where, and what every answer carries."""

from __future__ import annotations

import re

import pytest

from rdsearch.errors import InputError
from rdsearch.server import guard
from tests.guarded import KEY, application, ask, keys, problem, raw

__all__ = ["keys"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/v1/limits", 200),
        ("GET", "/nowhere", 404),
        ("DELETE", "/v1/limits", 405),
        ("POST", "/v1/search", 422),
        ("POST", "/v1/fails/value", 500),
        ("POST", "/v1/fails/damaged", 503),
    ],
)
def test_every_answer_has_the_headers(method, path, status):
    answer = ask(application(), method, path, json={"fasta": "A"} if "fails" in path else None)
    assert answer.status_code == status
    for name, value in guard.HEADERS.items():
        assert answer.headers[name] == value
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


def test_a_route_has_its_own_policy_and_caching():
    page = ask(application(), "GET", "/")
    assert page.headers["content-security-policy"] == "default-src 'self'"
    assert "cache-control" not in page.headers
    assert page.headers["x-frame-options"] == "DENY"


def test_request_ids_are_the_servers_own():
    app = application()
    first = ask(app, "GET", "/v1/indexes/a", headers={"X-Request-Id": "mine"})
    second = ask(app, "GET", "/v1/indexes/a")
    ids = [first.headers["x-request-id"], second.headers["x-request-id"]]
    assert ids == [first.json()["id"], second.json()["id"]]
    assert len({*ids, "mine"}) == 3


# Hosts and origins


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("lab.example.org", 200),
        ("LAB.example.org:8443", 200),
        ("lab.example.org.", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("10.0.0.1", 421),
        ("lab.example.org.evil.test", 421),
        ("evil.test:80#lab.example.org", 421),
        ("[::2]:8000", 421),
        ("", 421),
    ],
)
def test_hosts(host, status):
    app = application(hosts=("Lab.example.org:443", "[::1]"))
    answer = ask(app, "GET", "/v1/limits", headers={"Host": host})
    assert answer.status_code == status
    if status == 421:
        problem(answer, 421, "wrong-host")
        assert ask(app, "GET", "/healthz", headers={"Host": host}).status_code == 200


def test_a_request_with_two_hosts_or_none_is_refused():
    app = application(hosts=("here",))
    for hosts in ([], [(b"host", b"here"), (b"host", b"there")]):
        sent = raw(app, {"method": "GET", "path": "/v1/limits", "headers": hosts}, [])
        assert sent[0]["status"] == 421


def test_without_hosts_any_is_answered():
    assert ask(application(), "GET", "/v1/limits", headers={"Host": "any"}).status_code == 200


def test_other_origins_are_not_let_in_by_default():
    asked = {"Origin": "https://lab.example.org"}
    answer = ask(application(), "GET", "/v1/limits", headers=asked)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_origins_that_are_let_in(keys):
    app = application(cors_origins=("https://lab.example.org",), api_keys=keys)
    asked = {
        "Origin": "https://lab.example.org",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    answer = ask(app, "OPTIONS", "/v1/search", headers=asked)  # a browser sends no key with it
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://lab.example.org"
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in answer.headers
    # Scripts must be able to read errors too.
    for headers in ({}, {"Authorization": f"Bearer {KEY}"}):
        answer = ask(
            app,
            "POST",
            "/v1/fails/value",
            headers={"Origin": asked["Origin"], **headers},
            json={"fasta": "A"},
        )
        assert answer.status_code == (500 if headers else 401)
        assert answer.headers["access-control-allow-origin"] == "https://lab.example.org"
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
    other = ask(app, "OPTIONS", "/v1/search", headers={**asked, "Origin": "https://evil.test"})
    assert other.status_code == 400
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        ("cross-site", "https://evil.test", 403),
        ("same-site", "https://other.here", 403),
        ("cross-site", None, 403),
        ("cross-site", "null", 403),
        ("cross-site", "https://lab.example.org", 200),
        ("same-origin", "http://here:1", 200),
        ("none", None, 200),
        (None, "https://evil.test", 200),  # no browser of today; what it gets it cannot read
    ],
)
def test_pages_of_other_origins_cannot_make_the_server_work(site, origin, status):
    app = application(cors_origins=("https://lab.example.org",))
    headers = {"Sec-Fetch-Site": site, "Origin": origin}
    headers = {name: value for name, value in headers.items() if value is not None}
    answer = ask(app, "POST", "/v1/raw", content=b"text", headers=headers)
    assert answer.status_code == status
    if status == 403:
        problem(answer, 403, "other-origin")
    # Links to the page and what it loads work.
    assert ask(app, "GET", "/v1/limits", headers=headers).status_code == 200


# Keys


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/limits", "/openapi.json"])
def test_paths_that_need_no_key(keys, path):
    app = application(api_keys=keys)
    assert ask(app, "GET", path).status_code == 200
    assert ask(app, "GET", path, headers={"X-API-Key": "wrong"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({}, "key-missing"),
        ({"Authorization": "Basic " + KEY}, "key-missing"),
        ({"Authorization": KEY}, "key-missing"),
        ({"Authorization": "Bearer wrong"}, "key-wrong"),
        ({"Authorization": "Bearer"}, "key-wrong"),
        ({"Authorization": f"Bearer {KEY}x"}, "key-wrong"),
        ({"X-API-Key": "wrong"}, "key-wrong"),
        ({"X-API-Key": ""}, "key-wrong"),
        ({"X-API-Key": b"\xff\xfe"}, "key-wrong"),
        ({"Authorization": "Bearer wrong", "X-API-Key": KEY}, "key-wrong"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/indexes/a", "/metrics", "/nowhere", "/pages", "/healthz/"])
def test_without_a_key_that_fits_nothing_is_answered(keys, headers, kind, path):
    answer = ask(application(api_keys=keys), "GET", path, headers=headers)
    problem(answer, 401, kind)
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert KEY not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer   {KEY} "},
        {"X-API-Key": KEY},
        {"Authorization": "Basic cHJveHk6cHJveHk=", "X-API-Key": KEY},
    ],
)
def test_a_key_that_fits_has_a_name(keys, headers):
    answer = ask(application(api_keys=keys), "GET", "/v1/indexes/a", headers=headers)
    assert answer.json()["key"] == "lab"


def test_without_a_file_of_keys_everybody_may_ask():
    app = application()
    answer = ask(app, "GET", "/v1/indexes/a", headers={"Authorization": "Bearer x"})
    assert answer.json()["key"] is None
    assert app.state.keys is None


def test_keys_are_read_again_while_the_server_runs(keys):
    app = application(api_keys=keys)
    mine = {"X-API-Key": KEY}
    assert ask(app, "GET", "/v1/indexes/a", headers=mine).status_code == 200
    keys.write_text("# nobody\n")
    assert app.state.keys.reload()
    problem(ask(app, "GET", "/v1/indexes/a", headers=mine), 401, "key-wrong")


def test_a_bad_file_of_keys_stops_the_start(tmp_path):
    with pytest.raises(InputError, match="keys cannot be read"):
        application(api_keys=tmp_path / "none")


# The OpenAPI document


def test_the_document_has_what_the_guard_may_answer(keys):
    app = application(api_keys=keys, hosts=("here",))
    for _ in range(2):
        schema = ask(app, "GET", "/openapi.json").json()
        search = schema["paths"]["/v1/search"]["post"]
        assert {"200", "400", "401", "403", "408", "413", "421", "422", "500", "503"} == set(
            search["responses"]
        )
        assert search["security"] == [{"bearer": []}, {"header": []}]
        assert "security" not in schema["paths"]["/v1/limits"]["get"]
        assert set(schema["components"]["securitySchemes"]) == {"bearer", "header"}
    plain = ask(application(), "GET", "/openapi.json").json()
    assert "securitySchemes" not in plain["components"]
    assert "401" not in plain["paths"]["/v1/search"]["post"]["responses"]


def test_websockets_are_closed():
    sent = raw(application(), {"type": "websocket"}, [{"type": "websocket.connect"}])
    assert sent == [{"type": "websocket.close", "code": 1008}]
