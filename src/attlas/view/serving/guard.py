"""Who may ask: only the person at this machine to whom the address was told, and only pages that came from here.

A page of a stranger's can send requests to this machine from the person's own browser, under names of its own that it
lets point here. So each request must name this server as its host, must not come from another page, and must show the
key that was told to the person alone: once in the address, from then on in a cookie that no other page can make the
browser send. What is answered may not be framed, run what it did not bring, or be read by other pages.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SHELL = ("/assets/", "/favicon.ico")
"""Paths that need no key: the page's own files, which hold nothing of the document."""

READING = ("GET", "HEAD")
LONGEST_ADDRESS = 4096
LARGEST_BODY = 64 * 1024
MOST_AT_ONCE = 64

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode("ascii"),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
}
OWED = (b"cache-control", b"content-type")
"""Headers that whoever answers owes himself; an answer without them is a mistake of ours."""

_ASK_AT_THE_ADDRESS = (
    "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<title>attlas</title>\n"
    "<h1>attlas</h1>\n<p>This page needs its key: open the whole address that <code>attlas view</code> printed.</p>\n"
)


class UnguardedResponse(RuntimeError):  # noqa: N818 - a mistake in this program, named for what it is
    """An answer lacks a header that every answer must have, or brings one that is the guard's."""


@dataclass
class Guard:
    """Lets requests through to an app, or refuses them; the outermost layer.

    Parameters
    ----------
    app : ASGI application
        Who answers.
    port : int
        Where the server listens.
    writing : iterable of str
        Paths that may be asked by POST.
    token : str
        The key; a new one by default.
    """

    app: App
    port: int
    writing: Iterable[str] = ()
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def __post_init__(self) -> None:
        names = ("127.0.0.1", "localhost", "[::1]")
        self._hosts = {f"{name}:{self.port}".encode("ascii") for name in names}
        self._origins = {b"http://" + host for host in self._hosts}
        self._writing = frozenset(self.writing)
        self._under_way = 0

    @property
    def cookie(self) -> str:
        """The cookie's name: servers on other ports of this machine have cookies of their own."""
        return f"attlas_{self.port}"

    @property
    def address(self) -> str:
        """The address with the key in it, which is told to the person."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an ASGI connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            # There are no web sockets here; closing one before it is accepted refuses it.
            await send({"type": "websocket.close", "code": 1008})
            return
        guarded = _completing(send)
        refusal = self._refusal(scope)
        if refusal is not None:
            await _send(guarded, *refusal)
            return
        if self._under_way >= MOST_AT_ONCE:
            await _send(guarded, 503, _reason("too many requests at once"), {b"retry-after": b"1"})
            return
        self._under_way += 1
        try:
            await self.app(scope, _bounded(receive), guarded)
        finally:
            self._under_way -= 1

    def _refusal(self, scope: Scope) -> tuple[int, bytes, dict[bytes, bytes]] | None:
        """Return a status, a body and headers if the request is not to be let through."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        path, method = scope["path"], scope["method"]
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > LONGEST_ADDRESS:
            return 414, _reason(f"wanted an address of at most {LONGEST_ADDRESS} characters"), {}
        if len(hosts := _values(headers, b"host")) != 1 or hosts[0] not in self._hosts:
            return 400, _reason("wanted one Host header, and in it the host that the command printed"), {}
        if any(origin not in self._origins for origin in _values(headers, b"origin")):
            return 403, _reason("a page from elsewhere may not ask here"), {}
        if not _from_here(_values(headers, b"sec-fetch-site"), _values(headers, b"sec-fetch-mode"), path):
            return 403, _reason("a page from elsewhere may not ask here"), {}
        if method not in READING and not (method == "POST" and path in self._writing):
            return 405, _reason("wanted a GET request"), {b"allow": b"GET, HEAD"}
        lengths = _values(headers, b"content-length")
        if any(not length.isdigit() or len(length) > 9 or int(length) > LARGEST_BODY for length in lengths):
            return 413, _reason(f"wanted a body of at most {LARGEST_BODY} bytes"), {}
        if any(path == free or (free.endswith("/") and path.startswith(free)) for free in SHELL):
            return None
        if path == "/" and scope["query_string"]:
            return self._first_visit(scope["query_string"])
        if self._has_key(headers):
            return None
        if path == "/":
            return 401, _ASK_AT_THE_ADDRESS.encode("utf-8"), {b"content-type": b"text/html; charset=utf-8"}
        return 401, _reason("wanted the key: open the address that the command printed"), {}

    def _first_visit(self, query: bytes) -> tuple[int, bytes, dict[bytes, bytes]]:
        """Take the key out of the address and put it into a cookie."""
        given = [value for name, value in parse_qsl(query.decode("ascii", "replace")) if name == "token"]
        if len(given) != 1 or not self._is_key(given[0]):
            return 401, _ASK_AT_THE_ADDRESS.encode("utf-8"), {b"content-type": b"text/html; charset=utf-8"}
        cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
        return 303, b"", {b"location": b"/", b"set-cookie": cookie.encode("ascii")}

    def _has_key(self, headers: list[tuple[bytes, bytes]]) -> bool:
        for header in _values(headers, b"cookie"):
            try:
                found = SimpleCookie(header.decode("latin-1")).get(self.cookie)
            except CookieError:
                continue
            if found is not None and self._is_key(found.value):
                return True
        return False

    def _is_key(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode("ascii"))


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _from_here(sites: list[bytes], modes: list[bytes], path: str) -> bool:
    """Tell whether a browser says that a request comes from this server's own page, or from the person."""
    if all(site in (b"same-origin", b"none") for site in sites):
        return True
    # A link on a page of another port of this machine, such as a notebook's, may lead to the page itself.
    return sites == [b"same-site"] and modes == [b"navigate"] and path == "/"


def _reason(sentence: str) -> bytes:
    return json.dumps({"error": sentence}).encode("ascii")


async def _send(send: Send, status: int, body: bytes, headers: dict[bytes, bytes]) -> None:
    given = {b"content-type": b"application/json", b"cache-control": b"no-store", **headers}
    given[b"content-length"] = str(len(body)).encode("ascii")
    await send({"type": "http.response.start", "status": status, "headers": list(given.items())})
    await send({"type": "http.response.body", "body": body})


def _completing(send: Send) -> Send:
    """Return a `send` that gives every answer the headers that all must have, and raises where one is not in order."""

    async def complete(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = [(name.lower(), value) for name, value in message.get("headers", ())]
            names = [name for name, _ in given]
            missing = [name.decode() for name in OWED if names.count(name) != 1]
            taken = [name.decode() for name in HEADERS if name in names]
            if missing or taken:
                raise UnguardedResponse(f"an answer with one of each of {missing}, and none of {taken}, is owed")
            message = {**message, "headers": [*given, *HEADERS.items()]}
        await send(message)

    return complete


def _bounded(receive: Receive) -> Receive:
    """Return a `receive` that ends a request whose body grows too large on the way."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > LARGEST_BODY:
                return {"type": "http.disconnect"}
        return message

    return bounded
