"""What is not meant computes what it computed before; what is saved is an ordinary adapter; what is removed is gone."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

import attlas
from attlas.errors import ArgumentError, MissingPackageError
from attlas.testing.tiny_models import TINY_MODELS
from attlas.training import LoraSettings, Targets, adapt, save_adapter
from attlas.training.adapting import NAME
from attlas.training.settings import INITS, VARIANTS
from teaching import change_of, shaken, trained

FAMILIES = {model.family: model for model in TINY_MODELS}
KINDS = ["Llama", "GPT-2", "GPT-NeoX", "Phi-3", "Falcon", "Qwen3", "Gemma 2"]
ZERO_AT_FIRST = ("default", "gaussian", "orthogonal", "mica", "eva")

# PEFT asks transformers for something by its older name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def batches(family: str = "Llama") -> list[dict[str, Tensor]]:
    ids = FAMILIES[family].inputs(batch=4)["input_ids"]
    return [{"input_ids": ids, "labels": ids}, {"input_ids": ids.flip(0), "labels": ids.flip(0)}]


def state(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- heads and slices


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("variant", ["lora", "rslora"])
def test_only_the_heads_that_were_meant_change(family, variant):
    model = FAMILIES[family].build()
    before = attlas.projections(model)
    kept = {(view.layer, role): view[role].clone() for view in before for role in ("query", "key", "value", "output")}
    group = before[1].group
    ids = FAMILIES[family].inputs(batch=4)["input_ids"]
    with adapt(model, Targets(("attention",), heads=[(1, 2)]), LoraSettings(2, variant=variant)) as adapted:
        trained(adapted, ids)
        # The views see an adapter that is in place; they find heads by another way than the masks.
        for view in attlas.projections(model):
            for role in ("query", "key", "value", "output"):
                of = 2 if role in ("query", "output") else 2 // group
                for head, weight in enumerate(view[role]):
                    changed = not torch.equal(weight, kept[view.layer, role][head])
                    assert changed == (view.layer == 1 and head == of), (view.layer, role, head)


@pytest.mark.parametrize("family", ["GPT-2", "GPT-NeoX", "Phi-3", "Falcon"])
def test_only_the_slices_that_were_meant_change(family):
    model = FAMILIES[family].build()
    kept = {
        (view.layer, role): view[role].clone()
        for view in attlas.projections(model)
        for role in ("query", "key", "value")
    }
    with adapt(model, Targets(("query", "value")), LoraSettings(2)) as adapted:
        trained(adapted, FAMILIES[family].inputs(batch=4)["input_ids"])
        for view in attlas.projections(model):
            for role in ("query", "key", "value"):
                assert torch.equal(view[role], kept[view.layer, role]) == (role == "key")


@pytest.mark.parametrize("family", ["GPT-2", "GPT-NeoX", "Phi-3"])
@pytest.mark.parametrize("variant", ["lora", "rslora"])
def test_separate_slices_have_a_product_each_and_one_scale(family, variant):
    model = FAMILIES[family].build()
    lora = LoraSettings(2, alpha=6.0, variant=variant)
    with adapt(model, Targets(("query", "key", "value"), separate=True), lora) as adapted:
        shaken(adapted)
        assert set(adapted.ranks.values()) == {6}
        for site in adapted.sites:
            module: Any = model.get_submodule(site.name)
            up, down = module.lora_B[NAME].weight.double(), module.lora_A[NAME].weight.double()
            assert module.scaling[NAME] == pytest.approx(6 / 2 if variant == "lora" else 6 / 2**0.5)
            for number, rows in enumerate(site.slices):
                part = slice(2 * number, 2 * number + 2)
                expected = module.scaling[NAME] * up[rows][:, part] @ down[part]
                assert torch.allclose(change_of(adapted, site.name)[rows], expected)
                assert torch.linalg.matrix_rank(expected) == 2


def test_gaussian_slices_begin_as_wide_as_a_module_of_their_rank():
    model = FAMILIES["GPT-2"].build()
    spread = {}
    for separate in (False, True):
        with adapt(
            model, Targets(("query", "key", "value"), separate=separate), LoraSettings(4, init="gaussian")
        ) as adapted:
            module: Any = model.get_submodule("transformer.h.0.attn.c_attn")
            spread[separate] = float(module.lora_A[NAME].weight.detach().std())
            assert adapted.ranks["transformer.h.0.attn.c_attn"] == (12 if separate else 4)
    assert spread[True] == pytest.approx(spread[False], rel=0.2)


@pytest.mark.parametrize("family", ["Llama", "GPT-2", "GPT-NeoX"])
def test_dora_leaves_the_other_heads_as_they_were(family):
    # DoRA divides each row by a length that it computes anew, so that rounding is the bound, not equality.
    model = FAMILIES[family].build().double()
    ids = FAMILIES[family].inputs(batch=4)["input_ids"]
    plain = {name: one.detach().clone() for name, one in model.named_parameters()}
    given: dict[str, tuple[Tensor, Tensor]] = {}
    with adapt(model, Targets(("query", "key", "value"), heads=[(0, 1)]), LoraSettings(2, variant="dora")) as adapted:
        trained(adapted, ids, weight_decay=0.5)
        for site in adapted.sites:
            module: Any = model.get_submodule(site.name)
            hook = module.register_forward_hook(lambda _, x, y, name=site.name: given.update({name: (x[0], y)}))
            model(input_ids=ids)
            hook.remove()
            x, y = given[site.name]
            weight = plain[f"{site.name}.weight"]
            assert site.rows is not None
            base = x @ (weight if type(module.base_layer).__name__ == "Conv1D" else weight.T)
            base = base if module.base_layer.bias is None else base + module.base_layer.bias
            outside = ~site.rows
            assert (y - base)[..., outside].abs().max() < 1e-6
            assert (y - base)[..., site.rows].abs().max() > 1e-3
            length = module.lora_magnitude_vector[NAME].weight
            norm = weight.norm(dim=0 if type(module.base_layer).__name__ == "Conv1D" else 1)
            assert torch.allclose(length[outside].double(), norm[outside], rtol=1e-6)


def test_a_mask_holds_against_any_optimiser():
    model = FAMILIES["Llama"].build()
    ids = FAMILIES["Llama"].inputs()["input_ids"]
    with adapt(model, Targets(("query", "output"), heads=[(0, 0)]), LoraSettings(2)) as adapted:
        for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop):
            optimizer = kind(adapted.parameters.values(), lr=0.1)
            for _ in range(2):
                adapted.of(input_ids=ids).logits.square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        for name, mask in adapted.masks.items():
            assert not adapted.model.get_parameter(name)[~mask].any()
            assert adapted.model.get_parameter(name)[mask].any()
        held = sum(int((~mask).sum()) for mask in adapted.masks.values())
        assert adapted.trainable == sum(one.numel() for one in adapted.parameters.values()) - held


# ---- initialisations and variants


REFUSED = [("GPT-2", "olora"), ("dora", "mica")]
"""See test_what_cannot_be_combined_is_refused."""

COMBINATIONS = [
    (family, variant, init)
    for family, variant, init in itertools.product(("Llama", "GPT-2"), VARIANTS, INITS)
    if (family, init) not in REFUSED and (variant, init) not in REFUSED
]


@pytest.mark.parametrize(("family", "variant", "init"), COMBINATIONS)
def test_an_adapter_changes_nothing_at_first_and_everything_is_as_before_at_last(family, variant, init):
    model = FAMILIES[family].build()
    ids = FAMILIES[family].inputs(batch=4)["input_ids"]
    before, attributes = state(model), set(vars(model))
    asked = [one.requires_grad for one in model.parameters()]
    drawn = torch.get_rng_state()
    expected = model(input_ids=ids).logits
    lora = LoraSettings(2, variant=variant, init=init)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with adapt(model, Targets(("all",)), lora, batches=batches(family)) as adapted:
            assert not any(module.training for module in model.modules())
            assert torch.equal(torch.get_rng_state(), drawn)
            first = model(input_ids=ids).logits
            trained(adapted, ids)
            assert (model(input_ids=ids).logits - expected).abs().max() > 1e-2
    bound = 0 if variant != "dora" and init in ("default", "gaussian", "mica", "eva") else 1e-4
    assert (first - expected).abs().max() <= bound
    assert same(state(model), before)
    assert set(vars(model)) == attributes
    assert [one.requires_grad for one in model.parameters()] == asked
    assert all(one.grad is None for one in model.parameters())
    assert torch.equal(model(input_ids=ids).logits, expected)


@pytest.mark.parametrize(
    ("family", "variant", "init", "targets"),
    [
        *(
            ("Llama", variant, init, Targets(("all",)))
            for variant in VARIANTS
            for init in ("default", "eva", "pissa", "olora", "lora_ga")
        ),
        ("Llama", "lora", "mica", Targets(("all",))),
        ("Llama", "lora", "pissa_niter_2", Targets(("all",))),
        ("Llama", "lora", "orthogonal", Targets(("query", "output"), heads=[(0, 1), (1, 2)])),
        ("GPT-2", "lora", "default", Targets(("query", "value"), heads=[(0, 1)])),
        ("GPT-2", "rslora", "default", Targets(("query", "key", "value"), separate=True)),
        ("GPT-2", "dora", "pissa", Targets(("attention",))),
        ("GPT-NeoX", "dora", "default", Targets(("query", "value"), heads=[(1, 0)], separate=True)),
        ("Phi-3", "lora", "gaussian", Targets(("query", "value", "down"))),
    ],
)
def test_plain_peft_opens_what_is_saved_beside_the_original_base(family, variant, init, targets, tmp_path):
    model = FAMILIES[family].build()
    ids = FAMILIES[family].inputs(batch=4)["input_ids"]
    with adapt(model, targets, LoraSettings(2, variant=variant, init=init), batches=batches(family)) as adapted:
        trained(adapted, ids)
        expected = model(input_ids=ids).logits.detach()
        save_adapter(adapted, tmp_path / "adapter")
    opened = peft.PeftModel.from_pretrained(FAMILIES[family].build(), tmp_path / "adapter").eval()
    found = opened(input_ids=ids).logits.detach()
    assert torch.allclose(found, expected, atol=2e-4 * float(expected.abs().max()))
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_the_same_seed_gives_the_same_adapter_and_another_another(tmp_path):
    def first(seed: int) -> dict[str, Tensor]:
        with adapt(FAMILIES["Llama"].build(), lora=LoraSettings(2), seed=seed) as adapted:
            return adapted.tensors()

    assert same(first(3), first(3))
    assert not same(first(3), first(4))


# ---- ranks


@pytest.mark.parametrize("variant", ["lora", "rslora"])
def test_each_module_has_its_rank_and_all_have_one_scale(variant):
    model = FAMILIES["Llama"].build()
    at = "model.layers.{}.self_attn.{}_proj"
    ranks = {at.format(0, "q"): 1, at.format(0, "v"): 4, at.format(1, "q"): 0}
    with adapt(model, lora=LoraSettings(2, alpha=8.0, variant=variant, ranks=ranks)) as adapted:
        assert adapted.ranks == {at.format(0, "q"): 1, at.format(0, "v"): 4, at.format(1, "v"): 2}
        modules: list[Any] = [model.get_submodule(name) for name in adapted.ranks]
        scales = {module.scaling[NAME] for module in modules}
        assert [pytest.approx(8 / 2 if variant == "lora" else 8 / 2**0.5)] * len(scales) == list(scales)


@pytest.mark.parametrize(
    ("targets", "lora", "said"),
    [
        (
            Targets(),
            LoraSettings(17),
            r"rank: wanted at most 16 for model.layers.0.self_attn.v_proj \(16 × 32\), got 17",
        ),
        (Targets(("query",), heads=[(0, 0)]), LoraSettings(9), r"rank: wanted at most 8 .*q_proj \(8 × 32\), got 9"),
        (Targets(), LoraSettings(9, init="pissa"), r"wanted at most 8 .*twice the rank is saved with pissa\), got 9"),
        (
            Targets(),
            LoraSettings(ranks={"q_proj": 2}),
            "ranks: wanted whole names of modules .* near it are model.layers",
        ),
        (
            Targets(("query",), layers=[0]),
            LoraSettings(ranks={"model.layers.0.self_attn.q_proj": 0}),
            "at least one above 0",
        ),
    ],
)
def test_ranks_have_to_fit(targets, lora, said):
    with pytest.raises(ArgumentError, match=said):
        adapt(FAMILIES["Llama"].build(), targets, lora)


# ---- refusals


@pytest.mark.parametrize(
    ("family", "targets", "lora", "said"),
    [
        (
            "Llama",
            Targets(("query",), heads=[(0, 0)]),
            LoraSettings(2, init="pissa"),
            "'pissa', which changes the whole weight",
        ),
        (
            "Llama",
            Targets(("output",), heads=[(0, 0)]),
            LoraSettings(2, init="lora_ga"),
            "which changes the whole weight",
        ),
        ("GPT-2", Targets(("query",)), LoraSettings(2, init="pissa"), "of which only a part is meant"),
        ("GPT-2", Targets(("query", "key"), separate=True), LoraSettings(2, init="eva"), "have a matrix each"),
        ("GPT-2", Targets(("query", "key"), separate=True), LoraSettings(2, init="orthogonal"), "have a matrix each"),
        ("GPT-2", Targets(("all",)), LoraSettings(2, init="olora"), "a Conv1D, the wrong way round"),
        (
            "Llama",
            Targets(("output",), heads=[(0, 0)]),
            LoraSettings(2, variant="dora"),
            "it scales whole rows of model.layers.0",
        ),
        ("Llama", Targets(), LoraSettings(2, variant="dora", init="mica"), "cannot be combined with dora"),
        ("Llama", Targets(), LoraSettings(3, init="orthogonal"), "even ranks, for orthogonal"),
    ],
)
def test_what_cannot_be_combined_is_refused(family, targets, lora, said):
    model = FAMILIES[family].build()
    before = state(model)
    with pytest.raises(ArgumentError, match=said):
        adapt(model, targets, lora, batches=batches(family))
    assert same(state(model), before)


def test_peft_reads_no_double_precision_for_initialisations_by_weights():
    with pytest.raises(ArgumentError, match="cannot read weights of float64"):
        adapt(FAMILIES["Llama"].build().double(), lora=LoraSettings(2, init="pissa"))


@pytest.mark.parametrize("init", ["eva", "lora_ga"])
def test_initialisations_by_data_need_data(init):
    with pytest.raises(ArgumentError, match=f"batches: wanted data, for the initialisation {init}, got none"):
        adapt(FAMILIES["Llama"].build(), lora=LoraSettings(2, init=init))


def test_eva_refuses_batches_that_are_too_small_for_it_and_leaves_the_model_alone():
    model = FAMILIES["Llama"].build()
    before = state(model)
    one = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor([[-100, 6, 7]])}
    with pytest.raises(
        ArgumentError, match="wanted batches with at least 8 tokens to be learnt, for eva with rank 4, got at most 2"
    ):
        adapt(model, lora=LoraSettings(4, init="eva"), batches=[one])
    assert same(state(model), before)
    assert all(one.requires_grad for one in model.parameters())


def test_an_adapter_on_an_adapter_is_refused():
    model = FAMILIES["Llama"].build()
    with adapt(model), pytest.raises(ArgumentError, match=r"lm: wanted no adapter, got one at model\.layers"):
        adapt(model)
    with adapt(model):
        pass


def test_tensors_of_another_adapter_are_refused():
    model = FAMILIES["Llama"].build()
    with adapt(model, lora=LoraSettings(2)) as adapted:
        other = adapted.tensors()
    with adapt(model, lora=LoraSettings(3)) as adapted, pytest.raises(ArgumentError, match="those of another"):
        adapted.load(other)


def test_without_peft_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'attlas\[lora\]'"):
        adapt(FAMILIES["Llama"].build())
    with pytest.raises(ImportError):
        adapt(FAMILIES["Llama"].build())


def test_a_model_is_read_with_the_adapter_that_is_in_place(pupil):
    text = "the quick brown fox jumps over the lazy dog"
    plain = pupil.read(text)[0].entropy()
    with adapt(pupil, Targets(("query",), heads=[(0, 0)]), LoraSettings(2)) as adapted:
        shaken(adapted)
        captured = pupil.read(text, values=True, output=True)
        assert max(captured.verify().values()) < 1e-5
        moved = (captured[0].entropy() - plain).abs().amax(-1)[0]
    assert moved[0] > 1e-3
    assert not moved[1:].any()


def test_a_comparison_finds_the_one_head_that_was_adapted(pupil, tmp_path):
    with adapt(pupil, Targets(("query", "output"), heads=[(1, 2)]), LoraSettings(2)) as adapted:
        save_adapter(shaken(adapted), tmp_path / "a")
    rows = attlas.compare(pupil, tmp_path / "a").rows()
    for change in ("qk_change", "ov_change"):
        assert [(row["layer"], row["head"]) for row in rows if row[change] != 0] == [(1, 2)]
