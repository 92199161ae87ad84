"""A page as one file: what it holds, what it leaves out, and when it is refused."""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from attlas.errors import StoreError
from attlas.view import excerpting, excerpts
from attlas.view.desk import Answer, Desk, Service
from attlas.view.desk_captures import Exhibit
from attlas.view.excerpts import Excerpt, Selection, planes, split_names
from attlas.view.exporting import PageSource, document, page_service
from attlas.view.tiles.coding import maps_of, tile_of, vectors_of
from reducing import random
from serving import capture_of, desk, exhibit, raw
from viewing import LAYERS

N = 520
FIRST = exhibit(N)
SOURCE = PageSource("document.title;", "p { margin: 0 }", "a -- notice -->")


@pytest.fixture(scope="module")
def opened() -> Iterator[Desk]:
    with desk(FIRST) as found:
        done = threading.Event()
        found.listen(lambda event: done.set() if event["type"] == "done" else None)
        assert done.wait(60)
        yield found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill no page with deeper levels, except where a test asks for it."""
    monkeypatch.setattr(excerpts, "USUAL", 0)


def page(opened: Desk, **query: str) -> Answer:
    """Ask for a page that is made of a short script."""
    service = page_service(lambda path, more, wanted: opened.answer(path, more, wanted=wanted), lambda: SOURCE)
    return Desk([service]).answer("/api/page", {"matrices": "a.1.2", "reduce": "lift", **query})


def held(answer: Answer) -> dict[str, bytes]:
    """Return what a page holds: path -> bytes."""
    assert answer.status == 200, answer.body[:300]
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', answer.body.decode(), re.DOTALL)
    assert found
    packed = json.loads(found[1])["answers"]
    return {path: _together(gzip.decompress(base64.b64decode(text)), width) for path, (width, text) in packed.items()}


def _together(content: bytes, width: int) -> bytes:
    if width == 1:
        return content
    return content[:16] + np.frombuffer(content, np.uint8, offset=16).reshape(width, -1).T.tobytes()


def refused(answer: Answer, status: int = 422) -> str:
    assert answer.status == status
    return json.loads(answer.body)["error"]


def test_a_page_holds_what_its_paths_are_answered_with(opened: Desk) -> None:
    answer = page(opened, view="a.1.2&row=500&col=3", rows="0-200", cols="0-10")
    assert answer.media_type == "text/html; charset=utf-8"
    assert answer.name == "a-text.html"
    assert len(answer.body) < 3_000_000
    found = held(answer)
    for path in (
        "/api/tokens/a",
        "/api/tracks/a.1.2",
        "/api/rows/a.1.2/500",
        "/api/columns/a.1.2/3",
        "/api/cells/a.1.2/500/3",
    ):
        assert found[path] == raw(opened, path)
    for reduce in ("max", "mean", "mass", "lift"):
        whole = tile_of(raw(opened, "/api/tiles/a.1.2/0/0/0", reduce=reduce))
        torch.testing.assert_close(
            tile_of(found[f"/api/tiles/a.1.2/0/0/0?reduce={reduce}"]), whole, rtol=1e-3, atol=1e-3, equal_nan=True
        )
    exact = raw(opened, "/api/tiles/a.1.2/2/0/0", reduce="max")
    assert found["/api/tiles/a.1.2/2/0/0?reduce=max"] == exact
    factors = vectors_of(found["/api/tiles/a.1.2/2/0/0?reduce=lift"])[0]
    torch.testing.assert_close(factors, torch.arange(1.0, 257))
    lift = tile_of(raw(opened, "/api/tiles/a.1.2/2/0/0", reduce="lift"))
    seen = ~lift.isnan()
    assert torch.equal(seen, torch.ones_like(seen).tril())
    assert torch.equal((tile_of(exact) * factors.unsqueeze(-1))[seen], lift[seen])


def test_a_row_that_sees_nothing_has_no_lift() -> None:
    seen = torch.ones(1, 1, 40, 40, dtype=torch.bool)
    seen[..., 7, :] = False
    with desk(Exhibit(capture_of(random(40, 40, causal=True, mask=seen)), "with a row that sees nothing")) as hiding:
        path = "/api/tiles/a.0.1/0/0/0"
        lift = tile_of(raw(hiding, path, reduce="lift"))
        found = held(page(hiding, matrices="a.0.1"))
    assert bool(lift[7].isnan().all())
    assert torch.equal(lift[8].isnan(), torch.arange(40) > 8)
    factors = vectors_of(found[f"{path}?reduce=lift"])[0]
    assert factors[6:10].tolist()[::2] == [7.0, 9.0]
    assert factors[7].isnan()


def test_the_atlas_of_a_page_is_what_is_shown(opened: Desk) -> None:
    found = held(page(opened, matrices="a.1.2,a.0.1~a.2.3"))
    atlas = json.loads(found["/api/atlas"])
    heads = {layer["layer"]: layer["heads"] for layer in atlas["captures"][0]["layers"]}
    assert heads == {0: [1], 1: [2], 2: [3]}
    assert atlas["patterns"] == []
    assert [one["matrix"] for one in atlas["excerpt"]] == ["a.1.2", "a.0.1~a.2.3"]
    statistics = json.loads(found["/api/statistics/a"])
    assert statistics["done"] == statistics["of"] == 3
    assert all(len(values) == 1 for layer in statistics["layers"].values() for values in layer.values())
    assert "/api/tracks/a.0.1~a.2.3" not in found, "a difference has none"
    assert "/api/tiles/a.0.1~a.2.3/0/0/0?reduce=max" in found


def test_the_small_maps_of_what_is_shown_are_there(opened: Desk) -> None:
    found = held(page(opened, matrices="a.1.2,a.1.0,a.2.mean"))
    for reduce in ("max", "mean", "mass", "lift"):
        every = maps_of(raw(opened, "/api/maps/a/1", reduce=reduce))
        torch.testing.assert_close(
            maps_of(found[f"/api/maps/a/1?reduce={reduce}"]), every[[0, 2]], rtol=0, atol=0, equal_nan=True
        )
    assert not any(path.startswith("/api/maps/a/2") for path in found), "a mean over heads is none of them"


def test_the_atlas_of_all_heads_is_a_page_too(opened: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excerpts, "USUAL", 3_000_000)
    answer = page(opened, matrices="", reduce="mass", view="reduce=mass&sort=entropy")
    assert answer.name == "a-text.html"
    assert b'"view":"reduce=mass&sort=entropy"' in answer.body.replace(b"\\u0026", b"&")
    found = held(answer)
    assert json.loads(found["/api/statistics/a"]) == json.loads(raw(opened, "/api/statistics/a"))
    assert found["/api/tokens/a"] == raw(opened, "/api/tokens/a")
    for layer in range(LAYERS):
        for reduce in ("max", "mean", "mass", "lift"):
            path = f"/api/maps/a/{layer}"
            assert found[f"{path}?reduce={reduce}"] == raw(opened, path, reduce=reduce)
    assert not any(path.startswith(("/api/tiles", "/api/heads", "/api/tracks")) for path in found)
    atlas = json.loads(found["/api/atlas"])
    assert atlas["captures"] == json.loads(raw(opened, "/api/atlas"))["captures"]
    assert atlas["excerpt"] == atlas["spans"] == atlas["patterns"] == atlas["methods"] == []
    sides = dict.fromkeys(("mass", "max", "mean", "lift"), 128)
    assert atlas["maps"] == {"sides": sides, "layers": LAYERS, "of": LAYERS}


def test_the_atlas_keeps_to_the_usual_size_with_what_is_shown_first(
    opened: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sides(usual: int) -> dict[str, int]:
        monkeypatch.setattr(excerpts, "USUAL", usual)
        answer = page(opened, matrices="", reduce="mean")
        assert len(answer.body) < usual + 20_000, "what there is, and the page's frame, come on top"
        found = held(answer)
        atlas = json.loads(found["/api/atlas"])
        for reduce, side in atlas["maps"]["sides"].items():
            assert found[f"/api/maps/a/2?reduce={reduce}"] == raw(
                opened, "/api/maps/a/2", reduce=reduce, side=str(side)
            )
        assert sorted(atlas["reducers"]) == sorted(atlas["maps"]["sides"])
        assert {path.split("=")[1] for path in found if path.startswith("/api/maps/")} == set(atlas["reducers"])
        return atlas["maps"]["sides"]

    assert sides(10_000_000) == dict.fromkeys(("mean", "max", "mass", "lift"), 128)
    some = sides(120_000)
    assert next(iter(some)) == "mean"
    assert 16 <= min(some.values()) < some["mean"] == max(some.values())
    assert sides(0) == {"mean": 16}


def test_an_atlas_that_would_be_too_large_is_refused(opened: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excerpts, "MOST", 5_000)
    assert refused(page(opened, matrices="")).startswith("selection")


def test_an_atlas_has_the_layers_that_are_measured(opened: Desk) -> None:
    def measured(count: int) -> Desk:
        def ask(path: str, query: Any, wanted: Any) -> Answer:
            answer = opened.answer(path, query, wanted=wanted)
            if path != "/api/statistics/a":
                return answer
            every = json.loads(answer.body)["layers"]
            return Answer.of({"layers": dict(list(every.items())[:count]), "done": count, "of": LAYERS})

        return Desk([page_service(ask, lambda: SOURCE)])

    found = held(measured(2).answer("/api/page", {"reduce": "max"}))
    assert [layer["layer"] for layer in json.loads(found["/api/atlas"])["captures"][0]["layers"]] == [0, 1]
    statistics = json.loads(found["/api/statistics/a"])
    assert (list(statistics["layers"]), statistics["done"], statistics["of"]) == (["0", "1"], 2, 2)
    assert not any(path.startswith("/api/maps/a/2") for path in found)
    assert json.loads(found["/api/atlas"])["maps"] == {"sides": {"max": 16}, "layers": 2, "of": LAYERS}
    assert "wait until the page shows some maps" in refused(measured(0).answer("/api/page", {}))


def test_deeper_levels_fill_a_page_of_usual_size(opened: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excerpts, "USUAL", 3_000_000)
    whole = page(opened)
    assert json.loads(held(whole)["/api/atlas"])["excerpt"] == [
        {"matrix": "a.1.2", "cell": 1, "exact": [[0, N], [0, N]]}
    ]
    monkeypatch.setattr(excerpts, "USUAL", 800_000)
    answer = page(opened, rows="515-518", cols="300-310")
    part = json.loads(held(answer)["/api/atlas"])["excerpt"][0]
    assert part == {"matrix": "a.1.2", "cell": 2, "exact": [[512, N], [256, 512]]}
    assert len(answer.body) < 800_000 < len(whole.body)


def test_a_hidden_tile_is_not_held(opened: Desk) -> None:
    found = held(page(opened, rows="0-520", cols="0-520"))
    exact = {path for path in found if path.startswith("/api/tiles/a.1.2/2/") and path.endswith("max")}
    assert len(exact) == 6, "three on the diagonal and three below it"


def test_a_page_that_would_be_too_large_is_refused(opened: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excerpts, "MOST", 200_000)
    sentence = refused(page(opened, rows="0-520", cols="0-520"))
    assert "choose fewer matrices, or zoom in until fewer entries are in sight" in sentence


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ({"matrices": "", "capture": "b"}, 404, "capture"),
        ({"matrices": "", "capture": ""}, 404, "capture"),
        ({"matrices": "", "capture": "/../<b>" * 90}, 404, "capture"),
        ({"matrices": ",".join(f"a.0.0:sliding_window:width={i}" for i in range(9))}, 422, "matrices"),
        ({"matrices": "a.9.0"}, 404, "matrices"),
        ({"matrices": "b.0.0"}, 404, "matrices"),
        ({"matrices": "nonsense"}, 404, "matrix"),
        ({"matrices": "a.0.0:nonsense"}, 404, "selection"),
        ({"rows": "9-3"}, 422, "rows"),
        ({"cols": "x"}, 422, "cols"),
        ({"reduce": "least"}, 422, "reduce"),
        ({"view": "a" * 2001}, 422, "view"),
        ({"explanations": "../1"}, 422, "explanations"),
    ],
)
def test_what_makes_no_sense_is_refused(opened: Desk, query: dict[str, str], status: int, word: str) -> None:
    sentence = refused(page(opened, **query), status)
    assert sentence.startswith(word)
    assert len(sentence) < 300


def test_names_may_hold_commas() -> None:
    window = "a.0.0:sliding_window:width=256,sinks=4"
    assert split_names(f"{window},b.12.mean,a.1.2~{window}") == (window, "b.12.mean", f"a.1.2~{window}")
    assert split_names("") == ()


def test_a_mean_and_a_pattern_can_be_held(opened: Desk) -> None:
    found = held(
        page(opened, matrices="a.0.mean,a.0.0:sliding_window:width=64", reduce="max", rows="0-20", cols="0-20")
    )
    name = "a.0.0%3Asliding_window%3Awidth%3D64"
    assert tile_of(found[f"/api/tiles/{name}/2/0/0?reduce=max"]).shape == (256, 256)
    assert json.loads(found["/api/atlas"])["captures"][0]["layers"][0]["heads"] == [0]


def test_what_one_leaves_is_left(opened: Desk) -> None:
    asked = 0

    def wanted() -> bool:
        nonlocal asked
        asked += 1
        return asked < 6

    service = page_service(lambda path, query, wanted: opened.answer(path, query, wanted=wanted), lambda: SOURCE)
    assert Desk([service]).answer("/api/page", {"matrices": "a.0.0"}, wanted=wanted).status == 499


def test_explanations_and_spans_that_are_there_are_kept(opened: Desk) -> None:
    asked_for = {"method": "rollout", "target": "-1: Paris/ Rome (é)", "budget": 64}
    jobs = {
        "1": {**asked_for, "capture": "a", "state": "done", "explanation": {"name": "rollout"}},
        "3": {**asked_for, "capture": "a", "state": "running", "explanation": None},
        "4": {**asked_for, "capture": "b", "state": "done", "explanation": {"name": "rollout"}},
    }

    def extra(request: Any) -> Answer:
        if len(request.words) == 1:
            return Answer.of(jobs[request.words[0]]) if request.words[0] in jobs else Answer.of({}, 404)
        return Answer.of({"spans": []}) if "2" not in request.words else Answer.of({}, 404)

    more = Service({"spans": extra, "explanations": extra}, lambda: {"spans": ["line", "2"], "methods": ["rollout"]})
    small = Desk([more])

    def ask(path: str, query: Any, wanted: Any) -> Answer:
        answer = (small if "spans" in path or "explanations" in path else opened).answer(path, query, wanted=wanted)
        if path == "/api/atlas":
            answer = Answer.of({**json.loads(answer.body), "spans": ["line", "2"], "methods": ["rollout"]})
        return answer

    asked = Desk([page_service(ask, lambda: SOURCE)])
    found = held(asked.answer("/api/page", {"matrices": "a.0.0", "explanations": "1,2,3,4"}))
    # It is found where the page asks for it, as `encodeURIComponent` writes it; others are not done, or not in sight.
    (path,) = [path for path in found if path.startswith("/api/explanations")]
    assert path == (
        "/api/explanations/start?capture=a&method=rollout&target=-1%3A%20Paris%2F%20Rome%20(%C3%A9)&budget=64"
    )
    assert json.loads(found[path]) == jobs["1"]
    atlas = json.loads(found["/api/atlas"])
    assert atlas["explained"] == [{"capture": "a", **asked_for}]
    assert (atlas["spans"], atlas["methods"]) == (["line"], ["rollout"])


def test_a_page_that_is_not_built_is_said_so(opened: Desk) -> None:
    def missing() -> PageSource:
        raise StoreError("the page is not built")

    service = page_service(lambda path, query, wanted: opened.answer(path, query), missing)
    assert refused(Desk([service]).answer("/api/page", {"matrices": "a.0.0"})) == "the page is not built"


def test_the_built_page_is_of_one_piece(tmp_path: Any) -> None:
    with pytest.raises(StoreError, match="not built"):
        PageSource.built(tmp_path)
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("page")
    (tmp_path / "assets" / "a.js").write_text("1")
    (tmp_path / "assets" / "a.css").write_text("p{}")
    assert PageSource.built(tmp_path) == PageSource("1", "p{}")
    (tmp_path / "assets" / "b.js").write_text("2")
    with pytest.raises(StoreError, match=r"2 \.js files"):
        PageSource.built(tmp_path)


def test_numbers_are_packed_plane_by_plane() -> None:
    content = bytes(16) + bytes(range(12))
    assert planes(content, 4)[16:] == bytes([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11])
    assert planes(content, 1) == content


def test_a_selection_reads_the_view() -> None:
    chosen = Selection(("a.0.0",), "max", view="a.0.0&row=12&col=x&at=1,2,3")
    assert (chosen.selected("row"), chosen.selected("col"), chosen.selected("spans")) == (12, None, None)


def test_factors_are_found_where_rows_say_nothing() -> None:
    entries = torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.2, 0.3]])
    counts = torch.tensor([2.0, 7.0, 3.5])
    assert excerpting._factors(entries, entries * counts[:, None]).tolist() == pytest.approx([2.0, 0.0, 3.5])


def test_the_notices_of_what_it_is_built_with_are_there() -> None:
    text = document(SOURCE, Excerpt(), "", "a text")
    assert "<title>a text – attlas</title>" in text
    assert "<!--\na - - notice - ->\n-->" in text
