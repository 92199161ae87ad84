from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import BertConfig, Gemma2Config, LlamaConfig

from attlas.errors import ArgumentError, CaptureError, ModelNotFound, StoreError, UnsupportedModelError
from attlas.models import open_model
from attlas.models.attention import verify_choice


def test_a_local_folder_opens_with_the_weights_it_holds(llama: Path) -> None:
    opened = open_model(llama)
    reference = transformers.LlamaForCausalLM.from_pretrained(llama)
    ids = torch.arange(8).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(opened.model(ids).logits, reference(ids).logits)
    assert not opened.model.training
    assert opened.tokenizer is None
    assert opened.attention == "sdpa"


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float64])
def test_the_dtype_is_the_one_asked_for(llama: Path, dtype: str | torch.dtype) -> None:
    wanted = torch.bfloat16 if dtype == "bfloat16" else dtype
    assert {parameter.dtype for parameter in open_model(llama, dtype=dtype).model.parameters()} == {wanted}


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("dtype", "float8", "dtype: wanted one of float32, bfloat16, float16, float64, got 'float8'"),
        ("dtype", torch.int64, "dtype: wanted one of"),
        ("device", "gpu", "device: wanted a device of this machine, got 'gpu'"),
        ("device", "cuda:99", "device: wanted a device of this machine, got 'cuda:99'"),
        ("attention", "flash", "attention: wanted one of eager"),
        ("attention", "somebody/kernel", "got 'somebody/kernel'"),
        ("revision", "main", "revision: wanted None for a bundled model or a local folder, got 'main'"),
    ],
)
def test_a_wrong_argument_is_named(llama: Path, argument: str, value: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=r"^" + argument) as caught:
        open_model(llama, **{argument: value})
    assert said in str(caught.value)


def test_eager_is_used_where_it_is_asked_for(llama: Path) -> None:
    opened = open_model(llama, attention="eager")
    assert opened.attention == "eager"
    assert opened.model.config._attn_implementation == "eager"


def test_a_class_without_sdpa_gets_eager_and_says_so(save_model, small: dict[str, Any]) -> None:
    folder = save_model("Gemma2ForCausalLM", Gemma2Config(**small, num_key_value_heads=2, head_dim=8))
    assert open_model(folder).attention == "eager"


def test_a_part_that_uses_something_else_is_found(llama: Path, small: dict[str, Any]) -> None:
    model = open_model(llama).model
    model.model.layers[1].self_attn.config = LlamaConfig(**{**small, "attn_implementation": "eager"})
    with pytest.raises(CaptureError, match=r"model\.layers\.1\.self_attn: wanted .*'sdpa', but it uses 'eager'"):
        verify_choice(model, "sdpa")


def test_an_unknown_name_lists_what_there_is_and_the_closest() -> None:
    with pytest.raises(ModelNotFound, match=r"smollm2-135m, minilm-l6.*got 'smolm2-135'; did you mean smollm2-135m\?"):
        open_model("smolm2-135")


def test_a_bundled_model_that_was_not_added_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTLAS_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFound, match=r"run: attlas models add smollm2-135m$"):
        open_model("smollm2-135m")


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelNotFound, match=r"got a file"):
        open_model(tmp_path / "model.gguf")


def test_a_folder_without_a_configuration_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"found no such file"):
        open_model(tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", '"llama"'])
def test_a_configuration_that_is_no_object_is_refused(llama: Path, content: str) -> None:
    (llama / "config.json").write_text(content)
    with pytest.raises(StoreError, match=r"wanted (JSON|a JSON object)"):
        open_model(llama)


@pytest.mark.parametrize("kind", [None, 7, "perceptron-9000"])
def test_a_kind_of_model_that_nobody_knows_is_refused(llama: Path, kind: object) -> None:
    content = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**content, "model_type": kind}))
    with pytest.raises(UnsupportedModelError, match=r"model_type|knows no model of kind 'perceptron-9000'"):
        open_model(llama)


def test_an_adapter_is_told_apart_from_a_model(llama: Path) -> None:
    (llama / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/model"}')
    with pytest.raises(ModelNotFound, match=r"an adapter, not a model"):
        open_model(llama)


def test_weights_that_are_missing_are_not_made_up(save_model, llama: Path, small: dict[str, Any]) -> None:
    deeper = LlamaConfig(**{**small, "num_hidden_layers": 3}, num_key_value_heads=2)
    deeper.architectures = ["LlamaForCausalLM"]
    deeper.save_pretrained(llama)
    with pytest.raises(StoreError, match=r"lack 9 tensors .* model\.layers\.2.*random"):
        open_model(llama)


def test_weights_of_another_shape_are_refused(llama: Path, small: dict[str, Any]) -> None:
    wider = LlamaConfig(**{**small, "vocab_size": 65}, num_key_value_heads=2)
    wider.architectures = ["LlamaForCausalLM"]
    wider.save_pretrained(llama)
    with pytest.raises(StoreError, match=r"cannot be loaded"):
        open_model(llama)


def test_a_model_saved_without_a_head_is_opened_without_one(save_model, small: dict[str, Any]) -> None:
    folder = save_model("LlamaModel", LlamaConfig(**small, num_key_value_heads=2))
    opened = open_model(folder)
    assert type(opened.model).__name__ == "LlamaModel"
    assert opened.facts.kind == "decoder"


def test_an_encoder_saved_with_another_head_is_opened_as_the_bare_model(save_model, small: dict[str, Any]) -> None:
    folder = save_model("BertForMaskedLM", BertConfig(**small))
    opened = open_model(folder)
    assert type(opened.model).__name__ == "BertModel"
    assert opened.facts.kind == "encoder"


def test_loading_is_silent(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_model(llama)
    assert capfd.readouterr() == ("", "")


def test_loading_leaves_transformers_as_talkative_as_it_was(llama: Path) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    open_model(llama)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_progress_ends_at_its_total(llama: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    open_model(llama, progress=lambda *report: seen.append(report))
    assert seen[-1] == (1, 1, "loading the model")


def test_what_was_opened_cannot_be_changed(llama: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        open_model(llama).attention = "eager"  # pyright: ignore[reportAttributeAccessIssue] - that is what is tested


def test_a_tokenizer_that_is_damaged_is_a_clear_error(llama: Path) -> None:
    (llama / "tokenizer.json").write_text("{")
    (llama / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises((StoreError,), match=r"its tokenizer cannot be opened"):
        open_model(llama)


def test_sharded_weights_open_like_a_single_file(save_model, llama: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    transformers.LlamaForCausalLM.from_pretrained(llama).save_pretrained(sharded, max_shard_size="4KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    one, many = open_model(llama).model.state_dict(), open_model(sharded).model.state_dict()
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)


def test_a_hub_id_without_a_network_names_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFound, match=r"somebody/model: not on this machine.*connect to the network, or give"):
        open_model("somebody/model")


def test_a_hub_id_opens_from_the_hubs_own_cache(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0" * 40
    repository = tmp_path / "hub" / "models--somebody--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    shutil.copytree(llama, repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    opened = open_model("somebody/model")
    assert opened.facts.name == "somebody/model"
    assert opened.facts.fingerprint == open_model(llama).facts.fingerprint


@pytest.mark.bundled
def test_the_bundled_language_model_knows_the_capital_of_france() -> None:
    opened = open_model("smollm2-135m")
    prompt = opened.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = opened.model(**prompt).logits[0, -1].argmax()
    assert opened.tokenizer.decode(best) == " Paris"


@pytest.mark.bundled
def test_the_bundled_encoder_puts_like_near_like() -> None:
    opened = open_model("minilm-l6")

    def embed(text: str) -> torch.Tensor:
        with torch.no_grad():
            states = opened.model(**opened.tokenizer(text, return_tensors="pt")).last_hidden_state.mean(dim=1)
        return torch.nn.functional.normalize(states, dim=-1).squeeze(0)

    cat, feline, rates = map(embed, ("A cat sits outside", "A feline rests in the open", "Interest rates rose again"))
    assert cat @ feline > 0.4 > 0.2 > cat @ rates


REMOTE_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "perceptron-9000"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_remote_code_runs_when_the_caller_asks_but_does_not_choose_attention(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (llama / "own.py").write_text(REMOTE_CODE)
    content = json.loads((llama / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    change = {"model_type": "perceptron-9000", "auto_map": own, "_attn_implementation": "eager"}
    (llama / "config.json").write_text(json.dumps({**content, **change}))
    opened = open_model(llama, remote_code=True)
    assert type(opened.model).__name__ == "OwnModel"
    assert opened.attention == "sdpa"
