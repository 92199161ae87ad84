"""What is measured in the background, a layer at a time: the statistics of all heads, their tracks, their small maps.

The measuring gives way: while a request is under way it waits. It ends when the desk closes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attlas.errors import AttlasError
from attlas.heads.statistics import Measuring
from attlas.matrix.threads import ahead
from attlas.view.desk import Answer, Event, Request, Service
from attlas.view.desk_captures import Exhibit, exhibit_of
from attlas.view.desk_matrices import MatrixAnswers
from attlas.view.tiles.pyramid import uppermost

if TYPE_CHECKING:
    from collections.abc import Iterator

Listener = Callable[[Event], None]

_LOOK = 0.02  # seconds between looks at whether the requests are done


class _Stopped(Exception):  # noqa: N818 - no error: the desk has closed
    """The desk has closed."""


class Background:
    """Measures every layer of every capture, on a thread of its own.

    Parameters
    ----------
    exhibits : dict
        Name -> Exhibit.
    answers : MatrixAnswers
        Who keeps the small maps and the tracks.
    """

    def __init__(self, exhibits: dict[str, Exhibit], answers: MatrixAnswers) -> None:
        self._exhibits = exhibits
        self._answers = answers
        self._found: dict[str, dict[str, dict[str, list[float]]]] = {name: {} for name in exhibits}
        self._layers = {name: exhibit.capture.layers for name, exhibit in exhibits.items()}
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._told: Event | None = None
        self._waiting = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="attlas-measuring", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, and let go of everything."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            self._listeners.clear()

    def service(self) -> Service:
        """Return the service of ``/api/statistics``."""
        return Service({"statistics": self._statistics}, close=self.close)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell someone what has been measured from now on, and at once if all is over; return what ends it.

        Parameters
        ----------
        listener : callable
            Called from another thread, with ``{"type": "statistics", "capture", "layer"}``, ``{"type": "done"}`` or
            ``{"type": "error", "message"}``.
        """
        with self._lock:
            self._listeners.append(listener)
            told = self._told
        if told is not None:
            listener(told)

        def end() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return end

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Hold up the measuring for as long as a request is under way.

        What is held up keeps its workers, so the request has others.
        """
        with self._lock:
            self._waiting += 1
        try:
            with ahead():
                yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _statistics(self, request: Request) -> Answer:
        (name,) = request.expect("capture")
        exhibit_of(self._exhibits, name)
        with self._lock:
            layers = dict(self._found[name])
        return Answer.of({"layers": layers, "done": len(layers), "of": len(self._layers[name])})

    def _give_way(self) -> None:
        while self._waiting and not self._stop.is_set():
            self._stop.wait(_LOOK)
        if self._stop.is_set():
            raise _Stopped

    def _run(self) -> None:
        try:
            for name, exhibit in list(self._exhibits.items()):
                measuring = Measuring(exhibit.capture, at_each_tile=self._give_way)
                for number in self._layers[name]:
                    self._give_way()
                    self._measure(name, exhibit, measuring, number)
            self._tell({"type": "done"}, last=True)
        except _Stopped:
            return
        except (AttlasError, RuntimeError, MemoryError) as error:
            # The page goes on without the numbers, and says so, in the words of our own errors alone.
            message = str(error) if isinstance(error, AttlasError) else "the statistics could not be measured"
            self._tell({"type": "error", "message": message}, last=True)

    def _measure(self, name: str, exhibit: Exhibit, measuring: Measuring, number: int) -> None:
        shape = exhibit.capture[number].shape[2:]
        layer, (peak, mass) = measuring.layer(number, *uppermost((shape[0], shape[1])))
        for i, head in enumerate(layer.heads):
            term = f"{name}.{number}.{head}"
            self._answers.pyramid.keep_top(term, peak[0, i], mass[0, i])
            self._answers.tracks.keep(term, layer.received[i], layer.entropy[i], layer.distance[i])
        self._answers.maps.keep(name, number, peak[0], mass[0])
        with self._lock:
            self._found[name][str(number)] = {what: values.tolist() for what, values in layer.values.items()}
        self._tell({"type": "statistics", "capture": name, "layer": number})

    def _tell(self, event: Event, *, last: bool = False) -> None:
        with self._lock:
            if last:
                self._told = event
            listeners = list(self._listeners)
        for listener in listeners:
            listener(event)
