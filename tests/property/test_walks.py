"""Walks over random small transformers: dense references, what is conserved, and bounds that hold."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from attlas.explain.attention_walks import RawAttention, Rollout, RolloutNull
from attlas.explain.flow import Flow
from attlas.explain.gradient_walks import AttentionTimesGradient, Chefer, GradSam, Suppression
from attlas.explain.walk import Walker, walk
from toy_transformer import Shape, Toy, toy

CRUMBS = 1e-9
"""What rounding may leave of a maximum flow: some thousand edges of 1e-13."""

LITTLE = 1e-8
"""A row's relevance of which too few digits are left: it is a difference of numbers around 1."""


@st.composite
def runs(draw: st.DrawFn, *, two_stacks: bool = True) -> Toy:
    kv_heads = draw(st.integers(1, 3))
    shape = Shape(
        n=draw(st.integers(1, 14)),
        layers=draw(st.integers(1, 4)),
        heads=kv_heads * draw(st.integers(1, 3)),
        kv_heads=kv_heads,
        dim=draw(st.integers(1, 6)),
        value_dim=draw(st.integers(1, 6)),
        causal=draw(st.booleans()),
        window=draw(st.none() | st.integers(1, 9)),
        softcap=draw(st.none() | st.floats(0.5, 5)),
        sinks=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
        answer=draw(st.integers(1, 6)) if two_stacks and draw(st.booleans()) else 0,
    )
    asked = shape.answer or shape.n
    positions = draw(st.lists(st.none() | st.integers(0, asked - 1), min_size=1, max_size=3))
    return toy(shape, positions, output=draw(st.booleans()))


def scores(walker: Walker, run: Toy) -> Tensor:
    return walk(run.reading, [walker], run.attended)[0].scores


@settings(max_examples=60)
@given(runs(two_stacks=False), st.floats(0, 0.95))
def test_rollout_is_a_product_of_dense_matrices(run: Toy, residual: float) -> None:
    product = run.reading.rows
    eye = torch.eye(run.shape.n, dtype=torch.float64)
    for call in reversed(run.calls):
        product = product @ ((1 - residual) * call.attention.mean(0) + residual * eye)
    assert_close(scores(Rollout(residual), run), product)


@settings(max_examples=60)
@given(runs(), st.integers(0, 3))
def test_rollout_and_its_null_pass_everything_on(run: Toy, sinks: int) -> None:
    """Without learned sinks rows sum to 1, so a walk's row does; over both stacks, where there are two."""
    found, against = walk(run.reading, [Rollout(), RolloutNull(sinks=sinks)], run.attended)
    left = torch.tensor(found.notes.get("left_on_the_decoder", [0.0] * run.targets), dtype=torch.float64)
    ones = torch.ones(run.targets, dtype=torch.float64)
    if not run.shape.sinks:
        assert_close(found.scores.sum(1) + left, ones)
    assert bool((found.scores >= 0).all())
    assert bool((against.scores >= 0).all())
    assert all(-CRUMBS <= share <= 1 + CRUMBS for share in against.notes["explained_by_null"])


@settings(max_examples=60)
@given(runs())
def test_gradient_walks_are_sums_of_dense_products(run: Toy) -> None:
    counted = [call for call in run.calls if not run.shape.answer or call.cross or call.side == "encoder"]

    def of_each(target: int) -> tuple[Tensor, Tensor, Tensor]:
        products = [call.attention * call.gradients[target] for call in counted]
        attentions = [call.attention for call in counted]
        signed = torch.stack([one.sum((0, 1)) for one in products]).sum(0)
        positive = torch.stack([one.clamp(min=0).mean((0, 1)) for one in products]).mean(0)
        zipped = zip(products, attentions, strict=True)
        biased = torch.stack([(one - a * one.sum(-1, keepdim=True)).sum((0, 1)) for one, a in zipped]).sum(0)
        return signed, positive, biased

    wanted = [torch.stack(column) for column in zip(*(of_each(t) for t in range(run.targets)), strict=True)]
    for walker, one in zip((AttentionTimesGradient(), GradSam(), Suppression()), wanted, strict=True):
        assert_close(scores(walker, run), one)


@settings(max_examples=60)
@given(runs())
def test_chefer_is_the_row_of_dense_relevance_matrices(run: Toy) -> None:
    eye_q, n_s = torch.eye(run.shape.n, dtype=torch.float64), run.reading.rows.shape[1]
    for crossing in ("rules", "row"):
        wanted = []
        for target in range(run.targets):
            qq, ss = eye_q, torch.eye(n_s, dtype=torch.float64)
            sq = torch.zeros(n_s, run.shape.n, dtype=torch.float64)
            for call in run.calls:
                edges = (call.attention * call.gradients[target]).clamp(min=0).mean(0)
                if call.cross and crossing == "rules":
                    sq = sq + normalised(ss).T @ edges @ normalised(qq)
                elif call.cross:
                    sq = sq + edges @ qq
                elif run.shape.answer and call.side == "decoder":
                    ss, sq = ss + edges @ ss, sq + edges @ sq
                else:
                    qq = qq + edges @ qq
            wanted.append(run.reading.rows[target] @ (sq if run.shape.answer else qq))
        assert_close(scores(Chefer(crossing=crossing), run), torch.stack(wanted))


def normalised(R: Tensor) -> Tensor:
    eye = torch.eye(len(R), dtype=torch.float64)
    sums = (R - eye).sum(1, keepdim=True)
    # What rounding leaves of a row without relevance is not a direction, and has no digits that two ways could share.
    assume(not bool(((sums > 0) & (sums < LITTLE)).any()))
    return torch.where(sums > 0, (R - eye) / sums, 0.0) + eye


@settings(max_examples=40)
@given(runs(), st.integers(1, 4), st.integers(1, 5), st.integers(0, 4))
def test_bounds_of_the_flow_hold(run: Toy, topk: int, width: int, sources: int) -> None:
    """With all edges both bounds meet; with some of them the flow lies in between; rollout is never more."""
    walkers = [Flow(99, 99, 99, normalised=False), Flow(topk, width, sources, normalised=False), Rollout()]
    whole, some, rolled = walk(run.reading, walkers, run.attended)
    assert whole.low is not None
    assert whole.high is not None
    assert some.low is not None
    assert some.high is not None
    assert_close(whole.low, whole.high)
    assert bool((some.low <= whole.low + CRUMBS).all())
    assert bool((whole.low <= some.high + CRUMBS).all())
    assert bool((rolled.scores <= whole.low + CRUMBS).all())


@settings(max_examples=40)
@given(runs(two_stacks=False))
def test_decoders_score_nothing_behind_a_target(run: Toy) -> None:
    if not run.shape.causal:
        return
    walkers: list[Walker] = [RawAttention(), Rollout(), RolloutNull(), Flow(), GradSam(), Chefer(), Suppression()]
    behind = run.reading.rows.flip(1).cumsum(1).flip(1) == 0
    for found in walk(run.reading, [*walkers, AttentionTimesGradient(), Suppression("multiplicative")], run.attended):
        assert bool((found.scores[behind] == 0).all())
