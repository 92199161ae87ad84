"""`attlas.heads`: the whole of it, on models that know nothing, on planted heads, and on the bundled ones."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import attlas
from attlas.errors import ArgumentError, DocumentError, UnsupportedModelError
from attlas.heads import ROLES, LabelledPairs, heads, sentences
from attlas.models.facts import gather_facts
from labelled import VOCABULARY, encoder, tokenizer
from planted import planted

WORDS = "the small dog near the old bridge sees a cat , and the man who lives here opens the door . "


def untrained(model: Any) -> attlas.LanguageModel:
    """Return a model as its library initialises it, with a tokenizer."""
    return attlas.LanguageModel(model.eval(), tokenizer(frame=False), gather_facts("untrained", model, "f00d"))


def smollm(layers: int, seed: int) -> attlas.LanguageModel:
    """Return SmolLM2-135M's architecture with fewer layers and tokens, never trained."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 100000},
        rms_norm_eps=1e-5,
        initializer_range=0.041666666666666664,
        tie_word_embeddings=True,
    )
    return untrained(LlamaForCausalLM(config))


def small_llama(seed: int, spread: float) -> attlas.LanguageModel:
    """Return a small one, whose attention is far from even where the spread is large."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=512,
    )  # fmt: skip
    lm = untrained(LlamaForCausalLM(config))
    for parameter in lm.model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0, spread)
    return lm


def gpt2(seed: int) -> attlas.LanguageModel:
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=3, n_head=8, n_positions=512)
    return untrained(GPT2LMHeadModel(config))


@pytest.mark.parametrize(
    "lm",
    [
        pytest.param(lambda: smollm(2, 0), id="SmolLM2's architecture"),
        pytest.param(lambda: small_llama(1, 0.02), id="a small one"),
        pytest.param(lambda: small_llama(2, 0.3), id="a small one of sharp attention"),
        pytest.param(lambda: gpt2(3), id="another architecture"),
    ],
)
def test_nothing_passes_on_a_model_that_was_never_trained(lm: Any) -> None:
    table = heads(lm())
    roles = {role.name for role in ROLES}
    assert roles <= set(table.scores)
    assert set(table.scores) - roles >= {"det", "nsubj"}
    assert {name: count for name, count in table.counts.items() if count} == {}
    assert set(table.names) == {"none"}
    assert table.missing == {}
    assert table.predictions == ()


def test_nor_on_a_text() -> None:
    table = heads(small_llama(1, 0.3), WORDS * 12)
    assert {name: count for name, count in table.counts.items() if count} == {}


def test_planted_heads_on_the_librarys_own_sequences_and_on_a_text() -> None:
    lm = planted(tokenizer(frame=False))
    table = heads(lm, sentences=[])
    assert table.names[:5] == ("previous_token", "offset", "duplicate_token", "induction", "first_token")
    assert table.names[5] == "long_range"  # an even spread looks farther than most heads
    assert table.missing["copying"]
    assert [held.head for held in table.best("induction")] == [3]
    generator = torch.Generator().manual_seed(0)
    words = WORDS.split()
    text = " ".join(words[i] for i in torch.randint(0, len(words), (500,), generator=generator).tolist())
    found = heads(lm, text)
    assert found.names[:5] == table.names[:5]
    assert found.best("duplicate_token")[0].head == 2
    assert set(found.missing) >= {"retrieval", "needle", "copying"}
    assert found.provenance.settings["measured on"] == "text"


def test_the_room_is_the_verb() -> None:
    room: Any = sys.modules["attlas.heads"]
    with pytest.raises(ArgumentError, match="lm: wanted a model"):
        room("smollm2-135m")
    assert room.heads is heads


def test_everything_is_the_same_again() -> None:
    lm = small_llama(1, 0.3)
    first, again, other = (heads(lm, sentences=[], seed=seed) for seed in (0, 0, 1))
    assert first.rows() == again.rows()
    assert first.rows() != other.rows()
    assert first.provenance == again.provenance
    assert first.provenance.settings["seed"] == 0


def test_relations_become_roles() -> None:
    lm = encoder()
    made = sentences(["det", "nsubj"], count=60)
    table = heads(lm, sentences=made, resamples=200)
    assert table.relations is not None
    det = table.scores["det"]
    rows = [row for row in table.relations.rows() if row["relation"] == "det"]
    for i, (layer, head) in enumerate(table.heads):
        mine = [row for row in rows if (row["layer"], row["head"]) == (layer, head)]
        chosen = max(mine, key=lambda row: row["selection_accuracy"] - row["baseline"])
        assert float(det.score[i]) == pytest.approx(chosen["accuracy"])
        assert float(det.baseline[i]) == pytest.approx(chosen["baseline"])
        assert table.rows()[i]["det_chosen"] == chosen["direction"]
        assert bool(det.passes[i]) == chosen["passes"]
    best = table.relations.best("det")
    assert best is not None
    (held,) = table.best("det")
    assert (held.layer, held.head, held.score) == (best.layer, best.head, pytest.approx(best.accuracy))
    assert held.passes == best.passes


def test_a_users_own_pairs_on_a_users_own_text() -> None:
    own = LabelledPairs.from_pairs(
        [(["the", "dog", verb, "a", "cat"], 0, 1, "mine") for verb in "abcdefghijklmnopqrst"]
    )
    table = heads(small_llama(1, 0.3), WORDS * 12, sentences=own)
    assert "mine" in table.scores
    assert "det" not in table.scores
    assert "mine" in table.scores["mine"].role.meaning


def test_models_without_a_tokenizer_have_the_roles_that_need_none() -> None:
    table = heads(planted(), sentences=None)
    assert {"previous_token", "induction"} <= set(table.scores)
    assert {"retrieval", "needle", "delimiter", "long_range", "relations"} <= set(table.missing)


def test_progress_names_each_part() -> None:
    calls: list[tuple[int, int, str]] = []
    heads(small_llama(1, 0.02), sentences=[], progress=lambda *call: calls.append(call))
    parts = list(dict.fromkeys(what for _, _, what in calls))
    assert parts == ["reading repeats", "reading planted sentences", "reading weights"]
    for part in parts:
        mine = [(done, total) for done, total, what in calls if what == part]
        assert mine == sorted(mine)
        assert mine[-1][0] == mine[-1][1]


def test_what_cannot_be_measured_is_refused() -> None:
    lm = small_llama(1, 0.02)
    with pytest.raises(ArgumentError, match=r"lm: wanted a model that attlas.load returned, got a LlamaForCausalLM"):
        heads(lm.model)  # pyright: ignore[reportArgumentType]  the mistake is the test
    with pytest.raises(ArgumentError, match="resamples: wanted a whole number from 100, got 1"):
        heads(lm, resamples=1)
    with pytest.raises(DocumentError, match="text: wanted at least 264 tokens"):
        heads(lm, "A short text.")
    with pytest.raises(DocumentError, match="got nothing"):
        heads(lm, "")
    with pytest.raises(DocumentError, match="wanted at most 512 tokens"):
        heads(lm, WORDS * 100)
    unreadable = attlas.LanguageModel(lm.model, lm.tokenizer, replace(lm.facts, vocabulary=None))
    with pytest.raises(UnsupportedModelError, match="has no vocabulary"):
        heads(unreadable)


@pytest.mark.bundled
def test_the_bundled_encoders_heads() -> None:
    table = heads(attlas.load("minilm-l6"))
    (previous,) = table.best("previous_token")
    assert (previous.layer, previous.head) == (0, 2)
    assert previous.score > 0.95
    assert previous.passes
    # Determiners and subjects, above what any fixed offset finds, on sentences that heads were not chosen on.
    for relation, head in (("det", (3, 1)), ("nsubj", (2, 3))):
        (best,) = table.best(relation)
        assert (best.layer, best.head) == head
        assert best.score > best.baseline + 0.15
        assert best.low > best.baseline
    assert table.missing == dict.fromkeys(("copying", "retrieval", "needle"), "this model predicts no next token")
