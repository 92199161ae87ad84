"""How far two matrices are from each other, by path: ``/api/comparisons/{matrix~matrix}``."""

from __future__ import annotations

import threading
from typing import Any

from attlas.errors import complaint
from attlas.view.desk import Answer, NoSuchPath, Request, Service
from attlas.view.tiles.kept import Check
from attlas.view.tiles.matrices import Matrices

REMEMBERED = 64
"""Comparisons that are kept: a few numbers each, of a pass over two whole matrices."""

WORST = 12
"""Rows that are named: those that differ most."""


class ComparisonAnswers:
    """Answers how far two matrices are from each other.

    Parameters
    ----------
    matrices : Matrices
        Gives them by name.
    """

    def __init__(self, matrices: Matrices) -> None:
        self._matrices = matrices
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}

    def service(self) -> Service:
        """Return the service of ``/api/comparisons``."""
        return Service({"comparisons": self._answer}, close=self._known.clear)

    def _answer(self, request: Request) -> Answer:
        (name,) = request.expect("matrix~matrix")
        with self._lock:
            found = self._known.get(name)
        if found is None:
            # Two who ask at once both compute it: the answer is the same, and neither waits for the other.
            found = self._compared(name, request.check)
            with self._lock:
                self._known[name] = found
                while len(self._known) > REMEMBERED:
                    self._known.pop(next(iter(self._known)))
        return Answer.of(found)

    def _compared(self, name: str, check: Check) -> dict[str, Any]:
        terms = self._matrices.terms(name)
        if len(terms) != 2:
            raise NoSuchPath(complaint("matrix", wanted="two with ~ between", got="one"))
        self._matrices.named(name)  # two of different sizes are refused before anything is computed
        first, second = (self._matrices.named(term).operator for term in terms)
        found = first.compare(second, progress=lambda done, total: check())
        variation = found.total_variation[0, 0].double().cpu()
        worst = variation.topk(min(WORST, len(variation)))
        return {
            "frobenius": float(found.frobenius),
            "relative": float(found.relative),
            "total_variation": {
                "mean": float(variation.mean()),
                "max": float(variation.max()),
                "rows": [
                    {"row": row, "value": value}
                    for row, value in zip(worst.indices.tolist(), worst.values.tolist(), strict=True)
                    if value > 0
                ],
            },
        }
