"""Who is let in: the browser with the token, and no other page, name or request."""

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from jobs.reviewing.guard import HEADERS
from tests.reviewing.conftest import ADDRESS, Opened
from tests.support.workbench.review_samples import make_reviewed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> object:
    return make_reviewed(tmp_path_factory.mktemp("reviewed"), 3)


@pytest.fixture
def opened(made: object, open_bench: Callable[..., Opened], tmp_path: Path) -> Opened:
    return open_bench(made, tmp_path)


def stranger(opened: Opened, base_url: str = ADDRESS) -> TestClient:
    return TestClient(opened.client.app, base_url=base_url)


def test_address_with_its_token_becomes_a_cookie(opened: Opened) -> None:
    client = stranger(opened)
    answer = client.get(f"/?token={opened.guard.token}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert client.get("/").status_code == 200
    assert opened.guard.token not in client.get("/").text


PATHS = ("/", "/read/worklist", "/next/worklist", "/case/worklist/x", "/pixels/x/0", "/list/sample",
         "/decisions.csv", "/decisions.parquet", "/static/viewer.js", "/none")  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_nothing_without_the_token(path: str, opened: Opened) -> None:
    client = stranger(opened)
    for where in (path, f"{path}?token=", f"{path}?token={opened.guard.token}x"):
        assert client.get(where).status_code == 403
    client.cookies.set("workbench-8700", "guessed")
    answer = client.get(path)
    assert answer.status_code == 403
    assert "R0" not in answer.text


def test_name_that_is_made_to_point_here_gets_nothing(opened: Opened) -> None:
    for host in ("evil.example", "evil.example:8700", "127.0.0.1.evil.example", "", "0.0.0.0:8700"):
        answer = opened.client.get(f"/?token={opened.guard.token}", headers={"host": host})
        assert answer.status_code == 421, host
    for host in ("127.0.0.1:8700", "localhost:8700", "LOCALHOST:8700", "[::1]:8700"):
        answer = opened.client.get(
            f"/?token={opened.guard.token}", headers={"host": host}, follow_redirects=False
        )
        assert answer.status_code == 303, host


def test_request_of_another_page_changes_nothing(opened: Opened) -> None:
    case = opened.bench.audit.worklist[0]
    body = {"id": "0" * 32, "case": case, "queue": "worklist", "judgement": "record_right"}
    forged: list[dict[str, str]] = [
        {},
        {"x-workbench": "guessed"},
        {**opened.secret, "origin": "http://evil.example"},
        {**opened.secret, "origin": "null"},
        {**opened.secret, "origin": "http://[::1"},
        {**opened.secret, "sec-fetch-site": "cross-site"},
        {**opened.secret, "sec-fetch-site": "same-site"},
    ]
    for headers in forged:
        assert opened.client.post("/decide", json=body, headers=headers).status_code == 403
        assert opened.client.post("/undo", json={}, headers=headers).status_code == 403
    token = {"token": opened.guard.token}
    assert stranger(opened).post("/decide", params=token, json=body).status_code == 403
    assert list(opened.bench.decisions()) == []
    right = {**opened.secret, "origin": ADDRESS, "sec-fetch-site": "same-origin"}
    assert opened.client.post("/decide", json=body, headers=right).status_code == 200


@pytest.mark.parametrize("path", [*PATHS, "/favicon.ico"])
def test_every_answer_is_kept_by_nobody_and_loads_nothing(path: str, opened: Opened) -> None:
    for client in (opened.client, stranger(opened)):
        headers = client.get(path).headers
        assert {name: headers.get(name) for name in HEADERS} == HEADERS
    assert "http" not in HEADERS["content-security-policy"]
    assert "unsafe" not in HEADERS["content-security-policy"]
