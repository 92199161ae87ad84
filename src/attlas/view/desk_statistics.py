"""What is measured in the background, a layer at a time: the statistics of all heads, their tracks, their small maps.

After them come the roles of the heads, where they are wanted. The measuring gives way: while a request is under way it
waits, after each tile of a matrix, and after each batch of what a model reads. It ends when the desk closes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attlas.errors import AttlasError
from attlas.heads.statistics import Measuring
from attlas.matrix.threads import ahead
from attlas.view.desk import Answer, Event, Request, Service
from attlas.view.desk_captures import Exhibit, exhibit_of
from attlas.view.desk_matrices import MatrixAnswers
from attlas.view.desk_roles import Roles
from attlas.view.head_card import statistics_of
from attlas.view.tiles.pyramid import cells_of, kept_cell
from attlas.view.turns import Turn, Turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attlas.capture import LanguageModel

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
    roles : Roles, optional
        The roles of the heads, known and to be measured.
    turns : Turns, optional
        Whose turn it is to run a model.
    """

    def __init__(
        self,
        exhibits: dict[str, Exhibit],
        answers: MatrixAnswers,
        roles: Roles | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._exhibits = exhibits
        self._answers = answers
        self._roles = Roles({}) if roles is None else roles
        self._turns = Turns() if turns is None else turns
        self._ended = False
        self._found: dict[str, dict[str, dict[str, list[float]]]] = {name: {} for name in exhibits}
        self._cards: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
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
            self._cards.clear()

    def service(self) -> Service:
        """Return the service of ``/api/statistics``."""
        return Service({"statistics": self._statistics}, close=self.close)

    def of_head(self, name: str, layer: int, head: int) -> list[dict[str, Any]] | None:
        """Return the statistics of a head as they stand on its card; None while they are not measured."""
        return self._cards.get((name, layer, head))

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell someone what has been measured from now on, and at once if all is over; return what ends it.

        Parameters
        ----------
        listener : callable
            Called from another thread, with ``{"type": "statistics", "capture", "layer"}``, ``{"type": "done"}``,
            ``{"type": "error", "message"}`` or, after these, ``{"type": "roles"}``.
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

    @contextmanager
    def turn(self, check: Callable[[], None]) -> Iterator[None]:
        """Hold up the measuring, and have a turn at the models; `check` is called while waiting, and may raise."""
        with self.waiting(), self._turns.one(check):
            yield

    def _statistics(self, request: Request) -> Answer:
        (name,) = request.expect("capture")
        capture = exhibit_of(self._exhibits, name).capture
        # Asked first: what is added in between is told the next time.
        coming = self._roles.pending(capture)
        known = self._roles.numbers(capture)
        with self._lock:
            layers = {number: {**found, **known.values.get(number, {})} for number, found in self._found[name].items()}
            done, of = len(layers), len(self._layers[name])
            complete = not coming and (done == of or self._ended)
        content = {"layers": layers, "done": done, "of": of, "roles": known.roles, "scores": known.scores}
        return Answer.of({**content, "complete": complete})

    def _give_way(self) -> None:
        while self._waiting and not self._stop.is_set():
            self._stop.wait(_LOOK)
        self._go_on()

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _run(self) -> None:
        try:
            self._measure_statistics()
            for lm in self._roles.waiting():
                self._measure_roles(lm)
        except _Stopped:
            return

    def _measure_statistics(self) -> None:
        try:
            for name, exhibit in list(self._exhibits.items()):
                measuring = Measuring(exhibit.capture, at_each_tile=self._give_way)
                for number in self._layers[name]:
                    self._give_way()
                    self._measure(name, exhibit, measuring, number)
            self._tell({"type": "done"}, last=True)
        except (AttlasError, RuntimeError, MemoryError) as error:
            # The page goes on without the numbers, and says so, in the words of our own errors alone.
            message = str(error) if isinstance(error, AttlasError) else "the statistics could not be measured"
            with self._lock:
                self._ended = True
            self._tell({"type": "error", "message": message}, last=True)

    def _measure_roles(self, lm: LanguageModel) -> None:
        with self._turns.one(self._give_way) as turn:
            self._roles.measure(lm, lambda *_: self._lend(turn))
        self._tell({"type": "roles"})

    def _lend(self, turn: Turn) -> None:
        """Leave the turn to a request that is under way, if there is one."""
        self._go_on()
        if self._waiting:
            turn.leave()
            self._give_way()
            turn.take(self._give_way)

    def _measure(self, name: str, exhibit: Exhibit, measuring: Measuring, number: int) -> None:
        shape = exhibit.capture[number].shape[2:]
        cell = kept_cell((shape[0], shape[1]))
        layer, (peak, mass) = measuring.layer(number, *cells_of(cell))
        for i, head in enumerate(layer.heads):
            term = f"{name}.{number}.{head}"
            self._answers.pyramid.keep(term, peak[0, i], mass[0, i])
            self._answers.tracks.keep(term, layer.received[i], layer.entropy[i], layer.distance[i])
            self._cards[name, number, head] = statistics_of(layer, i)
        self._answers.maps.keep(name, number, cell, peak[0], mass[0])
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
