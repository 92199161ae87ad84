"""Walks over attention and its gradient against dense float64 implementations written straight from the formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from attlas.errors import ArgumentError, CaptureError
from attlas.explain.gradient_walks import AttentionTimesGradient, Chefer, GradSam, Suppression
from attlas.explain.walk import Found, Walker, walk
from attlas.testing import no_dense
from toy_transformer import BOTH, DECODERS, STACKS, Call, Shape, Toy, toy

POSITIONS = (-1, 1, None)


def found(walker: Walker, run: Toy) -> Found:
    return walk(run.reading, [walker], run.attended)[0]


def begun(run: Toy) -> Tensor:
    return run.reading.rows


def each_target(run: Toy, of: Callable[[int], Tensor]) -> Tensor:
    return torch.stack([of(target) for target in range(run.targets)])


def positive(call: Call, target: int) -> Tensor:
    """Return E_h((A ⊙ ∂A)⁺), (n_query, n_key)."""
    return (call.attention * call.gradients[target]).clamp(min=0).mean(0)


def counted(run: Toy) -> list[Call]:
    """Return the calls whose keys are the tokens that are scored."""
    return [call for call in run.calls if not run.shape.answer or call.cross or call.side == "encoder"]


EVERY = {**STACKS, **BOTH}


def places(name: str) -> tuple[int | None, ...]:
    return (0, None) if EVERY[name].answer == 1 else POSITIONS


@cache
def known(name: str) -> Toy:
    return toy(EVERY[name], places(name))


# ---- signed products


@pytest.mark.parametrize("name", EVERY)
def test_attention_times_gradient_of_all_queries(name: str) -> None:
    run = known(name)
    parts = each_target(run, lambda t: torch.stack([(c.attention * c.gradients[t]).sum((0, 1)) for c in counted(run)]))
    answer = found(AttentionTimesGradient(), run)
    assert_close(answer.layers, parts)
    assert_close(answer.scores, parts.sum(1))
    assert AttentionTimesGradient().signed
    assert bool((answer.scores < 0).any())


@pytest.mark.parametrize("name", EVERY)
def test_attention_times_gradient_of_the_targets_query(name: str) -> None:
    run = known(name)
    calls = run.dense(cross=True) if run.shape.answer else run.calls
    wanted = each_target(
        run, lambda t: torch.stack([begun(run)[t] @ (c.attention * c.gradients[t]).sum(0) for c in calls]).sum(0)
    )
    assert_close(found(AttentionTimesGradient(rows="target"), run).scores, wanted)


# ---- Grad-SAM


@pytest.mark.parametrize("name", EVERY)
def test_grad_sam_is_a_mean_over_layers_heads_and_queries(name: str) -> None:
    run = known(name)
    layers = each_target(
        run, lambda t: torch.stack([(c.attention * c.gradients[t].clamp(min=0)).mean((0, 1)) for c in counted(run)])
    )
    answer = found(GradSam(), run)
    assert_close(answer.layers, layers)
    assert_close(answer.scores, layers.mean(1))


# ---- suppression


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("name", EVERY)
def test_additive_suppression_is_the_gradient_of_a_bias_on_a_key(name: str, kept: bool) -> None:
    """∂L/∂S = A ⊙ (∂A − rowsum(A ⊙ ∂A)), summed over queries, heads and layers."""
    run = toy(EVERY[name], places(name), output=kept)

    def score_gradient(call: Call, target: int) -> Tensor:
        product = call.attention * call.gradients[target]
        return (product - call.attention * product.sum(-1, keepdim=True)).sum((0, 1))

    layers = each_target(run, lambda t: torch.stack([score_gradient(c, t) for c in counted(run)]))
    answer = found(Suppression(), run)
    assert_close(answer.layers, layers)
    assert_close(answer.scores, layers.sum(1))


@pytest.mark.parametrize("name", [name for name in EVERY if EVERY[name].softcap is None])
def test_multiplicative_suppression_is_the_gradient_of_a_factor_on_a_key(name: str) -> None:
    """Σ_i S_ij ∂L/∂S_ij, S the scaled scores."""
    run = known(name)

    def part(call: Call, target: int) -> Tensor:
        product = call.attention * call.gradients[target]
        gradient = product - call.attention * product.sum(-1, keepdim=True)
        key = call.key.repeat_interleave(len(call.query) // len(call.key), 0)
        return (gradient * (call.query @ key.mT * run.shape.dim**-0.5)).sum((0, 1)).detach()

    wanted = each_target(run, lambda t: torch.stack([part(c, t) for c in counted(run)]).sum(0))
    assert_close(found(Suppression("multiplicative"), run).scores, wanted)


def test_a_positive_score_is_of_a_token_that_speaks_for_the_target() -> None:
    """The target is made of the heads' outputs: suppress a key for real, and it falls by what the score said."""
    run = toy(Shape(layers=1, heads=1, kv_heads=1, dim=8, value_dim=8, causal=False, seed=3))
    call, gradient = run.calls[0], run.attended[0].gradients[0].output[0, 0]
    key, query, value = call.key[0].detach(), call.query[0].detach(), call.value[0].detach()

    def target(biased: Tensor, factors: Tensor) -> Tensor:
        scores = query @ key.T * 8**-0.5
        return (((scores * factors + biased).softmax(-1) @ value) * gradient).sum()

    step, n = 1e-6, run.shape.n
    still, ones = torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)
    for form in ("additive", "multiplicative"):
        fall = torch.zeros(n, dtype=torch.float64)
        for token in range(n):
            less = torch.zeros(n, dtype=torch.float64)
            less[token] = step
            changed = target(still - less, ones) if form == "additive" else target(still, ones - less)
            fall[token] = (target(still, ones) - changed) / step
        # A difference quotient of first order is off by the step times a curvature, and by rounding over the step.
        assert_close(found(Suppression(form), run).scores[0], fall, rtol=1e-4, atol=1e-5)


# ---- Chefer's rules


@pytest.mark.parametrize("name", STACKS)
def test_chefer_is_the_targets_row_of_the_relevance_matrix(name: str) -> None:
    """R ← R + Ē·R, from the lowest layer up, and the row of the target: equation 6 of the ICCV paper."""
    run = known(name)

    def row(target: int) -> Tensor:
        R = torch.eye(run.shape.n, dtype=torch.float64)
        for call in run.calls:
            R = R + positive(call, target) @ R
        return begun(run)[target] @ R

    answer = found(Chefer(), run)
    assert_close(answer.scores, each_target(run, row))
    assert answer.layers is not None
    assert_close(answer.layers[:, 0], answer.scores)
    # With one stack there is nothing to cross.
    assert torch.equal(found(Chefer(crossing="row"), run).scores, answer.scores)


@pytest.mark.parametrize("start_layer", [-1, 0, 1, -2, None])
@pytest.mark.parametrize("name", STACKS)
def test_chefers_released_code_for_bert(name: str, start_layer: int | None) -> None:
    """Rows of Ē + I divided by their sums, the product from start_layer up, the least score for the own position."""
    run = known(name)

    def row(target: int) -> Tensor:
        matrices = []
        for call in run.calls:
            matrix = positive(call, target) + torch.eye(run.shape.n, dtype=torch.float64)
            matrices.append(matrix / matrix.sum(-1, keepdim=True))
        joint = matrices[start_layer or 0]
        for matrix in matrices[(start_layer or 0) % len(matrices) + 1 :]:
            joint = matrix @ joint
        result = begun(run)[target] @ joint
        if POSITIONS[target] is not None:
            result[POSITIONS[target]] = result.min()
        return result

    rules = {**Chefer.presets["released-bert"], "start_layer": start_layer}
    assert_close(found(Chefer(**rules), run).scores, each_target(run, row))


def test_chefers_released_code_for_bert_uses_the_top_layer_alone() -> None:
    run = toy(STACKS["encoder"])
    top, whole = (
        found(Chefer(**{**Chefer.presets["released-bert"], **more}), run) for more in ({}, {"start_layer": 2})
    )
    assert torch.equal(top.scores, whole.scores)
    assert top.layers is not None
    assert top.layers.shape[1] == 1


@pytest.mark.parametrize("name", STACKS)
def test_chefers_released_code_for_vit_shows_all_but_the_own_position(name: str) -> None:
    run = known(name)

    def row(target: int) -> Tensor:
        joint = torch.eye(run.shape.n, dtype=torch.float64)
        for call in run.calls:
            joint = (positive(call, target) + torch.eye(run.shape.n, dtype=torch.float64)) @ joint
        result = begun(run)[target] @ joint
        if POSITIONS[target] is not None:
            result[POSITIONS[target]] = 0
        return result

    assert_close(found(Chefer(**Chefer.presets["released-vit"]), run).scores, each_target(run, row))


def normalised(R: Tensor) -> Tensor:
    """Equations 8 and 9: (R − I) / rowsum(R − I) + I; a row without relevance stays as it is."""
    eye = torch.eye(len(R), dtype=torch.float64)
    sums = (R - eye).sum(-1, keepdim=True)
    return torch.where(sums > 0, (R - eye) / sums, 0.0) + eye


@pytest.mark.parametrize("name", BOTH)
def test_chefers_rules_between_a_decoder_and_an_encoder(name: str) -> None:
    """Rules 5 to 10 on dense relevance matrices, from the lowest layer up, and the row of the target."""
    run = known(name)

    def row(target: int) -> Tensor:
        qq = torch.eye(run.shape.n, dtype=torch.float64)
        ss = torch.eye(run.shape.answer, dtype=torch.float64)
        sq = torch.zeros(run.shape.answer, run.shape.n, dtype=torch.float64)
        for call in run.calls:
            edges = positive(call, target)
            if call.cross:
                sq = sq + normalised(ss).T @ edges @ normalised(qq)
            elif call.side == "encoder":
                qq = qq + edges @ qq
            else:
                ss, sq = ss + edges @ ss, sq + edges @ sq
        return begun(run)[target] @ sq

    assert_close(found(Chefer(), run).scores, each_target(run, row))


@pytest.mark.parametrize("name", BOTH)
def test_the_row_that_walks_from_a_decoder_to_an_encoder(name: str) -> None:
    """Rules 5 to 7, and R_sq ← R_sq + Ē·R_qq: rule 10 without normalisation and without the decoder's own relevance."""
    run = known(name)

    def row(target: int) -> Tensor:
        qq = torch.eye(run.shape.n, dtype=torch.float64)
        sq = torch.zeros(run.shape.answer, run.shape.n, dtype=torch.float64)
        for call in run.calls:
            edges = positive(call, target)
            if call.cross:
                sq = sq + edges @ qq
            elif call.side == "encoder":
                qq = qq + edges @ qq
            else:
                sq = sq + edges @ sq
        return begun(run)[target] @ sq

    answer = found(Chefer(**Chefer.presets["row"]), run)
    assert_close(answer.scores, each_target(run, row))
    assert answer.layers is not None


@pytest.mark.parametrize("preset", ["released-bert", "released-vit"])
def test_rules_for_one_stack_are_refused_for_two(preset: str) -> None:
    with pytest.raises(
        ArgumentError, match="preset: wanted 'paper' or 'row' for a model with an encoder and a decoder"
    ):
        found(Chefer(**Chefer.presets[preset]), toy(BOTH["encoder and decoder"]))


# ---- what holds for all of them


WALKERS: dict[str, Callable[[], Walker]] = {
    "attention_gradient": AttentionTimesGradient,
    "attention_gradient of the target": lambda: AttentionTimesGradient("target"),
    "grad_sam": GradSam,
    "additive": Suppression,
    "multiplicative": lambda: Suppression("multiplicative"),
    **{name: lambda rules=rules: Chefer(**rules) for name, rules in Chefer.presets.items()},
}


@pytest.mark.parametrize("name", DECODERS)
def test_what_comes_after_a_decoders_target_scores_exactly_nothing(name: str) -> None:
    run = toy(DECODERS[name], range(DECODERS[name].n))
    after = begun(run).flip(1).cumsum(1).flip(1) == 0
    for answer in walk(run.reading, [make() for make in WALKERS.values()], run.attended):
        assert bool((answer.scores[after] == 0).all())


@pytest.mark.parametrize("walker", WALKERS)
def test_targets_that_go_together_get_what_each_gets_alone(walker: str) -> None:
    together = found(WALKERS[walker](), toy(DECODERS["plain"], (4, 7))).scores
    run = toy(DECODERS["plain"], (4, 7))
    for target in range(2):
        alone = replace(run, reading=type(run.reading)(rows=begun(run)[[target]], n=run.shape.n))
        alone.attended = [replace(one, gradients=(one.gradients[target],)) for one in run.attended]
        assert_close(found(WALKERS[walker](), alone).scores[0], together[target])


def test_nothing_dense_is_made() -> None:
    run = toy(Shape(n=1100, layers=2, heads=2, kv_heads=1, dim=2, value_dim=2), (-1, None))
    with no_dense(1100 * 1100):
        walk(run.reading, [make() for make in WALKERS.values()], run.attended)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("value", r"needs the values.*values=True"), ("gradients", "needs gradients of 1 target, got 0")],
)
@pytest.mark.parametrize("name", ["plain", "encoder and decoder"])
@pytest.mark.parametrize("walker", WALKERS)
def test_a_capture_without_values_or_gradients_is_refused(walker: str, name: str, missing: str, message: str) -> None:
    run = toy(EVERY[name])
    run.attended = [replace(one, **{missing: None if missing == "value" else ()}) for one in run.attended]
    # Released rules are for one stack, and are refused for two before anything is looked at.
    refused = walker.startswith("released") and EVERY[name].answer
    with pytest.raises(ArgumentError if refused else CaptureError, match="preset" if refused else message):
        found(WALKERS[walker](), run)


@pytest.mark.parametrize(
    ("walker", "setting", "value"),
    [
        (AttentionTimesGradient, "rows", "some"),
        (Suppression, "form", "both"),
        (Chefer, "start_layer", 1.5),
        (Chefer, "start_layer", True),
        (Chefer, "own", "drop"),
        (Chefer, "crossing", "none"),
    ],
)
def test_settings_that_make_no_sense(walker: Callable[..., Walker], setting: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=f"{setting}: wanted"):
        walker(**{setting: value})


@pytest.mark.parametrize("start_layer", [3, -4])
def test_a_start_layer_that_is_not_there(start_layer: int) -> None:
    with pytest.raises(ArgumentError, match="start_layer: wanted a layer from 0 to 2"):
        found(Chefer(start_layer=start_layer), toy(Shape()))
