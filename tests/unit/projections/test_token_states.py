"""The two ends of the residual stream, and single tokens at its beginning, against the model's own modules."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, Gemma2Config, Gemma2ForCausalLM

from attlas.errors import ArgumentError, UnsupportedModelError
from attlas.projections import projections
from attlas.projections.token_states import in_first_block, shown, token_id, token_states, vocabulary_of
from circuits import hooks, viewed

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

IDS = torch.arange(3, 70)


def test_tokens_after_the_first_mlp_of_a_llama() -> None:
    model, P = viewed("Llama")
    ends = vocabulary_of(P)
    block = model.model.layers[0]
    embedded = model.model.embed_tokens(IDS)
    assert torch.equal(token_states(P, ends, IDS), embedded)
    with torch.no_grad():
        want = embedded + block.mlp(block.post_attention_layernorm(embedded))
    torch.testing.assert_close(token_states(P, ends, IDS, with_mlp=True), want)
    assert hooks(model) == 0


def test_positions_are_no_part_of_a_token() -> None:
    model, P = viewed("GPT-2")
    ends = vocabulary_of(P)
    block = model.transformer.h[0]
    embedded = model.transformer.wte(IDS)
    assert torch.equal(token_states(P, ends, IDS), embedded)
    with torch.no_grad():
        want = embedded + block.mlp(block.ln_2(embedded))
    torch.testing.assert_close(token_states(P, ends, IDS, with_mlp=True), want)


def test_a_parallel_block_and_a_scaled_embedding() -> None:
    model, P = viewed("GPT-NeoX")
    block = model.gpt_neox.layers[0]
    embedded = model.gpt_neox.embed_in(IDS)
    with torch.no_grad():
        want = embedded + block.mlp(block.post_attention_layernorm(embedded))
    torch.testing.assert_close(token_states(P, vocabulary_of(P), IDS, with_mlp=True), want)
    model, P = viewed("Gemma")
    ends = vocabulary_of(P)
    scale = model.config.hidden_size**0.5
    torch.testing.assert_close(token_states(P, ends, IDS), ends.embedding[IDS] * scale, rtol=1e-6, atol=0)


def test_only_the_first_block_is_given_the_bare_embedding() -> None:
    _, P = viewed("Llama")
    assert [in_first_block(P[layer]) for layer in P.layers] == [True, False]


def test_views_of_later_layers_alone_are_enough() -> None:
    model, P = viewed("Llama")
    later = projections(model, layers=[1])
    ends = vocabulary_of(later)
    assert ends.layers == (1,)
    both = (token_states(p, vocabulary_of(p), IDS, with_mlp=True) for p in (P, later))
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("family", ["Gemma 2", "OLMo 2", "GPT-2", "Llama", "Cohere"])
def test_the_ends_say_what_a_head_does_to_the_logits(family: str) -> None:
    """Moving the stream a little along what a head writes moves the logits as `heard` says, up to one factor."""
    _, P = viewed(family)
    ends = vocabulary_of(P)
    view = P[ends.layers[-1]]
    # What each head writes, before any norm behind the attention.
    written = torch.randn(view.value_dim, dtype=torch.float64) @ ends.writer(view)[1]
    heard = ends.heard(written)
    norm = P.final_norm
    assert norm is not None
    logits = ends.unembedding @ heard
    torch.testing.assert_close(logits, ends.folded(ends.unembedding) @ written)
    # Far out along a direction the final norm's output is that direction, normalised.
    bias = 0 if norm.bias is None else norm.bias
    direct = ends.unembedding @ (norm(written * 1e6) - bias)
    torch.testing.assert_close(direct / direct.norm(), logits / logits.norm(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("family", ["Gemma 2", "OLMo 2"])
def test_a_norm_behind_the_attention_is_found(family: str) -> None:
    model, P = viewed(family)
    ends = vocabulary_of(P)
    assert set(ends.output_norms) == set(ends.layers)
    view, block = P[1], model.model.layers[1]
    heads = torch.randn(view.value_dim, dtype=torch.float64)
    with torch.no_grad():
        passed = block.post_attention_layernorm(heads @ view.output[0])
    ours = heads @ ends.writer(view)[0]
    torch.testing.assert_close(ours / ours.norm(), passed / passed.norm(), rtol=1e-6, atol=1e-9)
    assert vocabulary_of(viewed("Llama")[1]).output_norms == {}


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("BERT", r"BertModel: has no output layer over the vocabulary \(unembedding\), so its heads have no circuits"),
        ("ViT", "ViTModel: has no token embedding and no output layer"),
        ("T5", "has an encoder and a decoder"),
        ("BART", "has an encoder and a decoder"),
    ],
)
def test_what_has_no_vocabulary_at_both_ends_says_what_is_missing(family: str, words: str) -> None:
    _, P = viewed(family)
    with pytest.raises(UnsupportedModelError, match=words):
        vocabulary_of(P)


def test_an_output_layer_behind_more_than_a_norm_is_refused() -> None:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=96, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4)
    P = projections(BertForMaskedLM(config).eval())
    with pytest.raises(UnsupportedModelError, match="does not reach the vocabulary through one final norm alone"):
        vocabulary_of(P)


def test_without_attention_in_the_first_block_tokens_cannot_be_told_apart() -> None:
    _, P = viewed("Qwen3-Next")
    ends = vocabulary_of(P)
    assert token_states(P, ends, IDS).shape == (len(IDS), 32)
    with pytest.raises(UnsupportedModelError, match="without mixing tokens"):
        token_states(P, ends, IDS, with_mlp=True)


def test_a_low_precision_model_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    P = projections(Gemma2ForCausalLM(config).eval().bfloat16())
    ends = vocabulary_of(P)
    assert ends.dtype == torch.float32
    assert token_states(P, ends, IDS).dtype == torch.float32


@pytest.mark.parametrize("token", [-1, 96, True, "", 1.5, None, "word"])
def test_a_token_is_an_id_or_one_word_of_a_tokenizer(token: object) -> None:
    _, P = viewed("Llama")
    with pytest.raises(ArgumentError, match=r"^token: "):
        token_id(P, token)  # pyright: ignore[reportArgumentType]
    assert token_id(P, 7) == 7
    assert shown(P, [7, 9]) == ["7", "9"]
