"""Every path of the desk, asked as it should be and in all wrong ways."""

from __future__ import annotations

import itertools
import json
import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from attlas.errors import ArgumentError
from attlas.heads import STATISTICS, head_statistics
from attlas.matrix import AttentionMatrix
from attlas.patterns import LowRank
from attlas.view.desk import Answer, Desk, Event, Overtaken, Request, Service
from attlas.view.desk_captures import Exhibit, named
from attlas.view.desk_matrices import MatrixAnswers
from attlas.view.desk_statistics import Background
from attlas.view.opening import open_desk
from attlas.view.tiles.coding import maps_of, tile_of, vectors_of
from attlas.view.tiles.matrices import Matrices
from serving import asked, capture_of, desk, exhibit, raw
from viewing import HEADS, LAYERS

N = 300
FIRST = exhibit(N)


@pytest.fixture(scope="module")
def opened() -> Iterator[Desk]:
    with desk(FIRST, exhibit(N, title="another")) as found:
        done = threading.Event()
        found.listen(lambda event: done.set() if event["type"] == "done" else None)
        assert done.wait(60)
        yield found


def test_the_atlas_says_what_there_is(opened: Desk) -> None:
    found = asked(opened, "/api/atlas")
    assert [cap["id"] for cap in found["captures"]] == ["a", "b"]
    first = found["captures"][0]
    assert {**first, "layers": None} == {
        "id": "a", "title": "a text", "model": "tiny", "kind": "document", "tokens": N, "text": True, "error": 1e-6,
        "layers": None,
    }  # fmt: skip
    assert len(first["layers"]) == LAYERS
    assert first["layers"][2] == {
        "layer": 2, "name": "model.layers.2.self_attn", "heads": list(range(HEADS)), "queries": N, "keys": N,
        "levels": 1, "causal": True, "window": None,
    }  # fmt: skip
    assert [s["name"] for s in found["statistics"]] == [s.name for s in STATISTICS]
    assert found["reducers"] == ["max", "mean", "mass", "lift"]
    assert set(found["colours"]) == {"lift-light", "lift-dark", "weight-light", "weight-dark"}
    for key in ("spans", "methods"):
        assert isinstance(found[key], list)


def test_every_pattern_that_is_offered_fits(opened: Desk) -> None:
    for pattern in asked(opened, "/api/atlas")["patterns"]:
        assert tile_of(raw(opened, f"/api/tiles/a.0.0:{pattern['spec']}/0/0/0")).shape == (150, 150)


def test_tokens_come_as_they_are() -> None:
    tokens = ["<script>", "\ud800", "\u202e", "\0", "é", "\u2028", " ", ""]
    with desk(exhibit(tokens=tokens)) as opened:
        assert asked(opened, "/api/tokens/a")["tokens"] == tokens
        assert opened.answer("/api/tokens/a", {}).body.isascii()


def test_tiles_rows_columns_and_cells_are_the_matrix(opened: Desk) -> None:
    dense = FIRST.capture[1].to_dense()[0, 2]
    assert torch.equal(tile_of(raw(opened, "/api/tiles/a.1.2/1/1/0")), FIRST.capture[1][0, 2, 256:300, :256]), (
        "single entries travel whole"
    )
    assert torch.equal(
        tile_of(raw(opened, "/api/tiles/a.1.2/1/1/0", **{"as": "f16"})), FIRST.capture[1][0, 2, 256:300, :256]
    ), "also where half precision was asked for"
    torch.testing.assert_close(vectors_of(raw(opened, "/api/rows/a.1.2/77"))[0], dense[77])
    torch.testing.assert_close(vectors_of(raw(opened, "/api/columns/a.1.2/77"))[0], dense[:, 77])
    top = tile_of(raw(opened, "/api/tiles/a.1.2/0/0/0", reduce="mass"))
    torch.testing.assert_close(top, dense.view(150, 2, 150, 2).sum((1, 3)))
    half = tile_of(raw(opened, "/api/tiles/a.1.2/0/0/0", reduce="mass", **{"as": "f16"}))
    assert not torch.equal(half, top)
    torch.testing.assert_close(half, top, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("reduce", ["max", "mean", "mass", "lift"])
def test_the_maps_of_a_layer_are_those_of_its_matrices(opened: Desk, reduce: str) -> None:
    found = maps_of(raw(opened, "/api/maps/a/1", reduce=reduce))
    assert found.shape == (HEADS, 75, 75)
    dense = FIRST.capture[1].to_dense()[0].double()
    even = torch.ones(N, N).tril().double() / torch.arange(1, N + 1).unsqueeze(-1)
    blocks, spread = dense.view(HEADS, 75, 4, 75, 4), even.view(75, 4, 75, 4).sum((1, 3))
    mass = blocks.sum((2, 4))
    expected = {
        "max": blocks.amax((2, 4)),
        "mean": mass / 16,
        "mass": mass,
        "lift": torch.where(spread > 0, mass / spread.clamp(min=1e-9), torch.nan),
    }[reduce]
    smallest = float(expected.nan_to_num().max()) * 2**-24
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=smallest, equal_nan=True)
    coarse = maps_of(raw(opened, "/api/maps/a/1", reduce=reduce, side="16"))
    assert coarse.shape == (HEADS, 10, 10)
    if reduce == "max":
        assert float(coarse.max()) == float(found.max())


def test_maps_are_there_before_they_are_measured() -> None:
    """What the background keeps, and what is asked for before it comes so far, is the same."""
    cap = exhibit(N)
    matrices = Matrices({"a": cap.capture})
    alone = Desk([MatrixAnswers(matrices).service()])
    with desk(cap) as measuring:
        done = threading.Event()
        measuring.listen(lambda event: done.set() if event["type"] == "done" else None)
        assert done.wait(60)
        for reduce in ("max", "lift"):
            first, second = (maps_of(raw(one, "/api/maps/a/2", reduce=reduce)) for one in (alone, measuring))
            torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5, equal_nan=True)


def test_a_cell_tells_all_about_an_entry(opened: Desk) -> None:
    matrix = FIRST.capture[1]
    dense = matrix.to_dense()[0, 2]
    found = asked(opened, "/api/cells/a.1.2/70/33")
    assert found["value"] == float(matrix[0, 2, 70, 33])
    assert float(found["exact"]) == found["value"]
    score = float(matrix.query[0, 2, 70].double() @ matrix.key[0, 1, 33].double()) * matrix.scale
    assert found["score"] == pytest.approx(score, rel=1e-6)
    assert math.exp(found["score"] - float(matrix.lse[0, 2, 70])) == pytest.approx(found["value"], rel=1e-4)
    assert found["rank"] == 1 + int((dense[70] > dense[70, 33]).sum())
    assert found["visible"] is True
    assert found["lift"] == pytest.approx(found["value"] * 71)
    assert found["row_sum"] == pytest.approx(1, abs=1e-5)


def test_cells_are_the_entries_of_the_matrix_to_the_last_bit(opened: Desk) -> None:
    matrix = FIRST.capture[1]
    for row, col in itertools.product(range(0, 300, 37), repeat=2):
        assert float(asked(opened, f"/api/cells/a.1.2/{row}/{col}")["exact"]) == float(matrix[0, 2, row, col])


def test_a_card_says_what_the_atlas_says_and_measures_nothing_again(
    opened: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attlas.view import head_card as cards

    wanted = cards.head_card(FIRST.capture, 2, 3, cards.HeadSources(), parts=["statistics"])["statistics"]
    monkeypatch.setattr(cards, "one_head", lambda *_, **__: pytest.fail("what is measured is measured again"))
    found = asked(opened, "/api/heads/a/2/3", parts="statistics")["statistics"]
    assert [one["name"] for one in found] == [one["name"] for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert (one["value"], one["even"]) == pytest.approx((other["value"], other["even"]), rel=1e-4)


def test_a_hidden_cell_has_no_rank_and_no_score(opened: Desk) -> None:
    found = asked(opened, "/api/cells/a.1.2/33/70")
    assert (found["value"], found["rank"], found["score"], found["visible"], found["lift"]) == (0, None, None, False, 0)


def test_a_cell_of_a_difference_has_no_score_and_no_lift(opened: Desk) -> None:
    found = asked(opened, "/api/cells/a.1.2~b.1.3/70/33")
    assert (found["score"], found["lift"], found["visible"]) == (None, None, True)
    assert asked(opened, "/api/cells/a.1.mean/70/33")["score"] is None


def test_the_peak_of_a_part(opened: Desk) -> None:
    dense = FIRST.capture[0].to_dense()[0, 0]
    found = asked(opened, "/api/peaks/a.0.0", rows="100-250", cols="20-90")
    part = dense[100:250, 20:90]
    at = int(part.argmax())
    assert (found["row"], found["col"]) == (100 + at // 70, 20 + at % 70)
    assert found["value"] == pytest.approx(float(part.max()), rel=1e-5)
    assert asked(opened, "/api/peaks/a.0.0", rows="0-9", cols="200-300") == {"row": 0, "col": 200, "value": 0.0}
    assert asked(opened, "/api/peaks/a.0.0")["value"] == pytest.approx(float(dense.max()), rel=1e-5)
    away = asked(opened, "/api/peaks/a.0.0~a.0.1")
    difference = dense - FIRST.capture[0].to_dense()[0, 1]
    assert abs(away["value"]) == pytest.approx(float(difference.abs().max()), rel=1e-4)


def test_tracks(opened: Desk) -> None:
    matrix = FIRST.capture[2]
    found = vectors_of(raw(opened, "/api/tracks/a.2.1"))
    for track, expected in zip(found, (matrix.received(), matrix.entropy(), matrix.distance()), strict=True):
        torch.testing.assert_close(track, expected[0, 1], rtol=1e-4, atol=1e-5)
    other = vectors_of(raw(opened, "/api/tracks/a.2.0"))
    torch.testing.assert_close(vectors_of(raw(opened, "/api/tracks/a.2.1~a.2.0")), found - other)
    mean = vectors_of(raw(opened, "/api/tracks/a.2.mean"))
    torch.testing.assert_close(mean[0], matrix.received()[0].mean(0), rtol=1e-4, atol=1e-5)


def test_what_may_be_below_zero_has_no_entropy_and_no_distance() -> None:
    matrix = AttentionMatrix(torch.randn(1, 1, 40, 8), torch.randn(1, 1, 40, 8))
    with desk(Exhibit(capture_of(matrix), "no causal order")) as opened:
        pattern = "low_rank:rank=4,method=linformer,projection=random"
        signed = vectors_of(raw(opened, f"/api/tracks/a.0.0:{pattern}"))
        assert bool(signed[1:].isnan().all())
        expected = LowRank(4, "linformer", "random").matrix(matrix).to_dense()[0, 0].sum(0)
        torch.testing.assert_close(signed[0], expected, rtol=1e-4, atol=1e-5)


def test_statistics_are_those_of_the_library(opened: Desk) -> None:
    found = asked(opened, "/api/statistics/a")
    assert (found["done"], found["of"]) == (LAYERS, LAYERS)
    for layer in head_statistics(FIRST.capture).layers:
        for name, values in layer.values.items():
            assert found["layers"][str(layer.layer)][name] == pytest.approx(values.tolist(), rel=1e-5), name


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/api", "/api/", "/api/nothing", "/ap/atlas", "api/atlas", "//api/atlas", "/api//atlas", "/api/atlas/",
        "/api/atlas/x",
        "/api/tokens", "/api/tokens/", "/api/tokens/z", "/api/tokens/a/b", "/api/tokens/..%2f..%2fetc%2fpasswd",
        "/api/tokens/%2e%2e", "/api/tokens/a%00", "/api/tokens/%ff", "/api/tokens/%ed%a0%80",
        "/api/tiles/a.0.0", "/api/tiles/a.0.0/0/0", "/api/tiles/a.0.0/0/0/0/0", "/api/tiles/a.0.0/x/0/0",
        "/api/tiles/a.0.0/-1/0/0", "/api/tiles/a.0.0/0/0/+1", "/api/tiles/a.0.0/0/0/1e9", "/api/tiles/a.0.0/%D9%A3/0/0",
        "/api/tiles/a.0.0/0/0/99999999999999999999", "/api/tiles/z.0.0/0/0/0", "/api/tiles/a.9.0/0/0/0",
        "/api/tiles/a.0.9/0/0/0", "/api/tiles/a.0.0%2F..%2F..%2Fx/0/0/0", "/api/rows/a.0.0/300", "/api/rows/a.0.0",
        "/api/columns/a.0.0/300", "/api/cells/a.0.0/300/0", "/api/cells/a.0.0/0/300", "/api/cells/a.0.0/0",
        "/api/maps", "/api/maps/a", "/api/maps/a/0/0", "/api/maps/c/0", "/api/maps/a/9", "/api/maps/a/-1",
        "/api/maps/a/x", "/api/maps/a.0/0", "/api/peaks/a", "/api/tracks/a.0", "/api/tracks/a.0.0~",
        "/api/statistics/", "/api/statistics/c",
        "/api/tiles/" + "a" * 5000 + "/0/0/0", "/api/" + "x/" * 900,
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_in_a_sentence(opened: Desk, path: str) -> None:
    refused(opened, path, 404)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/tiles/a.0.0/2/0/0", {}),
        ("/api/tiles/a.0.0/0/1/0", {}),
        ("/api/tiles/a.0.0/1/0/2", {}),
        ("/api/tiles/a.0.0/0/0/0", {"reduce": "sum"}),
        ("/api/tiles/a.0.0/0/0/0", {"reduce": "\ud800"}),
        ("/api/tiles/a.0.0/0/0/0", {"as": "f64"}),
        ("/api/tiles/a.0.0~a.0.1/0/0/0", {"reduce": "lift"}),
        ("/api/tiles/a.0.0~a.0.1/1/0/0", {"reduce": "lift"}),
        ("/api/tiles/a.0.0:window/0/0/0", {}),
        ("/api/tiles/a.0.0:sliding_window:width=-3/0/0/0", {}),
        ("/api/maps/a/0", {"reduce": "sum"}),
        ("/api/maps/a/0", {"side": "127"}),
        ("/api/maps/a/0", {"side": "-128"}),
        ("/api/peaks/a.0.0", {"rows": "5"}),
        ("/api/peaks/a.0.0", {"rows": "9-3"}),
        ("/api/peaks/a.0.0", {"cols": "0-301"}),
        ("/api/peaks/a.0.0", {"cols": "-1-5"}),
        ("/api/peaks/a.0.0", {"rows": "0-" + "9" * 40}),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(opened: Desk, path: str, query: dict[str, str]) -> None:
    refused(opened, path, 422, **query)


def refused(opened: Desk, path: str, status: int, **query: str) -> None:
    answer = opened.answer(path, query)
    assert answer.status == status
    (sentence,) = json.loads(answer.body).values()
    assert answer.body.isascii()
    assert len(sentence) < 600
    for told in ("Traceback", ".py", "/root", "/work", "site-packages", "0x"):
        assert told not in sentence


def test_a_part_that_is_too_large_is_refused(opened: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attlas.view.desk_matrices.LARGEST_PART", 100)
    refused(opened, "/api/peaks/a.0.0", 422, rows="0-11", cols="0-10")
    assert asked(opened, "/api/peaks/a.0.0", rows="0-10", cols="0-10")


# ---- who waits, and who does not


def test_a_question_that_nobody_waits_for_is_dropped(opened: Desk) -> None:
    looks = iter([True, False, False, False])
    answer = opened.answer("/api/tracks/b.0.0:sliding_window:width=7", {}, wanted=lambda: next(looks))
    assert answer.status == 499
    assert opened.answer("/api/tracks/b.0.0:sliding_window:width=7", {}).status == 200


def test_after_closing_nothing_is_answered_and_nothing_is_held() -> None:
    found = open_desk([exhibit(N)])
    found.close()
    found.close()
    assert found.answer("/api/atlas", {}).status == 499
    assert "attlas-measuring" not in {thread.name for thread in threading.enumerate()}


def test_closing_ends_the_measuring_at_once() -> None:
    found = open_desk([exhibit(900, layers=3)])
    found.close()
    assert "attlas-measuring" not in {thread.name for thread in threading.enumerate()}


def test_measuring_waits_while_a_question_is_under_way() -> None:
    shown = named([exhibit(600)])
    background = Background(shown, MatrixAnswers(Matrices({"a": shown["a"].capture})))
    told: list[Event] = []
    background.listen(told.append)
    with background.waiting():
        background.start()
        background._thread.join(0.3)
        assert told == []
    background._thread.join(60)
    assert [event["type"] for event in told] == ["statistics"] * LAYERS + ["done"]
    later: list[Event] = []
    background.listen(later.append)
    assert later == [{"type": "done"}]
    background.close()


def test_a_question_needs_no_worker_that_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    give_way = Background._give_way

    def watched(self: Background) -> None:
        if self._waiting and threading.current_thread() is not self._thread:
            held.set()
        give_way(self)

    monkeypatch.setattr(Background, "_give_way", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with desk(exhibit(2500)) as opened, opened._under_way():
            assert held.wait(60), "a worker of the measuring waits"
            late = threading.Timer(60, opened.close)
            late.start()
            found = asked(opened, "/api/heads/a/2/1", parts="statistics")
            late.cancel()
        assert found["statistics"]
    finally:
        torch.set_num_threads(before)


def test_a_listener_that_has_left_hears_nothing() -> None:
    heard: list[Event] = []
    found = open_desk([exhibit(600)])
    found.listen(heard.append)()
    before = len(heard)
    done = threading.Event()
    found.listen(lambda event: done.set() if event["type"] == "done" else None)
    assert done.wait(60)
    assert len(heard) == before
    found.close()


def test_two_desks_at_once_do_not_meet() -> None:
    with desk(exhibit(40, title="one")) as one, desk(exhibit(50, title="two")) as two:
        assert asked(one, "/api/atlas")["captures"][0]["title"] == "one"
        assert asked(two, "/api/atlas")["captures"][0]["tokens"] == 50
        one.close()
        assert asked(two, "/api/tokens/a")["tokens"][49] == " word49"


def test_many_threads_get_the_same_answers(opened: Desk) -> None:
    paths = [f"/api/tiles/{name}/{level}/0/0" for name in ("a.0.0", "b.1.mean", "a.0.1~b.0.2") for level in (0, 1)]
    expected = [raw(opened, path) for path in paths]
    found: list[list[bytes]] = []
    threads = [threading.Thread(target=lambda: found.append([raw(opened, p) for p in paths])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 6


# ---- services


def test_a_service_adds_paths_and_what_the_atlas_says() -> None:
    closed: list[int] = []

    def spans(request: Request) -> Answer:
        capture, kind = request.expect("capture", "kind")
        return Answer.of({"capture": capture, "kind": kind, "n": float("nan")})

    service = Service({"spans": spans}, lambda: {"spans": ["line"]}, lambda: closed.append(1))
    found = Desk([service])
    assert asked(found, "/api/spans/a%2Fb/c%20d") == {"capture": "a/b", "kind": "c d", "n": None}
    assert asked(found, "/api/atlas")["spans"] == ["line"]
    found.close()
    found.close()
    assert closed == [1]


def test_two_services_for_one_path_are_refused() -> None:
    service = Service({"spans": lambda request: Answer.of({})})
    with pytest.raises(ArgumentError, match="got two for spans"):
        Desk([service, service])


def test_a_failure_of_ours_is_not_hidden() -> None:
    def fails(request: Request) -> Answer:
        raise KeyError(str(request.words))

    with pytest.raises(KeyError):
        Desk([Service({"x": fails})]).answer("/api/x", {})


def test_a_service_may_drop_a_question() -> None:
    def drops(request: Request) -> Any:
        raise Overtaken

    assert Desk([Service({"x": drops})]).answer("/api/x", {}).status == 499


def test_captures_are_named_in_order() -> None:
    one = exhibit(40)
    names = list(named([one] * 30))
    assert names[:2] == ["a", "b"]
    assert names[25:28] == ["z", "aa", "ab"]


def test_nothing_to_show_is_refused() -> None:
    import attlas
    from attlas.results import Provenance

    for nothing in ([], [Exhibit(attlas.Capture({}, provenance=Provenance("0")), "empty")]):
        with pytest.raises(ArgumentError, match="captures: wanted at least one"):
            open_desk(nothing)
