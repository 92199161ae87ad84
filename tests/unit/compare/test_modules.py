"""Every figure of a module's change equals the one of dense float64 matrices, whichever way the module keeps them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import attlas
import tuning
from attlas.compare.modules import singular_vectors

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def as_out_in(model: Any, name: str) -> Tensor:
    module = model.get_submodule(name)
    weight = module.weight.detach().double()
    return weight.T if type(module).__name__ == "Conv1D" else weight


def dense_row(before: Tensor, after: Tensor, directions: int, intruders: int, threshold: float) -> dict[str, float]:
    delta = after - before
    u, s, vh = torch.linalg.svd(delta, full_matrices=False)
    rank = int((s > 1e-10 * s[0]).sum())
    k = min(directions, rank)
    left, right = u[:, :k], vh[:k].T
    p = s[:rank] / s[:rank].sum()
    base_u, _, base_vh = torch.linalg.svd(before, full_matrices=False)
    cosines = (torch.linalg.svd(after, full_matrices=False)[0][:, :intruders].T @ base_u).abs().amax(1)
    rounded = before.to(torch.bfloat16).double()

    def lost(exact: Tensor) -> float:
        return float((exact.to(torch.bfloat16).double() - exact).norm() / delta.norm())

    return {
        "outputs": before.shape[0],
        "inputs": before.shape[1],
        "base": float(before.norm()),
        "change": float(delta.norm()),
        "relative": float(delta.norm() / before.norm()),
        "rank": rank,
        "effective_rank": float(torch.exp(-(p * p.log()).sum())),
        "stable_rank": float(s.square().sum() / s[0] ** 2),
        "largest": float(s[0]),
        "directions": k,
        "amplification": float(s[:k].norm() / (left.T @ before @ right).norm()),
        "left": float((left.T @ base_u[:, :k]).norm() ** 2) / k,
        "left_chance": k / before.shape[0],
        "right": float((right.T @ base_vh[:k].T).norm() ** 2) / k,
        "right_chance": k / before.shape[1],
        "intruders": int((cosines < threshold).sum()),
        "intruder_nearest": float(cosines.min()),
        "merge_loss": lost(after),
        "merge_loss_rounded": lost(rounded + delta),
    }


def check(found: attlas.Comparison, base: Any, tuned: Any, directions: int, threshold: float) -> None:
    assert len(found.modules)
    for row in found.modules.rows():
        expected = dense_row(as_out_in(base, row["module"]), as_out_in(tuned, row["module"]), directions, 5, threshold)
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-6, abs=1e-9), (row["module"], name)


@pytest.mark.parametrize("family", ["Llama", "GPT-2", "BERT"])
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"])
def test_an_adapter(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    base = tuning.tiny(family)
    more = {"fan_in_fan_out": True} if family == "GPT-2" else {}
    wrapped = tuning.adapted(base, family, size=0.6, **options, **more)
    found = attlas.compare(base, tuning.saved(wrapped, tmp_path), directions=3, intruders=5, threshold=0.8)
    check(found, base, tuning.merged(wrapped), 3, 0.8)
    assert any(row["intruders"] for row in found.modules.rows())
    assert {row["trained_rank"] for row in found.modules.rows()} == {3}


@pytest.mark.parametrize("family", ["Llama", "GPT-2"])
def test_a_full_fine_tune_has_a_row_for_every_linear_map(family: str) -> None:
    base = tuning.tiny(family)
    tuned = tuning.fine_tuned(base)
    found = attlas.compare(base, tuned, directions=4, intruders=5, threshold=0.8)
    check(found, base, tuned, 4, 0.8)
    wanted = {"lm_head", "model.layers.1.mlp.down_proj"} if family == "Llama" else {"transformer.h.1.mlp.c_fc"}
    assert wanted <= {row["module"] for row in found.modules.rows()}
    assert "also changed" in found.notes[0]
    assert any("norm" in note or "ln_" in note or "embed" in note or "wte" in note for note in found.notes)


def test_a_module_says_where_it_belongs(tmp_path: Path) -> None:
    base = tuning.tiny("GPT-2")
    found = attlas.compare(base, tuning.saved(tuning.adapted(base, "GPT-2", fan_in_fan_out=True), tmp_path))
    row = found.modules.row("transformer.h.1.attn.c_attn")
    assert (row["layer"], row["role"]) == (1, "query+key+value")
    assert found.modules.row("transformer.h.1.mlp.c_fc")["layer"] is None


def test_singular_vectors_can_be_left_out(tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    found = attlas.compare(base, tuning.saved(tuning.adapted(base, "Llama"), tmp_path), intruders=0)
    row = found.modules.rows()[0]
    assert row["intruders"] is None
    assert row["amplification"] > 0


def test_a_weight_that_did_not_change_is_said_to_be_so(tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    wrapped = tuning.adapted(base, "Llama", target_modules=["q_proj"], size=0.0)
    found = attlas.compare(base, tuning.saved(wrapped, tmp_path))
    row = found.modules.rows()[0]
    assert (row["change"], row["rank"], row["amplification"]) == (0.0, 0, None)
    assert found.row(0, 0)["qk_change"] == 0.0
    assert found.row(0, 0)["qk_amplification"] is None


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (20, 20)])
def test_singular_vectors_of_a_matrix_that_lacks_directions(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(side, 5, generator=generator, dtype=torch.float64) for side in shape)
    u, v = singular_vectors(left @ right.T)
    assert u.shape[1] == v.shape[1] == 5
    for basis, side in ((u, left), (v, right)):
        assert torch.allclose(basis.T @ basis, torch.eye(5).double(), atol=1e-9)
        assert torch.allclose(basis @ (basis.T @ side), side, atol=1e-9)
