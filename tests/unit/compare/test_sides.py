"""Whatever way two models are given, the same is compared, nothing is left behind, and what does not fit is named."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import attlas
import tuning
from attlas.compare.injected import injected, set_aside, wrapped
from attlas.compare.sides import open_sides
from attlas.models.adapter_file import open_adapter

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same_rows(first: attlas.Comparison, second: attlas.Comparison) -> bool:
    return all(
        value == (other[name] if isinstance(value, str | None) else pytest.approx(other[name], rel=1e-6, abs=1e-9))
        for row, other in zip(first.rows(), second.rows(), strict=True)
        for name, value in row.items()
    )


@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_a_folder_its_file_and_the_wrapped_model_say_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    lm = tuning.language_model(base)
    peft_model = tuning.adapted(base, "Llama", **options)
    folder = tuning.saved(peft_model, tmp_path)
    by_folder = attlas.compare(lm, folder, tuning.IDS)
    assert same_rows(by_folder, attlas.compare(lm, open_adapter(folder), tuning.IDS))
    assert same_rows(by_folder, attlas.compare(lm, peft_model, tuning.IDS))
    # PEFT changes the model that it is given: then the base is what lies inside.
    inside = tuning.language_model(peft_model.get_base_model())
    assert same_rows(by_folder, attlas.compare(inside, peft_model, tuning.IDS))
    merged = attlas.compare(lm, tuning.merged(peft_model), tuning.IDS)
    close = {"qk_change", "ov_change", "moved", "own", "upstream", "restored", "merge_loss", "to_near"}
    for one, other in zip(by_folder.rows(), merged.rows(), strict=True):
        assert {name: one[name] for name in close} == pytest.approx({name: other[name] for name in close}, rel=1e-6)


def test_two_adapters_at_once_are_one_change(tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    model = tuning.adapted(base, "Llama")
    import peft

    model.add_adapter("second", peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "second" in name:
            nn.init.normal_(parameter, std=0.2)
    model.base_model.set_adapter(["default", "second"])
    model.to(torch.float64)
    found = attlas.compare(base, model)
    merged = attlas.compare(base, copy.deepcopy(model).merge_and_unload())
    assert found.row(0, 1)["qk_change"] == pytest.approx(merged.row(0, 1)["qk_change"], rel=1e-9)


def test_the_tuned_model_is_only_there_inside_the_block(tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    peft_model = tuning.adapted(base, "Llama")
    inputs = torch.tensor([tuning.IDS])
    sides = open_sides(base, tuning.saved(peft_model, tmp_path), {})
    before, parameters = weights(base), dict(base.named_parameters())

    def interrupted() -> None:
        with sides.as_tuned() as model, torch.no_grad():
            assert torch.allclose(model(inputs).logits, peft_model(inputs).logits)
            touched = {name for name, own in base.named_parameters() if own is not parameters[name]}
            assert len(touched) == len(sides.changes)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(own is parameters[name] for name, own in base.named_parameters())
    assert all(torch.equal(before[name], own) for name, own in base.named_parameters())


def test_a_comparison_leaves_both_models_as_they_were(tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    peft_model = tuning.adapted(base, "Llama")
    inside = peft_model.get_base_model()
    before, modules = weights(inside), dict(inside.named_modules())
    attlas.compare(tuning.language_model(inside), peft_model, tuning.IDS)
    assert dict(inside.named_modules()) == modules
    assert all(torch.equal(before[name], own) for name, own in inside.named_parameters())
    assert all(own.grad is None for own in inside.parameters())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in inside.modules()]
    assert sum(hooks) == 0


def test_layers_that_are_set_aside_come_back_after_an_error() -> None:
    model = tuning.adapted(tuning.tiny("Llama"), "Llama").get_base_model()
    names = set(wrapped(model))

    def failing() -> None:
        with set_aside(model):
            assert not wrapped(model)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        failing()
    assert set(wrapped(model)) == names


# ---- what does not fit


def test_an_adapter_for_another_base_names_the_first_module_that_does_not_fit(tmp_path: Path) -> None:
    folder = tuning.saved(tuning.adapted(tuning.tiny("Llama"), "Llama"), tmp_path)
    with pytest.raises(attlas.ArgumentError, match=r"first module.*model\.layers\.0.*which this base does not have"):
        attlas.compare(tuning.tiny("GPT-2"), folder)
    wider = tuning.tiny("Llama", intermediate_size=48)
    with pytest.raises(attlas.ArgumentError, match=r"0\.mlp\.up_proj: .*40 × 32, which here has 48 × 32"):
        attlas.compare(wider, folder)
    fewer = tuning.tiny("Llama", num_hidden_layers=1)
    with pytest.raises(attlas.ArgumentError, match=r"model\.layers\.1\.mlp\.up_proj.*near is model\.layers\.0"):
        attlas.compare(fewer, folder)


def test_models_of_another_layout_name_what_differs_first() -> None:
    base = tuning.tiny("Llama")
    with pytest.raises(attlas.ArgumentError, match=r"without model\.layers\.1\.self_attn\.q_proj"):
        attlas.compare(base, tuning.tiny("Llama", num_hidden_layers=1))
    with pytest.raises(attlas.ArgumentError, match="1 attention layers, as base has"):
        attlas.compare(tuning.tiny("Llama", num_hidden_layers=1), base)
    with pytest.raises(attlas.ArgumentError, match=r"model\.layers\.0\.self_attn\.k_proj, the first that differs"):
        attlas.compare(base, tuning.tiny("Llama", num_key_value_heads=4))
    other = tuning.tiny("Llama", num_attention_heads=2, num_key_value_heads=1, head_dim=16)
    with pytest.raises(attlas.ArgumentError, match=r"4 heads in layer 0 \(.*\), as base has, got 2"):
        attlas.compare(base, other)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    folder = tuning.saved(tuning.adapted(base, "Llama"), tmp_path)
    wrong: Any = 3
    with pytest.raises(attlas.ArgumentError, match="tuned: wanted another model than base"):
        attlas.compare(base, base)
    with pytest.raises(attlas.ArgumentError, match="base: wanted a model that"):
        attlas.compare(wrong, folder)
    with pytest.raises(attlas.ArgumentError, match=r"base: wanted a model, got an adapter.*the adapter second"):
        attlas.compare(folder, base)
    with pytest.raises(attlas.ArgumentError, match="a model with a tokenizer, for a text"):
        attlas.compare(base, folder, "a text")
    with pytest.raises(attlas.ArgumentError, match="base: wanted a model without an adapter in it, got one at"):
        attlas.compare(tuning.adapted(base, "Llama"), folder)


def test_an_adapter_whose_own_base_differs_is_refused() -> None:
    base = tuning.tiny("Llama")
    with pytest.raises(attlas.ArgumentError, match="an adapter on this base"):
        attlas.compare(base, tuning.adapted(tuning.fine_tuned(base), "Llama"))


def test_adapters_that_are_merged_off_or_more_than_lora_are_refused() -> None:
    base = tuning.tiny("Llama")
    merged = tuning.adapted(base, "Llama")
    merged.merge_adapter()
    with pytest.raises(attlas.UnsupportedModelError, match="merged into its weight"):
        injected(merged.get_base_model())
    off = tuning.adapted(base, "Llama")
    with off.disable_adapter(), pytest.raises(attlas.ArgumentError, match="whose adapters are off"):
        attlas.compare(base, off)
    with pytest.raises(attlas.UnsupportedModelError, match="modules_to_save"):
        attlas.compare(base, tuning.adapted(base, "Llama", modules_to_save=["lm_head"]))
    with pytest.raises(attlas.UnsupportedModelError, match="lora_bias"):
        attlas.compare(base, tuning.adapted(base, "Llama", lora_bias=True))
    import peft

    other = peft.get_peft_model(copy.deepcopy(base), peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]))
    with pytest.raises(attlas.UnsupportedModelError, match="is not LoRA"):
        attlas.compare(base, other)


@pytest.mark.parametrize(
    "wrong",
    [{"restore": -1}, {"window": 1}, {"directions": 0}, {"intruders": 1.5}, {"threshold": 2}, {"merge_dtype": "int8"}],
)
def test_an_argument_that_is_none_is_named(wrong: dict[str, Any], tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    folder = tuning.saved(tuning.adapted(base, "Llama"), tmp_path)
    with pytest.raises(attlas.ArgumentError, match=f"{next(iter(wrong))}: wanted"):
        attlas.compare(base, folder, **wrong)
