"""Adapters are read as PEFT wrote them, without PEFT; what is not understood, or is not an adapter, is one error."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import attlas
import tuning
from attlas.compare.changes import Change
from attlas.models.adapter_file import CONFIG, LARGEST_CONFIG, WEIGHTS, is_adapter, open_adapter

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "magnitudes": {"use_dora": True},
    "patterns": {"rank_pattern": {"q_proj": 2, r"layers\.1\.self_attn\.v_proj": 4}, "alpha_pattern": {"o_proj": 5}},
    "an anchored name": {
        "rank_pattern": {"^model.layers.0.self_attn.q_proj": 2},
        "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 1},
    },
}


def check_against_peft(model: Any, wrapped: Any, folder: Path) -> None:
    """Every weight that PEFT's own merge makes is the base's plus what was read."""
    file = open_adapter(tuning.saved(wrapped, folder))
    after = dict(tuning.merged(wrapped).named_modules())
    before = dict(model.named_modules())
    moved = {
        name
        for name, module in before.items()
        if isinstance(getattr(module, "weight", None), Tensor) and not torch.equal(module.weight, after[name].weight)
    }
    assert set(file.parts) == moved
    for name, part in file.parts.items():
        change = Change(name, before[name], part)
        expected = after[name].weight.detach().double()
        assert torch.allclose(change.merged().double(), expected, rtol=1e-12, atol=1e-12)
        assert part.shape == tuple(change.before.weight.shape)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_peft_merges_is_what_was_read(variant: str, tmp_path: Path) -> None:
    model = tuning.tiny("Llama")
    check_against_peft(model, tuning.adapted(model, "Llama", **VARIANTS[variant]), tmp_path)


@pytest.mark.parametrize("variant", ["plain", "rank-stabilised", "magnitudes"])
def test_weights_that_are_kept_transposed_are_changed_as_peft_changes_them(variant: str, tmp_path: Path) -> None:
    model = tuning.tiny("GPT-2")
    check_against_peft(model, tuning.adapted(model, "GPT-2", fan_in_fan_out=True, **VARIANTS[variant]), tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tuning.saved(tuning.adapted(tuning.tiny("Llama"), "Llama"), tmp_path / "adapter")


def test_it_says_what_it_is(folder: Path) -> None:
    file = open_adapter(folder)
    assert (file.variant, file.ranks, file.name) == ("lora", (3,), str(folder))
    assert is_adapter(folder)
    assert not is_adapter(folder.parent)
    again = open_adapter(folder)
    assert again.fingerprint == file.fingerprint
    change_tensors(folder, lambda t: {name: tensor * 2 for name, tensor in t.items()})
    assert open_adapter(folder).fingerprint != file.fingerprint


def test_it_is_read_without_peft(folder: Path) -> None:
    code = (
        "import sys; from attlas.models.adapter_file import open_adapter;"
        f"open_adapter({str(folder)!r}); print('peft' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


def change_config(folder: Path, **entries: Any) -> None:
    content = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**content, **entries}))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"peft_type": None}, "peft_type"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"use_qalora": True}, "use_qalora"),
        ({"target_parameters": ["experts.up"]}, "target_parameters"),
        ({"an_entry_of_next_year": {"x": 1}}, "an_entry_of_next_year"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"alpha_pattern": {"(a*)*b": 1}}, "(a*)*b"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(folder: Path, entries: dict[str, Any], named: str) -> None:
    change_config(folder, **entries)
    with pytest.raises(attlas.UnsupportedModelError, match=CONFIG.replace(".", r"\.")) as caught:
        open_adapter(folder)
    assert named in str(caught.value)


def renamed(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        first = sorted(tensors)[0]
        return {name if at == first else at: tensor for at, tensor in tensors.items()}

    return change


def test_tensors_that_are_no_factors_are_refused_by_name(folder: Path) -> None:
    change_tensors(folder, renamed("base_model.model.model.embed_tokens.lora_embedding_A"))
    with pytest.raises(attlas.UnsupportedModelError, match="LoRA of an embedding"):
        open_adapter(folder)


def first_a(change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    def changed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        first = next(name for name in sorted(tensors) if "lora_A" in name)
        return {**tensors, first: change(tensors[first])}

    return changed


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (first_a(lambda a: a[:2].clone()), attlas.StoreError, "factors of one rank, got 2 and 3"),
        (first_a(lambda a: a * torch.nan), attlas.NonFiniteError, "NaN"),
        (first_a(lambda a: (a * 9).to(torch.int8)), attlas.UnsupportedModelError, "floating-point"),
        (first_a(lambda a: a[0].clone()), attlas.UnsupportedModelError, "two axes"),
        (lambda tensors: {n: t for n, t in tensors.items() if "lora_A" in n}, attlas.StoreError, "no up factor"),
        (lambda _: {}, attlas.StoreError, "found none"),
    ],
)
def test_tensors_that_do_not_fit_one_another_are_refused(
    folder: Path, change: Any, error: type[Exception], says: str
) -> None:
    change_tensors(folder, change)
    with pytest.raises(error, match=says):
        open_adapter(folder)


def test_a_rank_larger_than_the_matrix_is_refused(folder: Path) -> None:
    def larger(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: torch.randn(40, tensor.shape[1]) if "lora_A" in name else torch.randn(tensor.shape[0], 40)
            for name, tensor in tensors.items()
        }

    change_tensors(folder, larger)
    change_config(folder, r=40)
    with pytest.raises(attlas.StoreError, match=r"rank of at most \d+, the smaller side of its .* matrix, got 40"):
        open_adapter(folder)


def test_a_rank_that_its_configuration_does_not_know_is_refused(folder: Path) -> None:
    change_config(folder, r=4)
    with pytest.raises(attlas.StoreError, match="wanted rank 4"):
        open_adapter(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 200_000, b" " * (LARGEST_CONFIG + 1)])
def test_a_configuration_that_is_none_is_one_error(folder: Path, content: bytes) -> None:
    (folder / CONFIG).write_bytes(content)
    with pytest.raises(attlas.StoreError, match=CONFIG.replace(".", r"\.")):
        open_adapter(folder)


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 64, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      more"])
def test_weights_that_are_none_are_one_error(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(attlas.StoreError, match=WEIGHTS.replace(".", r"\.")):
        open_adapter(folder)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_is_named_and_never_opened(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "went off")))
    with pytest.raises(attlas.ModelNotFound, match=r"adapter_model\.bin.*can run code.*safe_serialization"):
        open_adapter(folder)
    assert not (tmp_path / "went off").exists()


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(attlas.ModelNotFound, match="wanted a folder"):
        open_adapter(tmp_path / "none")
    with pytest.raises(attlas.ModelNotFound, match=CONFIG):
        open_adapter(tmp_path)
