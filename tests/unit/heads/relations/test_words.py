from __future__ import annotations

import pytest
import torch

import attlas
from attlas.errors import ArgumentError
from attlas.heads.relations.labelled import LabelledPairs, sentences
from attlas.heads.relations.words import NO_WORD, merged, pieces, words_of_tokens
from attlas.models import Document
from labelled import decoder, encoder


def document(text: str, offsets: list[tuple[int, int]], added: tuple[int, int] = (0, 0)) -> Document:
    return Document(text, list(range(len(offsets))), ["?"] * len(offsets), offsets, added)


@pytest.mark.parametrize(
    ("offsets", "added", "expected"),
    [
        ([(0, 3), (4, 8), (8, 9)], (0, 0), [0, 1, 2]),  # The tail.
        ([(0, 2), (2, 3), (3, 6), (6, 8), (8, 9)], (0, 0), [0, 0, 1, 1, 2]),  # a space in front belongs to nobody
        ([(0, 0), (0, 3), (3, 8), (8, 9), (0, 0)], (1, 1), [-1, 0, 1, 2, -1]),  # added ones
        ([(0, 3), (3, 4), (4, 8), (8, 9)], (0, 0), [0, 1, 1, 2]),  # a lone space begins the next word
        ([(0, 3), (4, 9)], (0, 0), [0, -2]),  # one token for two words
        ([(0, 3), (4, 5), (4, 5), (5, 8), (8, 9)], (0, 0), [0, 1, 1, 1, 2]),  # a character of several tokens
    ],
)
def test_each_token_has_its_word(offsets: list[tuple[int, int]], added: tuple[int, int], expected: list[int]) -> None:
    spans = [(0, 3), (4, 8), (8, 9)]
    assert words_of_tokens(document("The tail.", offsets, added), spans) == expected


@pytest.mark.parametrize("lm", [decoder(), encoder()], ids=["decoder", "encoder"])
def test_the_pieces_of_a_word_spell_it(lm: attlas.LanguageModel) -> None:
    made = sentences(count=12, seed=2)
    for number, words in enumerate(made.sentences):
        found = pieces(lm, made.text(number), made.spans(number))
        assert found.problem == ""
        spelt: dict[int, str] = {}
        for token, word in zip(found.ids, found.words, strict=True):
            spelt[word] = spelt.get(word, "") + lm.tokenizer.decode([token])
        assert [spelt[word].strip() for word in range(len(words))] == list(words)
        assert found.words[0] == NO_WORD, "something stands in front that is no word"


def test_a_decoder_reads_its_beginning_token_once() -> None:
    made = sentences(count=1)
    found = pieces(decoder(), made.text(0), made.spans(0))
    assert found.ids[0] == 3
    assert found.ids.count(3) == 1


class Spelling:
    """A tokenizer with a token a space-separated part; what it does not know is token 0."""

    is_fast, unk_token_id, bos_token_id = True, 0, None

    def __init__(self, known: str) -> None:
        self.known = [None, *known.split()]

    def __call__(self, text: str, **options: object) -> dict[str, list]:
        ids, offsets, at = [], [], 0
        for part in text.split(" "):
            ids.append(self.known.index(part) if part in self.known else 0)
            offsets.append((at, at + len(part)))
            at += len(part) + 1
        return {"input_ids": ids, "offset_mapping": offsets}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [str(self.known[i]) for i in ids]


@pytest.mark.parametrize(
    ("text", "spans", "problem"),
    [
        ("the dog", [(0, 3), (4, 7)], ""),
        ("the cat", [(0, 3), (4, 7)], "a word is unknown to the tokenizer"),
        ("the dog", [(0, 3), (4, 5), (5, 7)], "a token covers parts of several words"),
    ],
)
def test_what_cannot_be_told_apart_is_said(text: str, spans: list[tuple[int, int]], problem: str) -> None:
    lm = decoder()
    assert pieces(attlas.LanguageModel(lm.model, Spelling("the dog"), lm.facts), text, spans).problem == problem


def test_a_sentence_longer_than_the_model_reads() -> None:
    made = LabelledPairs.from_pairs([(["dog"] * 200, 0, 1, "x")])
    assert pieces(decoder(), made.text(0), made.spans(0)).problem == "longer than the model's positions"


def test_a_tokenizer_that_cannot_place_its_tokens() -> None:
    class Slow(Spelling):
        is_fast = False

        def decode(self, ids: list[int]) -> str:
            return " ".join(self.convert_ids_to_tokens(ids))

    lm = decoder()
    with pytest.raises(ArgumentError, match=r"lm\.tokenizer: wanted one that knows .* got Slow"):
        pieces(attlas.LanguageModel(lm.model, Slow("the dog"), lm.facts), "the dog", [(0, 3), (4, 7)])


def test_attention_between_words_by_hand() -> None:
    A = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.1, 0.1, 0.3], [0.0, 0.6, 0.2, 0.2], [0.3, 0.3, 0.3, 0.1]])
    words = torch.tensor([[-1, 0, 1, 1]])
    expected = torch.tensor([[0.1, 0.4], [0.45, 0.4]])
    torch.testing.assert_close(merged(A.view(1, 1, 4, 4), words, 2)[0, 0], expected)
