"""A page in a notebook and its desk, with a comm that is made up: questions, answers, cancelling, closing."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, Queue
from typing import Any

import pytest

from attlas.view.desk import Answer, Desk, NoSuchPath, Request, Service
from attlas.view.desk_captures import Exhibit
from attlas.view.notebook.asking import WAITING, Asking
from attlas.view.opening import open_desk
from attlas.view.tiles.coding import tile_of
from viewing import captured

Sent = tuple[Mapping[str, Any], Sequence[bytes]]


class Comm:
    """The page's end: what it says goes straight to the other, and what it is told waits in a queue."""

    def __init__(self, opened: Callable[[], Desk]) -> None:
        self.told: Queue[Sent] = Queue()
        self.asking = Asking(opened, lambda message, buffers: self.told.put((message, buffers)))

    def say(self, kind: str, number: Any = None, **more: Any) -> None:
        # As JSON, as it travels.
        self.asking.receive(json.loads(json.dumps({"kind": kind, "id": number, **more})))

    def hear(self) -> Sent:
        return self.told.get(timeout=20)

    def silent(self) -> bool:
        try:
            self.told.get(timeout=0.2)
        except Empty:
            return True
        return False


class Door:
    """A desk whose one question waits until it is let go."""

    def __init__(self) -> None:
        self.opened, self.closed = 0, 0
        self.asked, self.go = threading.Semaphore(0), threading.Event()
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []

    def __call__(self) -> Desk:
        self.opened += 1

        def listen(listener: Callable[[Mapping[str, Any]], None]) -> Callable[[], None]:
            self.listeners.append(listener)
            return lambda: self.listeners.remove(listener)

        return Desk([Service({"wait": self._wait, "fail": self._fail}, close=self._close)], listen=listen)

    def _wait(self, request: Request) -> Answer:
        self.asked.release()
        assert self.go.wait(20)
        request.check()
        return Answer(200, "text/plain", "/".join(request.words).encode())

    def _fail(self, request: Request) -> Answer:
        raise RuntimeError("/home/somebody/secret.py")

    def _close(self) -> None:
        self.closed += 1


def test_tiles_and_json_of_a_real_desk() -> None:
    cap = captured(40)
    comm = Comm(lambda: open_desk([Exhibit(cap, "a run")]))
    comm.say("ask", 1, path="/api/atlas", query={})
    comm.say("ask", 2, path="/api/tiles/a.1.2/0/0/0", query={"reduce": "max", "as": "f32"})
    comm.say("ask", 3, path="/api/nothing", query={})
    found = {message["id"]: (message, buffers) for message, buffers in (comm.hear() for _ in range(3))}
    message, (body,) = found[1]
    assert (message["kind"], message["status"], message["type"]) == ("answer", 200, "application/json")
    assert json.loads(body)["captures"][0]["title"] == "a run"
    message, (body,) = found[2]
    assert message["type"] == "application/octet-stream"
    dense = cap[1][0, 2].to_dense()[0, 0]
    assert (tile_of(body) - dense).abs().max() < 1e-6
    message, (body,) = found[3]
    assert message["status"] == 404
    assert list(json.loads(body)) == ["error"]
    comm.say("close", view=1)
    assert not comm.asking.open


def test_the_desk_is_opened_late_closed_with_the_page_and_opened_again() -> None:
    door = Door()
    comm = Comm(door)
    assert door.opened == 0
    door.go.set()
    for turn in (1, 2):
        comm.say("ask", turn, path="/api/wait/x", query={})
        assert comm.hear()[1] == [b"x"]
        assert (door.opened, door.closed) == (turn, turn - 1)
        comm.say("close", view=1)
        comm.say("close", view=1)
        assert (door.opened, door.closed) == (turn, turn)


def test_a_page_in_two_places_is_closed_with_the_last() -> None:
    door = Door()
    comm = Comm(door)
    door.go.set()
    for view in (1, "2"):
        comm.say("open", view=view)
    comm.say("ask", 1, path="/api/wait/x", query={})
    assert comm.hear()[1] == [b"x"]
    comm.say("close", view=1)
    comm.say("close", view=1)
    comm.say("close")
    assert comm.asking.open
    comm.say("close", view="2")
    assert (comm.asking.open, door.closed) == (False, 1)


def test_what_is_cancelled_is_not_answered() -> None:
    door = Door()
    comm = Comm(door)
    comm.say("ask", 1, path="/api/wait/one", query={})
    comm.say("ask", 2, path="/api/wait/two", query={})
    for _ in range(2):
        assert door.asked.acquire(timeout=20)
    comm.say("cancel", 1)
    comm.say("cancel", 7)
    door.go.set()
    assert comm.hear()[1] == [b"two"]
    assert comm.silent()
    # Its number is free again.
    comm.say("ask", 1, path="/api/wait/three", query={})
    assert comm.hear()[1] == [b"three"]
    comm.say("close", view=1)


def test_closing_leaves_nothing_to_be_answered() -> None:
    door = Door()
    comm = Comm(door)
    for number in range(6):
        comm.say("ask", number, path="/api/wait", query={})
    assert door.asked.acquire(timeout=20)
    comm.say("close", view=1)
    door.go.set()
    assert comm.silent()


def test_errors_are_answers(caplog: pytest.LogCaptureFixture) -> None:
    comm = Comm(Door())
    comm.say("ask", 1, path="/api/fail", query={})
    message, (body,) = comm.hear()
    assert message["status"] == 500
    assert b"secret" not in body
    assert "could not be answered" in caplog.text
    for number, (path, query) in enumerate([(None, {}), ("/api/wait", None), ("/api/wait", {"a": 1})]):
        comm.say("ask", number, path=path, query=query)
        message, (body,) = comm.hear()
        assert (message["id"], message["status"]) == (number, 422)
    for nonsense in (None, 3, "ask", [], {}, {"kind": "ask"}, {"kind": "ask", "id": True}, {"kind": [], "id": {}}):
        comm.asking.receive(nonsense)
    assert comm.silent()
    comm.say("close", view=1)


def test_too_many_questions_are_refused() -> None:
    door = Door()
    comm = Comm(door)
    for number in range(WAITING + 1):
        comm.say("ask", number, path="/api/wait", query={})
    message, _ = comm.hear()
    assert (message["id"], message["status"]) == (WAITING, 503)
    comm.say("close", view=1)
    door.go.set()


def test_a_page_that_listens_is_told() -> None:
    door = Door()
    comm = Comm(door)
    comm.say("listen")
    comm.say("listen")
    assert len(door.listeners) == 1
    door.listeners[0]({"type": "done"})
    assert comm.hear() == ({"kind": "event", "event": {"type": "done"}}, [])
    comm.say("close", view=1)
    assert door.listeners == []


def test_a_path_that_leads_nowhere_is_no_failure() -> None:
    def nowhere(request: Request) -> Answer:
        raise NoSuchPath("path: wanted another")

    comm = Comm(lambda: Desk([Service({"x": nowhere})]))
    comm.say("ask", 1, path="/api/x", query={})
    assert comm.hear()[0]["status"] == 404
    comm.say("close", view=1)
