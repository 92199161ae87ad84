from __future__ import annotations

import math
from contextlib import nullcontext

import pytest

import attlas
from attlas.planning.haystacks import Grid
from attlas.planning.retrieval import retrieval, wilson
from finding import Forgetful, finder


@pytest.fixture(scope="module")
def lm() -> attlas.LanguageModel:
    return finder()


GRID = Grid(lengths=(300, 600), depths=(0.0, 0.5, 1.0), each=3)


def test_a_plan_that_changes_nothing_loses_nothing(lm: attlas.LanguageModel) -> None:
    told: list[tuple[int, int]] = []
    found = retrieval(lm, Forgetful(lm), GRID, progress=lambda done, total, what: told.append((done, total)))
    assert found.answerable == 1
    assert all(cell.kept == cell.exact == cell.said == cell.said_kept == cell.asked == 3 for cell in found.cells)
    assert all(cell.share == 1 and cell.lost == 0 and 0 < cell.low < 1 == cell.high for cell in found.cells)
    assert told[-1] == (2 * len(GRID), 2 * len(GRID))
    assert len(found.rows()) == 12
    assert found.provenance.settings["each"] == 3


def test_a_short_memory_loses_what_is_far_away(lm: attlas.LanguageModel) -> None:
    found = retrieval(lm, Forgetful(lm, reach=200), GRID)
    for cell in found.cells:
        near = cell.depth == 1 or (cell.length == 300 and cell.depth == 0.5)
        assert cell.kept == (3 if near else 0), cell
    worst = found.worst
    assert worst is not None
    assert worst.share == 0
    assert worst.lost == 100
    assert worst.high < 1
    for trial in found.trials:
        assert trial.planned is not None
        assert (trial.planned.rank == 1) == (trial.haystack.distance < 200 - 4)


def test_whoever_does_not_look_at_keys_fails_where_there_are_many(lm: attlas.LanguageModel) -> None:
    found = retrieval(lm, Forgetful(lm, by_key=False), Grid(lengths=(400,), depths=(0.0, 0.5), each=4))
    worst = found.worst_task
    assert worst is not None
    assert worst.task == "many facts"
    assert found.task("one fact").kept > found.task("many facts").kept
    assert found.task("one fact").asked == 8


def test_only_facts_that_the_exact_model_finds_count() -> None:
    found = retrieval(finder(reach=200), nullcontext, GRID)
    assert found.answerable == pytest.approx(0.5)
    for cell in found.cells:
        assert cell.exact in (0, 3)
        assert cell.kept == cell.exact
        if not cell.exact:
            assert math.isnan(cell.share)
            assert (cell.low, cell.high) == (0, 1)
    assert [trial.planned is None for trial in found.trials] == [trial.exact.rank > 1 for trial in found.trials]


def test_a_model_that_finds_nothing_has_no_worst_cell() -> None:
    found = retrieval(finder(reach=0), nullcontext, Grid(lengths=(300,), depths=(0.5,), each=2))
    assert found.answerable == 0
    assert found.worst is None
    assert found.worst_task is None


def test_wilson_is_the_textbooks() -> None:
    # Agresti and Coull 1998: the end points are the shares p with |h/n - p| = z sqrt(p (1 - p) / n).
    for hits, tries in ((0, 5), (3, 8), (8, 8), (47, 50)):
        low, high = wilson(hits, tries)
        for end in {low, high} - {0.0, 1.0}:
            z = abs(hits / tries - end) / math.sqrt(end * (1 - end) / tries)
            assert z == pytest.approx(1.959964, abs=1e-5)
    assert wilson(0, 0) == (0, 1)
    assert wilson(8, 8, 0.99)[0] < wilson(8, 8, 0.95)[0]
