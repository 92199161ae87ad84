"""Projections of a whole model: which layers, indexing, verifying, wrong arguments."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attlas
from attending import Attention
from attlas.matrix.indexing import IndexOutOfRange
from attlas.projections import Projections, projections
from attlas.testing.tiny_models import TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def llama() -> Any:
    return BY_FAMILY["Llama"].build()


@pytest.fixture(name="P", scope="module")
def of_llama(llama: nn.Module) -> Projections:
    return projections(llama)


def test_chosen_layers_keep_their_numbers(llama: nn.Module) -> None:
    P = projections(llama, layers=[1])
    assert (P.layers, len(P), P[1].name) == ([1], 1, "model.layers.1.self_attn")
    assert list(P.verify()) == [1]


def test_progress(llama: nn.Module) -> None:
    heard: list[tuple[int, int]] = []
    projections(llama, progress=lambda done, total, what: heard.append((done, total)))
    assert heard == [(0, 2), (1, 2), (2, 2)]


# ---- indexing


def test_layers_and_heads(P: Projections) -> None:
    assert (P.layers, P.names) == ([0, 1], ["model.layers.0.self_attn", "model.layers.1.self_attn"])
    assert P.heads == [(layer, head) for layer in range(2) for head in range(4)]
    assert P[-1] is P[1]
    assert P["model.layers.1.self_attn"] is P[1]
    assert [view.layer for view in P] == [0, 1]
    assert (P[1, -1].layer, P[1, -1].head, P[1, -1].kv_head) == (1, 3, 1)
    assert repr(P) == "Projections(LlamaForCausalLM, 2 layers, 8 heads)"
    assert P.provenance.settings["inputs"] == "made up"


def test_an_index_outside_is_refused(P: Projections) -> None:
    with pytest.raises(IndexOutOfRange, match="layer: wanted one of 0, 1, got 2"):
        P[2]
    with pytest.raises(IndexOutOfRange, match="head: wanted 0 to 3"):
        P[0, 4]
    with pytest.raises(attlas.ArgumentError, match=r"wanted one of model.layers.0"):
        P["attention"]
    wrong: Any = (0, 1, 2)
    with pytest.raises(attlas.ArgumentError, match=r"P\[layer, head\]"):
        P[wrong]


# ---- proving


def test_verify_notices_a_wrong_view(P: Projections) -> None:
    tiny = BY_FAMILY["Llama"]
    model: Any = tiny.build()
    P = projections(model)
    assert max(P.verify().values()) <= 1e-6
    before = P[0].key.clone()
    with torch.no_grad():
        model.model.layers[0].self_attn.k_proj.weight.mul_(1.01)
    torch.testing.assert_close(P[0].key, before * 1.01)  # a view follows its weight
    assert max(P.verify().values()) <= 1e-6
    model.model.layers[0].self_attn.k_proj.weight = nn.Parameter(torch.randn(16, 32))
    errors = P.verify()
    assert errors[0] > 0.1
    assert errors[1] <= 1e-6


def test_padded_texts_have_positions_of_their_own(llama: nn.Module, P: Projections) -> None:
    ids = torch.randint(5, 90, (2, 12))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    assert max(P.verify(inputs).values()) <= 1e-6


# ---- refusing


class Bent(Attention):
    """Bends its queries, so that no matrix gives them."""

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.split(x)
        return self.attend(query.relu(), key, value)


class Several(nn.Module):
    """One layer that can be viewed and one that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Attention(), Bent(seed=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_the_rest_can_be_viewed_when_asked_for() -> None:
    model, inputs = Several().eval(), {"x": torch.randn(2, 9, 32)}
    with pytest.raises(attlas.UnsupportedModelError, match=r'^second: no known layout.*unrouted="report"'):
        projections(model, inputs)
    P = projections(model, inputs, unrouted="report")
    assert (P.layers, list(P.unrouted)) == ([0], ["second"])
    assert max(P.verify().values()) <= 1e-6


def test_wrong_arguments_are_refused(llama: nn.Module, P: Projections) -> None:
    wrong: Any = "smollm2-135m"
    with pytest.raises(attlas.ArgumentError, match=r"lm: wanted a LanguageModel or a torch.nn.Module, got str"):
        projections(wrong)
    with pytest.raises(attlas.ArgumentError, match=r"unrouted: wanted"):
        projections(llama, unrouted="ignore")  # pyright: ignore[reportArgumentType]  # what a user may pass
    with pytest.raises(attlas.ArgumentError, match=r"inputs: wanted a dictionary of what a Attention is called with"):
        projections(Attention())
    with pytest.raises(
        attlas.ArgumentError, match=r"inputs: wanted a dictionary of what a ViTModel .* reads pixel_values"
    ):
        projections(BY_FAMILY["ViT"].build())
    with pytest.raises(attlas.ArgumentError, match="inputs: wanted a dictionary of arguments, got list"):
        projections(llama, [1, 2])  # pyright: ignore[reportArgumentType]  # what a user may pass
    with pytest.raises(attlas.ArgumentError, match="no text for a bare module"):
        P.verify("a text")
    with pytest.raises(attlas.CaptureError, match="got none"):
        projections(nn.Linear(3, 3), {"input": torch.randn(2, 3)})


# ---- real models


@pytest.mark.bundled
@pytest.mark.parametrize(("name", "layers", "heads"), [("smollm2-135m", 30, 9), ("minilm-l6", 6, 12)])
def test_a_real_model_is_proved(name: str, layers: int, heads: int) -> None:
    lm = attlas.load(name)
    P = projections(lm)
    assert (len(P), P[0].heads) == (layers, heads)
    assert max(P.verify().values()) <= 1e-6
    assert max(P.verify("The capital of France is Paris, and that of Italy is Rome. " * 9).values()) <= 1e-6
    assert P.provenance.model == name
    assert P.provenance.fingerprint == lm.facts.fingerprint
