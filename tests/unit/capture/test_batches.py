from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import attlas
from attlas.capture.batches import Batch, read_batches
from attlas.errors import ArgumentError, AttlasError, DocumentError
from attlas.models.facts import gather_facts
from attlas.testing.tiny_models import TINY_MODELS, VOCABULARY, TinyModel

LENGTHS = (9, 3, 7, 7, 12, 5)
FAMILIES = [tiny for tiny in TINY_MODELS if tiny.kind in ("decoder", "encoder")]
NO_ATTENTION = {"FNet"}


def as_language_model(model: nn.Module) -> attlas.LanguageModel:
    return attlas.LanguageModel(model, None, gather_facts("tiny", model, ""))  # pyright: ignore[reportArgumentType]


def sequences(lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(5, VOCABULARY - 5, (n,), generator=generator).tolist() for n in lengths]


def llama(positions: int = 64) -> attlas.LanguageModel:
    torch.manual_seed(0)
    sizes = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=positions,
    )
    return as_language_model(LlamaForCausalLM(sizes).eval())


def matrices(batches: list[Batch]) -> list[list[torch.Tensor]]:
    """Return each sequence's own matrices, a layer each."""
    return [
        [A[b, :, :length, :length] for A in batch.capture]
        for batch in batches
        for b, length in enumerate(batch.lengths)
    ]


@pytest.mark.parametrize("tiny", FAMILIES, ids=lambda tiny: tiny.family)
def test_a_sequence_has_the_matrix_that_it_has_alone(tiny: TinyModel) -> None:
    lm = as_language_model(tiny.build())
    try:
        alone = [next(read_batches(lm, [ids])) for ids in sequences()]
    except AttlasError:
        with pytest.raises(AttlasError):
            list(read_batches(lm, sequences()))
        assert not tiny.named
        return
    together = list(read_batches(lm, sequences(), size=4))
    assert [length for batch in together for length in batch.lengths] == list(LENGTHS)
    for one, other in zip(matrices(alone), matrices(together), strict=True):
        for mine, theirs in zip(one, other, strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=1e-5)
    if tiny.named:
        assert [len(batch.lengths) for batch in together] == [4, 2], "padding is not the last resort"


class Smeared(nn.Embedding):
    """Adds the next token's embedding to each token's, as a convolution would, the padding's included."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        states = super().forward(input)
        return states + nn.functional.pad(states[:, 1:], (0, 0, 0, 1))


def test_a_model_that_sees_padding_reads_equal_lengths_together() -> None:
    lm = llama()
    lm.model.get_submodule("model").embed_tokens = Smeared(VOCABULARY, 32)
    ids = sequences((4, 6, 6, 8))
    batches = list(read_batches(lm, ids, size=4))
    assert [batch.lengths for batch in batches] == [(4,), (6, 6), (8,)]
    for one, own in zip(matrices(batches), ids, strict=True):
        alone = next(read_batches(lm, [own]))
        torch.testing.assert_close(one[1], alone.capture[1][0, :, :, :])


def test_the_matrix_is_the_one_that_reading_gives() -> None:
    lm = llama()
    with attlas.capture(lm.model) as cap, torch.no_grad():
        lm.model(input_ids=torch.tensor(sequences()[:1]))
    (batch,) = read_batches(lm, sequences())
    torch.testing.assert_close(batch.capture[1][:1, :, :9, :9], cap[1][:, :, :, :])


def test_layers_options_and_progress() -> None:
    told: list[tuple[int, int, str]] = []
    batches = list(read_batches(llama(), sequences(), 4, [1], values=True, progress=lambda *news: told.append(news)))
    assert [batch.capture.layers for batch in batches] == [[1], [1]]
    assert batches[0].capture.values(1).shape == (4, 4, 9, 8)
    assert told == [(4, 6, "reading sequences"), (6, 6, "reading sequences")]


def test_nothing_to_read_is_nothing() -> None:
    assert list(read_batches(llama(), [])) == []


@pytest.mark.parametrize(
    ("ids", "size", "message"),
    [
        ([[1], []], 2, r"ids\[1\]: wanted at least one token"),
        ([[1, 96]], 2, r"ids\[0\]: wanted token ids from 0 to 95, got 96"),
        ([[-1]], 2, r"got -1"),
        ([[1]], 0, "size: wanted a whole number from 1, got 0"),
        ([[1]], True, "size"),
    ],
)
def test_what_cannot_be_read_is_refused(ids: list[list[int]], size: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        list(read_batches(llama(), ids, size))


def test_a_sequence_longer_than_the_positions_is_refused() -> None:
    with pytest.raises(DocumentError, match=r"ids\[1\]: wanted at most 8 tokens.*got 9"):
        list(read_batches(llama(8), [[1], [1] * 9]))
