"""A trace knows what each module was given and gave, and leaves nothing behind."""

import threading
from typing import Any

import pytest
import torch
from torch import nn

import attlas
from attending import Attention
from attlas.projections import projections
from attlas.projections.tracing import LENGTH, text_inputs, trace
from attlas.testing.tiny_models import TINY_MODELS, VOCABULARY

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_runs_know_what_was_given_and_what_came() -> None:
    model, x = Attention().eval(), torch.randn(2, 9, 32)
    traced = trace(model, {"x": x})
    found = traced.attention(0)
    assert found is not None
    run, turn = found
    assert (run.name, turn, [inner.name for inner in run.inside()]) == ("Attention", 0, ["qkv", "out"])
    qkv = run.children[0]
    assert qkv.first is not None
    assert qkv.output is not None
    assert torch.equal(qkv.first, x)
    assert torch.equal(qkv.output, model.qkv(x))
    assert list(qkv.ancestors()) == [run]
    assert qkv.order > run.order


def test_only_what_is_asked_for_is_kept() -> None:
    traced = trace(Attention().eval(), {"x": torch.randn(2, 9, 32)}, only={"qkv"})
    kept = {run.name: (bool(run.given), run.output is not None) for run in (traced.root, *traced.root.inside())}
    assert kept == {"Attention": (False, False), "qkv": (True, True), "out": (False, False)}


def test_nothing_is_left_behind() -> None:
    model: Any = BY_FAMILY["Llama"].build()
    before = [parameter.clone() for parameter in model.parameters()]
    P = projections(model)
    P.verify()
    assert hooks(model) == 0
    with pytest.raises(ValueError, match="input_ids"):
        trace(model, {"no_such_argument": 1})
    assert hooks(model) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class OnAThread(nn.Module):
    """Runs a module on another thread while it runs itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        thread = threading.Thread(target=self.attention, args=(x + 1,))
        thread.start()
        thread.join()
        return self.attention(x)


def test_other_threads_are_not_traced() -> None:
    P = projections(OnAThread().eval(), {"x": torch.randn(2, 9, 32)})
    assert len(P) == 1
    assert max(P.verify().values()) <= 1e-6


def test_made_up_text_is_short_and_varied() -> None:
    inputs = text_inputs(BY_FAMILY["Llama"].build())
    assert inputs["input_ids"].shape == (1, LENGTH)
    assert len(set(inputs["input_ids"][0].tolist())) == LENGTH
    assert int(inputs["input_ids"].max()) < VOCABULARY
    assert inputs["use_cache"] is False
    assert "decoder_input_ids" in text_inputs(BY_FAMILY["BART"].build())


def test_a_model_that_does_not_read_text_needs_inputs() -> None:
    with pytest.raises(attlas.ArgumentError, match=r"inputs: wanted .* because it reads pixel_values, got nothing"):
        text_inputs(BY_FAMILY["ViT"].build())
