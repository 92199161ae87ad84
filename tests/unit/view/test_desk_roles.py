"""Roles at the desk: given or measured behind the statistics, told where they belong, and never in anybody's way."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from attlas.capture import LanguageModel
from attlas.errors import UnsupportedModelError
from attlas.heads import STATISTICS, measuring
from attlas.heads.role_table import HeadTable
from attlas.heads.roles import NONE
from attlas.view.desk import Desk, Overtaken
from attlas.view.desk_captures import Exhibit, named
from attlas.view.desk_matrices import MatrixAnswers
from attlas.view.desk_roles import PREFIX, Roles
from attlas.view.desk_statistics import Background
from attlas.view.opening import open_desk
from attlas.view.tiles.matrices import Matrices
from attlas.view.turns import Turns
from explained import TEXT, speaker
from viewing import captured, role_table


def asked(desk: Desk, path: str, **query: str) -> Any:
    answer = desk.answer(f"/api/{path}", query)
    assert answer.status == 200, answer.body[:300]
    return json.loads(answer.body)


def when(desk: Desk, kind: str) -> threading.Event:
    found = threading.Event()
    desk.listen(lambda event: found.set() if event["type"] == kind else None)
    return found


class Measured:
    """Stands in for `attlas.heads`: tells of a step when it is let go, and gives a table or a failure in the end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, table: Callable[[LanguageModel], Any]) -> None:
        self.begun, self.step, self.steps = threading.Event(), threading.Event(), 0
        self.asked: list[LanguageModel] = []
        self.ended = False
        self._table = table
        monkeypatch.setattr("attlas.heads.measuring.heads", self)

    def __call__(self, lm: LanguageModel, *, progress: Any) -> Any:
        self.asked.append(lm)
        try:
            self.begun.set()
            assert self.step.wait(30)
            for done in range(3):
                progress(done, 3, "reading repeats")
                self.steps += 1
            return self._table(lm)
        finally:
            self.ended = True


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    return Measured(monkeypatch, lambda lm: role_table(lm.read(TEXT)))


@pytest.fixture
def opened(measured: Measured) -> Iterator[Desk]:
    del measured
    lm = speaker()
    desk = open_desk([Exhibit(lm.read(TEXT), "a text", model=lm), Exhibit(captured(30), "b")], measure_roles=True)
    yield desk
    desk.close()


def test_roles_come_after_the_statistics_and_fill_cards_in(opened: Desk, measured: Measured) -> None:
    there = when(opened, "roles")
    assert when(opened, "done").wait(60)
    assert measured.begun.wait(30)
    before = asked(opened, "statistics/a")
    assert before["done"] == before["of"]
    assert (before["complete"], before["roles"], before["scores"]) == (False, {}, [])
    assert asked(opened, "heads/a/0/1", parts="roles")["reasons"]["roles"] == "they are being measured"
    measured.step.set()
    assert there.wait(60)
    found = asked(opened, "statistics/a")
    assert found["complete"] is True
    cap = speaker().read(TEXT)
    table = role_table(cap)
    names = list(table.scores)
    assert [score["name"] for score in found["scores"]] == [PREFIX + name for name in names]
    assert {score["label"] for score in found["scores"]} == {role.label for role in table.roles}
    for row, (layer, head) in enumerate(table.heads):
        having = [name for name in names if bool(table.scores[name].passes[row])]
        assert sorted(found["roles"].get(f"{layer}.{head}", [])) == sorted(having)
        numbers = found["layers"][str(layer)]
        assert numbers.keys() == {one.name for one in STATISTICS} | {PREFIX + name for name in names}
        for name in names:
            expected = float(table.scores[name].score[row])
            assert numbers[PREFIX + name][cap.heads(layer).index(head)] == pytest.approx(expected, rel=1e-3)
    assert 0 < len(found["roles"]) < len(table.heads)
    assert [one["name"] for one in asked(opened, "heads/a/0/1", parts="roles")["roles"]] == names


def test_roles_are_those_of_the_model_that_was_measured(opened: Desk, measured: Measured) -> None:
    there = when(opened, "roles")
    measured.step.set()
    assert there.wait(60)
    other = asked(opened, "statistics/b")
    assert (other["roles"], other["scores"], other["complete"]) == ({}, [], True)
    assert "the model that made this capture is not open" in asked(opened, "heads/b/0/0")["reasons"]["roles"]


def test_a_model_is_measured_once_for_all_its_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = speaker()
    measured = Measured(monkeypatch, lambda lm: role_table(lm.read(TEXT)))
    measured.step.set()
    parts = [Exhibit(lm.read(TEXT), "one", model=lm), Exhibit(lm.read(TEXT[:40]), "two", model=lm)]
    desk = open_desk([*parts, Exhibit(lm.read(TEXT), "a file")], measure_roles=True)
    assert when(desk, "done").wait(60)
    for name in "abc":
        until(lambda name=name: asked(desk, f"statistics/{name}")["complete"])
        assert asked(desk, f"statistics/{name}")["roles"]
    assert measured.asked == [lm]
    desk.close()


def until(holds: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(3000):
        if holds():
            return
        waiting.wait(0.01)
    raise AssertionError("it never happened")


def test_a_table_that_is_given_is_shown_at_once() -> None:
    cap = captured(30)
    desk = open_desk([Exhibit(cap, "a run")], roles=role_table(cap))
    assert asked(desk, "statistics/a")["roles"]
    assert asked(desk, "heads/a/0/0", parts="roles")["roles"]
    desk.close()
    desk = open_desk([Exhibit(cap, "a run")], roles=role_table(cap, model="another"))
    assert asked(desk, "statistics/a")["roles"] == {}
    assert "another model's" in asked(desk, "heads/a/0/0", parts="roles")["reasons"]["roles"]
    desk.close()


def test_without_them_the_page_hears_how_to_have_them() -> None:
    desk = open_desk([Exhibit(captured(30), "a run")])
    reason = asked(desk, "heads/a/0/0", parts="roles")["reasons"]["roles"]
    assert reason == "not measured; attlas view --roles measures them"
    assert when(desk, "done").wait(60)
    assert asked(desk, "statistics/a")["complete"] is True
    desk.close()


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (UnsupportedModelError("tiny: no role can be measured"), "tiny: no role can be measured"),
        (RuntimeError("/etc"), "they could not be measured"),
    ],
)
def test_a_failure_is_told_in_the_card(monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str) -> None:
    def fail(lm: LanguageModel) -> None:
        raise failure

    Measured(monkeypatch, fail).step.set()
    lm = speaker()
    desk = open_desk([Exhibit(lm.read(TEXT), "a text", model=lm)], measure_roles=True)
    assert when(desk, "roles").wait(60)
    assert asked(desk, "statistics/a")["complete"] is True
    reason = asked(desk, "heads/a/0/0", parts="roles")["reasons"]["roles"]
    assert message in reason
    assert "/etc" not in reason
    desk.close()


def test_measuring_roles_waits_for_requests_and_leaves_them_the_model(measured: Measured) -> None:
    lm = speaker()
    shown = named([Exhibit(lm.read(TEXT), "a text", model=lm)])
    answers = MatrixAnswers(Matrices({"a": shown["a"].capture}))
    background = Background(shown, answers, Roles(shown, measured=True), Turns())
    background.start()
    assert measured.begun.wait(60)
    with background.waiting():
        measured.step.set()
        # An explanation gets the model while the measuring holds still between two steps.
        with background.turn(lambda: None):
            assert measured.steps == 0
        assert not measured.ended
    until(lambda: measured.ended)
    assert measured.steps == 3
    background.close()


def test_closing_ends_the_measuring_of_roles(opened: Desk, measured: Measured) -> None:
    assert measured.begun.wait(60)
    closing = threading.Thread(target=opened.close)
    closing.start()
    measured.step.set()
    closing.join(60)
    assert not closing.is_alive()
    assert measured.ended
    assert measured.steps <= 1
    assert "attlas-measuring" not in {thread.name for thread in threading.enumerate()}


def test_a_turn_that_is_not_wanted_is_not_waited_for() -> None:
    turns = Turns()

    def gone() -> None:
        raise Overtaken

    with turns.one(lambda: None), pytest.raises(Overtaken), turns.one(gone):
        raise AssertionError("it was not its turn")
    with turns.one(lambda: None) as turn:
        turn.leave()
        with turns.one(lambda: None):
            pass
        turn.take(lambda: None)


def test_real_roles_of_a_small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[HeadTable] = []
    real = measuring.heads

    def heads(lm: LanguageModel, *, progress: Any) -> HeadTable:
        tables.append(real(lm, resamples=100, sentences=[], progress=progress))
        return tables[0]

    monkeypatch.setattr(measuring, "heads", heads)
    lm = speaker()
    desk = open_desk([Exhibit(lm.read(TEXT), "a text", model=lm)], measure_roles=True)
    assert when(desk, "roles").wait(300)
    found = asked(desk, "statistics/a")
    (table,) = tables
    assert [score["name"] for score in found["scores"]] == [PREFIX + name for name in table.scores]
    called = {f"{layer}.{head}": table.role_of(layer, head) for layer, head in table.heads}
    assert {head: having[0] for head, having in found["roles"].items()} == {
        head: name for head, name in called.items() if name != NONE
    }
    desk.close()
