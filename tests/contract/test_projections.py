"""The projections of every captured family are proved on its own numbers, or refused by name: never a wrong view."""

import pytest
import torch
from torch import nn

import attlas
from attlas.projections import projections
from attlas.projections.weights import weights_of_module
from attlas.testing.tiny_models import TINY_MODELS
from contract import families

FAMILIES = [tiny.family for tiny in TINY_MODELS]
# What a refusal of the views alone says; every other captured family has to be viewed.
REFUSED = {"DeepSeek-V3": "latent attention"}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_captured_family_is_proved_or_refused_by_name(family: str) -> None:
    tiny = families.BY_FAMILY[family]
    if families.examine(family).refusal:
        with pytest.raises((attlas.UnsupportedModelError, attlas.CaptureError)):
            projections(tiny.build(), tiny.inputs())
        return
    looks, why = families.viewed(family)  # proves every layer on several inputs
    if family in REFUSED:
        assert REFUSED[family] in why
        assert why.split(":")[0].split(", ")[0] in dict(tiny.build().named_modules())
    else:
        assert why == ""
        assert looks


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_are_those_of_a_capture(family: str) -> None:
    tiny = families.BY_FAMILY[family]
    if families.examine(family).refusal or family in REFUSED:
        return
    model, inputs = tiny.build(), tiny.inputs()
    P = projections(model, inputs)
    with torch.no_grad(), attlas.capture(model, values=True) as cap:
        model(**inputs)
    assert P.layers == cap.layers
    assert [name.partition(" (turn ")[0] for name in cap.names] == P.names
    for view in P:
        A = cap[view.layer]
        assert (view.heads, view.dim) == (A.shape[1], A.query.shape[3])
        assert view.heads % view.kv_heads == 0
        if A.visibility.causal:
            assert view.causal
        assert view.scale == pytest.approx(A.scale * view.factors[0] * view.factors[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_views_are_the_models_own_memory(family: str) -> None:
    tiny = families.BY_FAMILY[family]
    if families.examine(family).refusal or family in REFUSED:
        return
    model = tiny.build()
    storages = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    for view in projections(model, tiny.inputs()):
        assert view.shared == {"query", "key", "value", "output"}
        for role in view.shared:
            assert view[role].untyped_storage().data_ptr() in storages


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rows_of_a_view_are_those_of_its_module(family: str) -> None:
    tiny = families.BY_FAMILY[family]
    if families.examine(family).refusal or family in REFUSED:
        return
    model = tiny.build()
    for view in projections(model, tiny.inputs()):
        assert {"query", "key", "value"} <= set(view.rows)
        for role, rows in view.rows.items():
            module = model.get_submodule(view.modules[role])
            given = getattr(view, role)
            assert rows.shape == (given.shape[0], given.shape[2])
            if not isinstance(module, nn.MultiheadAttention):  # it keeps all three in one parameter
                weight = weights_of_module(module, view.modules[role]).weight
                assert torch.equal(weight[rows.flatten()].unflatten(0, rows.shape).transpose(1, 2), given)
