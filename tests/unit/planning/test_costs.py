"""The cost model: exact coefficients from exact times, none negative, and a quick measurement."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attlas
from attlas.patterns import Full, SlidingWindow, Work
from attlas.planning.costs import CostModel, Timed, _fit, measure_costs

COEFFICIENTS = st.floats(1e-9, 1e-3)


def timed(works: list[tuple[str, int, Work]], coefficients: dict[str, float]) -> list[Timed]:
    return [
        Timed(
            "one",
            kind,
            n,
            work,
            coefficients["fixed"]
            + coefficients["row"] * n
            + coefficients[kind] * work.pairs
            + coefficients["moved"] * work.moved
            + coefficients["feature"] * work.features,
        )
        for kind, n, work in works
    ]


WORKS = [
    ("a", 8, Work(100)),
    ("a", 90, Work(5000)),
    ("b", 8, Work(300, 40)),
    ("b", 200, Work(20000, 3000)),
    ("a", 90, Work(700, 0, 900)),
    ("b", 70, Work(9, 2000)),
    ("a", 1, Work(1, 2, 3000)),
]
NAMES = ("fixed", "row", "a", "b", "moved", "feature")


@given(st.fixed_dictionaries(dict.fromkeys(NAMES, COEFFICIENTS)))
def test_times_that_follow_the_model_are_explained(coefficients: dict[str, float]) -> None:
    runs = timed(WORKS, coefficients)
    fixed, row, pair, moved, feature = _fit(runs)
    found = CostModel(fixed, row, pair, moved, feature, "here", 1, "2", "float32", 4, True, tuple(runs))
    assert found.residual < 1e-6


@given(st.lists(st.floats(1e-6, 1), min_size=len(WORKS), max_size=len(WORKS)))
def test_no_coefficient_is_negative_and_none_could_be_better(seconds: list[float]) -> None:
    runs = [replace(run, seconds=s) for run, s in zip(timed(WORKS, dict.fromkeys(NAMES, 1)), seconds, strict=True)]
    fixed, row, pair, moved, feature = _fit(runs)
    found = torch.tensor([fixed, row, pair["a"], pair["b"], moved, feature], dtype=torch.float64)
    assert bool((found >= 0).all())
    parts = [[1, n, w.pairs * (k == "a"), w.pairs * (k == "b"), w.moved, w.features] for k, n, w in WORKS]
    weighted = torch.tensor(parts, dtype=torch.float64) / torch.tensor(seconds, dtype=torch.float64).view(-1, 1)
    # The conditions of Karush, Kuhn and Tucker: no slope downhill into what is allowed.
    slope = weighted.T @ (weighted @ found - 1) / weighted.norm(dim=0)
    assert bool((slope >= -1e-6).all())
    assert bool((slope.abs() * (found > 0) <= 1e-6).all())


def test_what_nobody_does_costs_nothing() -> None:
    works = [("a", 3, Work(10)), ("a", 4, Work(1000)), ("a", 9, Work(50))]
    runs = timed(works, {**dict.fromkeys(NAMES, 0), "fixed": 1, "a": 2})
    fixed, row, pair, moved, feature = _fit(runs)
    assert (fixed, row, pair["a"]) == pytest.approx((1, 0, 2))
    assert (moved, feature) == (0, 0)


def test_a_measurement() -> None:
    patterns = [Full(), SlidingWindow(16, sinks=2), SlidingWindow(64)]
    found = measure_costs(patterns, 8, lengths=(64, 256), rounds=2)
    # A window as wide as the text is exact attention, and tells nothing of windows.
    assert len(found.runs) == len(found.rows()) == 5
    assert found.of(SlidingWindow(64), 64, causal=True) == found.of(Full(), 64, causal=True)
    assert {row["n"] for row in found.rows()} == {64, 256}
    assert found.rows()[0]["pattern"] == "full"
    assert found.rows()[1]["pattern"] == "sliding window: width 16, sinks 2"
    assert (found.dtype, found.dim, found.causal) == ("float32", 8, True)
    assert all(run.seconds > 0 for run in found.runs)
    assert set(found.pair) == {"full", "sliding_window"}
    assert found.seconds("full", 64, Work(10**9)) >= found.seconds("full", 64, Work(10**6)) > 0
    assert found.of(Full(), 64, causal=True) == found.seconds("full", 64, Full().work(64, 64, causal=True))
    # What was not timed is not believed to be cheap.
    assert found.seconds("other", 9, Work(99)) == max(found.seconds(kind, 9, Work(99)) for kind in found.pair)
    assert CostModel.from_dict(json.loads(json.dumps(found.as_dict()))) == found


class Never(SlidingWindow):
    def _check(self, exact: attlas.AttentionMatrix) -> None:
        raise attlas.ArgumentError("never")


def test_patterns_that_cannot_run_are_left_out() -> None:
    found = measure_costs([Never(3), SlidingWindow(3)], 8, lengths=(32,), rounds=1)
    assert len(found.runs) == 1
    with pytest.raises(attlas.ArgumentError, match="patterns: wanted at least one that can be timed"):
        measure_costs([Never(3)], 8, lengths=(32,), rounds=1)


def test_labels() -> None:
    assert str(Full()) == "full"
    assert str(SlidingWindow(256, sinks=4)) == "sliding window: width 256, sinks 4"
