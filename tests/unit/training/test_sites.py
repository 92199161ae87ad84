"""What was meant is found in every family: by roles, layers, heads and names."""

from __future__ import annotations

import pytest
import torch

from attlas.errors import ArgumentError, UnsupportedModelError
from attlas.testing.tiny_models import TINY_MODELS
from attlas.training import Targets
from attlas.training.sites import find_sites, shape_of

FAMILIES = {model.family: model for model in TINY_MODELS}


def found(family: str, *projections: str, **choices):
    return find_sites(FAMILIES[family].build(), Targets(projections, **choices))


def names(sites) -> list[str]:
    return [site.name for site in sites]


def chosen(mask: torch.Tensor | None) -> list[int]:
    assert mask is not None
    return mask.nonzero().flatten().tolist()


def test_roles_are_found_in_the_order_of_the_model():
    sites = found("Llama", "value", "query")
    ends = ("q_proj", "v_proj")
    assert names(sites) == [f"model.layers.{layer}.self_attn.{end}" for layer in range(2) for end in ends]
    assert [site.roles for site in sites] == [("query",), ("value",)] * 2
    assert [site.layer for site in sites] == [0, 0, 1, 1]
    assert not any(site.narrowed for site in sites)
    assert [site.shape for site in sites[:2]] == [(32, 32), (16, 32)]


def test_groups_stand_for_their_members():
    everything = names(found("Llama", "all"))
    assert everything == names(found("Llama", "attention", "mlp"))
    assert everything == names(found("Llama", "query", "key", "value", "output", "gate", "up", "down"))
    assert len(everything) == 14


@pytest.mark.parametrize(
    "family", ["Llama", "GPT-2", "GPT-NeoX", "BERT", "DistilBERT", "T5", "BART", "Falcon", "Gemma 2"]
)
def test_the_whole_of_an_mlp_is_found_by_its_parts(family):
    parts = ("gate", "up", "down") if family in ("Llama", "Gemma 2") else ("up", "down")
    assert names(found(family, "mlp")) == names(found(family, *parts))


def test_a_fused_module_is_adapted_where_its_roles_lie():
    (site,) = found("GPT-2", "query", "value", layers=[1])
    assert site.name == "transformer.h.1.attn.c_attn"
    assert site.shape == (96, 32)
    assert chosen(site.rows) == [*range(32), *range(64, 96)]
    assert site.slices == ()
    (apart,) = found("GPT-2", "query", "value", layers=[1], separate=True)
    assert [chosen(part) for part in apart.slices] == [[*range(32)], [*range(64, 96)]]
    (whole,) = found("GPT-2", "query", "key", "value", layers=[1])
    assert not whole.narrowed


def test_interleaved_heads_are_told_apart():
    # GPT-NeoX keeps a head's query, key and value side by side: 4 heads of 3 × 8 rows.
    (site,) = found("GPT-NeoX", "value", heads=[(0, 2)])
    assert chosen(site.rows) == [*range(64, 72)]


def test_a_head_has_the_key_and_value_head_that_it_uses():
    query, key, value, output = found("Llama", "attention", heads=[(1, 3)])
    assert chosen(query.rows) == [*range(24, 32)]
    for site in (key, value):
        assert chosen(site.rows) == [*range(8, 16)]
    assert output.rows is None
    assert chosen(output.columns) == [*range(24, 32)]


def test_all_heads_of_a_layer_are_the_whole_layer():
    assert not any(site.narrowed for site in found("Llama", "attention", heads=[(0, head) for head in range(4)]))


def test_modules_are_named_whole_or_by_their_ends():
    assert names(found("Llama", "q_proj", layers=[1])) == ["model.layers.1.self_attn.q_proj"]
    assert names(found("Llama", "model.layers.0.mlp.up_proj")) == ["model.layers.0.mlp.up_proj"]
    assert names(found("Llama", "lm_head")) == ["lm_head"]


def test_a_module_that_is_named_beside_its_role_is_meant_whole():
    sites = found("GPT-2", "query", "c_attn", layers=[0])
    assert [(site.roles, site.narrowed) for site in sites] == [(("query", "module"), False)]


@pytest.mark.parametrize(
    ("projections", "said"),
    [
        (("q_prj",), "got 'q_prj'; near it are .*q_proj"),
        (("querry",), "near it are query"),
        (("zzzzzzzz",), "there are query, key"),
    ],
)
def test_a_name_that_matches_nothing_shows_near_names(projections, said):
    with pytest.raises(ArgumentError, match=said):
        found("Llama", *projections)


def test_a_part_that_a_model_has_not_names_those_that_it_has():
    with pytest.raises(
        ArgumentError, match="wanted a module known as gate, got none; this model's blocks have c_fc, c_proj"
    ):
        found("GPT-2", "gate")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"layers": [2]}, "layers: wanted numbers from 0 to 1, got 2"),
        ({"heads": [(5, 0)]}, "layers: wanted numbers from 0 to 1, got 5"),
        ({"heads": [(1, 4)]}, "heads of layer 1: wanted 0 to 3, got head 4"),
    ],
)
def test_layers_and_heads_have_to_be_there(choices, said):
    with pytest.raises(ArgumentError, match=said):
        found("Llama", "query", **choices)


def test_layers_that_share_their_weights_are_adapted_together_or_not_at_all():
    shared = next(model for model in TINY_MODELS if "Albert" in model.model)
    assert find_sites(shared.build(), Targets(("query",)))
    with pytest.raises(ArgumentError, match="wanted all layers of a model that shares weights"):
        find_sites(shared.build(), Targets(("query",), layers=[0]))


def test_projections_in_a_parameter_of_their_own_are_refused():
    class Reader(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
            self.embedding = torch.nn.Embedding(40, 16)

        def forward(self, input_ids):
            x = self.embedding(input_ids)
            return self.attention(x, x, x, need_weights=False)[0]

    with pytest.raises((UnsupportedModelError, ArgumentError)):
        find_sites(Reader(), Targets(("query",)))


@pytest.mark.parametrize("family", ["Llama", "GPT-2", "GPT-NeoX", "Phi-3", "BERT", "ModernBERT", "Falcon", "Qwen3"])
def test_shapes_are_out_by_in(family):
    model = FAMILIES[family].build()
    for site in find_sites(model, Targets(("attention",))):
        assert site.shape == shape_of(model.get_submodule(site.name))
        if site.rows is not None:
            assert len(site.rows) == site.shape[0]
        if site.roles == ("output",):
            assert site.shape[0] == 32
