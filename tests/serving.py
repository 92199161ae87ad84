"""Desks and servers for tests: a small random model that has read random tokens, and requests as they come."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attlas
from attlas.results import Provenance
from attlas.view.desk import Answer, Desk
from attlas.view.desk_captures import Exhibit
from attlas.view.opening import open_desk
from attlas.view.serving.assets import Asset
from attlas.view.serving.running import Server
from viewing import captured

SHELL: Mapping[str, Asset] = {
    "/": Asset("text/html; charset=utf-8", "no-cache", b"<!doctype html><title>page</title>"),
    "/assets/page-0123.js": Asset("text/javascript", "public, max-age=31536000, immutable", b"void 0;\n"),
}


def exhibit(length: int = 300, *, tokens: list[str] | None = None, title: str = "a text", **options: Any) -> Exhibit:
    """Return a small random model's attention on random tokens, which are called what `tokens` says."""
    cap = captured(len(tokens) if tokens else length, **options)
    names = tokens or [f" word{i}" for i in range(length)]
    return Exhibit(cap.of_document("".join(names), names, model="tiny", fingerprint="f00d"), title, error=1e-6)


class Held:
    """A layer that is made of a matrix."""

    def __init__(self, matrix: attlas.AttentionMatrix) -> None:
        self.matrix = matrix
        self.name = "layer"

    def layer(self) -> Any:
        return self


def capture_of(*matrices: attlas.AttentionMatrix) -> attlas.Capture:
    """Return a capture of matrices that no model has made."""
    return attlas.Capture({i: [Held(m)] for i, m in enumerate(matrices)}, provenance=Provenance("0"))


@contextmanager
def desk(*exhibits: Exhibit) -> Iterator[Desk]:
    """Open a desk for the time of a block."""
    opened = open_desk(exhibits or [exhibit()])
    try:
        yield opened
    finally:
        opened.close()


def asked(opened: Desk, path: str, status: int = 200, **query: str) -> Any:
    """Ask a desk for JSON, expecting a status."""
    answer = opened.answer(path, query)
    assert answer.status == status, answer.body[:200]
    return json.loads(answer.body)


def raw(opened: Desk, path: str, **query: str) -> bytes:
    """Ask a desk for bytes."""
    answer: Answer = opened.answer(path, query)
    assert answer.status == 200, answer.body[:200]
    return answer.body


@contextmanager
def server(*exhibits: Exhibit, assets: Mapping[str, Asset] = SHELL) -> Iterator[Server]:
    """Serve for the time of a block."""
    with Server(open_desk(exhibits or [exhibit(40)]), 0, assets=assets) as running:
        yield running


def request(
    running: Server, path: str, *, method: str = "GET", key: bool = True, headers: Mapping[str, str] | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    """Send a request as a browser that has been given the key would; return status, headers and body."""
    given = {"Cookie": f"{running.guard.cookie}={running.guard.token}"} if key else {}
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": f"127.0.0.1:{running.port}", **given, **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, body
    finally:
        connection.close()


def sent(running: Server, content: bytes) -> bytes:
    """Send bytes as they are; return what comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        connection.sendall(content)
        received = b""
        while more := connection.recv(65536):
            received += more
        return received
