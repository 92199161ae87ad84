"""Explanations for the page: started, told of, found, cancelled; and every question that does not fit is refused."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import attlas
from attlas.errors import ArgumentError, AttlasError
from attlas.explain.methods import METHODS
from attlas.view import explanations
from attlas.view.explanations import KEPT, PATIENCE, Explanations, explanation_record, methods_record
from explained import TEXT, speaker
from explaining import explained
from viewing import captured


@pytest.fixture
def desk() -> Iterator[Explanations]:
    found = Explanations()
    yield found
    found.close()


def finished(desk: Explanations, number: str) -> dict[str, Any]:
    for _ in range(2000):
        state = desk.state(number)
        assert state is not None
        if state["state"] not in ("waiting", "running"):
            return state
        time.sleep(0.01)
    raise AssertionError("it never ended")


class Slow:
    """Stands in for `attlas.explain`: waits until it is let go, and tells of its progress as it goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> None:
        self.begun, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.failure = failure
        monkeypatch.setattr(explanations, "explain", self)

    def __call__(self, *arguments: Any, progress: Any, **options: Any) -> Any:
        try:
            progress(1, 3, "walking down")
            self.begun.set()
            assert self.go.wait(20)
            progress(2, 3, "walking down")
        finally:
            self.ended.set()
        if self.failure is not None:
            raise self.failure
        return explained()


def test_an_explanation_is_the_one_that_attlas_explain_gives(desk: Explanations) -> None:
    lm = speaker()
    cap = lm.read(TEXT)
    begun = desk.start("a", cap, lm, "rollout", "-2")
    assert begun["state"] in ("waiting", "running", "done")
    state = finished(desk, begun["id"])
    assert (state["state"], state["error"]) == ("done", None)
    expected = attlas.explain(lm, TEXT, "rollout", -2, budget=0)
    found = state["explanation"]
    assert found["scores"] == pytest.approx(expected.scores.tolist(), rel=1e-4, abs=1e-12)
    assert found["target"] == {
        "name": expected.target.name,
        "position": expected.target.position,
        "quantity": expected.target.quantity,
    }
    assert found["faithfulness"] is None
    assert found["description"] == expected.describe()
    # The same question again is not worked on again.
    assert desk.start("a", cap, lm, "rollout", "-2")["id"] == begun["id"]
    assert desk.start("b", cap, lm, "rollout", "-2")["id"] != begun["id"]


def test_faithfulness_is_measured_where_it_is_asked_for(desk: Explanations) -> None:
    lm = speaker()
    begun = desk.start("a", lm.read(TEXT), lm, "recency", "-1", budget=160)
    state = finished(desk, begun["id"])
    trust = state["explanation"]["faithfulness"]
    assert trust["verdict"] in ("more faithful than chance", "less faithful than chance", "cannot tell")
    assert trust["measures"][0].keys() >= {"value", "advantage", "low", "high", "p", "unit", "baselines"}
    assert state["progress"]["done"] > 0
    own = [curve for curve in trust["curves"] if curve["own"]]
    assert {curve["kind"] for curve in own} == {"deletion", "insertion"}
    assert [(curve["fractions"][0], curve["fractions"][-1]) for curve in own] == [(0, 1)] * len(own)
    chance = [curve for curve in trust["curves"] if curve["order"] == "random"]
    assert [curve["kind"] for curve in chance] == ["deletion", "insertion"]
    assert all(len(one["low"]) == len(one["high"]) == len(one["values"]) == len(one["fractions"]) for one in chance)
    # It is not the same question as one without a measurement.
    assert desk.start("a", lm.read(TEXT), lm, "recency", "-1")["id"] != begun["id"]


@pytest.mark.parametrize(
    ("method", "target", "message"),
    [
        ("magic", "-1", "method: wanted one of"),
        ("rollout", "Paris", "target: wanted one of the forms"),
        ("rollout", "9999", "target: wanted a position inside of the text"),
        ("rollout", "-1: nonsense words", "target: wanted one token"),
    ],
)
def test_a_bad_question_is_refused_at_once(desk: Explanations, method: str, target: str, message: str) -> None:
    lm = speaker()
    with pytest.raises(AttlasError, match=message):
        desk.start("a", lm.read(TEXT), lm, method, target)


def test_what_cannot_be_explained_says_why(desk: Explanations) -> None:
    lm = speaker()
    cap = lm.read(TEXT)
    with pytest.raises(ArgumentError, match="the model is not open"):
        desk.start("a", cap, None, "rollout", "-1")
    with pytest.raises(ArgumentError, match="does not know the text"):
        desk.start("a", captured(8), lm, "rollout", "-1")
    other = cap.of_document(TEXT, list(cap.tokens or ()), model="m", fingerprint="another")
    with pytest.raises(ArgumentError, match="read by another model than tiny"):
        desk.start("a", other, lm, "rollout", "-1")
    cut = cap.of_document(TEXT, list(TEXT), model="tiny", fingerprint=lm.facts.fingerprint)
    with pytest.raises(ArgumentError, match="cuts the text in another way"):
        desk.start("a", cut, lm, "rollout", "-1")


def test_one_at_a_time_and_any_can_be_cancelled(desk: Explanations, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, lm = Slow(monkeypatch), speaker()
    cap = lm.read(TEXT)
    first, second = (desk.start("a", cap, lm, method, "-1")["id"] for method in ("rollout", "flow"))
    assert slow.begun.wait(20)
    states = [desk.state(number) for number in (first, second)]
    assert [state and state["state"] for state in states] == ["running", "waiting"]
    assert states[0] is not None
    assert states[0]["progress"] == {"done": 1, "total": 3, "what": "walking down"}
    for number in (second, first):
        told = desk.cancel(number)
        assert told is not None
        assert told["state"] == "cancelled"
    slow.go.set()
    assert finished(desk, first)["state"] == "cancelled"
    # One that was cancelled is made anew when it is asked for again.
    again = desk.start("a", cap, lm, "rollout", "-1")["id"]
    assert again != first
    assert finished(desk, again)["state"] == "done"
    assert (desk.cancel(again) or {})["state"] == "done"


@pytest.mark.parametrize("method", ["occlusion", "chefer", "rollout"])
def test_one_that_is_cancelled_ends_between_two_blocks(
    desk: Explanations, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    lm = speaker()
    cap = lm.read(TEXT)
    model: Any = lm.model
    first, *others = model.model.layers
    begun, go, ended, after = threading.Event(), threading.Event(), threading.Event(), []

    def explain(*arguments: Any, **options: Any) -> Any:
        try:
            return attlas.explain(*arguments, **options)
        finally:
            ended.set()

    def hold(*_: object) -> None:
        if not begun.is_set():
            begun.set()
            assert go.wait(20)

    monkeypatch.setattr(explanations, "explain", explain)
    hooks = [first.register_forward_hook(hold)]
    hooks += [other.register_forward_hook(lambda *_: after.append(go.is_set())) for other in others]
    number = desk.start("a", cap, lm, method, "-1")["id"]
    assert begun.wait(20)
    desk.cancel(number)
    go.set()
    assert ended.wait(20)
    for hook in hooks:
        hook.remove()
    assert (desk.state(number) or {})["state"] == "cancelled"
    assert after == [], "no other block ran, in this pass or in another"


def test_one_that_nobody_asks_for_any_longer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    desk, slow, lm = Explanations(clock=lambda: now[0]), Slow(monkeypatch), speaker()
    number = desk.start("a", lm.read(TEXT), lm, "rollout", "-1")["id"]
    assert slow.begun.wait(20)
    now[0] += PATIENCE + 1
    slow.go.set()
    assert slow.ended.wait(20)
    assert finished(desk, number)["state"] == "cancelled"
    desk.close()
    assert desk.state(number) is None


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ArgumentError("target: it is too far"), "target: it is too far"),
        (RuntimeError("/etc"), "it failed (RuntimeError)"),
    ],
)
def test_a_failure_is_told_and_nothing_else_with_it(
    desk: Explanations, monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str
) -> None:
    slow, lm = Slow(monkeypatch, failure), speaker()
    slow.go.set()
    state = finished(desk, desk.start("a", lm.read(TEXT), lm, "rollout", "-1")["id"])
    assert (state["state"], state["error"], state["explanation"]) == ("failed", message, None)
    assert failure.__traceback__ is None


def test_old_ones_are_forgotten_and_what_is_under_way_is_bounded(
    desk: Explanations, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, lm = Slow(monkeypatch), speaker()
    cap = lm.read(TEXT)
    numbers = [desk.start("a", cap, lm, "rollout", str(position))["id"] for position in range(KEPT)]
    with pytest.raises(ArgumentError, match=f"at most {KEPT} under way"):
        desk.start("a", cap, lm, "rollout", "-1")
    slow.go.set()
    finished(desk, numbers[-1])
    more = desk.start("a", cap, lm, "rollout", "-1")["id"]
    assert desk.state(numbers[0]) is None
    assert desk.cancel(numbers[0]) is None
    assert desk.state(numbers[1]) is not None
    finished(desk, more)


def test_a_record_is_plain_and_finite() -> None:
    found = explained(signed=True)
    found.scores[2] = float("nan")
    record = explanation_record(found)
    assert record["scores"][2] is None
    assert record["signed"] is True
    assert len(record["scores"]) == len(found.tokens)
    assert record["cautions"] is not None


def test_every_method_is_listed() -> None:
    assert [one["name"] for one in methods_record()] == list(METHODS)
