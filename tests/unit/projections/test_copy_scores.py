"""Copying scores, against the dense vocabulary × vocabulary matrix in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attlas.errors import ArgumentError, UnsupportedModelError
from attlas.projections.copy_scores import NUMBERS, bootstrap, copying, moments, sampled_tokens, turned, z_scores
from attlas.projections.token_states import in_first_block, token_states, vocabulary_of
from circuits import positivity, viewed

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def close(expected: Tensor) -> object:
    return pytest.approx(float(expected), rel=1e-6, abs=1e-9)


def scored(written: Tensor, unembedding: Tensor, ids: Tensor) -> Tensor:
    """Return the mean z of each token's own logit, all logits of all tokens made."""
    logits = written @ unembedding.T
    z = (logits[torch.arange(len(ids)), ids] - logits.mean(-1)) / logits.std(-1, correction=0)
    return z.mean()


@pytest.mark.parametrize("family", ["Llama", "GPT-2", "Gemma 2", "Qwen2", "Cohere"])
def test_scores_are_those_of_the_dense_matrices(family: str) -> None:
    _, P = viewed(family)
    ends = vocabulary_of(P)
    found = copying(P, tokens=50, resamples=20)
    ids = sampled_tokens(P, ends, 50, torch.Generator().manual_seed(0))
    assert found.heads == tuple(P.heads)
    assert found.tokens == 50
    rows = ends.folded(ends.unembedding)
    for i, (layer, head) in enumerate(found.heads):
        view = P[layer]
        norm, kv = view.input_norm, head // view.group
        W_V, W_O = view.value[kv], ends.writer(view)[head]
        folded = W_V
        if norm is not None:
            folded = norm.gain[:, None] * W_V
            folded = folded - folded.mean(0) if norm.centred else folded
        assert float(found.eigenvalue_residual[i]) == close(positivity(folded @ W_O, view.value_dim))
        dense = ends.embedding @ folded @ W_O @ rows.T
        assert float(found.eigenvalue[i]) == close(positivity(dense, view.value_dim))
        for name in ("raw", "effective"):
            mlp = name == "effective" and not in_first_block(view)
            x = token_states(P, ends, ids, with_mlp=mlp)
            x = x if norm is None else norm(x)
            written = view.values(x)[kv] @ W_O
            want = scored(written, rows, ids)
            assert float(getattr(found, name)[i]) == close(want), name
            if name == "effective":
                own = rows[ids] - rows[ids].mean(0)
                dense = (x - x.mean(0)) @ W_V @ W_O @ own.T
                assert found.eigenvalue_effective is not None
                assert float(found.eigenvalue_effective[i]) == close(positivity(dense, view.value_dim))


def test_a_head_that_passes_on_what_it_sees_copies_and_its_negative_suppresses() -> None:
    model, P = viewed("Llama")
    frame = torch.linalg.qr(torch.randn(32, 8, dtype=torch.float64)).Q
    with torch.no_grad():
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
        for layer in model.model.layers:
            layer.input_layernorm.weight.fill_(1)
            layer.self_attn.v_proj.weight.copy_(torch.cat([frame.T, frame.T]))
            signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
            layer.self_attn.o_proj.weight.copy_(torch.cat([sign * frame for sign in signs], 1))
        model.model.norm.weight.fill_(1)
    found = copying(P, tokens=60, resamples=200)
    for i, (_, head) in enumerate(found.heads):
        sign = 1 if head % 2 == 0 else -1
        for name in ("eigenvalue_residual", "eigenvalue"):
            assert float(getattr(found, name)[i]) == pytest.approx(sign)
        assert sign * float(found.raw[i]) > 5 * found.chance["raw"].deviation
        assert float(found.raw_low[i]) < float(found.raw[i]) < float(found.raw_high[i])
        assert min(sign * float(found.raw_low[i]), sign * float(found.raw_high[i])) > 0
    # What differs in sign alone scores the same, with the other sign.
    for name in NUMBERS:
        values = getattr(found, name)
        torch.testing.assert_close(values[0::2], -values[1::2])


def test_chance_is_around_zero_and_says_how_far() -> None:
    _, P = viewed("Llama")
    found = copying(P, tokens=40, resamples=10)
    assert set(found.chance) == set(NUMBERS)
    for spread in found.chance.values():
        assert 0 < spread.deviation < 1
        assert spread.low == -spread.high < 0
        assert spread.draws == 64


def test_a_turned_head_keeps_its_singular_values() -> None:
    output = torch.randn(8, 32, dtype=torch.float64)
    other = turned(output, torch.Generator().manual_seed(1))
    torch.testing.assert_close(other @ other.T, output @ output.T)
    assert float((other - output).abs().max()) > 0.1


def test_moments_are_those_of_all_rows() -> None:
    _, P = viewed("GPT-2")
    ends = vocabulary_of(P)
    mean, covariance, gram = moments(ends)
    rows = ends.folded(ends.unembedding)
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(covariance, torch.cov(rows.T, correction=0))
    torch.testing.assert_close(gram, rows.T @ ends.embedding)


def test_tokens_beyond_the_vocabulary_are_not_counted() -> None:
    _, P = viewed("Llama")
    ends = replace(vocabulary_of(P), size=40)
    ids = sampled_tokens(P, ends, 400, torch.Generator().manual_seed(0))
    assert sorted(ids.tolist()) == list(range(40))
    torch.testing.assert_close(moments(ends)[0], ends.folded(ends.unembedding[:40]).mean(0))


def test_a_head_that_writes_nothing_scores_zero() -> None:
    values, own = torch.randn(5, 4), torch.randn(5, 6)
    assert z_scores(values, torch.zeros(4, 6), own, torch.eye(6)).tolist() == [0] * 5


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(3)
    samples = torch.randn(400, 60, generator=generator, dtype=torch.float64) + 1
    low, high = bootstrap(samples, 500, 0)
    held = ((low < 1) & (high > 1)).double().mean()
    assert 0.9 < float(held) < 0.98


def test_the_same_seed_gives_the_same_numbers_and_another_does_not() -> None:
    _, P = viewed("Llama")
    one, two, three = (copying(P, tokens=30, resamples=10, seed=seed) for seed in (0, 0, 1))
    assert one.rows() == two.rows()
    assert one.chance == two.chance
    assert one.rows() != three.rows()


def test_without_a_first_block_that_can_run_alone_the_rest_is_still_there() -> None:
    _, P = viewed("Qwen3-Next")
    found = copying(P, tokens=30, resamples=10)
    assert found.effective is None
    assert found.eigenvalue_effective is None
    assert "without mixing tokens" in found.reason
    assert set(found.chance) == {"eigenvalue_residual", "eigenvalue", "raw"}
    assert found.rows()[0]["effective"] is None


def test_bad_input() -> None:
    _, P = viewed("Llama")
    for options in ({"tokens": 1}, {"tokens": 2.5}, {"resamples": 0}, {"resamples": True}):
        with pytest.raises(ArgumentError, match=f"^{next(iter(options))}: wanted a whole number from 2"):
            copying(P, **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UnsupportedModelError, match="BertModel: has no output layer over the vocabulary"):
        copying(viewed("BERT")[1])


def test_progress_reaches_its_end() -> None:
    _, P = viewed("Llama")
    seen = []
    copying(P, tokens=30, resamples=10, progress=lambda *at: seen.append(at))
    assert seen[-1] == (66, 66, "copying scores")


@pytest.mark.bundled
def test_on_the_bundled_model_only_tokens_after_the_first_mlp_show_its_copying_heads() -> None:
    import attlas
    from attlas.projections import projections
    from attlas.projections.vocabulary_circuits import vocabulary

    P = projections(attlas.load("smollm2-135m"))
    found = copying(P)
    at = found.heads.index((23, 2))
    assert found.effective is not None
    assert found.effective_low is not None
    assert float(found.effective_low[at]) > 10 * found.chance["effective"].deviation
    # In the words of the vocabulary: it writes what it sees, but not if it is shown the bare embedding.
    assert vocabulary(P, 23, 2, " Paris", with_mlp=True).itself_written.rank == 0
    assert vocabulary(P, 23, 2, " Paris").itself_written.rank > 1000
    # The classic score has so wide a chance level that it says little.
    assert found.chance["eigenvalue"].deviation > 0.2
    assert found.chance["eigenvalue_effective"].deviation < 0.1
