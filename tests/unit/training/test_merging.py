"""A merged model is the base with its adapter, to the rounding that is stated; and the adapter can be taken out."""

from __future__ import annotations

import errno
import json
from typing import Any

import peft
import pytest
import torch

import attlas
from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, ModelNotFound, StoreError, UnsupportedModelError
from attlas.models import folders
from attlas.testing.tiny_models import TINY_MODELS
from attlas.training import LoraSettings, Targets, adapt, merge, save_adapter, unmerge
from attlas.training.merging import RECORD
from teaching import change_of, save_pupil, shaken

FAMILIES = {model.family: model for model in TINY_MODELS}
IDS = torch.tensor([[5, 9, 13, 6, 7, 21]])

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def saved(lm, folder, targets=None, lora=None):
    """Save an adapter; return its folder, what the model gives with it, and what it adds."""
    with adapt(lm, targets or Targets(("all",)), lora or LoraSettings(2)) as adapted:
        shaken(adapted)
        save_adapter(adapted, folder)
        logits = adapted.of(input_ids=IDS).logits.detach()
        return folder, logits, {site.name: change_of(adapted, site.name) for site in adapted.sites}


def logits(lm) -> torch.Tensor:
    return lm.model(input_ids=IDS).logits.detach()


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_a_merged_model_gives_what_the_adapter_gives(pupil, tmp_path, variant):
    before = {name: one.clone() for name, one in pupil.model.state_dict().items()}
    adapter, expected, _ = saved(pupil, tmp_path / "a", lora=LoraSettings(2, variant=variant))
    merged = merge(pupil, adapter, tmp_path / "m")
    opened = attlas.load(tmp_path / "m")
    assert torch.allclose(logits(opened), expected, atol=1e-4)
    assert (logits(pupil) - expected).abs().max() > 0.1
    assert all(torch.equal(one, before[name]) for name, one in pupil.model.state_dict().items())
    assert merged.dtype == "float32"
    assert len(merged.modules) == 14
    assert merged.worst.loss < 1e-5
    assert opened.tokenize("a:").ids == pupil.tokenize("a:").ids
    assert opened.tokenizer.chat_template == pupil.tokenizer.chat_template


@pytest.mark.parametrize("family", ["GPT-2", "GPT-NeoX", "Phi-3", "Gemma 2"])
@pytest.mark.parametrize(
    "targets",
    [Targets(("all",)), Targets(("attention",), heads=[(0, 1), (1, 2)]), Targets(("attention",), separate=True)],
)
def test_every_family_is_merged_and_written(family, targets, tmp_path):
    model: Any = FAMILIES[family].build()
    from attlas.models.facts import gather_facts

    lm = LanguageModel(model, None, gather_facts(family, model, ""))
    adapter, expected, _ = saved(lm, tmp_path / "a", targets)
    merge(lm, adapter, tmp_path / "m")
    assert torch.allclose(logits(attlas.load(tmp_path / "m")), expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16, "float32"])
def test_the_loss_of_precision_is_stated_for_each_module(pupil, tmp_path, dtype):
    weights = {
        name: module.weight.double() for name, module in pupil.model.named_modules() if hasattr(module, "weight")
    }
    adapter, _, changes = saved(pupil, tmp_path / "a")
    merged = merge(pupil, adapter, tmp_path / "m", dtype=dtype)
    kept = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {row.name for row in merged.modules} == set(changes)
    for row in merged.modules:
        whole = (weights[row.name] + changes[row.name]).detach()
        size = changes[row.name].norm()
        assert row.loss == pytest.approx(float((whole.to(kept).double() - whole).norm() / size), rel=1e-6)
        assert row.change == pytest.approx(float(size / weights[row.name].detach().norm()), rel=1e-6)
        assert row.rank == 2
    from safetensors.torch import load_file

    assert {one.dtype for one in load_file(tmp_path / "m" / "model.safetensors").values()} == {kept}
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == str(kept).removeprefix("torch.")
    assert pupil.model.config.dtype == torch.float32
    assert merged.to_parquet(tmp_path / "t.parquet").exists()


def test_an_adapter_of_plain_peft_is_merged(pupil, pupil_folder, tmp_path):
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "o_proj"], init_lora_weights=False)
    model = peft.get_peft_model(pupil.model, config)
    expected = model(input_ids=IDS).logits.detach()
    model.save_pretrained(tmp_path / "a")
    merge(pupil_folder, tmp_path / "a", tmp_path / "m")
    assert torch.allclose(logits(attlas.load(tmp_path / "m")), expected, atol=1e-4)


@pytest.mark.parametrize("variant", ["lora", "rslora"])
def test_what_is_taken_out_again_is_the_base_to_rounding(pupil, pupil_folder, tmp_path, variant):
    adapter, _, _ = saved(pupil, tmp_path / "a", lora=LoraSettings(2, variant=variant))
    merge(pupil, adapter, tmp_path / "m")
    left = unmerge(tmp_path / "m", adapter, tmp_path / "u", base=pupil_folder)
    assert left.worst is not None
    assert left.worst < 1e-5
    assert torch.allclose(logits(attlas.load(tmp_path / "u")), logits(pupil), atol=1e-4)
    merge(pupil, adapter, tmp_path / "half", dtype="bfloat16")
    rough = unmerge(tmp_path / "half", adapter, tmp_path / "v", base=pupil)
    assert rough.worst is not None
    assert rough.worst > 100 * left.worst
    again, base = (dict(lm.model.named_parameters()) for lm in (attlas.load(tmp_path / "v"), pupil))
    for row in rough.modules:
        weight = again[f"{row.name}.weight"]
        off = (weight - base[f"{row.name}.weight"]).double().norm()
        change = row.change * weight.double().norm()
        assert row.off == pytest.approx(float((off / change).detach()), rel=1e-4)
    unknown = unmerge(tmp_path / "m", adapter, tmp_path / "w")
    assert unknown.worst is None


def test_dora_cannot_be_taken_out(pupil, tmp_path):
    adapter, _, _ = saved(pupil, tmp_path / "a", lora=LoraSettings(2, variant="dora"))
    merge(pupil, adapter, tmp_path / "m")
    with pytest.raises(UnsupportedModelError, match="got DoRA, which also scales"):
        unmerge(tmp_path / "m", adapter, tmp_path / "u")
    assert not (tmp_path / "u").exists()


def test_another_adapter_than_the_merged_one_is_refused(pupil, tmp_path):
    adapter, _, _ = saved(pupil, tmp_path / "a")
    other, _, _ = saved(pupil, tmp_path / "b", lora=LoraSettings(3))
    merge(pupil, adapter, tmp_path / "m")
    with pytest.raises(ArgumentError, match="adapter: wanted the one that was merged"):
        unmerge(tmp_path / "m", other, tmp_path / "u")
    (tmp_path / "m" / RECORD).write_text("{}")
    with pytest.raises(StoreError, match="wanted the record of a merge"):
        unmerge(tmp_path / "m", adapter, tmp_path / "u")


def test_an_adapter_for_another_base_names_the_first_module_that_does_not_fit(pupil, tmp_path):
    adapter, _, _ = saved(pupil, tmp_path / "a")
    wide = attlas.load(save_pupil(tmp_path / "wide", intermediate_size=40))
    with pytest.raises(
        ArgumentError, match=r"one for model\.layers\.0\.mlp\.down_proj of 16 × 24, where it is 16 × 40; it says"
    ):
        merge(wide, adapter, tmp_path / "m")
    short = attlas.load(save_pupil(tmp_path / "short", num_hidden_layers=1))
    with pytest.raises(
        ArgumentError, match=r"one for model\.layers\.1\.\S+, where LlamaForCausalLM has no such module"
    ):
        merge(short, adapter, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_pickle_is_never_opened(pupil, tmp_path):
    adapter, _, _ = saved(pupil, tmp_path / "a")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelNotFound, match=r"found only adapter_model\.bin, whose format can run code"):
        merge(pupil, adapter, tmp_path / "m")


def test_a_rank_larger_than_the_matrix_is_refused(pupil, tmp_path):
    from safetensors.torch import load_file, save_file

    adapter, _, _ = saved(pupil, tmp_path / "a", Targets(("query",)))
    path = adapter / "adapter_model.safetensors"
    tensors = {name: torch.zeros(20, 16) if "lora_A" in name else torch.zeros(16, 20) for name in load_file(path)}
    save_file(tensors, path)
    with pytest.raises(StoreError, match="wanted a rank of at most 16"):
        merge(pupil, adapter, tmp_path / "m")


def test_a_place_that_is_taken_is_refused(pupil, tmp_path):
    adapter, _, _ = saved(pupil, tmp_path / "a")
    with pytest.raises(ArgumentError, match="out: wanted a new folder"):
        merge(pupil, adapter, tmp_path / "a")
    (tmp_path / "empty").mkdir()
    merge(pupil, adapter, tmp_path / "empty")
    with pytest.raises(ArgumentError, match="out: wanted a new folder"):
        unmerge(tmp_path / "empty", adapter, tmp_path / "empty")


def test_a_dtype_that_is_none_is_refused(pupil, tmp_path):
    adapter, _, _ = saved(pupil, tmp_path / "a")
    for dtype in ("int8", torch.int8):
        with pytest.raises(ArgumentError, match="dtype: wanted one of float32"):
            merge(pupil, adapter, tmp_path / "m", dtype=dtype)


def test_a_full_disk_leaves_nothing_behind(pupil, tmp_path, monkeypatch):
    adapter, _, _ = saved(pupil, tmp_path / "a")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders, "_flush", full)
    with pytest.raises(StoreError, match=r"m: cannot be written \(No space left on device\); free some space"):
        merge(pupil, adapter, tmp_path / "m")
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


@pytest.mark.skipif(not hasattr(__import__("signal"), "SIGXFSZ"), reason="only POSIX systems bound a file's size")
def test_a_file_that_may_not_grow_leaves_nothing_behind(pupil, tmp_path):
    import resource

    adapter, _, _ = saved(pupil, tmp_path / "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    try:
        with pytest.raises(StoreError, match="m: cannot be written"):
            merge(pupil, adapter, tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in tmp_path.iterdir()} == {"a"}
