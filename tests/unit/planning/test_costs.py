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
from attlas.planning.costs import CostModel, Timed, _fit, label, measure_costs

COEFFICIENTS = st.floats(1e-9, 1e-3)


def timed(works: list[Work], fixed: float, pair: float, moved: float, feature: float) -> list[Timed]:
    return [
        Timed("one", 8, work, fixed + pair * work.pairs + moved * work.moved + feature * work.features)
        for work in works
    ]


WORKS = [Work(100), Work(5000), Work(300, 40), Work(20000, 3000), Work(700, 0, 900), Work(1, 2, 3000)]


@given(COEFFICIENTS, COEFFICIENTS, COEFFICIENTS, COEFFICIENTS)
def test_times_that_follow_the_model_are_explained(fixed: float, pair: float, moved: float, feature: float) -> None:
    runs = timed(WORKS, fixed, pair, moved, feature)
    found = CostModel(*_fit(runs), "here", 1, "2", "float32", 4, True, tuple(runs))
    assert found.residual < 1e-6


@given(st.lists(st.floats(1e-6, 1), min_size=6, max_size=6))
def test_no_coefficient_is_negative_and_none_could_be_better(seconds: list[float]) -> None:
    runs = [replace(run, seconds=s) for run, s in zip(timed(WORKS, 1, 1, 1, 1), seconds, strict=True)]
    found = torch.tensor(_fit(runs), dtype=torch.float64)
    assert bool((found >= 0).all())
    parts = torch.tensor([[1, r.work.pairs, r.work.moved, r.work.features] for r in runs], dtype=torch.float64)
    weighted = parts / torch.tensor(seconds, dtype=torch.float64).view(-1, 1)
    # The conditions of Karush, Kuhn and Tucker: no slope downhill into what is allowed.
    slope = weighted.T @ (weighted @ found - 1) / weighted.norm(dim=0)
    assert bool((slope >= -1e-6).all())
    assert bool((slope.abs() * (found > 0) <= 1e-6).all())


def test_what_nobody_does_costs_nothing() -> None:
    runs = timed([Work(10), Work(1000), Work(50)], 1e-4, 1e-8, 0, 0)
    assert _fit(runs) == pytest.approx([1e-4, 1e-8, 0, 0])


def test_a_measurement() -> None:
    patterns = [Full(), SlidingWindow(16, sinks=2), SlidingWindow(64)]
    found = measure_costs(patterns, 8, lengths=(64, 256), rounds=2)
    assert len(found.runs) == len(found.rows()) == 6
    assert {row["n"] for row in found.rows()} == {64, 256}
    assert found.rows()[0]["pattern"] == "full"
    assert found.rows()[1]["pattern"] == "sliding window: width 16, sinks 2"
    assert (found.dtype, found.dim, found.causal) == ("float32", 8, True)
    assert all(run.seconds > 0 for run in found.runs)
    assert found.seconds(Work(10**9)) >= found.seconds(Work(10**6)) > 0
    assert CostModel.from_dict(json.loads(json.dumps(found.as_dict()))) == found


class Never(SlidingWindow):
    def check(self, exact: attlas.AttentionMatrix) -> None:
        raise attlas.ArgumentError("never")


def test_patterns_that_cannot_run_are_left_out() -> None:
    found = measure_costs([Never(3), SlidingWindow(3)], 8, lengths=(32,), rounds=1)
    assert len(found.runs) == 1
    with pytest.raises(attlas.ArgumentError, match="patterns: wanted at least one that can be timed"):
        measure_costs([Never(3)], 8, lengths=(32,), rounds=1)


def test_labels() -> None:
    assert label(Full()) == "full"
    assert label(SlidingWindow(256, sinks=4)) == "sliding window: width 256, sinks 4"
