"""Captures of odd shape at the desk: every route answers, or refuses in a sentence; none of them fails."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from attlas import AttentionMatrix
from attlas.view.desk import Answer, Desk
from attlas.view.desk_captures import Exhibit
from attlas.view.opening import open_desk
from attlas.view.tiles.pyramid import REDUCERS
from explained import speaker
from serving import capture_of
from viewing import captured


def matrix(heads: int, n_query: int, n_key: int, *, batch: int = 1, **rules: Any) -> AttentionMatrix:
    torch.manual_seed(0)
    return AttentionMatrix(torch.randn(batch, heads, n_query, 8), torch.randn(batch, heads, n_key, 8), **rules)


def run(*matrices: AttentionMatrix) -> Exhibit:
    return Exhibit(capture_of(*matrices), "a run")


def of_text(text: str, *, layers: int = 2) -> Exhibit:
    """Return random attention on characters, each a token: what a tokenizer may make of any text."""
    tokens = list(text)
    cap = captured(len(tokens), layers=layers)
    return Exhibit(cap.of_document(text, tokens, model="tiny", fingerprint="f00d"), text[:80])


def read(text: str) -> Exhibit:
    lm = speaker()
    return Exhibit(lm.read(text), "a text", model=lm)


ODD: dict[str, Callable[[], Exhibit]] = {
    "cross-attention": lambda: run(matrix(2, 40, 300), matrix(2, 40, 300)),
    "more queries than keys": lambda: run(matrix(2, 300, 5)),
    "a cache": lambda: run(matrix(2, 3, 400, causal=True)),
    "one query of a cache": lambda: run(matrix(2, 1, 700, causal=True, window=64)),
    "one entry": lambda: run(matrix(1, 1, 1, causal=True)),
    "one key": lambda: run(matrix(3, 20, 1)),
    "one head": lambda: run(matrix(1, 33, 33, causal=True)),
    "layers of different sizes": lambda: run(
        matrix(1, 300, 300, causal=True), matrix(5, 20, 77), matrix(2, 300, 300, window=16), matrix(3, 1, 2)
    ),
    "a batch": lambda: run(matrix(2, 30, 30, batch=3, causal=True)),
    "rows that see nothing": lambda: run(
        matrix(2, 30, 30, mask=(torch.arange(30)[:, None] % 2 == 0) & torch.ones(30, dtype=torch.bool))
    ),
    "a sink and a softcap": lambda: run(matrix(2, 30, 30, causal=True, softcap=5.0, sinks=torch.zeros(2))),
    "a token": lambda: read("a"),
    "half a surrogate pair": lambda: of_text("ab\ud83d cd \udc00\n\x00\u202e</script>"),
    "no space": lambda: of_text("x" * 500),
    "only spaces and lines": lambda: of_text(" \n\n \t\r\n" * 9),
}


def paths_of(atlas: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Return a question of every kind about every layer of the first capture."""
    cap = atlas["captures"][0]
    found: list[tuple[str, dict[str, str]]] = [("tokens/a", {}), ("statistics/a", {}), ("explanations", {})]
    found += [(f"spans/a/{kind}", {}) for kind in atlas["spans"]]
    for layer in cap["layers"]:
        rows, cols = layer["queries"], layer["keys"]
        names = [f"a.{layer['layer']}.{head}" for head in (layer["heads"][-1], "mean")]
        names += [f"{names[0]}:{pattern['spec']}" for pattern in atlas["patterns"]]
        names += [f"{names[0]}~{name}" for name in names[1:3]]
        for name in names:
            found += [
                (f"tiles/{name}/{level}/0/0", {"reduce": reduce, "as": kind})
                for level in range(layer["levels"] + 1)
                for reduce in REDUCERS
                for kind in ("f16", "f32")
            ]
            found += [(f"rows/{name}/{row}", {}) for row in (0, rows - 1)]
            found += [(f"columns/{name}/{col}", {}) for col in (0, cols - 1)]
            found += [(f"cells/{name}/{rows - 1}/{cols - 1}", {}), (f"tracks/{name}", {})]
            found += [(f"peaks/{name}", {"rows": f"0-{rows}", "cols": f"0-{cols}"})]
        found += [(f"heads/a/{layer['layer']}/{head}", {}) for head in layer["heads"]]
        found += [(f"comparisons/{names[0]}~{name}", {}) for name in names[1:3]]
        for reduce in REDUCERS:
            view = f"a.{layer['layer']}.{layer['heads'][0]}&row={rows - 1}&col=0"
            part = {"rows": f"0-{rows}", "cols": f"0-{cols}"}
            found += [("page", {"matrices": ",".join(names[:2]), "reduce": reduce, "view": view, **part})]
    found += [("explanations/start", {"capture": "a", "method": method}) for method in ("rollout", "chefer")]
    return found


def fine(answer: Answer) -> bool:
    """Whether an answer is one, or a refusal in one sentence."""
    if answer.status == 200:
        return len(answer.body) > 0
    return answer.status in (404, 422) and list(json.loads(answer.body)) == ["error"]


@pytest.mark.parametrize("name", ODD)
def test_every_route_answers_or_refuses(name: str) -> None:
    desk = open_desk([ODD[name]()])
    errors: list[Any] = []
    ended = _until_measured(desk, errors)
    try:
        atlas = json.loads(desk.answer("/api/atlas", {}).body)
        refused = {}
        for path, query in paths_of(atlas):
            answer = desk.answer(f"/api/{path}", query)
            assert fine(answer), (path, query, answer.status, answer.body[:200])
            if answer.status != 200:
                refused[path] = json.loads(answer.body)["error"]
        assert ended.wait(60)
        assert errors == []
        # What may be refused is known: lifts of differences, patterns that cannot stand in, and what needs a model.
        for path, reason in refused.items():
            word, name, *_ = [*path.split("/"), ""]
            assert word in ("explanations", "page") or ":" in name or ("~" in name and "lift" in reason), (path, reason)
        statistics = json.loads(desk.answer("/api/statistics/a", {}).body)
        assert statistics["complete"] is True
        assert statistics["done"] == statistics["of"] == len(atlas["captures"][0]["layers"])
    finally:
        desk.close()


def _until_measured(desk: Desk, errors: list[Any]) -> threading.Event:
    ended = threading.Event()

    def hear(event: Any) -> None:
        if event["type"] == "error":
            errors.append(event)
        if event["type"] in ("done", "error"):
            ended.set()

    desk.listen(hear)
    return ended


def test_a_long_text_without_a_space_is_one_line() -> None:
    cap = captured(8)
    text = "x" * 100_000
    desk = open_desk([Exhibit(cap.of_document(text, [text, *"1234567"], model="tiny", fingerprint="f00d"), text)])
    assert len(json.loads(desk.answer("/api/tokens/a", {}).body)["tokens"][0]) == 100_000
    for kind in json.loads(desk.answer("/api/atlas", {}).body)["spans"]:
        assert fine(desk.answer(f"/api/spans/a/{kind}", {}))
    answer = desk.answer("/api/page", {"matrices": "a.0.0"})
    assert fine(answer), "where the page is not built, it is refused"
    assert len(answer.name or "") < 100
    desk.close()
