"""What moved equals dense float64 softmax matrices of hybrid models, built by hand: old weights on new states …"""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import attlas
import tuning
from attlas.compare import PLACES, LayerMoved
from attlas.compare.columns import NEAR
from attlas.compare.moving import sampled_rows
from attlas.testing.guards import no_dense

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

ASKING = {
    "Llama": ("model.layers.{}.self_attn.", ("q_proj", "k_proj")),
    "Mistral": ("model.layers.{}.self_attn.", ("q_proj", "k_proj")),
    "Qwen2": ("model.layers.{}.self_attn.", ("q_proj", "k_proj")),
    "Qwen3": ("model.layers.{}.self_attn.", ("q_proj", "k_proj", "q_norm", "k_norm")),
    "GPT-2": ("transformer.h.{}.attn.", ("c_attn",)),
    "BERT": ("encoder.layer.{}.attention.self.", ("query", "key")),
}


TURNED = 2e-6
"""Models with rotary encodings take sines, and eagerly the softmax too, in float32 whatever their own dtype."""


def dense(model: Any) -> list[Tensor]:
    """Return every layer's matrix, (head, n, n), as the model's own eager softmax gives it."""
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        return [a[0] for a in eager(torch.tensor([tuning.IDS]), output_attentions=True).attentions]


def hybrid(most: Any, asking: Any, family: str, layer: int) -> Any:
    """Return `most` with what makes one layer's queries and keys taken from `asking`."""
    mixed = copy.deepcopy(most)
    prefix, names = ASKING[family]
    for name in names:
        place = prefix.format(layer) + name
        mixed.get_submodule(place).load_state_dict(asking.get_submodule(place).state_dict())
    return mixed


def variation(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).abs().sum(-1) / 2


def entropy(matrix: Tensor) -> Tensor:
    return -torch.special.xlogy(matrix, matrix).sum(-1)


def check(found: attlas.Comparison, family: str, base: Any, tuned: Any) -> None:
    assert found.moved is not None
    rows, ids = found.moved.rows, torch.tensor(tuning.IDS)
    near = 1e-9 if family in ("GPT-2", "BERT") else TURNED
    old, new = dense(base), dense(tuned)
    gap = (torch.arange(len(ids))[:, None] - torch.arange(len(ids))).double()
    for layer in found.moved.layers:
        a00, a11 = old[layer.layer], new[layer.layer]
        a10 = dense(hybrid(base, tuned, family, layer.layer))[layer.layer]
        a01 = dense(hybrid(tuned, base, family, layer.layer))[layer.layer]
        expected = {
            "moved": variation(a00, a11),
            "own": variation(a00, a10),
            "upstream": variation(a00, a01),
            "own_after": variation(a01, a11),
            "upstream_after": variation(a10, a11),
            "entropy": entropy(a11) - entropy(a00),
            "distance": ((a11 - a00) * gap.abs()).sum(-1),
        }
        for name, value in expected.items():
            allowed = near * (len(ids) if name == "distance" else 1)
            assert torch.allclose(getattr(layer, name), value[:, rows], atol=allowed), (layer.layer, name)
        gained = a11 - a00
        assert torch.allclose(layer.received, gained[:, rows].mean(1), atol=near)
        for place, mask in places(ids, gap).items():
            assert torch.allclose(layer.gained[place], (gained * mask).sum(-1)[:, rows], atol=near), place
        check_bounds(layer, near)


def places(ids: Tensor, gap: Tensor) -> dict[str, Tensor]:
    first = torch.zeros_like(gap, dtype=torch.bool)
    first[:, 0] = True
    same = (ids[:, None] == ids) & (gap > 0)
    after = torch.zeros_like(same)
    after[:, 1:] = same[:, :-1] & (gap[:, 1:] >= 0)
    itself, previous = (gap == 0) & ~first, (gap == 1) & ~first
    near = (gap.abs() < NEAR) & ~first & ~itself & ~previous
    far = ~(first | itself | previous | near)
    return dict(zip(PLACES, (first, itself, previous, near, far, same, after), strict=True))


def check_bounds(layer: LayerMoved, near: float) -> None:
    """What moved is no more than either order of its two parts."""
    for parts in ((layer.own, layer.upstream_after), (layer.upstream, layer.own_after)):
        assert bool((layer.moved <= parts[0] + parts[1] + near).all())
    assert bool((torch.stack([layer.gained[place] for place in PLACES[:5]]).sum(0).abs() < 1e-9).all())


@pytest.mark.parametrize("family", ["Llama", "Mistral", "GPT-2", "BERT"])
@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_an_adapter(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    base = tuning.tiny(family)
    more = {"fan_in_fan_out": True} if family == "GPT-2" else {}
    wrapped = tuning.adapted(base, family, **options, **more)
    lm = tuning.language_model(base)
    found = attlas.compare(lm, tuning.saved(wrapped, tmp_path), tuning.IDS, restore=0)
    assert found.moved is not None
    assert found.moved.every_row
    check(found, family, base, tuning.merged(wrapped))


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "GPT-2"])
def test_a_full_fine_tune(family: str) -> None:
    base = tuning.tiny(family)
    tuned = tuning.fine_tuned(base)
    check(attlas.compare(tuning.language_model(base), tuned, tuning.IDS, restore=0), family, base, tuned)


def test_a_sample_of_rows_is_a_part_of_all_rows(tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    wrapped = tuning.adapted(base, "Llama")
    folder = tuning.saved(wrapped, tmp_path)
    found = attlas.compare(tuning.language_model(base), folder, tuning.IDS, rows=7, restore=0)
    assert found.moved is not None
    assert len(found.moved.rows) == 7
    check(found, "Llama", base, tuning.merged(wrapped))


def test_weights_that_only_change_values_move_nothing_of_their_own(tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    wrapped = tuning.adapted(base, "Llama", target_modules=["v_proj"])
    found = attlas.compare(tuning.language_model(base), tuning.saved(wrapped, tmp_path), tuning.IDS, restore=0)
    assert found.moved is not None
    first, second = found.moved.layers
    assert float(first.moved.abs().max()) == 0.0
    assert bool(first.own_share.isnan().all())
    assert found.row(0, 0)["own_share"] is None
    assert float(second.own.abs().max()) == 0.0
    assert bool((second.own_share == 0).all())
    assert torch.equal(second.upstream, second.moved)


def test_nothing_moves_between_equal_models() -> None:
    base = tuning.tiny("Llama")
    found = attlas.compare(tuning.language_model(base), copy.deepcopy(base), tuning.IDS, restore=0)
    assert found.moved is not None
    assert all(float(layer.moved.max()) == 0.0 for layer in found.moved.layers)
    assert found.notes == ()


def test_no_matrix_is_ever_dense(tmp_path: Path) -> None:
    n = 640
    base = tuning.tiny("Llama", torch.float32, max_position_embeddings=n, num_hidden_layers=1)
    folder = tuning.saved(tuning.adapted(base, "Llama"), tmp_path)
    ids = torch.randint(5, 90, (n,), generator=torch.Generator().manual_seed(0)).tolist()
    lm = tuning.language_model(base)
    with no_dense(n * n):
        found = attlas.compare(lm, folder, ids, rows=None, restore=0)
    assert found.moved is not None
    assert found.moved.every_row


@given(n=st.integers(1, 300), count=st.integers(1, 320), seed=st.integers(0, 5))
@settings(max_examples=60)
def test_rows_are_drawn_one_from_each_stretch(n: int, count: int, seed: int) -> None:
    rows = sampled_rows(n, count, seed)
    assert torch.equal(rows, rows.unique())
    assert len(rows) == min(n, count)
    assert 0 <= int(rows.min()) <= int(rows.max()) < n
    if count < n:
        assert all(i * n // count <= row < (i + 1) * n // count for i, row in enumerate(rows.tolist()))
    assert torch.equal(rows, sampled_rows(n, count, seed))


@pytest.mark.parametrize("rows", [0, -1, 1.5, True])
def test_a_number_of_rows_that_is_none_is_refused(rows: Any) -> None:
    with pytest.raises(attlas.ArgumentError, match="rows: wanted"):
        sampled_rows(10, rows, 0)


def test_the_share_of_own_weights_counts_both_orders() -> None:
    ones = torch.ones(1, 2)
    layer = LayerMoved(0, "", ones, ones * 0.1, ones * 0.2, ones * 0.3, ones * 0.4, ones, ones, {}, ones)
    assert math.isclose(float(layer.own_share[0]), 0.4, rel_tol=1e-6)
