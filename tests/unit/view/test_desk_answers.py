"""Spans, cards and explanations by path, at a whole desk: what is answered, and every refusal in one sentence."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from attlas.explain.methods import METHODS
from attlas.heads import STATISTICS
from attlas.view.desk import Desk
from attlas.view.desk_captures import Exhibit
from attlas.view.opening import open_desk
from attlas.view.spans import KINDS
from explained import TEXT, speaker
from viewing import captured


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    lm = speaker()
    found = open_desk([Exhibit(lm.read(TEXT), "a text", model=lm), Exhibit(captured(30), "a run", model=lm)])
    yield found
    found.close()


def asked(desk: Desk, path: str, **query: str) -> tuple[int, Any]:
    answer = desk.answer(f"/api/{path}", query)
    assert answer.media_type == "application/json"
    return answer.status, json.loads(answer.body)


def test_the_atlas_names_them(desk: Desk) -> None:
    status, atlas = asked(desk, "atlas")
    assert status == 200
    assert atlas["spans"] == list(KINDS)
    assert atlas["methods"] == list(METHODS)
    plain = open_desk([Exhibit(captured(8), "a run")])
    assert asked(plain, "atlas")[1]["methods"] == []
    plain.close()


def test_spans(desk: Desk) -> None:
    status, found = asked(desk, "spans/a/line")
    assert status == 200
    assert [one["label"] for one in found["spans"]] == TEXT.split("\n")
    status, found = asked(desk, "spans/b/line")
    assert (status, found["spans"]) == (200, [])
    assert "does not know the text" in found["reason"]


def test_a_card_is_made_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    status, first = asked(desk, "heads/a/1/2", parts="statistics")
    assert status == 200
    assert len(first["statistics"]) == len(STATISTICS)
    assert first["spectra"] is None
    assert first["reasons"]["spectra"] == "it was not asked for"
    status, whole = asked(desk, "heads/a/1/2")
    assert whole["statistics"] == first["statistics"]
    assert whole["reasons"].keys() == {"roles"}
    assert len(whole["spectra"]["qk"]) > 0

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("it was made again")

    monkeypatch.setattr("attlas.view.head_card.one_head", fail)
    assert asked(desk, "heads/a/1/2") == (200, whole)
    # Weights belong to the capture that their model has made, and to no other.
    reasons = asked(desk, "heads/b/0/0", parts="spectra,roles")[1]["reasons"]
    assert "the model is not open" in reasons["spectra"]


def test_an_explanation_from_its_start_to_its_end(desk: Desk) -> None:
    status, listed = asked(desk, "explanations")
    assert status == 200
    assert [one["name"] for one in listed["methods"]] == list(METHODS)
    assert listed["reasons"]["a"] is None
    assert "does not know the text" in listed["reasons"]["b"]
    status, begun = asked(desk, "explanations/start", capture="a", method="rollout", target="-1: Rome")
    assert status == 200
    state = begun
    for _ in range(2000):
        status, state = asked(desk, f"explanations/{begun['id']}")
        if state["state"] not in ("waiting", "running"):
            break
        time.sleep(0.01)
    assert (status, state["state"]) == (200, "done")
    assert state["explanation"]["target"]["name"] == "' Rome'"
    assert asked(desk, f"explanations/{begun['id']}/cancel") == (200, state)


@pytest.mark.parametrize(
    ("path", "query", "status", "message"),
    [
        ("spans/z/line", {}, 404, "capture: wanted a or b, got 'z'"),
        ("spans/a/page", {}, 422, "spans: wanted one of"),
        ("spans/a", {}, 404, "path: wanted 2 parts (capture, kind), got 1"),
        ("heads/a/1/9", {}, 404, "head: wanted a captured one, got 1.9"),
        ("heads/a/x/0", {}, 404, "layer: wanted a whole number"),
        ("heads/a/1/2", {"parts": "colour"}, 422, "parts: wanted some of"),
        ("explanations/7/eat", {}, 404, "explanations: wanted start"),
        ("explanations/999", {}, 404, "explanations: wanted the number of one that was started"),
        ("explanations/start", {"capture": "q"}, 404, "capture: wanted a or b"),
        ("explanations/start", {"method": "magic"}, 422, "method: wanted one of"),
        ("explanations/start", {"target": "x"}, 422, "target: wanted one of the forms"),
        ("explanations/start", {"target": "9999"}, 422, "target: wanted a position"),
        ("explanations/start", {"target": "1" * 500}, 422, "target: wanted at most 200 characters"),
        ("explanations/start", {"budget": "-2"}, 422, "budget: wanted 0 to"),
        ("explanations/start", {"budget": "9" * 30}, 422, "budget: wanted 0 to"),
        ("explanations/start", {"capture": "b"}, 422, "explanations: this capture does not know the text"),
    ],
)
def test_refusals(desk: Desk, path: str, query: dict[str, str], status: int, message: str) -> None:
    found, told = asked(desk, path, **query)
    assert (found, list(told)) == (status, ["error"])
    assert message in told["error"]
