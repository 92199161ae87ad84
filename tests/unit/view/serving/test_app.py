from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from attlas.view.desk import Answer, Desk, Overtaken, Request, Route, Service
from attlas.view.serving.assets import assets_in
from attlas.view.serving.guard import HEADERS
from attlas.view.serving.running import Server
from attlas.view.tiles.coding import tile_of
from serving import SHELL, exhibit, request, server

SLOW = 20.0


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with server(exhibit(300)) as found:
        yield found


def test_the_page_and_its_files(running: Server) -> None:
    status, headers, body = request(running, "/")
    assert (status, headers["content-type"], body) == (200, "text/html; charset=utf-8", SHELL["/"].content)
    status, headers, body = request(running, "/assets/page-0123.js")
    assert (status, body) == (200, b"void 0;\n")
    assert headers["content-type"].startswith("text/javascript")


def test_json_and_bytes_come_from_the_desk(running: Server) -> None:
    status, headers, body = request(running, "/api/atlas")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["captures"][0]["tokens"] == 300
    status, headers, body = request(running, "/api/tiles/a.0.0/0/0/0?reduce=lift&as=f16")
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    assert tile_of(body).shape == (150, 150)
    encoded = request(running, "/api/tiles/a.0.0%3Asliding_window%3Awidth%3D5/0/0/0")
    assert tile_of(encoded[2]).shape == (150, 150)


def test_the_head_of_an_answer_has_no_body(running: Server) -> None:
    for path in ("/", "/api/atlas", "/assets/page-0123.js"):
        status, headers, body = request(running, path, method="HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 0
    assert request(running, "/api/events", method="HEAD")[0] == 200


def test_refusals_keep_their_status(running: Server) -> None:
    assert request(running, "/api/tiles/a.0.0/9/0/0")[0] == 422
    assert request(running, "/api/nothing")[0] == 404


@pytest.mark.parametrize("words", ["\ud800", "\u202eevil", "<script>alert(1)</script>", "\0", "a" * 10_000])
def test_odd_tokens_arrive_as_they_are(words: str) -> None:
    with server(exhibit(tokens=[words, "b", "c"])) as running:
        _, _, body = request(running, "/api/tokens/a")
        assert json.loads(body)["tokens"] == [words, "b", "c"]


def test_a_page_that_is_not_built_says_how_to_build_it() -> None:
    with server(assets={}) as running:
        status, _, body = request(running, "/")
        assert status == 503
        assert b"scripts/bootstrap" in body
        assert request(running, "/api/atlas")[0] == 200


def test_events_come_as_they_happen() -> None:
    with server(exhibit(600)) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=SLOW)
        connection.request("GET", "/api/events", headers={"Cookie": f"{running.guard.cookie}={running.guard.token}"})
        response = connection.getresponse()
        assert response.getheader("content-type", "").startswith("text/event-stream")
        assert response.getheader("cache-control") == "no-store"
        assert all(response.getheader(name.decode()) == value.decode() for name, value in HEADERS.items())
        lines: list[bytes] = []
        while not (lines and lines[-1] == b"event: done"):
            lines.append(response.readline().strip())
        assert lines[0] == b": attlas"
        data = json.loads(response.readline().removeprefix(b"data: "))
        assert data == {"type": "done"}
        connection.close()


def serving(desk: Desk) -> Server:
    return Server(desk, 0, assets=SHELL)


def test_a_failure_of_ours_tells_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    def fails(asked: Request) -> Answer:
        raise KeyError("a secret " + __file__)

    with serving(Desk([Service({"x": fails})])) as running:
        status, headers, body = request(running, "/api/x")
        assert status == 500
        assert json.loads(body) == {"error": "something went wrong here; the terminal says more"}
        assert headers["content-security-policy"]
        assert request(running, "/api/atlas")[0] == 200
    said = capfd.readouterr().err
    assert "a secret" in said, "the person at the terminal can see what it was"
    assert running.guard.token not in said


def _waiting(begun: threading.Event, noticed: threading.Event) -> Route:
    """Return who answers nothing for long, and notices when nobody waits any more."""

    def waits(asked: Request) -> Answer:
        begun.set()
        pause = threading.Event()
        for _ in range(int(SLOW / 0.01)):
            try:
                asked.check()
            except Overtaken:
                noticed.set()
                raise
            pause.wait(0.01)
        return Answer.of({})

    return waits


def test_when_the_one_who_asked_has_gone_the_desk_is_told() -> None:
    begun, noticed = threading.Event(), threading.Event()
    with serving(Desk([Service({"x": _waiting(begun, noticed)})])) as running:
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            cookie = f"{running.guard.cookie}={running.guard.token}"
            asked = f"GET /api/x HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nCookie: {cookie}\r\n\r\n"
            connection.sendall(asked.encode())
            assert begun.wait(SLOW)
        assert noticed.wait(SLOW)
        assert request(running, "/api/atlas")[0] == 200


def test_who_still_waits_when_the_server_ends_is_let_go_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    begun, noticed = threading.Event(), threading.Event()
    answers: list[int] = []
    with serving(Desk([Service({"x": _waiting(begun, noticed)})])) as running:
        thread = threading.Thread(target=lambda: answers.append(request(running, "/api/x")[0]))
        thread.start()
        assert begun.wait(SLOW)
    thread.join()
    assert answers == [499]
    assert noticed.is_set()
    assert capfd.readouterr().err == ""


def test_one_who_waits_long_keeps_no_other_from_an_answer() -> None:
    leave = threading.Event()

    def waits(asked: Request) -> Answer:
        leave.wait(SLOW)
        return Answer.of({})

    with serving(Desk([Service({"x": waits})])) as running:
        thread = threading.Thread(target=lambda: request(running, "/api/x"))
        thread.start()
        assert request(running, "/api/atlas")[0] == 200
        leave.set()
        thread.join()


# ---- the page's files


def test_files_are_found_by_what_is_there_and_not_by_what_is_asked(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("page")
    (tmp_path / "favicon.ico").write_bytes(b"\0\0\1")
    for name in ("a-1.js", "a-1.css", "font-1.woff2", "a-1.js.map", "notes.txt", "run.exe"):
        (tmp_path / "assets" / name).write_text(name)
    (tmp_path / "secret.js").write_text("secret")
    (tmp_path / "assets" / "link.js").symlink_to(tmp_path / "secret.js")
    found = assets_in(tmp_path)
    assert sorted(found) == ["/", "/assets/a-1.css", "/assets/a-1.js", "/assets/font-1.woff2", "/favicon.ico"]
    assert found["/assets/a-1.js"].caching.endswith("immutable")
    assert found["/"].caching == "no-cache"


def test_a_folder_without_a_page_is_a_page_that_is_not_built(tmp_path: Path) -> None:
    assert assets_in(tmp_path) == {}
    assert assets_in(tmp_path / "missing") == {}
