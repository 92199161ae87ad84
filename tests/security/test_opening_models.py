"""What a model's folder may try, and must not achieve. SECURITY.md makes these promises."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from attlas.errors import ModelNotFound, StoreError, UnsupportedModelError
from attlas.models.configuration import CHOOSES_CODE, scrub
from attlas.models.opening import open_model

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 16,
}
KEYS = ["_attn_implementation_internal", "_attn_implementation", "attn_implementation"]
VALUES = [
    "sdpa",
    "eager",
    "flash_attention_2",
    "evil/kernel",
    "kernels-community/x",
    "paged|eager",
    {"": "evil/kernel"},
]


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config=SIZES, vision_config={**vision, "image_size": 8, "patch_size": 4})
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def _change_config(folder: Path, change: dict[str, Any], part: str | None = None) -> None:
    content = json.loads((folder / "config.json").read_text())
    (content if part is None else content[part]).update(change)
    (folder / "config.json").write_text(json.dumps(content))


def _open_under_guard(folder: Path) -> str:
    script = Path(__file__).parent / "attacks" / "open_under_guard.py"
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


# --- a configuration that chooses the attention code -----------------------------------------------------------------


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("wanted", ["sdpa", "eager"])
def test_a_configuration_cannot_choose_what_computes_attention(llama: Path, key: str, value: Any, wanted: str) -> None:
    _change_config(llama, {key: value})
    opened = open_model(llama, attention=wanted)
    assert opened.attention == wanted
    assert opened.model.model.layers[0].self_attn.config._attn_implementation == wanted


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_nor_can_a_part_of_it(clip: Path, key: str, value: Any, part: str) -> None:
    _change_config(clip, {key: value}, part)
    opened = open_model(clip)
    assert opened.attention == "sdpa"
    assert getattr(opened.model.config, part)._attn_implementation == "sdpa"


def test_the_callers_own_implementation_really_runs_in_every_layer(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[torch.nn.Module] = []

    def recording(module: torch.nn.Module, *arguments: Any, **options: Any) -> Any:
        calls.append(module)
        return sdpa_attention_forward(module, *arguments, **options)

    monkeypatch.setitem(AttentionInterface._global_mapping, "attlas-test", recording)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "attlas-test", sdpa_mask)
    _change_config(llama, {"_attn_implementation": "sdpa", "_attn_implementation_internal": "eager"})
    opened = open_model(llama, attention="attlas-test")
    with torch.no_grad():
        opened.model(torch.arange(4).unsqueeze(0))
    assert calls == [layer.self_attn for layer in opened.model.model.layers]


def test_a_configuration_cannot_switch_to_dense_attention_maps(llama: Path) -> None:
    _change_config(llama, {"output_attentions": True})
    opened = open_model(llama)
    assert opened.attention == "sdpa"
    assert not opened.model.config.output_attentions


def test_no_key_that_chooses_code_survives_at_any_depth() -> None:
    evil = dict.fromkeys(CHOOSES_CODE, "evil/kernel")
    nested = {**evil, "model_type": "x", "inner": {**evil, "list": [evil, {"deep": evil, "kept": 1}]}}
    assert scrub(nested) == {"model_type": "x", "inner": {"list": [{}, {"deep": {}, "kept": 1}]}}


def test_a_kernel_named_by_a_configuration_is_never_fetched(llama: Path) -> None:
    _change_config(llama, {"_attn_implementation": "evil/kernel", "_attn_implementation_internal": "evil/kernel"})
    assert _open_under_guard(llama) == "sdpa"


# --- code in weights and repositories --------------------------------------------------------------------------------


class _LeavesATrace:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "weights.pkl"])
def test_a_pickle_is_never_opened(llama: Path, tmp_path: Path, name: str) -> None:
    trace = tmp_path / "trace"
    (llama / "model.safetensors").unlink()
    (llama / name).write_bytes(pickle.dumps(_LeavesATrace(trace)))
    with pytest.raises(ModelNotFound, match=f"found only {name}, whose format can run code"):
        open_model(llama)
    assert not trace.exists()


def test_a_pickle_beside_safetensors_is_left_alone(llama: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (llama / "pytorch_model.bin").write_bytes(pickle.dumps(_LeavesATrace(trace)))
    assert _open_under_guard(llama) == "sdpa"
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["llama", "perceptron-9000"])
def test_python_files_of_a_folder_are_not_run(llama: Path, tmp_path: Path, kind: str) -> None:
    trace = tmp_path / "trace"
    (llama / "evil.py").write_text(f"import os; os.mkdir({str(trace)!r})")
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.T", None]}
    _change_config(llama, {"auto_map": auto_map, "model_type": kind, "trust_remote_code": True})
    (llama / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.T", None]}}))
    said = _open_under_guard(llama)
    assert said.startswith("StoreError: " if kind == "llama" else "UnsupportedModelError: ")
    assert not trace.exists()


def test_unknown_code_names_the_argument_that_would_allow_it(llama: Path) -> None:
    _change_config(llama, {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "perceptron-9000"})
    with pytest.raises(UnsupportedModelError, match="pass remote_code=True if you have read its code"):
        open_model(llama)


def test_an_adapter_cannot_bring_its_pickle_or_its_base(llama: Path) -> None:
    (llama / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base", "peft_type": "LORA"}')
    (llama / "adapter_model.bin").write_bytes(b"")
    assert _open_under_guard(llama).startswith("ModelNotFound")


# --- paths inside files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "/etc/outside.safetensors",
        "sub/../../outside.safetensors",
        "sub/inside.safetensors",
        "..\\outside.safetensors",
        "C:\\outside.safetensors",
        "\\\\host\\share\\outside.safetensors",
        "zero\0.safetensors",
        "..",
        "",
        "pytorch_model.bin",
        7,
    ],
    ids=repr,
)
def test_an_index_cannot_name_a_file_elsewhere(llama: Path, name: object) -> None:
    (llama.parent / "outside.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    (llama / "model.safetensors").unlink()
    (llama / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": name}}))
    with pytest.raises(StoreError, match="wanted names of safetensors files beside it"):
        open_model(llama)


# --- damaged weights -------------------------------------------------------------------------------------------------


def test_weights_cut_anywhere_are_one_clear_error(llama: Path) -> None:
    whole = (llama / "model.safetensors").read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        (llama / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(StoreError) as caught:
            open_model(llama)
        assert "\n" not in str(caught.value)
