"""Raw attention, rollout and its null model against dense float64 implementations, straight from the formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from attlas.errors import ArgumentError, CaptureError
from attlas.explain.attention_walks import EVERY_ROW_LIMIT, RawAttention, Rollout, RolloutNull
from attlas.explain.even_walk import evenly_passed
from attlas.explain.walk import Found, Walker, walk
from attlas.matrix import AttentionMatrix
from attlas.testing import no_dense
from toy_transformer import BOTH, DECODERS, ENCODERS, STACKS, Shape, Toy, toy

POSITIONS = (-1, 1, None)


def found(walker: Walker, run: Toy) -> Found:
    return walk(run.reading, [walker], run.attended)[0]


def mixed(attention: Tensor, residual: float = 0.5) -> Tensor:
    return (1 - residual) * attention.mean(0) + residual * torch.eye(attention.shape[1], dtype=torch.float64)


def dense_rollout(attentions: list[Tensor], residual: float = 0.5) -> list[Tensor]:
    """Return the rollout from the top down to below each layer, lowest layer first; attentions come lowest first."""
    product = torch.eye(attentions[0].shape[-1], dtype=torch.float64)
    below = []
    for attention in reversed(attentions):
        product = product @ mixed(attention, residual)
        below.append(product)
    return below[::-1]


def stripped(attention: Tensor, sinks: int) -> Tensor:
    """Return attention without its first keys, each row divided anew; a row left with nothing stays empty."""
    kept = attention.clone()
    kept[..., :sinks] = 0
    sums = kept.sum(-1, keepdim=True)
    return torch.where(sums > 0, kept / sums, 0.0)


def even(attention: Tensor, sinks: int = 0) -> Tensor:
    """Return the even spread over what is seen."""
    seen = (attention > 0).double()
    seen[..., :sinks] = 0
    count = seen.sum(-1, keepdim=True)
    return torch.where(count > 0, seen / count, 0.0)


# ---- raw attention


@pytest.mark.parametrize("name", STACKS)
def test_raw_attention_is_the_mean_row(name: str) -> None:
    run = toy(STACKS[name], POSITIONS)
    rows = run.reading.rows
    every = torch.stack([rows @ call.attention.mean(0) for call in run.calls], 1)
    answer = found(RawAttention(), run)
    assert_close(answer.scores, every.mean(1))
    assert_close(answer.layers, every)
    assert_close(found(RawAttention(layers=-1), run).scores, every[:, -1])
    assert_close(found(RawAttention(layers=[0, -2]), run).scores, every[:, [0, -2]].mean(1))
    one = torch.stack([rows @ call.attention[2] for call in run.calls], 1)
    assert_close(found(RawAttention(heads=2), run).scores, one.mean(1))
    some = rows @ run.calls[1].attention[[3, 0]].mean(0)
    assert_close(found(RawAttention(layers=1, heads=[3, 0]), run).scores, some)


def test_a_layer_or_head_that_is_not_there_is_refused() -> None:
    run = toy(Shape())
    for layers in (3, -4, []):
        with pytest.raises(ArgumentError, match="layers: wanted layers: 0, 1, 2"):
            found(RawAttention(layers=layers), run)
    for heads in (4, -1, [], [0, 9]):
        with pytest.raises(ArgumentError, match="heads: wanted head numbers from 0 to 3"):
            found(RawAttention(heads=heads), run)


# ---- rollout


@pytest.mark.parametrize("residual", [0.5, 0.0, 0.8])
@pytest.mark.parametrize("name", STACKS)
def test_rollout_is_the_targets_row_of_the_product(name: str, residual: float) -> None:
    run = toy(STACKS[name], POSITIONS)
    below = dense_rollout([call.attention for call in run.calls], residual)
    answer = found(Rollout(residual), run)
    assert_close(answer.scores, run.reading.rows @ below[0])
    assert_close(answer.layers, torch.stack([run.reading.rows @ product for product in below], 1))


@pytest.mark.parametrize("name", STACKS)
def test_released_rollout_takes_the_largest_share_in_any_row(name: str) -> None:
    run = toy(STACKS[name], POSITIONS)
    below = dense_rollout([call.attention for call in run.calls])
    answer = found(Rollout(every_row=True), run)
    assert_close(answer.scores, below[0].amax(0).expand(3, -1))
    assert_close(answer.layers, torch.stack([product.amax(0) for product in below]).expand(3, -1, -1))


def test_released_rollout_is_refused_for_long_texts() -> None:
    rows = torch.zeros(1, EVERY_ROW_LIMIT + 1, dtype=torch.float64)
    reading = toy(Shape()).reading
    reading.rows = rows
    with pytest.raises(ArgumentError, match="at most 512 tokens for 'released'"):
        Rollout(every_row=True).start(reading)


def test_rollout_of_some_heads() -> None:
    run = toy(Shape())
    below = dense_rollout([call.attention[[1, 2]] for call in run.calls])
    assert_close(found(Rollout(heads=[1, 2]), run).scores, run.reading.rows @ below[0])


@pytest.mark.parametrize("name", BOTH)
def test_rollout_crosses_to_the_encoder(name: str) -> None:
    """The decoder's row leaves half of itself to the encoder in every cross-attention, and half to its own tokens."""
    run = toy(BOTH[name], POSITIONS if BOTH[name].answer > 1 else (0,))
    row, crossed = run.reading.rows, torch.zeros(run.targets, run.shape.n, dtype=torch.float64)
    for call in reversed(run.dense("decoder")):
        if call.cross:
            crossed = crossed + row @ call.attention.mean(0) / 2
            row = row / 2
        else:
            row = row @ mixed(call.attention)
    for call in reversed(run.dense("encoder")):
        crossed = crossed @ mixed(call.attention)
    answer = found(Rollout(), run)
    assert_close(answer.scores, crossed)
    assert answer.notes["left_on_the_decoder"] == pytest.approx(row.sum(1).tolist())
    assert_close(answer.scores.sum(1) + row.sum(1), torch.ones(run.targets, dtype=torch.float64))
    raw = torch.stack([run.reading.rows @ call.attention.mean(0) for call in run.dense("decoder", True)])
    assert_close(found(RawAttention(), run).scores, raw.mean(0))


@pytest.mark.parametrize("residual", [1, -0.1, 1.5, True, "half"])
def test_a_residual_that_is_no_share_is_refused(residual: object) -> None:
    with pytest.raises(ArgumentError, match="residual: wanted a share from 0 to below 1"):
        Rollout(residual)  # pyright: ignore[reportArgumentType] - that is the point


# ---- against the null model


@pytest.mark.parametrize("sinks", [0, 1, 3])
@pytest.mark.parametrize("name", [name for name in STACKS if not STACKS[name].sinks])
def test_rollout_against_its_null_model(name: str, sinks: int) -> None:
    run = toy(STACKS[name], POSITIONS)
    rows = run.reading.rows
    attentions = [call.attention for call in run.calls]
    real = rows @ dense_rollout([stripped(one, sinks) for one in attentions])[0]
    null = rows @ dense_rollout([even(one, sinks) for one in attentions])[0]
    answer = found(RolloutNull(sinks=sinks), run)
    assert_close(answer.scores, torch.where(null > 0, real / null, 0.0))
    assert_close(torch.tensor(answer.notes["null"], dtype=torch.float64), null)
    assert_close(found(RolloutNull(sinks=sinks, by="difference"), run).scores, real - null)
    plain = rows @ dense_rollout(attentions)[0]
    plain_null = rows @ dense_rollout([even(one) for one in attentions])[0]
    assert answer.notes["explained_by_null"] == pytest.approx(torch.minimum(plain, plain_null).sum(1).tolist())


def test_a_learned_sink_stays_in_the_softmax_when_keys_are_taken_away() -> None:
    run = toy(Shape(sinks=True))
    attentions = []
    for call in run.calls:
        # Divide anew what the key and the learned sink leave over: the sink's share grows like any other.
        kept = call.attention.clone()
        taken = kept[..., :1].clone()
        kept[..., :1] = 0
        attentions.append(kept / (1 - taken))
    real = run.reading.rows @ dense_rollout(attentions)[0]
    null = run.reading.rows @ dense_rollout([even(call.attention, 1) for call in run.calls])[0]
    assert_close(found(RolloutNull(by="difference"), run).scores, real - null)


@pytest.mark.parametrize("name", BOTH)
def test_the_null_model_crosses_to_the_encoder(name: str) -> None:
    run = toy(BOTH[name], (0,))
    walks = []
    for change in (stripped, even):
        row, crossed = run.reading.rows, torch.zeros(1, run.shape.n, dtype=torch.float64)
        for call in reversed(run.dense("decoder")):
            changed = change(call.attention, 1)
            if call.cross:
                crossed, row = crossed + row @ changed.mean(0) / 2, row / 2
            else:
                row = row @ mixed(changed)
        for call in reversed(run.dense("encoder")):
            crossed = crossed @ mixed(change(call.attention, 1))
        walks.append(crossed)
    assert_close(found(RolloutNull(by="difference"), run).scores, walks[0] - walks[1])


@pytest.mark.parametrize(
    ("n", "layers", "share"), [(1024, 6, 4.7), (1024, 12, 29.3), (1024, 32, 96.8), (128, 32, 99.2)]
)
def test_what_geometry_alone_gives_the_first_token(n: int, layers: int, share: float) -> None:
    """The rollout of uniform causal attention ends at token 0, the more so the deeper the model."""
    matrix = AttentionMatrix(torch.zeros(1, 1, n, 1), torch.zeros(1, 1, n, 1), causal=True)
    row = torch.zeros(1, n, dtype=torch.float64)
    row[0, -1] = 1
    exact = row
    uniform = mixed(torch.ones(1, n, n, dtype=torch.float64).tril() / torch.arange(1, n + 1).view(1, -1, 1))
    for _ in range(layers):
        row = (evenly_passed(matrix, row) + row) / 2
        exact = exact @ uniform
    assert round(100 * float(row[0, 0]), 1) == share
    assert_close(row, exact)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 4, 40])
@pytest.mark.parametrize("without", [0, 1, 5, 12])
def test_the_even_step_in_closed_form_is_the_dense_one(causal: bool, window: int | None, without: int) -> None:
    n_query, n_key = (7, 12)
    torch.manual_seed(0)
    matrix = AttentionMatrix(
        torch.randn(1, 3, n_query, 4, dtype=torch.float64),
        torch.randn(1, 3, n_key, 4, dtype=torch.float64),
        causal=causal,
        window=window,
    )
    weights = torch.rand(2, n_query, dtype=torch.float64)
    weights[1, 3:] = 0
    dense = even(matrix.to_dense()[0, 0], without)
    answer = evenly_passed(matrix, weights, without=without)
    assert_close(answer, weights @ dense)
    assert bool((answer[(weights @ dense) == 0] == 0).all())


@pytest.mark.parametrize("hiding", ["mask", "bias", "predicate"])
def test_the_even_step_under_a_mask_of_ones_own(hiding: str) -> None:
    torch.manual_seed(1)
    n = 10
    seen = torch.rand(1, 3, n, n) > 0.4
    options = {
        "mask": {"mask": seen},
        "bias": {"bias": torch.where(seen, 0.3, -math.inf).double()},
        "predicate": {"mask": lambda b, h, i, j: seen[b * 0, h, i, j]},
    }[hiding]
    matrix = AttentionMatrix(
        torch.randn(1, 3, n, 4, dtype=torch.float64), torch.randn(1, 3, n, 4, dtype=torch.float64), **options
    )
    weights = torch.rand(2, n, dtype=torch.float64)
    for without in (0, 2):
        wanted = (weights @ even(seen[0].double(), without)).mean(0)
        assert_close(evenly_passed(matrix, weights, without=without), wanted)


@pytest.mark.parametrize(("setting", "value"), [("sinks", -1), ("sinks", True), ("sinks", 1.0), ("by", "log")])
def test_settings_of_the_null_model_that_make_no_sense(setting: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=f"{setting}: wanted"):
        RolloutNull(**{setting: value})  # pyright: ignore[reportArgumentType] - that is the point


# ---- what holds for all of them


WALKERS: dict[str, Callable[[], Walker]] = {
    "attention": RawAttention,
    "rollout": Rollout,
    "rollout_null": RolloutNull,
    "difference": lambda: RolloutNull(by="difference"),
}


@pytest.mark.parametrize("name", DECODERS)
def test_what_comes_after_a_decoders_target_scores_exactly_nothing(name: str) -> None:
    run = toy(DECODERS[name], range(DECODERS[name].n))
    after = run.reading.rows.flip(1).cumsum(1).flip(1) == 0
    for answer in walk(run.reading, [make() for make in WALKERS.values()], run.attended):
        assert bool((answer.scores[after] == 0).all())


def test_nothing_dense_is_made() -> None:
    run = toy(Shape(n=1100, layers=2, heads=2, kv_heads=1, dim=2, value_dim=2), (-1, None))
    with no_dense(1100 * 1100):
        walk(run.reading, [make() for make in WALKERS.values()], run.attended)


def test_a_batch_of_several_texts_is_refused() -> None:
    run = toy(ENCODERS["encoder"])
    one = run.attended[0].matrix
    two = AttentionMatrix(one.query.expand(2, -1, -1, -1), one.key.expand(2, -1, -1, -1))
    run.attended[0] = replace(run.attended[0], matrix=two)
    with pytest.raises(CaptureError, match="padding inside a batch"):
        found(Rollout(), run)


def test_a_call_that_continues_a_cache_is_refused() -> None:
    run = toy(Shape())
    one = run.attended[1].matrix
    run.attended[1] = replace(run.attended[1], matrix=AttentionMatrix(one.query[:, :, -1:], one.key, causal=True))
    with pytest.raises(CaptureError, match="got 1 queries and 9 keys; capture the whole text in one call"):
        found(Rollout(), run)
