"""Parameters of projections are counted once each, fused, gated and shared ones too."""

from typing import Any

import pytest

from attlas.projections import projections
from attlas.testing.tiny_models import TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def test_parameters_are_counted() -> None:
    llama: Any = BY_FAMILY["Llama"].build()
    P = projections(llama)
    counts = P.counts()
    attention = [layer.self_attn for layer in llama.model.layers]
    assert counts.total == sum(p.numel() for module in attention for p in module.parameters())
    assert counts.model == sum(p.numel() for p in llama.parameters())
    assert counts.share == pytest.approx(counts.total / counts.model)
    assert counts.by_layer() == {0: 3072, 1: 3072}
    assert counts.by_projection() == {"query": 2048, "key": 1024, "value": 1024, "output": 2048}
    assert len(counts.rows()) == 8
    assert counts.rows()[1]["module"] == "model.layers.0.self_attn.k_proj"


def test_shared_weights_are_counted_once() -> None:
    tiny = BY_FAMILY["ALBERT"]
    model: Any = tiny.build()
    P = projections(model)
    counts = P.counts()
    assert P[0].query.data_ptr() == P[1].query.data_ptr()
    assert (P[0].turn, P[1].turn) == (0, 1)
    assert counts.by_layer()[1] == 0
    assert counts.total == counts.by_layer()[0] == 4 * (32 * 32 + 32)
    assert [row["shared_with"] for row in counts.rows()] == [None] * 4 + [0] * 4


@pytest.mark.parametrize("family", ["GPT-2", "GPT-NeoX", "Falcon", "Qwen3-Next", "BART"])
def test_fused_and_gated_weights_are_counted_whole(family: str) -> None:
    tiny = BY_FAMILY[family]
    model = tiny.build()
    P = projections(model, tiny.inputs())
    modules = {name for view in P for role, name in view.modules.items() if role != "attention"}
    parameters = {id(p): p.numel() for name in modules for p in model.get_submodule(name).parameters()}
    assert P.counts().total == sum(parameters.values())
