"""How far two matrices are from each other, by path: as dense ones say it, kept, and refused where they do not fit."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import torch

from attlas.view.desk import Desk
from attlas.view.desk_comparisons import WORST, ComparisonAnswers
from attlas.view.tiles.matrices import Matrices
from viewing import captured

LENGTH = 70


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    matrices = Matrices({"a": captured(LENGTH), "b": captured(LENGTH + 1)})
    desk = Desk([ComparisonAnswers(matrices).service()])
    yield desk
    desk.close()


def asked(desk: Desk, name: str, **options: Any) -> tuple[int, Any]:
    answer = desk.answer(f"/api/comparisons/{quote(name)}", {}, **options)
    return answer.status, json.loads(answer.body)


def dense(layer: int, head: int | str) -> torch.Tensor:
    matrix = captured(LENGTH)[layer].to_dense()[0].double()
    return matrix.mean(0) if head == "mean" else matrix[int(head)]


@pytest.mark.parametrize(("one", "other"), [((1, 2), (2, 0)), ((0, 1), (0, "mean"))])
def test_it_says_what_dense_matrices_say(desk: Desk, one: tuple[int, int], other: tuple[int, int | str]) -> None:
    status, found = asked(desk, f"a.{one[0]}.{one[1]}~a.{other[0]}.{other[1]}")
    assert status == 200
    first, second = dense(*one), dense(*other)
    variation = (first - second).abs().sum(-1) / 2
    assert found["frobenius"] == pytest.approx(float((first - second).norm()), rel=1e-4)
    assert found["relative"] == pytest.approx(float((first - second).norm() / first.norm()), rel=1e-4)
    told = found["total_variation"]
    assert told["mean"] == pytest.approx(float(variation.mean()), rel=1e-4)
    assert told["max"] == pytest.approx(float(variation.max()), rel=1e-4)
    rows = [one["row"] for one in told["rows"]]
    assert [one["value"] for one in told["rows"]] == pytest.approx(variation[rows].tolist(), rel=1e-4)
    assert told["rows"][0]["value"] == told["max"]
    rest = [value for row, value in enumerate(variation.tolist()) if row not in rows]
    assert len(rows) == WORST
    assert max(rest) <= told["rows"][-1]["value"] * (1 + 1e-4)


def test_a_matrix_differs_from_itself_in_no_row(desk: Desk) -> None:
    _, found = asked(desk, "a.1.1~a.1.1")
    assert found == {"frobenius": 0, "relative": 0, "total_variation": {"mean": 0, "max": 0, "rows": []}}


def test_a_pattern_that_leaves_out_differs_by_what_it_drops(desk: Desk) -> None:
    _, found = asked(desk, "a.1.1~a.1.1:sliding_window:width=8")
    matrix = dense(1, 1)
    kept = matrix.tril().triu(-7)
    dropped = 1 - kept.sum(-1)
    # Taking mass away from some keys and giving it to the others moves as much as was taken.
    assert found["total_variation"]["mean"] == pytest.approx(float(dropped.mean()), rel=1e-4)


def test_it_is_computed_once_and_by_whoever_still_waits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    name, looks = "a.2.1~a.0.3", iter([True])
    assert asked(desk, name, wanted=lambda: next(looks, False))[0] == 499
    status, found = asked(desk, name)
    assert status == 200
    monkeypatch.setattr(ComparisonAnswers, "_compared", None)
    assert asked(desk, name) == (200, found)


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("a.0.0", 404, "wanted two with ~ between, got one"),
        ("a.0.0~a.9.0", 404, "layer: wanted one of the 3 captured ones"),
        ("a.0.0~a.0.0~a.0.0", 404, "wanted one term, or two with ~ between"),
        ("a.0.0~b.0.0", 422, "wanted two of one size"),
        ("a.0.0~a.0.0:magic", 422, "pattern"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(desk: Desk, name: str, status: int, message: str) -> None:
    found, body = asked(desk, name)
    assert (found, list(body)) == (status, ["error"])
    assert message in body["error"]
