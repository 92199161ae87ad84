"""Explanations that the page asks for: made one at a time on a thread of their own, and kept for a while.

Nobody waits on a connection for one: it is started, and then asked for until it is done. One that nobody asks for any
longer ends at its next step, or at the next block of the model that is running.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from attlas.capture.interrupting import interruptible
from attlas.errors import ArgumentError, AttlasError
from attlas.explain.answering import answering
from attlas.explain.attribution import Attribution
from attlas.explain.cautions import cautions
from attlas.explain.explaining import explain
from attlas.explain.faithfulness.record import Faithfulness
from attlas.explain.methods import METHODS, choices
from attlas.explain.reading import reading_of
from attlas.explain.shading import ends
from attlas.explain.target_text import parsed_target
from attlas.view.encoding import rounded

if TYPE_CHECKING:
    from attlas.capture import Capture, LanguageModel

KEPT = 16
"""Explanations that are remembered; of more, the oldest ones that are done are forgotten."""

PATIENCE = 180.0
"""Seconds without a question after which nobody waits: a page in the background may ask only once a minute."""

TakeTurn = Callable[[Callable[[], None]], AbstractContextManager[Any]]
"""Takes what is called while waiting, and returns the context of a turn."""

_PACKAGES = {"integrated_gradients": "captum"}
"""Methods that need a package of their own."""


class _Stopped(Exception):  # noqa: N818 - no error: it was cancelled, or nobody waits
    """The explanation is not wanted any more."""


@dataclass(eq=False)
class _Job:
    """One explanation, from the question to the answer."""

    capture: str
    method: str
    target: str
    budget: int
    asked: float
    progress: tuple[int, int, str] = (0, 0, "")
    cancelled: bool = False
    future: Future[dict[str, Any]] = field(default_factory=Future)

    @property
    def state(self) -> str:
        if self.future.done() and not self.future.cancelled():
            error = self.future.exception()
            if not isinstance(error, _Stopped):
                return "done" if error is None else "failed"
        if self.cancelled or self.future.done():
            return "cancelled"
        return "running" if self.future.running() else "waiting"


class Explanations:
    """Makes explanations on request; safe to ask from several threads at once.

    Parameters
    ----------
    clock : callable
        Seconds.
    turn : callable
        Takes what is to be called while waiting, which may raise, and returns a context in which an explanation is
        made.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        turn: TakeTurn = nullcontext,
    ) -> None:
        self._clock = clock
        self._turn = turn
        self._jobs: dict[str, _Job] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="attlas-explaining")

    def start(
        self, name: str, capture: Capture, lm: LanguageModel | None, method: str, target: str, *, budget: int = 0
    ) -> dict[str, Any]:
        """Ask for an explanation; the same one as before is not made again.

        Parameters
        ----------
        name : str
            The capture's name on the page.
        capture : Capture
            What was read.
        lm : LanguageModel, optional
            Who read it.
        method : str
            As in `attlas.explain`.
        target : str
            As on the command line; see `attlas.explain.target_text`.
        budget : int
            Forward passes that measuring how far it can be trusted may take; 0 if that is not wanted.

        Returns
        -------
        dict
            As from `state`.

        Raises
        ------
        AttlasError
            There is no such method or target, or this capture cannot be explained.
        """
        (choice,) = choices(method)
        package = _PACKAGES.get(choice.method.name)
        if package is not None and find_spec(package) is None:
            raise ArgumentError(f"method: {choice.method.name} needs {package}: pip install {package}")
        wanted = parsed_target(target)
        reason = unexplained(capture, lm)
        if lm is None or capture.text is None or reason:
            raise ArgumentError(f"explanations: {reason}")
        # What does not fit the text is said now, and not by a worker.
        reading_of(lm, capture.text, wanted)
        with self._lock:
            for known, job in self._jobs.items():
                same = (job.capture, job.method, job.target, job.budget) == (name, method, target, budget)
                if same and job.state not in ("failed", "cancelled"):
                    job.asked = self._clock()
                    return self._told(known, job)
            self._forget()
            number = str(next(self._numbers))
            job = _Job(name, method, target, budget, self._clock())
            self._jobs[number] = job
            job.future = self._worker.submit(self._make, job, lm, capture.text, wanted)
            job.future.add_done_callback(_lighten)
            return self._told(number, job)

    def state(self, number: str) -> dict[str, Any] | None:
        """Return how far an explanation is, and what was found when it is done; None for one that nobody knows.

        Returns
        -------
        dict or None
            ``id``, ``capture``, ``method``, ``target``, ``budget``, ``state`` ("waiting", "running", "done", "failed",
            "cancelled"), ``progress`` (done, total, what), ``error`` (a sentence, if it failed), ``explanation``.
        """
        with self._lock:
            job = self._jobs.get(number)
            if job is None:
                return None
            job.asked = self._clock()
            return self._told(number, job)

    def cancel(self, number: str) -> dict[str, Any] | None:
        """End one; it stops at the next block of the model, or step. What is done already stays."""
        with self._lock:
            job = self._jobs.get(number)
            if job is None:
                return None
            if not job.future.done():
                job.cancelled = True
                job.future.cancel()
            return self._told(number, job)

    def close(self) -> None:
        """End all of them, and forget what was found; one that is under way ends at its next step, and nobody waits."""
        with self._lock:
            for job in self._jobs.values():
                job.cancelled = True
            self._jobs.clear()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _make(self, job: _Job, lm: LanguageModel, text: str, target: Any) -> dict[str, Any]:
        def check() -> None:
            if job.cancelled or self._clock() - job.asked > PATIENCE:
                raise _Stopped

        def tell(done: int, total: int, what: str) -> None:
            check()
            job.progress = done, total, what

        check()
        # On a long text, one forward pass can be most of a minute.
        with self._turn(check), interruptible(lm.model, check):
            found = explain(lm, text, job.method, target, budget=job.budget, progress=tell)
        return explanation_record(found)

    def _forget(self) -> None:
        """Make room for one more."""
        over = [number for number, job in self._jobs.items() if job.state not in ("waiting", "running")]
        for number in over[: max(0, len(self._jobs) - KEPT + 1)]:
            del self._jobs[number]
        if len(self._jobs) >= KEPT:
            raise ArgumentError(f"explanations: wanted at most {KEPT} under way, got one more; wait, or cancel some")

    def _told(self, number: str, job: _Job) -> dict[str, Any]:
        state = job.state
        done, total, what = job.progress
        error = None
        if state == "failed":
            failure = job.future.exception()
            # What is not an error of ours may hold anything.
            error = str(failure) if isinstance(failure, AttlasError) else f"it failed ({type(failure).__name__})"
        return {
            "id": number,
            "capture": job.capture,
            "method": job.method,
            "target": job.target,
            "budget": job.budget,
            "state": state,
            "progress": {"done": done, "total": total, "what": what},
            "error": error,
            "explanation": job.future.result() if state == "done" else None,
        }


def _lighten(future: Future[Any]) -> None:
    """Let go of what an error's traceback holds: all that the model was computing."""
    error = None if future.cancelled() else future.exception()
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def methods_record() -> list[dict[str, Any]]:
    """Return every method as plain types: what it computes, whose it is, its presets; and why it cannot be had."""
    return [
        {
            **method.as_dict(),
            "reason": f"it needs {package}: pip install {package}"
            if (package := _PACKAGES.get(name)) is not None and find_spec(package) is None
            else None,
        }
        for name, method in METHODS.items()
    ]


def unexplained(capture: Capture, lm: LanguageModel | None) -> str:
    """Return why a capture cannot be explained here; empty if it can."""
    if lm is None:
        return "the model is not open; only a model that can be asked again can be explained"
    if capture.text is None or capture.tokens is None:
        return "this capture does not know the text that was read"
    if capture.provenance.fingerprint != lm.facts.fingerprint:
        return f"this was read by another model than {lm.name}"
    if lm.tokenize(capture.text).tokens != capture.tokens:
        return "the model's tokenizer cuts the text in another way today"
    return ""


def explanation_record(found: Attribution) -> dict[str, Any]:
    """Return an explanation as the page shows it, as plain types.

    Returns
    -------
    dict
        ``scores``: a number each token, or None where it is not finite; ``end``: the size of a score that is shown in
        full colour; ``answers``: the token where the model answers; the target, the value, what must be said beside it
        (``cautions``), how it was made (``description``), and ``faithfulness``.
    """
    return {
        "name": found.name,
        "method": found.method,
        "preset": found.preset,
        "summary": METHODS[found.method].summary,
        "paper": METHODS[found.method].paper,
        "target": {
            "name": found.target.name,
            "position": found.target.position,
            "quantity": found.target.quantity,
        },
        "value": rounded(found.value),
        "signed": found.signed,
        "scores": [rounded(score) for score in found.scores.tolist()],
        "end": rounded(ends(found)[0]),
        "answers": answering(found),
        "cautions": cautions([found]),
        "description": found.describe(),
        "faithfulness": None if found.faithfulness is None else _faithfulness(found.faithfulness, found),
    }


def _faithfulness(found: Faithfulness, of: Attribution) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "summary": found.summary,
        "passes": found.passes,
        "measures": [
            {
                "name": one.name,
                "unit": one.unit,
                **{name: rounded(getattr(one, name)) for name in ("value", "advantage", "low", "high", "p")},
                "baselines": {name: rounded(value) for name, value in one.baselines.items()},
            }
            for one in found.measures
        ],
        "curves": [
            {
                "kind": curve.kind,
                "order": curve.order,
                "own": curve.order in (found.method, of.name, of.method),
                **{name: [*map(rounded, getattr(curve, name))] for name in ("fractions", "values", "low", "high")},
            }
            for curve in found.curves
        ],
    }
