"""A plan says which head does what, survives a file, and is refused wherever it does not belong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import attlas
from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, StoreError
from attlas.models.facts import gather_facts
from attlas.patterns import Full, SlidingWindow
from attlas.patterns.features import FeatureMap
from attlas.patterns.linear import Linear
from attlas.planning import Expected, Plan, open_plan
from attlas.testing.tiny_models import TINY_MODELS

TINY = {tiny.family: tiny for tiny in TINY_MODELS}
WINDOW = SlidingWindow(256, sinks=4)


def opened(family: str = "Llama", fingerprint: str = "0123456789abcdef", seed: int = 0) -> LanguageModel:
    model: Any = TINY[family].build(seed)
    return LanguageModel(model, None, gather_facts(f"tiny {family}", model, fingerprint))


def a_plan(lm: LanguageModel | None = None) -> Plan:
    wanted = {(0, 0): WINDOW, (0, 3): WINDOW, (1, 2): SlidingWindow(32), (1, 1): Full()}
    return Plan.of(
        lm or opened(),
        wanted,
        expected={"error": Expected(0.0125, "relative rise of perplexity on the texts")},
        settings={"by": "head"},
    )


class TestMaking:
    def test_layers_are_named_and_counted(self) -> None:
        plan = a_plan()
        assert plan.layers == ("model.layers.0.self_attn", "model.layers.1.self_attn")
        assert plan.sizes == (4, 4)
        assert len(plan.heads) == 8
        assert plan.pattern(0, 3) == WINDOW
        assert plan.pattern(1, 1) == Full()
        assert plan.kinds == {WINDOW: 2, SlidingWindow(32): 1}

    def test_a_function_is_asked_for_every_head(self) -> None:
        plan = Plan.of(opened(), lambda layer, head: WINDOW if (layer + head) % 2 else None)
        assert set(plan.patterns) == {(0, 1), (0, 3), (1, 0), (1, 2)}

    def test_layers_can_be_given_by_name(self) -> None:
        assert set(Plan.of(opened(), {("model.layers.1.self_attn", 2): WINDOW}).patterns) == {(1, 2)}

    def test_of_an_encoder_decoder_both_stacks_are_known(self) -> None:
        plan = Plan.exact(opened("T5"))
        assert sum("encoder" in name for name in plan.layers) == 2
        assert sum("decoder" in name for name in plan.layers) == 4

    def test_a_bare_module_is_numbered_as_it_runs(self) -> None:
        model = TINY["Llama"].build()
        plan = Plan.of(model, {(1, 0): WINDOW})
        assert (plan.layers, plan.subject.fingerprint) == ((), "")
        assert plan.heads == ((1, 0),)

    def test_texts_are_kept_as_hashes(self) -> None:
        plan = Plan.of(TINY["Llama"].build(), {}, texts=["a text", "another"])
        texts = plan.provenance.settings["texts"]
        assert [text["characters"] for text in texts] == [6, 7]
        assert all(len(text["sha256"]) == 64 for text in texts)
        assert "a text" not in str(plan.provenance)

    @pytest.mark.parametrize(
        ("patterns", "complaint"),
        [
            ({(2, 0): WINDOW}, "layer numbers from 0 to 1, got 2"),
            ({(0, 4): WINDOW}, "head numbers from 0 to 3, got 4"),
            ({(0, -1): WINDOW}, "head numbers"),
            ({(0, True): WINDOW}, "head numbers"),
            ({("model.layers.7", 0): WINDOW}, "layers among model.layers.0.self_attn, model.layers.1.self_attn"),
            ({(0, 0): "window"}, "wanted patterns, of attlas.patterns, got a str"),
            ({(0, 0): SlidingWindow}, "wanted patterns, of attlas.patterns, got the class SlidingWindow"),
            ({0: WINDOW}, r"keys \(layer, head\), got 0"),
            ("window", "a mapping of"),
        ],
    )
    def test_what_is_not_there_is_refused(self, patterns: Any, complaint: str) -> None:
        with pytest.raises(ArgumentError, match=complaint):
            Plan.of(opened(), patterns)

    def test_a_function_for_a_bare_module_is_refused(self) -> None:
        with pytest.raises(ArgumentError, match=r"pass what attlas\.load returned, or a mapping"):
            Plan.of(TINY["Llama"].build(), lambda layer, head: WINDOW)


class TestKeeping:
    def test_a_file_gives_the_plan_back(self, tmp_path: Path) -> None:
        plan = a_plan()
        assert plan.save(tmp_path / "plan.json") == tmp_path / "plan.json"
        assert open_plan(tmp_path / "plan.json") == plan
        assert Plan.load(tmp_path / "plan.json") == plan
        assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]

    def test_the_file_can_be_read_by_people(self, tmp_path: Path) -> None:
        text = a_plan().save(tmp_path / "plan.json").read_text()
        assert '"0": [1, 0, 0, 1]' in text
        assert '{"kind": "sliding_window", "settings": {"width": 256, "sinks": 4}}' in text
        assert len(text.splitlines()) < 45
        assert json.loads(text)["format"] == "attlas plan"

    def test_heads_with_equal_patterns_share_an_entry(self, tmp_path: Path) -> None:
        model = TINY["Llama"].build()
        plan = Plan.of(model, {(layer, head): WINDOW for layer in range(30) for head in range(9)})
        assert plan.save(tmp_path / "plan.json").stat().st_size < 3_000

    def test_learned_maps_lie_beside_it(self, tmp_path: Path) -> None:
        maps = [FeatureMap(torch.randn(1, 9, 6), torch.randn(1, 9, 6)) for _ in range(2)]
        lm = opened()
        plan = Plan.of(lm, {(0, 1): Linear(maps[0], window=16), (1, 3): Linear(maps[1]), (1, 0): WINDOW})
        plan.save(tmp_path / "plan.json")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "plan.json.safetensors"]
        again = open_plan(tmp_path / "plan.json")
        assert again == plan
        found = again.pattern(0, 1)
        assert isinstance(found, Linear)
        assert isinstance(found.features, FeatureMap)
        assert torch.equal(found.features.query, maps[0].query)

    def test_maps_that_were_exchanged_are_refused(self, tmp_path: Path) -> None:
        lm = opened()
        for name in ("one", "two"):
            Plan.of(lm, {(0, 1): Linear(FeatureMap(torch.randn(1, 9, 6), torch.randn(1, 9, 6)))}).save(
                tmp_path / f"{name}.json"
            )
        (tmp_path / "two.json.safetensors").replace(tmp_path / "one.json.safetensors")
        with pytest.raises(StoreError, match=r"one.json.safetensors"):
            open_plan(tmp_path / "one.json")
        (tmp_path / "one.json.safetensors").unlink()
        with pytest.raises(StoreError, match=r"one.json.safetensors: there is no such file"):
            open_plan(tmp_path / "one.json")

    def test_another_version_is_refused(self, tmp_path: Path) -> None:
        path = a_plan().save(tmp_path / "plan.json")
        path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
        with pytest.raises(StoreError, match="wanted a plan of format version 1, got version 2, written by attlas"):
            open_plan(path)

    def test_what_is_no_plan_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.json"
        with pytest.raises(StoreError, match="there is no such file"):
            open_plan(path)
        for content in (
            b"",
            b"\xff\xfe",
            b"[]",
            b'{"format": "another"}',
            b"[" * 100_000,
            b'{"format": "attlas plan"}',
        ):
            path.write_bytes(content)
            with pytest.raises(StoreError, match=r"plan\.json"):
                open_plan(path)

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (("model",), []),
            (("model", "name"), 5),
            (("model", "name"), "x" * 5_000),
            (("model", "parameters"), "many"),
            (("model", "layers"), {"0": "x"}),
            (("model", "layers"), [1, 2]),
            (("patterns",), [{"kind": "os.system", "settings": {"command": "true"}}]),
            (("patterns",), [{"kind": "sliding_window", "settings": {"width": "256"}}]),
            (("patterns",), [{"kind": "sliding_window", "settings": {"wide": 256}}]),
            (("patterns",), [{"kind": "sliding_window", "settings": {"width": 256, "sinks": -1}}]),
            (("patterns",), [{"kind": "linear", "settings": {"features": {"learned": "0" * 32}}}]),
            (("patterns",), [{"kind": 5, "settings": {}}]),
            (("patterns",), ["full"]),
            (("heads", "0"), [0, 9]),
            (("heads", "0"), [0, -1]),
            (("heads", "0"), [0, True]),
            (("heads", "0"), [0.0]),
            (("heads", "0"), "0000"),
            (("heads", "0"), [0] * 100_000),
            (("heads", "7"), [0]),
            (("heads", "elsewhere"), [0]),
            (("heads",), {str(layer): [] for layer in range(20_000)}),
            (("expected",), {"error": 0.1}),
            (("expected",), {"error": {"value": "low", "meaning": ""}}),
            (("expected",), {"error": {"value": float("nan"), "meaning": ""}}),
            (("maps",), ["0" * 32]),
            (("maps",), "all"),
            (("provenance",), None),
            (("provenance", "settings"), []),
        ],
        ids=str,
    )
    def test_a_file_that_was_meddled_with_is_refused(
        self, tmp_path: Path, place: tuple[str, ...], value: object
    ) -> None:
        path = a_plan().save(tmp_path / "plan.json")
        root = json.loads(path.read_text())
        parent = root
        for name in place[:-1]:
            parent = parent[name]
        parent[place[-1]] = value
        path.write_text(json.dumps(root))
        with pytest.raises(StoreError, match=r"plan\."):
            open_plan(path)

    def test_a_huge_file_is_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.json"
        with path.open("wb") as file:
            file.truncate(2**25 + 1)
        with pytest.raises(StoreError, match="at most 33,554,432 bytes"):
            open_plan(path)

    def test_a_folder_that_is_not_there_is_no_place_for_it(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="cannot be written"):
            a_plan().save(tmp_path / "nowhere" / "plan.json")


class TestWhoseItIs:
    def test_another_model_is_refused(self) -> None:
        plan = a_plan()
        other = opened(fingerprint="fedcba9876543210")
        wanted = (
            r"the plan was made for, tiny Llama \(llama, [\d,]+ parameters, fingerprint 0123456789abcdef\), "
            r"got tiny Llama \(llama, [\d,]+ parameters, fingerprint fedcba9876543210\); load that model"
        )
        with pytest.raises(ArgumentError, match=wanted), plan.applied(other):
            pass
        with pytest.raises(ArgumentError, match="made for"), plan.applied(opened("Mistral")):
            pass

    def test_the_bare_module_of_the_same_shape_is_taken(self) -> None:
        lm = opened()
        with a_plan(lm).applied(lm.model) as applied, torch.no_grad():
            lm.model(**TINY["Llama"].inputs())
        assert applied.calls == 2

    def test_a_bare_module_of_another_shape_is_refused(self) -> None:
        with pytest.raises(ArgumentError, match="made for"), a_plan().applied(TINY["Mistral"].build()):
            pass
        part: Any = opened().model.model
        with pytest.raises(ArgumentError, match="made for"), a_plan().applied(part):
            pass

    def test_it_says_what_it_is(self) -> None:
        text = str(a_plan())
        assert text.startswith("plan for tiny Llama")
        assert "     2 heads  sliding window: width 256, sinks 4" in text
        assert "error: 0.0125 (relative rise of perplexity on the texts)" in text


def test_the_public_name() -> None:
    assert attlas.__version__ == a_plan().provenance.attlas
