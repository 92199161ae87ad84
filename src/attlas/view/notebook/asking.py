"""What a page in a notebook asks, and what it is answered: messages instead of HTTP.

The page says ``{"kind": "ask", "id": 7, "path": "/api/atlas", "query": {}}`` and is answered ``{"kind": "answer",
"id": 7, "status": 200, "type": "application/json"}`` with one buffer, the body. ``{"kind": "cancel", "id": 7}`` takes a
question back; it is not answered then. What the desk says unasked comes as ``{"kind": "event", "event": …}`` to a page
that has said ``{"kind": "listen"}``. A page that is shown in several places says ``{"kind": "open", "view": 3}`` in
each of them, and ``{"kind": "close", "view": 3}`` where it is taken away; with the last one the desk is closed, until
something is asked again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from attlas.view.desk import Answer

if TYPE_CHECKING:
    from attlas.view.desk import Desk

THREADS = 4
"""Questions that are worked on at a time."""

WAITING = 256
"""Questions that may be under way; more are refused."""

Send = Callable[[Mapping[str, Any], Sequence[bytes]], None]
"""Sends a message and its buffers to the page; called from several threads."""


class Asking:
    """One page's questions to a desk, which is opened when the first one comes.

    Parameters
    ----------
    opened : callable
        Opens the desk.
    send : callable
        See `Send`.
    """

    def __init__(self, opened: Callable[[], Desk], send: Send) -> None:
        self._opened = opened
        self._send = send
        self._lock = threading.Lock()
        self._desk: Desk | None = None
        self._workers: ThreadPoolExecutor | None = None
        self._waiting: dict[int, threading.Event] = {}
        self._views: set[Any] = set()
        self._end: Callable[[], None] | None = None

    @property
    def open(self) -> bool:
        """Whether a desk is open."""
        return self._desk is not None

    def receive(self, message: Any) -> None:
        """Take a message of the page; one that is none is passed over."""
        if not isinstance(message, Mapping):
            return
        kind, number = message.get("kind"), message.get("id")
        if kind in ("open", "close") and isinstance(view := message.get("view"), int | str):
            self._place(view, there=kind == "open")
        elif kind == "listen":
            self._listen()
        elif isinstance(number, int) and not isinstance(number, bool):
            if kind == "ask":
                self._ask(number, message.get("path"), message.get("query"))
            elif kind == "cancel":
                self._cancel(number)

    def close(self) -> None:
        """Close the desk; nothing that is still under way is answered."""
        with self._lock:
            desk, workers, end = self._desk, self._workers, self._end
            self._desk = self._workers = self._end = None
            for gone in self._waiting.values():
                gone.set()
            self._waiting.clear()
            self._views.clear()
        if end is not None:
            end()
        if desk is not None:
            desk.close()
        if workers is not None:
            workers.shutdown(wait=False, cancel_futures=True)

    def _place(self, view: int | str, *, there: bool) -> None:
        """Note that the page is shown in another place, or in one less."""
        with self._lock:
            if there:
                self._views.add(view)
            else:
                self._views.discard(view)
            left = len(self._views)
        if not left:
            self.close()

    def _ask(self, number: int, path: Any, query: Any) -> None:
        plain = isinstance(query, Mapping) and all(isinstance(one, str) for pair in query.items() for one in pair)
        if not isinstance(path, str) or not plain:
            self._reply(number, Answer.of({"error": "wanted a path and a query of texts, got something else"}, 422))
            return
        gone = threading.Event()
        with self._lock:
            full = len(self._waiting) >= WAITING or number in self._waiting
            if not full:
                desk, workers = self._ready()
                self._waiting[number] = gone
                workers.submit(self._work, desk, number, gone, path, dict(query))
        if full:
            self._reply(number, Answer.of({"error": "too much was asked at once; ask again later"}, 503))

    def _work(self, desk: Desk, number: int, gone: threading.Event, path: str, query: Mapping[str, str]) -> None:
        answer = Answer.of({"error": "something went wrong; the notebook's log says more"}, 500)
        try:
            if not gone.is_set():
                answer = desk.answer(path, query, wanted=lambda: not gone.is_set())
        except Exception:
            # Nobody looks at what becomes of a thread's work, so it is said here.
            logging.getLogger(__name__).exception("a question of the page could not be answered")
            raise
        finally:
            with self._lock:
                waited = self._waiting.get(number) is gone
                if waited:
                    del self._waiting[number]
            if waited and not gone.is_set():
                self._reply(number, answer)

    def _cancel(self, number: int) -> None:
        with self._lock:
            gone = self._waiting.pop(number, None)
        if gone is not None:
            gone.set()

    def _listen(self) -> None:
        with self._lock:
            if self._end is not None:
                return
            desk, _ = self._ready()
            self._end = lambda: None
        end = desk.listen(lambda event: self._send({"kind": "event", "event": event}, []))
        with self._lock:
            if self._desk is desk:
                self._end = end
                return
        end()

    def _ready(self) -> tuple[Desk, ThreadPoolExecutor]:
        """Return the desk and those who work at it, opened if need be; the lock is held."""
        if self._desk is None or self._workers is None:
            self._desk = self._opened()
            self._workers = ThreadPoolExecutor(THREADS, thread_name_prefix="attlas-notebook")
        return self._desk, self._workers

    def _reply(self, number: int, answer: Answer) -> None:
        told = {"kind": "answer", "id": number, "status": answer.status, "type": answer.media_type}
        self._send(told, [answer.body])
