"""Explanations by path: what is asked for is bounded, and refused in a sentence where it does not fit."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from attlas.view.desk import Desk
from attlas.view.desk_captures import Exhibit
from attlas.view.desk_explanations import MOST, ExplanationAnswers
from explained import TEXT, speaker


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    lm = speaker()
    exhibits = {"a": Exhibit(lm.read(TEXT), "a text", model=lm), "b": Exhibit(lm.read(TEXT), "a text")}
    desk = Desk([ExplanationAnswers(exhibits).service()])
    yield desk
    desk.close()


def asked(desk: Desk, path: str, query: Mapping[str, str] | None = None) -> tuple[int, Any]:
    answer = desk.answer(f"/api/explanations{path}", query or {})
    return answer.status, json.loads(answer.body)


def test_it_tells_which_methods_there_are_and_what_cannot_be_explained(desk: Desk) -> None:
    status, found = asked(desk, "")
    assert status == 200
    assert "chefer" in [method["name"] for method in found["methods"]]
    assert found["reasons"]["a"] is None
    assert "the model is not open" in found["reasons"]["b"]


def test_one_is_begun_told_of_and_ended(desk: Desk) -> None:
    status, begun = asked(desk, "/start", {"capture": "a", "method": "recency", "target": "-1", "budget": "64"})
    assert (status, begun["method"], begun["budget"]) == (200, "recency", 64)
    assert asked(desk, f"/{begun['id']}")[1]["id"] == begun["id"]
    assert asked(desk, f"/{begun['id']}/cancel")[1]["state"] in ("cancelled", "done")


@pytest.mark.parametrize(
    ("path", "query", "status", "message"),
    [
        ("/start", {"capture": "z"}, 404, "capture: wanted a or b"),
        ("/start", {"capture": "b"}, 422, "the model is not open"),
        ("/start", {"method": "magic"}, 422, "method: wanted"),
        ("/start", {"target": "x" * 201}, 422, "target: wanted at most 200 characters"),
        ("/start", {"budget": "-1"}, 422, f"budget: wanted 0 to {MOST} forward passes"),
        ("/start", {"budget": str(MOST + 1)}, 422, f"budget: wanted 0 to {MOST} forward passes"),
        ("/start", {"budget": "9" * 400}, 422, f"budget: wanted 0 to {MOST} forward passes"),
        ("/999", {}, 404, "wanted the number of one that was started"),
        ("/1/2/3", {}, 404, "wanted start, a number"),
    ],
)
def test_what_does_not_fit_is_refused(desk: Desk, path: str, query: dict[str, str], status: int, message: str) -> None:
    found, body = asked(desk, path, query)
    assert (found, list(body)) == (status, ["error"])
    assert message in body["error"]
