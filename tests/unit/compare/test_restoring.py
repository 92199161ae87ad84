"""A head that is put back does what a model does whose slices were put back by hand; the estimate is the slope."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import attlas
import tuning
from attlas.compare import Restored

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def log_probabilities(model: Any, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1)


def divergence(base: Tensor, other: Tensor) -> float:
    return float((base.exp() * (base - other)).sum(-1).mean())


def put_back_gpt2(tuned: Any, base: Any, layer: int, head: int) -> Any:
    """Return the tuned model with one head's slices of all four weights, and its biases, taken from the base."""
    mixed = copy.deepcopy(tuned)
    ours, theirs = (model.transformer.h[layer].attn for model in (mixed, base))
    width, dim = base.config.n_embd, base.config.n_embd // base.config.n_head
    with torch.no_grad():
        for role in range(3):
            cols = slice(role * width + head * dim, role * width + (head + 1) * dim)
            ours.c_attn.weight[:, cols] = theirs.c_attn.weight[:, cols]
            ours.c_attn.bias[cols] = theirs.c_attn.bias[cols]
        rows = slice(head * dim, (head + 1) * dim)
        ours.c_proj.weight[rows] = theirs.c_proj.weight[rows]
    return mixed


def put_back_llama(tuned: Any, base: Any, layer: int, head: int) -> Any:
    """The same of a Llama, whose key heads are not shared here."""
    mixed = copy.deepcopy(tuned)
    ours, theirs = (model.model.layers[layer].self_attn for model in (mixed, base))
    rows = slice(head * base.config.head_dim, (head + 1) * base.config.head_dim)
    with torch.no_grad():
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(ours, name).weight[rows] = getattr(theirs, name).weight[rows]
        ours.o_proj.weight[:, rows] = theirs.o_proj.weight[:, rows]
    return mixed


PUT_BACK = {"GPT-2": put_back_gpt2, "Llama": put_back_llama}
OPTIONS: dict[str, dict[str, Any]] = {"GPT-2": {}, "Llama": {"num_key_value_heads": 4}}


def check(restored: Restored | None, family: str, base: Any, tuned: Any, ids: list[int]) -> None:
    assert restored is not None
    wanted = log_probabilities(base, ids)
    left = divergence(wanted, log_probabilities(tuned, ids))
    assert restored.divergence == pytest.approx(left, rel=1e-9)
    for (layer, head), exact in zip(restored.heads, restored.exact.tolist(), strict=True):
        mixed = PUT_BACK[family](tuned, base, layer, head)
        expected = left - divergence(wanted, log_probabilities(mixed, ids))
        assert exact == pytest.approx(expected, rel=1e-5, abs=1e-9), (layer, head)


@pytest.mark.parametrize("family", PUT_BACK)
def test_heads_of_an_adapter(family: str, tmp_path: Path) -> None:
    base = tuning.tiny(family, **OPTIONS[family])
    more = {"fan_in_fan_out": True} if family == "GPT-2" else {}
    wrapped = tuning.adapted(base, family, size=0.1, **more)
    lm = tuning.language_model(base)
    found = attlas.compare(lm, tuning.saved(wrapped, tmp_path), tuning.IDS, restore=8)
    check(found.restored, family, base, tuning.merged(wrapped), tuning.IDS)


@pytest.mark.parametrize("family", PUT_BACK)
def test_heads_of_a_full_fine_tune(family: str) -> None:
    base = tuning.tiny(family, **OPTIONS[family])
    tuned = tuning.fine_tuned(base)
    found = attlas.compare(tuning.language_model(base), tuned, tuning.IDS, restore=8)
    check(found.restored, family, base, tuned, tuning.IDS)


def test_the_estimate_is_what_the_first_step_back_does(tmp_path: Path) -> None:
    """With only output projections changed, a step towards the base is one of their slices, and taken by hand."""
    base = tuning.tiny("GPT-2")
    wrapped = tuning.adapted(base, "GPT-2", fan_in_fan_out=True, target_modules=["attn.c_proj"])
    tuned = tuning.merged(wrapped)
    found = attlas.compare(tuning.language_model(base), tuning.saved(wrapped, tmp_path), tuning.IDS).restored
    assert found is not None
    wanted, dim, step = log_probabilities(base, tuning.IDS), base.config.n_embd // base.config.n_head, 1e-4
    for (layer, head), estimate in zip(found.heads, found.estimate.tolist(), strict=True):
        rows, left = slice(head * dim, (head + 1) * dim), []
        for sign in (-1, 1):
            mixed = copy.deepcopy(tuned)
            ours, theirs = (model.transformer.h[layer].attn.c_proj.weight for model in (mixed, base))
            with torch.no_grad():
                ours[rows] += sign * step * (theirs[rows] - ours[rows])
            left.append(divergence(wanted, log_probabilities(mixed, tuning.IDS)))
        assert estimate == pytest.approx((left[0] - left[1]) / (2 * step), rel=1e-4, abs=1e-9)


def test_only_some_heads_are_measured(tmp_path: Path) -> None:
    base = tuning.tiny("Llama")
    folder = tuning.saved(tuning.adapted(base, "Llama"), tmp_path)
    lm = tuning.language_model(base)
    found = attlas.compare(lm, folder, tuning.IDS, restore=3, window=9)
    assert found.restored is not None
    assert found.restored.window == (len(tuning.IDS) - 9, len(tuning.IDS))
    measured = ~found.restored.exact.isnan()
    assert int(measured.sum()) == 3
    largest = found.restored.estimate.abs().topk(3).indices
    assert sorted(largest.tolist()) == measured.nonzero().flatten().tolist()
    by_hand = attlas.compare(lm, folder, tuning.IDS[-9:], restore=3).restored
    assert by_hand is not None
    assert by_hand.divergence == pytest.approx(found.restored.divergence)
    ranked = found.ranked("restored")
    assert len(ranked) == 3


def test_why_nothing_was_put_back_is_said(tmp_path: Path) -> None:
    base = tuning.tiny("BERT")
    found = attlas.compare(
        tuning.language_model(base), tuning.saved(tuning.adapted(base, "BERT"), tmp_path), tuning.IDS
    )
    assert found.restored is None
    assert found.reasons["restored"] == "this model predicts no next token"
