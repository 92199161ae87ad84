"""A model that reads: one forward pass, no more than what attends, and texts that do not fit are refused."""

from __future__ import annotations

import inspect
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import attlas

WORDS = "the a cat dog sat on mat and ran far away from big old house".split()
TEXT = "the cat sat on the mat and the big old dog ran far away from the house"


def save(folder: Path, model_class: str, config: Any) -> Path:
    torch.manual_seed(0)
    getattr(transformers, model_class)(config).save_pretrained(folder)
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]  # the library's stubs say None
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


SMALL: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> attlas.LanguageModel:
    folder = save(tmp_path_factory.mktemp("models") / "llama", "LlamaForCausalLM", transformers.LlamaConfig(**SMALL))
    return attlas.load(folder)


def test_it_reads_a_text(llama: attlas.LanguageModel) -> None:
    cap = llama.read(TEXT)
    assert len(cap) == 2
    assert cap.text == TEXT
    assert cap.tokens is not None
    assert [token.strip() for token in cap.tokens] == TEXT.split()
    assert tuple(cap[1].shape) == (1, 4, 17, 17)
    assert cap.provenance.model == llama.name
    assert cap.provenance.fingerprint == llama.facts.fingerprint
    assert max(cap.verify(None).values()) < 1e-5


def test_options_are_those_of_a_capture(llama: attlas.LanguageModel) -> None:
    cap = llama.read(TEXT, layers=[1], heads=[0, 2], values=True)
    assert cap.layers == [1]
    assert cap.values(1).shape[1] == 2


def test_it_computes_no_logits(llama: attlas.LanguageModel) -> None:
    model: Any = llama.model
    called: list[object] = []
    handle = model.lm_head.register_forward_hook(lambda *_: called.append(1))
    llama.read(TEXT)
    handle.remove()
    assert not called


def test_progress_ends_at_its_total(llama: attlas.LanguageModel) -> None:
    told: list[tuple[int, int, str]] = []
    llama.read(TEXT, progress=lambda *step: told.append(step))
    assert [step[:2] for step in told] == [(1, 2), (2, 2)]
    told.clear()
    llama.read(TEXT, window=6, progress=lambda *step: told.append(step))
    assert [step[:2] for step in told] == [(i, 6) for i in range(1, 7)]


def test_reading_in_parts_loses_nothing(llama: attlas.LanguageModel) -> None:
    parts = llama.read(TEXT * 3, window=10)
    tokens = [token for cap in parts for token in cap.tokens or []]
    whole = llama.tokenize(TEXT * 3)
    assert tokens == whole.tokens
    assert parts.spans[0] == (0, 10)
    assert parts.spans[-1][1] == len(whole)
    assert all(a[1] == b[0] for a, b in zip(parts.spans, parts.spans[1:], strict=False))
    assert len(parts[1:]) == len(parts) - 1
    alone = llama.read(parts.documents[2].text)
    assert torch.equal(parts[2][0].to_dense(), alone[0].to_dense())


def test_texts_that_cannot_be_read(llama: attlas.LanguageModel) -> None:
    with pytest.raises(attlas.DocumentError, match=r"at most 32 tokens.*got 50"):
        llama.read(" ".join([TEXT] * 3)[:-6])
    for text in ("", "  \n", "a \ud800"):
        with pytest.raises(attlas.DocumentError):
            llama.read(text)
    with pytest.raises(attlas.DocumentError, match="at most 32"):
        llama.read(TEXT * 3, window=40)
    with pytest.raises(attlas.ArgumentError, match="window"):
        llama.read(TEXT, window=0)


def test_an_encoder_reads_with_its_own_tokens_added(tmp_path: Path) -> None:
    lm = attlas.load(save(tmp_path / "bert", "BertModel", transformers.BertConfig(**SMALL)))
    cap = lm.read(TEXT)
    assert len(cap) == 2
    assert not cap[0].visibility.causal


def test_of_an_encoder_decoder_the_encoder_reads(tmp_path: Path) -> None:
    config_class: Any = transformers.T5Config
    config = config_class(
        vocab_size=20, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, pad_token_id=0, decoder_start_token_id=0
    )
    lm = attlas.load(save(tmp_path / "t5", "T5ForConditionalGeneration", config))
    cap = lm.read(TEXT)
    assert cap.names == [f"encoder.block.{i}.layer.0.SelfAttention" for i in range(2)]
    assert max(cap.verify(None).values()) < 1e-4


@pytest.mark.bundled
def test_a_real_model_on_a_real_document_verifies() -> None:
    lm = attlas.load("smollm2-135m")
    ids = lm.tokenize(inspect.getsource(statistics)).ids[:2000]
    text = lm.tokenizer.decode(ids[:1990])
    cap = lm.read(text)
    assert len(cap) == 30
    assert tuple(cap[0].shape[:2]) == (1, 9)
    errors = cap.verify()
    assert max(errors.values()) < 5e-5, errors
    dense = 30 * 9 * cap[0].shape[2] ** 2 * 4
    assert cap.nbytes < dense / 20
