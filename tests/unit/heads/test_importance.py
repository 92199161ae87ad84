"""First-order importance: the free identity, finite differences, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pyarrow import parquet
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

import attlas
from attlas.capture.outputs import probed_outputs
from attlas.heads.importance import head_importance
from attlas.models.facts import gather_facts
from attlas.testing.tiny_models import TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}
IDS = [7, 12, 40, 41, 7, 12, 40, 41, 88, 5, 60, 61]
WIDTH = 8


def language_model(family: str, dtype: torch.dtype = torch.float64) -> attlas.LanguageModel:
    model: Any = BY_FAMILY[family].build().to(dtype)
    return attlas.LanguageModel(model, None, gather_facts(family, model, "0" * 16))


@pytest.fixture
def dense() -> Iterator[Callable[[bool], list[Tensor]]]:
    """Make models compute their matrices densely, in the open, and collect them."""
    matrices: list[Tensor] = []

    def register(keep_patterns: bool) -> list[Tensor]:
        def attention(_: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
            key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
            hidden = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).triu(1)
            A = (query @ key.mT * options["scaling"]).masked_fill(hidden, -torch.inf).softmax(-1)
            A = A.detach().requires_grad_() if keep_patterns else A
            matrices.append(A)
            return (A @ value).transpose(1, 2).contiguous(), None

        AttentionInterface.register("dense", attention)
        AttentionMaskInterface.register("dense", AttentionMaskInterface._global_mapping["sdpa"])
        return matrices

    yield register
    del AttentionInterface._global_mapping["dense"]
    del AttentionMaskInterface._global_mapping["dense"]


@pytest.mark.parametrize("kind", ["zero", "pattern"])
def test_it_is_the_sum_of_the_matrix_times_its_gradient(kind: str, dense: Callable[[bool], list[Tensor]]) -> None:
    lm = language_model("Llama")
    found = head_importance(lm, IDS, kind)
    matrices = dense(kind == "pattern")
    model: Any = lm.model
    model.set_attn_implementation("dense")
    ids = torch.tensor([IDS])
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    rows = [(A * dA).sum(-1) for A, dA in zip(matrices, torch.autograd.grad(loss, matrices), strict=True)]
    torch.testing.assert_close(torch.tensor(found.loss), loss.detach().float(), check_dtype=False)
    torch.testing.assert_close(found.signed, torch.cat([row.sum((0, 2)) for row in rows]))
    torch.testing.assert_close(found.absolute, torch.cat([row.abs().sum((0, 2)) for row in rows]))
    torch.testing.assert_close(found.predicted, -found.signed)
    assert found.heads == tuple((layer, head) for layer in range(2) for head in range(4))


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_it_predicts_a_small_step_towards_the_ablation(kind: str) -> None:
    lm = language_model("GPT-2")  # whose every step keeps float64
    model: Any = lm.model
    found = head_importance(lm, IDS, kind)
    ids, step = torch.tensor([IDS]), 1e-5

    def hook(head: int, share: float) -> Any:
        def towards(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            given = args[0].clone()
            part = given[..., head * WIDTH : (head + 1) * WIDTH]
            put = part.mean((0, 1), keepdim=True) if kind == "mean" else 0.0
            given[..., head * WIDTH : (head + 1) * WIDTH] = part + share * (put - part)
            return (given,)

        return towards

    for index, (layer, head) in enumerate(found.heads):
        losses = []
        for share in (step, -step):
            handle = model.transformer.h[layer].attn.c_proj.register_forward_pre_hook(hook(head, share))
            with torch.no_grad():
                logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
            handle.remove()
            losses.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item())
        assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(float(found.predicted[index]), abs=1e-8)


def test_parameters_without_gradients_and_what_stays_behind() -> None:
    lm = language_model("GPT-2", torch.float32)
    before = head_importance(lm, IDS)
    assert all(parameter.grad is None for parameter in lm.model.parameters())
    for parameter in lm.model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        after = head_importance(lm, IDS)
    torch.testing.assert_close(after.signed, before.signed)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.model.modules())


def test_an_objective_of_ones_own_for_an_encoder() -> None:
    lm = language_model("BERT")
    found = head_importance(lm, IDS, objective=lambda output: output.last_hidden_state[0, 0, :3].sum())
    assert len(found) == 8
    assert found.signed.abs().max() > 1e-3
    with pytest.raises(attlas.ArgumentError, match="objective: wanted a callable, for a model that predicts no next"):
        head_importance(lm, IDS)


def test_the_table(tmp_path: Any) -> None:
    found = head_importance(language_model("Llama"), IDS)
    (row, *others) = found.rows()
    assert len(others) == 7
    assert set(row) == {"layer", "head", "signed", "absolute", "predicted_change"}
    table = parquet.read_table(found.to_parquet(tmp_path / "importance.parquet"))
    assert table.to_pylist() == found.rows()
    assert b"next_token_loss" in table.schema.metadata[b"attlas"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([],), attlas.DocumentError, "at least two tokens"),
        (([7],), attlas.DocumentError, "at least two tokens, got 1"),
        (([7, 96],), attlas.ArgumentError, "text: wanted token ids from 0 to 95, got 96"),
        (([7, -1],), attlas.ArgumentError, "text: wanted token ids"),
        (([7, True],), attlas.ArgumentError, "text: wanted token ids"),
        ((7,), attlas.ArgumentError, "text: wanted a str or token ids, got a int"),
        (([7] * 65,), attlas.DocumentError, "at most 64 tokens"),
        ((IDS, "half"), attlas.ArgumentError, "kind: wanted"),
    ],
)
def test_what_makes_no_sense(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        head_importance(language_model("Llama"), *arguments)


def test_other_options_that_make_no_sense() -> None:
    lm = language_model("Llama")
    with pytest.raises(attlas.ArgumentError, match="reference: wanted none with kind='zero'"):
        head_importance(lm, IDS, reference={"input_ids": torch.tensor([IDS])})
    objectives: list[Any] = [
        lambda output: output.logits,
        lambda output: 3.0,
        lambda output: output.logits.sum().detach(),
    ]
    for objective in objectives:
        with pytest.raises(attlas.ArgumentError, match="objective: wanted one number with a gradient"):
            head_importance(lm, IDS, objective=objective)


def test_a_gradient_that_is_not_finite_names_its_layer() -> None:
    lm = language_model("Llama")
    with pytest.raises(attlas.NonFiniteError, match=r"model\.layers\.0\.self_attn"):
        head_importance(lm, IDS, objective=lambda output: (output.logits * torch.inf).nan_to_num(posinf=1e308).sum())


def test_attention_that_is_not_heard_is_named_never_a_hole() -> None:
    with pytest.raises(attlas.UnsupportedModelError, match="code of its own"):
        head_importance(language_model("BLOOM", torch.float32), IDS)


def test_probes_do_not_change_the_numbers() -> None:
    tiny = BY_FAMILY["Gemma 2"]
    model = tiny.build()
    with torch.no_grad():
        plain = model(**tiny.inputs()).logits
    with probed_outputs(model) as found:
        assert torch.equal(model(**tiny.inputs()).logits.detach(), plain)
    assert [one.place.number for one in found] == [0, 1]
