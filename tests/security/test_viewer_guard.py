"""Nobody but the person at this machine is answered: hosts, origins, keys, methods, sizes, on every route."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from fastapi.routing import APIRoute

from attlas.view.desk import Desk
from attlas.view.serving.app import make_app
from attlas.view.serving.guard import (
    HEADERS,
    LARGEST_BODY,
    LONGEST_ADDRESS,
    MOST_AT_ONCE,
    Guard,
    UnguardedResponse,
)
from attlas.view.serving.running import Server
from serving import SHELL, request, sent, server

ROUTES = ("/", "/assets/page-0123.js", "/api/atlas", "/api/tokens/a", "/api/events", "/favicon.ico", "/nothing")
EXEMPT = ("/assets/page-0123.js", "/favicon.ico")
"""What is answered without the key."""

METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW")

Result = TypeVar("Result")


def run(what: Coroutine[Any, Any, Result]) -> Result:
    """Run to its end, on a thread of its own: on this one the browser of other tests may have a loop under way."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, what).result()


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with server() as found:
        yield found


def test_all_routes_of_the_app_are_in_this_table() -> None:
    routes = [route for route in make_app(Desk([]), SHELL).routes if isinstance(route, APIRoute)]
    assert len(routes) == len(make_app(Desk([]), SHELL).routes), "something else than a plain route: test it here"
    assert {(route.path, tuple(sorted(route.methods or ()))) for route in routes} == {
        ("/api/events", ("GET", "HEAD")),
        ("/api/{path:path}", ("GET", "HEAD")),
        ("/{path:path}", ("GET", "HEAD")),
    }


def test_all_paths_of_the_desk_are_known_here(running: Server) -> None:
    status, _, body = request(running, "/api/nothing")
    assert status == 404
    words = re.findall(r"one of ([a-z, ]+), got", json.loads(body)["error"])[0].split(", ")
    assert {"atlas", "cells", "columns", "peaks", "rows", "statistics", "tiles", "tokens", "tracks"} <= set(words)
    for word in words:
        assert request(running, f"/api/{word}", key=False)[0] == 401


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "host",
    [
        "evil.com", "evil.com:{port}", "localhost.evil.com:{port}", "127.0.0.1.evil.com:{port}",
        "127.0.0.1@evil:{port}", "evil@127.0.0.1:{port}", "0.0.0.0:{port}", "[::]:{port}", "127.0.0.1",
        "localhost", "127.0.0.1:1", "127.0.0.1:{port}0",
        "127.1:{port}", "2130706433:{port}", "LOCALHOST.:{port}", "127.0.0.1:{port}:{port}", "127.0.0.1:0{port}",
        " ", "",
        "127.0.0.2:{port}", "[::1%lo]:{port}", "localhost:{port}/", "localhost:{port}#", "xn--localhost:{port}",
    ],
)  # fmt: skip
def test_another_host_is_refused_everywhere(running: Server, path: str, host: str) -> None:
    status, _, body = request(running, path, headers={"Host": host.format(port=running.port)})
    assert status == 400
    assert b"a text" not in body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_our_own_hosts_are_answered(running: Server, host: str) -> None:
    assert request(running, "/api/atlas", headers={"Host": f"{host}:{running.port}"})[0] == 200


def test_two_hosts_or_none_are_refused(running: Server) -> None:
    good = f"Host: 127.0.0.1:{running.port}\r\n"
    cookie = f"Cookie: {running.guard.cookie}={running.guard.token}\r\nConnection: close\r\n\r\n"
    for hosts in ("", good + good, good + "Host: evil.com\r\n", "Host: evil.com\r\n" + good):
        answer = sent(running, f"GET /api/atlas HTTP/1.1\r\n{hosts}{cookie}".encode())
        assert answer.startswith(b"HTTP/1.1 400"), hosts
        assert b"captures" not in answer
    assert sent(running, f"GET /api/atlas HTTP/1.1\r\n{good}{cookie}".encode()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "origin",
    ["http://evil.com", "null", "https://127.0.0.1:{port}", "http://127.0.0.1", "http://127.0.0.1:1", "", "file://"],
)
def test_another_origin_is_refused_everywhere(running: Server, path: str, origin: str) -> None:
    assert request(running, path, headers={"Origin": origin.format(port=running.port)})[0] == 403


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense", ""])
def test_a_request_from_another_site_is_refused_everywhere(running: Server, path: str, site: str) -> None:
    assert request(running, path, headers={"Sec-Fetch-Site": site})[0] == 403


def test_a_link_of_a_neighbouring_port_may_lead_to_the_page_and_no_further(running: Server) -> None:
    link = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}
    assert request(running, "/", headers=link)[0] == 200
    assert request(running, "/api/atlas", headers=link)[0] == 403
    assert request(running, "/", headers={**link, "Sec-Fetch-Site": "cross-site"})[0] == 403


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_without_the_key_only_the_pages_own_files_are_answered(running: Server, path: str, method: str) -> None:
    status, headers, body = request(running, path, method=method, key=False)
    if path in EXEMPT:
        assert status == (200 if path in SHELL else 404)
    else:
        assert status == 401
    assert "set-cookie" not in headers
    assert running.guard.token.encode() not in body


def test_the_first_page_says_what_to_do_without_the_key(running: Server) -> None:
    _, headers, body = request(running, "/", key=False)
    assert headers["content-type"].startswith("text/html")
    assert b"attlas view" in body


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", METHODS)
def test_other_methods_are_refused_everywhere(running: Server, path: str, method: str) -> None:
    assert request(running, path, method=method)[0] == 405


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t + "x", lambda t: t.swapcase(), lambda t: "", lambda t: "%C3%A9"]
)
def test_a_wrong_key_is_refused(running: Server, change: Any) -> None:
    wrong = change(running.guard.token)
    cookie = {"Cookie": f"{running.guard.cookie}={wrong}"}
    assert request(running, "/api/atlas", key=False, headers=cookie)[0] == 401
    assert request(running, f"/?token={wrong}", key=False)[0] == 401


@pytest.mark.parametrize(
    "cookie",
    ["", "attlas={key}", "attlas_1={key}", "{key}", "x={key}; y={key}", "\x01={key}", "{name}", "{name}={key} x"],
)
def test_a_cookie_of_another_name_is_none(running: Server, cookie: str) -> None:
    value = cookie.format(key=running.guard.token, name=running.guard.cookie)
    assert request(running, "/api/atlas", key=False, headers={"Cookie": value})[0] in (400, 401)


def test_the_key_moves_from_the_address_into_a_cookie(running: Server) -> None:
    status, headers, body = request(running, f"/?token={running.guard.token}", key=False)
    assert (status, headers["location"], body) == (303, "/", b"")
    assert headers["set-cookie"] == (f"{running.guard.cookie}={running.guard.token}; HttpOnly; SameSite=Strict; Path=/")
    assert headers["referrer-policy"] == "no-referrer"
    assert request(running, f"/?token={running.guard.token}&token=x", key=False)[0] == 401
    assert request(running, f"/api/atlas?token={running.guard.token}", key=False)[0] == 401


def test_each_start_has_a_key_of_its_own() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    tokens = {Guard(app, 1).token for _ in range(20)}
    assert len(tokens) == 20
    assert min(map(len, tokens)) >= 43


@pytest.mark.parametrize("path", [*ROUTES, "/?token=x"])
@pytest.mark.parametrize("key", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_every_answer_has_every_header(running: Server, path: str, key: bool, method: str) -> None:
    if path == "/api/events" and key and method == "GET":
        return  # it does not end; the test of events looks at its headers
    _, headers, _ = request(running, path, method=method, key=key)
    for name, value in HEADERS.items():
        assert headers[name.decode()] == value.decode()
    caching = headers["cache-control"]
    assert caching == ("public, max-age=31536000, immutable" if path.startswith("/assets") and method != "DELETE"
                       else "no-cache" if path == "/" and key and method != "DELETE" else "no-store")  # fmt: skip
    assert "server" not in headers
    assert "script-src 'self';" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]


def test_long_addresses_and_large_bodies_are_refused(running: Server) -> None:
    assert request(running, "/api/" + "x" * LONGEST_ADDRESS)[0] == 414
    assert request(running, "/api/atlas?" + "x" * LONGEST_ADDRESS)[0] == 414
    for length in (str(LARGEST_BODY + 1), "9" * 30):
        assert request(running, "/api/atlas", headers={"Content-Length": length})[0] in (400, 413)
    many = "&".join(f"a{i}=1" for i in range(9))
    assert request(running, f"/api/atlas?{many}")[0] == 422
    assert request(running, "/api/atlas?a=1&a=2")[0] == 422
    ranges = "bytes=" + ",".join(f"{i}-{i}" for i in range(1000))
    assert request(running, "/assets/page-0123.js", headers={"Range": ranges})[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../index.html", "/assets/..%2findex.html", "/assets/%2e%2e/index.html", "/assets/..%5cindex.html",
        "/assets/%252e%252e%252findex.html", "/../../../etc/passwd", "/assets//etc/passwd", "/assets/page-0123.js%00",
        "/assets/page-0123.js/", "/assets", "/assets/", "/assets-secret/x", "//evil.com/x",
        "/assets/%5c%5chost%5cshare",
        "/index.html", "/static/index.html", "/assets/page-0123.js.map", "/.git/config", "/assets/.",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_pages_files(running: Server, path: str) -> None:
    status, _, body = request(running, path)
    assert status == 404
    assert json.loads(body) == {"error": "there is nothing at this address"}


# ---- the guard by itself


def called(guard: Guard, scope: dict[str, Any]) -> list[Any]:
    """Call a guard with a scope; return what it sends."""
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * 40_000, "more_body": True}

    async def send(message: Any) -> None:
        said.append(message)

    run(guard(scope, receive, send))
    return said


def scope(guard: Guard, **changed: Any) -> dict[str, Any]:
    headers = [(b"host", f"127.0.0.1:{guard.port}".encode()), (b"cookie", f"{guard.cookie}={guard.token}".encode())]
    plain = {"type": "http", "path": "/api/x", "raw_path": b"/api/x", "query_string": b"", "method": "GET"}
    return {**plain, "headers": headers, **changed}


def test_an_answer_that_forgets_its_headers_is_a_mistake_that_shows() -> None:
    async def forgetful(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})

    async def meddling(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"a/b"), (b"cache-control", b"no-store"), (b"X-Content-Type-Options", b"sniff")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    for app in (forgetful, meddling):
        guard = Guard(app, 7)
        with pytest.raises(UnguardedResponse):
            called(guard, scope(guard))


def test_a_web_socket_is_closed_before_it_opens() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("let through")

    guard = Guard(app, 7)
    assert called(guard, scope(guard, type="websocket")) == [{"type": "websocket.close", "code": 1008}]


def test_a_body_that_grows_too_large_on_the_way_ends_the_request() -> None:
    seen: list[str] = []

    async def reads(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            seen.append(message["type"])

    guard = Guard(reads, 7, writing=["/api/x"])
    called(guard, scope(guard, method="POST"))
    assert seen == ["http.request"]


def test_posting_is_for_listed_paths_alone() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"a/b"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    guard = Guard(app, 7, writing=["/api/x"])
    assert called(guard, scope(guard, method="POST"))[0]["status"] == 200
    assert called(guard, scope(guard, method="POST", path="/api/xy"))[0]["status"] == 405
    assert called(guard, scope(guard, method="DELETE"))[0]["status"] == 405


def test_only_so_many_requests_are_under_way_at_once() -> None:
    async def try_it() -> list[int]:
        leave = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await leave.wait()
            headers = [(b"content-type", b"a/b"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})

        guard = Guard(slow, 7)
        statuses: list[int] = []

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if "status" in message:
                statuses.append(message["status"])

        tasks = [asyncio.ensure_future(guard(scope(guard), receive, send)) for _ in range(MOST_AT_ONCE + 3)]
        await asyncio.sleep(0)
        refused = list(statuses)
        leave.set()
        await asyncio.gather(*tasks)
        return [len(refused), *sorted(set(refused)), len(statuses)]

    assert run(try_it()) == [3, 503, MOST_AT_ONCE + 3]
