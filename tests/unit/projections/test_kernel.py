"""Kernels by offset, against dense float64 sums over all pairs of tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import attlas
from attlas.errors import ArgumentError, CaptureError
from attlas.matrix import AttentionMatrix, ask
from attlas.projections.kernel import NO_ROTATION, TWO_TEXTS, Diagonals, offset_kernel, relative_scores
from attlas.projections.rotation import Rotation
from circuits import BY_FAMILY, given_states, viewed

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def captured(model, inputs, **options) -> attlas.Capture:
    with attlas.capture(model, **options) as cap, torch.no_grad():
        model(**inputs)
    return cap


def dense_measured(A: Tensor, offset: int) -> Tensor:
    """Average the entries (batch, head, n, n) whose query is `offset` after their key."""
    return A.diagonal(-offset, dim1=-2, dim2=-1).mean((0, -1))


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "GPT-NeoX", "Cohere", "Gemma 2", "gpt-oss"])
def test_a_kernel_is_the_mean_over_all_pairs_of_their_score_at_that_offset(family: str) -> None:
    model, P = viewed(family)
    inputs = BY_FAMILY[family].inputs(batch=2)
    cap = captured(model, inputs)
    found = offset_kernel(P, cap, offsets=[0, 1, 2, 5])
    for layer in found.layers:
        view = P[layer.layer]
        states = given_states(model, view.name, inputs).double()
        query, key = view.queries(states), view.keys(states).repeat_interleave(view.group, 1)
        rotation = view.rotation
        assert rotation is not None
        assert layer.scores is not None
        assert layer.measured is not None
        assert layer.even is not None
        for at, offset in enumerate(found.offsets):
            turn = torch.eye(view.dim, dtype=torch.float64)
            block = rotation.matrix(offset)
            turn[: len(block), : len(block)] = block
            # Every query of either text against every key of either: the mean is taken of both first.
            pairs = torch.einsum("bhid,de,chje->hbicj", query, turn, key).mean((1, 2, 3, 4)) * view.scale
            softcap = cap[layer.layer].softcap
            pairs = pairs if softcap is None else softcap * torch.tanh(pairs / softcap)
            if bool(layer.visible[at]):
                torch.testing.assert_close(layer.scores[:, at], pairs, rtol=1e-5, atol=1e-6)
            else:
                assert bool((layer.scores[:, at] == float("-inf")).all())
        torch.testing.assert_close(layer.shares, layer.scores.softmax(-1))
        dense = cap[layer.layer].to_dense().double()
        for at, offset in enumerate(found.offsets):
            torch.testing.assert_close(layer.measured[:, at], dense_measured(dense, offset), rtol=1e-5, atol=1e-7)
        even = torch.tril(torch.ones(19, 19, dtype=torch.float64))
        window = cap[layer.layer].visibility.window
        even = even if window is None else torch.triu(even, 1 - window)
        even = even / even.sum(-1, keepdim=True)
        want = torch.stack([even.diagonal(-offset).mean() for offset in found.offsets])
        torch.testing.assert_close(layer.even, want, rtol=1e-6, atol=1e-9)


def test_what_a_window_hides_has_no_share() -> None:
    model, P = viewed("Mistral")
    cap = captured(model, BY_FAMILY["Mistral"].inputs())
    window = cap[0].visibility.window
    assert window is not None
    found = offset_kernel(P, cap, offsets=[-1, *range(window + 2)]).layers[0]
    assert found.shares is not None
    hidden = [0, window + 1, window + 2]
    assert bool((found.shares[:, hidden] == 0).all())
    assert found.visible.logical_not().nonzero().flatten().tolist() == hidden
    assert found.chance == 1 / window
    torch.testing.assert_close(found.shares.sum(-1), torch.ones(4, dtype=torch.float64))


def test_a_head_that_turns_back_by_three_prefers_offset_three() -> None:
    pairs = torch.arange(8)
    rotation = Rotation(10000 ** (-pairs.double() / 8), pairs, pairs + 8)
    key = torch.randn(5, 16, dtype=torch.float64)
    query = rotation.relative(key, -3)
    scores = relative_scores(query, key, rotation, torch.arange(-10, 11), 0.5)
    assert scores.argmax(-1).tolist() == [13] * 5
    torch.testing.assert_close(scores[:, 13], key.square().sum(-1) / 2)


def test_padding_does_not_count() -> None:
    model, P = viewed("Llama")
    inputs = BY_FAMILY["Llama"].inputs()
    alone = offset_kernel(P, captured(model, inputs), range(6))
    ids = torch.cat([inputs["input_ids"], torch.zeros(1, 7, dtype=torch.int64)], 1)
    mask = (torch.arange(26) < 19).long()[None]
    padded = offset_kernel(P, captured(model, {"input_ids": ids, "attention_mask": mask}), range(6))
    for ours, theirs in zip(padded.layers, alone.layers, strict=True):
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.measured, theirs.measured, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(ours.even, theirs.even, rtol=1e-6, atol=1e-9)


def test_without_rotation_there_is_no_kernel_and_that_is_said() -> None:
    model, P = viewed("BERT")
    cap = captured(model, BY_FAMILY["BERT"].inputs())
    found = offset_kernel(P, cap, offsets=range(-3, 4))
    for layer in found.layers:
        assert layer.scores is None
        assert layer.shares is None
        assert layer.reason == NO_ROTATION
        assert layer.measured is not None
        dense = cap[layer.layer].to_dense()
        for at, offset in enumerate(found.offsets):
            torch.testing.assert_close(layer.measured[:, at], dense_measured(dense, offset), rtol=1e-6, atol=1e-9)
    row = found.rows()[0]
    assert row["preferred_offset"] is None
    assert row["share"] is None
    assert row["measured_offset"] in found.offsets
    assert row["reason"] == NO_ROTATION
    with pytest.raises(ArgumentError, match="at least three heads have a kernel"):
        found.agreement(1)


def test_cross_attention_has_no_offsets() -> None:
    model, P = viewed("BART")
    found = offset_kernel(P, captured(model, BY_FAMILY["BART"].inputs()), offsets=range(3))
    crossed = [layer for layer in found.layers if P[layer.layer].kind == "cross"]
    assert crossed
    assert all(layer.reason == TWO_TEXTS and layer.measured is None for layer in crossed)


def test_a_capture_of_some_layers_and_heads_is_enough() -> None:
    model, P = viewed("Llama")
    inputs = BY_FAMILY["Llama"].inputs()
    whole = offset_kernel(P, captured(model, inputs), range(6))
    part = offset_kernel(P, captured(model, inputs, layers=[1], heads=[3, 1]), range(6))
    assert [(layer.layer, layer.heads) for layer in part.layers] == [(1, (3, 1))]
    scores, wanted = part.layers[0].scores, whole.layers[1].scores
    assert scores is not None
    assert wanted is not None
    torch.testing.assert_close(scores, wanted[[3, 1]], rtol=1e-5, atol=1e-6)
    assert [(row["layer"], row["head"]) for row in part.rows()] == [(1, 3), (1, 1)]


def test_agreement_is_a_correlation_over_heads() -> None:
    model, P = viewed("Llama")
    found = offset_kernel(P, captured(model, BY_FAMILY["Llama"].inputs()), range(6))
    agreement = found.agreement(1)
    kernel = torch.cat([layer.shares[:, 1] for layer in found.layers if layer.shares is not None])
    attention = torch.cat([layer.measured[:, 1] for layer in found.layers if layer.measured is not None])
    assert agreement.heads == len(found) == 8
    assert agreement.pearson == pytest.approx(float(torch.corrcoef(torch.stack([kernel, attention]))[0, 1]))
    ranks = torch.stack([kernel.argsort().argsort(), attention.argsort().argsort()]).double()
    assert agreement.spearman == pytest.approx(float(torch.corrcoef(ranks)[0, 1]))
    assert agreement.deviation == pytest.approx(7**-0.5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n_query", [1300, 700])
def test_diagonals_across_tiles(causal: bool, n_query: int) -> None:
    torch.manual_seed(0)
    A = AttentionMatrix(
        torch.randn(2, 4, n_query, 8, dtype=torch.float64),
        torch.randn(2, 2, 1300, 8, dtype=torch.float64),
        causal=causal,
    )
    weights = torch.rand(2, n_query, dtype=torch.float64)
    offsets = [0, 1, 511, 512, 700, 1299, 5000] + ([] if causal else [-1, -600])
    found = ask(A, Diagonals(offsets, weights))[0]
    dense = A.to_dense(None) * weights[:, None, :, None]
    want = torch.stack([dense.diagonal(1300 - n_query - o, dim1=-2, dim2=-1).sum(-1) for o in offsets[:6]], -1)
    torch.testing.assert_close(found[..., :6], want)
    assert bool((found[..., 6] == 0).all())
    for at in range(7, len(offsets)):
        line = dense.diagonal(1300 - n_query - offsets[at], dim1=-2, dim2=-1).sum(-1)
        torch.testing.assert_close(found[..., at], line)


@pytest.mark.parametrize("offsets", [[], [1, 1], [0.5], [True]])
def test_offsets_are_whole_numbers_each_once(offsets: list[int]) -> None:
    model, P = viewed("Llama")
    with pytest.raises(ArgumentError, match=r"^offsets: "):
        offset_kernel(P, captured(model, BY_FAMILY["Llama"].inputs()), offsets)


def test_what_is_no_capture_of_this_model_is_refused() -> None:
    model, P = viewed("Llama")
    with pytest.raises(ArgumentError, match="a bare module has no tokenizer"):
        offset_kernel(P, "some text")
    with pytest.raises(ArgumentError, match="a Capture or a text, got int"):
        offset_kernel(P, 3)  # pyright: ignore[reportArgumentType]
    other, _ = viewed("GPT-2")
    with pytest.raises(CaptureError, match=r"got a capture with transformer\.h\.0\.attn"):
        offset_kernel(P, captured(other, BY_FAMILY["GPT-2"].inputs()))
    whole = captured(model, BY_FAMILY["Llama"].inputs())
    empty = attlas.Capture({}, provenance=whole.provenance)
    with pytest.raises(CaptureError, match="the capture is empty"):
        offset_kernel(P, empty)
    found = offset_kernel(P, whole, range(3))
    with pytest.raises(ArgumentError, match="offset: wanted one of 0 to 2, got 7"):
        found.agreement(7)


def test_progress_is_told_by_layer() -> None:
    model, P = viewed("Llama")
    seen = []
    offset_kernel(P, captured(model, BY_FAMILY["Llama"].inputs()), range(3), progress=lambda *at: seen.append(at))
    assert seen == [(1, 2, "offset kernels"), (2, 2, "offset kernels")]


@pytest.mark.bundled
def test_kernels_of_the_bundled_model_tell_its_previous_token_heads() -> None:
    import argparse

    from attlas.models.document import read_text
    from attlas.projections import projections

    lm = attlas.load("smollm2-135m")
    ids = lm.tokenize(read_text(argparse.__file__)).ids[:256]
    found = offset_kernel(projections(lm), lm.read(lm.tokenizer.decode(ids)))
    assert found.agreement(1).pearson > 0.8
    assert found.agreement(1).spearman > 0.8
    measured = {(row["layer"], row["head"]): row for row in found.rows() if row["preferred_offset"] == 1}
    best = max(measured, key=lambda head: measured[head]["measured"])
    assert best == (16, 0)
    assert measured[best]["measured"] > 0.7
    assert measured[best]["share"] > 0.8
