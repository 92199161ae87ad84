from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from pathlib import Path

import pytest

from attlas.errors import StoreError
from attlas.view.desk import Desk
from attlas.view.serving.running import Server, listening_at, show
from serving import SHELL, exhibit, request, server

ROOT = Path(__file__).parents[4]


def test_it_listens_on_this_machine_alone() -> None:
    with listening_at(0) as found:
        assert found.getsockname()[0] == "127.0.0.1"


def test_a_port_in_use_is_left_and_another_taken() -> None:
    with listening_at(0) as first:
        taken = first.getsockname()[1]
        with listening_at(taken) as second:
            assert second.getsockname()[1] not in (0, taken)


def test_without_any_port_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(StoreError, match=r"port 0: cannot be listened at \(Too many open files\)"):
        listening_at(0)


def test_two_servers_at_once_have_ports_and_keys_of_their_own() -> None:
    with server(exhibit(40, title="one")) as one, server(exhibit(40, title="two")) as two:
        assert one.port != two.port
        assert b'"one"' in request(one, "/api/atlas")[2]
        assert b'"two"' in request(two, "/api/atlas")[2]
        stolen = {"Cookie": f"{two.guard.cookie}={one.guard.token}"}
        assert request(two, "/api/atlas", key=False, headers=stolen)[0] == 401


def test_ending_ends_streams_and_lets_go_of_everything() -> None:
    before = {thread.name for thread in threading.enumerate()}
    with server() as running:
        connection = socket.create_connection(("127.0.0.1", running.port))
        cookie = f"{running.guard.cookie}={running.guard.token}"
        asked = f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nCookie: {cookie}\r\n\r\n"
        connection.sendall(asked.encode())
        assert connection.recv(10)
        port = running.port
    while connection.recv(65536):
        pass
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    left = {thread.name for thread in threading.enumerate()} - before
    assert not [name for name in left if "desk" in name or "server" in name or "measuring" in name]


@pytest.mark.parametrize(
    ("environment", "opens", "said"),
    [
        ({}, True, "there is no browser here; open the address in yours"),
        ({"DISPLAY": ":0"}, False, "no browser could be opened; open the address in yours"),
        ({"DISPLAY": ":0"}, True, None),
        ({"BROWSER": "firefox"}, True, None),
    ],
)
def test_a_browser_is_opened_where_there_is_one(
    environment: dict[str, str], opens: bool, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or opens)
    lines: list[str] = []
    show("http://127.0.0.1:1/?token=x", lines.append)
    assert lines == ([] if said is None else [said])
    assert len(opened) == bool(environment)


def test_the_address_leads_to_this_machine() -> None:
    found = Server(Desk([]), 0, assets=SHELL)
    assert found.address == f"http://127.0.0.1:{found.port}/?token={found.guard.token}"
    with found:
        assert request(found, "/")[0] == 200


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_at_once_and_quietly(how: signal.Signals) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from serving import SHELL, exhibit\n"
        "from attlas.view.opening import open_desk\n"
        "from attlas.view.serving.running import Server\n"
        "server = Server(open_desk([exhibit(40)]), 0, assets=SHELL)\n"
        "print(server.address, flush=True)\n"
        "server.run()\n"
        "print('over', flush=True)\n"
    )
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path]),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    address = process.stdout.readline()
    port = int(address.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        # Only one who is answered knows that the server, and no longer the program before it, takes the signal.
        connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 401"
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
    assert err == ""
    assert process.returncode == (0 if how == signal.SIGINT else -signal.SIGTERM)
    assert out == ("over\n" if how == signal.SIGINT else "")
