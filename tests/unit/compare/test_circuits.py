"""Every figure of a head's change equals the one of dense float64 matrices, cut out of merged weights by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import attlas
import tuning
from attlas.compare import CircuitChange

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

DTYPES = ("bfloat16", "float32")
CLOSE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-10}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "wider than a head": {"r": 12},
    "queries only": {"target_modules": ["q_proj"]},
    "outputs only": {"target_modules": ["o_proj"]},
}


def products(heads: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    group = len(heads["query"]) // len(heads["key"])
    key, value = (heads[role].repeat_interleave(group, 0) for role in ("key", "value"))
    return heads["query"] @ key.mT, value @ heads["output"]


def check_circuit(found: CircuitChange, before: Tensor, after: Tensor, directions: int) -> None:
    """Compare with dense matrices, head by head."""
    for head, (old, new) in enumerate(zip(before, after, strict=True)):
        delta = new - old
        u, s, vh = torch.linalg.svd(delta)
        rank = int((s > 1e-10 * max(1.0, float(old.norm()))).sum())
        assert int(found.rank[head]) == rank
        assert torch.allclose(found.base[head], old.norm(), **CLOSE)
        assert torch.allclose(found.change[head], delta.norm(), **CLOSE)
        if not rank:
            assert bool(found.amplification[head].isnan())
            continue
        k = min(directions, rank)
        left, right = u[:, :k], vh[:k].T
        p = s[:rank] / s[:rank].sum()
        assert torch.allclose(found.effective_rank[head], torch.exp(-(p * p.log()).sum()), **CLOSE)
        assert torch.allclose(found.stable_rank[head], s.square().sum() / s[0] ** 2, **CLOSE)
        kept = found.singular.shape[1]
        assert torch.allclose(found.singular[head], s[:kept] * (torch.arange(kept) < rank), **CLOSE)
        inside = (left.T @ delta @ right).norm() / (left.T @ old @ right).norm()
        assert torch.allclose(found.amplification[head], inside, rtol=1e-6)
        width = int(torch.linalg.matrix_rank(old))
        reads, writes = (basis[:, :width] for basis in (torch.linalg.svd(old)[0], torch.linalg.svd(old)[2].T))
        fewer = min(k, width)
        assert torch.allclose(found.left[head], (left.T @ reads).norm() ** 2 / fewer, rtol=1e-6)
        assert torch.allclose(found.right[head], (right.T @ writes).norm() ** 2 / fewer, rtol=1e-6)
        assert float(found.chance[0][head]) == pytest.approx(k * width / len(old) / fewer)


def check(found: attlas.Comparison, family: str, base: Any, tuned: Any, directions: int = 8) -> None:
    for layer in found.layers:
        old, new = (tuning.dense_heads(model, family, layer.layer) for model in (base, tuned))
        (qk, ov), (qk_after, ov_after) = products(old), products(new)
        check_circuit(layer.qk, qk, qk_after, directions)
        check_circuit(layer.ov, ov, ov_after, directions)
        lost = moved = torch.zeros(layer.heads).double()
        for role, was in old.items():
            delta, error = new[role] - was, new[role].to(torch.bfloat16).double() - new[role]
            group = layer.heads // len(was)
            norms = [torch.linalg.matrix_norm(part).repeat_interleave(group) for part in (was, delta, error)]
            assert torch.allclose(layer.relative[role], norms[1] / norms[0], **CLOSE)
            # A role that did not change loses nothing of a change.
            touched = bool(delta.any())
            moved, lost = moved + norms[1] ** 2, lost + norms[2] ** 2 * touched
        assert torch.allclose(layer.merge_loss, (lost / moved).sqrt(), rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_adapter_with_shared_key_heads(variant: str, tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    wrapped = tuning.adapted(base, "Llama", **VARIANTS[variant])
    found = attlas.compare(base, tuning.saved(wrapped, tmp_path), directions=8)
    check(found, "Llama", base, tuning.merged(wrapped))


@pytest.mark.parametrize("family", ["GPT-2", "GPT-NeoX", "BERT", "Qwen2"])
@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_an_adapter_of_other_layouts(family: str, variant: str, tmp_path: Path) -> None:
    base = tuning.tiny(family)
    options = {"fan_in_fan_out": True} if family == "GPT-2" else {}
    wrapped = tuning.adapted(base, family, **options, **VARIANTS[variant])
    found = attlas.compare(base, tuning.saved(wrapped, tmp_path), directions=2)
    check(found, family, base, tuning.merged(wrapped), directions=2)


@pytest.mark.parametrize("family", ["Llama", "GPT-2", "BERT", "Qwen3"])
def test_a_full_fine_tune(family: str) -> None:
    base = tuning.tiny(family)
    tuned = tuning.fine_tuned(base)
    found = attlas.compare(base, tuned)
    assert found.kind == "model"
    check(found, family, base, tuned)


def test_the_rank_of_a_change_is_at_most_twice_the_adapters(tmp_path: Path) -> None:
    base = tuning.tiny("Llama", hidden_size=64, head_dim=16)
    found = attlas.compare(base, tuning.saved(tuning.adapted(base, "Llama", r=2), tmp_path))
    assert {int(rank) for layer in found.layers for rank in layer.qk.rank} == {4}


def test_changed_biases_are_told_by_their_norm() -> None:
    base = tuning.tiny("GPT-2")
    tuned = tuning.fine_tuned(base)
    found = attlas.compare(base, tuned)
    for layer in found.layers:
        name = f"transformer.h.{layer.layer}.attn.c_attn.bias"
        moved = (tuned.get_parameter(name) - base.get_parameter(name)).detach().unflatten(0, (3, layer.heads, -1))
        assert torch.allclose(layer.biases, moved.square().sum((0, 2)).sqrt())


def test_merging_in_the_dtype_of_the_weights_loses_what_does_not_fit(tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    folder = tuning.saved(tuning.adapted(base, "Llama"), tmp_path)
    lost = [float(attlas.compare(base, folder, merge_dtype=d).layers[0].merge_loss.mean()) for d in DTYPES]
    assert lost[0] > 1e-3 > 1e-6 > lost[1] > 0
