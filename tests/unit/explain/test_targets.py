"""Which number is explained: every way to ask for it, and everything that is none."""

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

import attlas
from attlas import Target
from attlas.errors import ArgumentError, DocumentError, UnsupportedModelError
from attlas.explain.reading import Reading, reading_of
from attlas.explain.targets import is_one, token_id
from explained import TEXT, judge, speaker, tokenizer, translator
from labelled import encoder


def settled(reading: Reading) -> tuple[Reading, list[float]]:
    with torch.no_grad():
        output = reading.lm.model(**reading.inputs)
        reading = reading.resolved(output)
        return reading, reading.objective(output).tolist()


def logits(lm: attlas.LanguageModel, text: str = TEXT) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([lm.tokenize(text).ids])).logits[0]


def test_a_position_is_the_models_own_prediction_there() -> None:
    lm = speaker()
    every = logits(lm)
    n = len(every)
    reading, values = settled(reading_of(lm, TEXT, [-1, 3, -n]))
    assert [target.position for target in reading.targets] == [n - 1, 3, 0]
    assert [target.token for target in reading.targets] == [int(every[i].argmax()) for i in (n - 1, 3, 0)]
    assert values == pytest.approx([float(every[i].log_softmax(-1).max()) for i in (n - 1, 3, 0)], rel=1e-12)
    assert reading.targets[1].name == repr(lm.tokenizer.decode([reading.targets[1].token]))
    assert reading.targets[1].quantity == "log-probability"


def test_only_the_targets_logits_are_computed() -> None:
    reading = reading_of(speaker(), TEXT, [5, 2, 5, Target(7, 3)])
    assert reading.kept == (2, 5, 7)
    with torch.no_grad():
        assert reading.lm.model(**reading.inputs).logits.shape[1] == 3
    assert reading_of(speaker(), TEXT, [2, Target.of(lambda output: output.logits.sum(), 2)]).kept is None


def test_a_token_by_text_and_by_id() -> None:
    lm = speaker()
    every = logits(lm)
    paris = token_id(" capital", lm.tokenizer)
    reading, values = settled(reading_of(lm, TEXT, [(4, " capital"), (4, paris), (4, "capital"), (4, paris, " of")]))
    assert values[0] == values[1] == pytest.approx(float(every[4].log_softmax(-1)[paris]), rel=1e-12)
    of = token_id(" of", lm.tokenizer)
    assert values[3] == pytest.approx(float(every[4, paris] - every[4, of]), rel=1e-12)
    assert reading.targets[3].name == "' capital' − ' of'"
    assert reading.targets[3].quantity == "logit difference"
    _, (logit,) = settled(reading_of(lm, TEXT, Target(4, paris, measure="logit")))
    assert logit == pytest.approx(float(every[4, paris]), rel=1e-12)


class Words:
    """A tokenizer of a few entries; whatever it does not know is 0."""

    unk_token_id = 0

    known: ClassVar = {"known": [1], " known": [2], " spaced": [3], "spaced": [4, 5], "two words": [1, 5]}

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": self.known.get(text, [0])}

    def decode(self, ids: list[int]) -> str:
        return "".join(f"<{index}>" for index in ids)


def test_a_text_is_the_token_that_it_spells_or_else_the_one_behind_a_space() -> None:
    assert [token_id(text, Words()) for text in ("known", " known", "spaced")] == [1, 2, 3]


def test_a_text_that_is_not_one_token_says_what_it_is() -> None:
    with pytest.raises(ArgumentError) as raised:
        token_id("two words", Words())
    assert str(raised.value) == (
        "target: wanted one token of the model's vocabulary, got 'two words', which it cuts into '<1>', '<5>'; "
        "explain the first one, '<1>'"
    )
    with pytest.raises(ArgumentError, match="got 'xyz', which it does not know"):
        token_id("xyz", Words())
    with pytest.raises(ArgumentError, match="got '', which it cuts into nothing"):
        token_id("", tokenizer())
    with pytest.raises(ArgumentError, match="a token id, for a model without tokenizer"):
        token_id("x", None)


def test_next_is_the_token_that_follows() -> None:
    lm = speaker()
    ids = lm.tokenize(TEXT).ids
    reading = reading_of(lm, TEXT, [(0, "next"), (-2, "next")])
    assert [target.token for target in reading.targets] == [ids[1], ids[-1]]
    with pytest.raises(ArgumentError, match='wanted "next" at a position that a token follows'):
        reading_of(lm, TEXT, (-1, "next"))
    with pytest.raises(ArgumentError, match="a model that predicts next tokens"):
        reading_of(judge(), "the dog", (0, "next"))


def test_a_class_is_read_where_the_model_reads_it() -> None:
    lm = judge()
    reading, (value,) = settled(reading_of(lm, "the dog", Target.label(2)))
    assert reading.targets[0].position == 0
    assert reading.targets[0].name == "good"
    assert value == pytest.approx(float(lm.model(**reading.inputs).logits[0, 2].detach()), rel=1e-12)
    assert reading_of(lm, "the dog", Target.label(1, position=-1)).targets[0].position == reading.n - 1
    pooled = reading_of(lm, "the dog", Target.label(1, position=None))
    assert pooled.rows.tolist() == [[1 / pooled.n] * pooled.n]
    assert reading_of(speaker(), TEXT, Target.label(1)).targets[0].position == len(speaker().tokenize(TEXT)) - 1
    config: Any = lm.model.config
    config.classifier_pooling = "mean"  # as ModernBERT has it
    assert reading_of(lm, "the dog", Target.label(1)).targets[0].position is None


def test_a_function_of_ones_own() -> None:
    lm = encoder()
    target = Target.of(lambda output: output.last_hidden_state[0, 0, 3], 0, "third number")
    reading, (value,) = settled(reading_of(lm, "the dog", target))
    assert reading.targets[0].name == "third number"
    assert value == pytest.approx(float(lm.model(**reading.inputs).last_hidden_state[0, 0, 3].detach()), rel=1e-6)
    assert Target.of(torch.sum, None).name == "sum"
    with pytest.raises(ArgumentError, match="a function of the model's output"):
        Target.of(3, 0)  # pyright: ignore[reportArgumentType]


def test_a_model_without_such_an_output_says_what_to_pass() -> None:
    with pytest.raises(UnsupportedModelError, match=r"predicts tokens, got one that returns .*Target\.of\(function"):
        settled(reading_of(encoder(), "the dog", -1))
    with pytest.raises(UnsupportedModelError, match=r"got one that classifies; pass target=Target\.label\(class\)"):
        settled(reading_of(judge(), "the dog", -1))
    with pytest.raises(UnsupportedModelError, match="predicts classes, got one that predicts tokens; pass a position"):
        settled(reading_of(speaker(), TEXT, Target.label(1)))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (400, "target: wanted a position inside of the text, 0 to "),
        (-400, "to -1 from the end, got -400"),
        (True, "target: wanted a position, (position, token)"),
        ((0, 9999), "a token, as text or as an id from 0 to"),
        ((0, -1), "a token, as text or as an id from 0 to"),
        ((0, 1.5), "a token, as text or as an id from 0 to"),
        ((0,), "target: wanted a position, (position, token)"),
        ((0, 1, 2, 3), "target: wanted a position, (position, token)"),
        ("x", "target: wanted a position, (position, token)"),
        ([], "target: wanted a position, (position, token)"),
        ([[0]], "target: wanted a position, (position, token)"),
        (Target(None), "a position, since a model predicts tokens at positions"),
        (Target(0, against=3), "a token to compare with the other one"),
        (Target(0, 3, measure="odds"), 'measure "log_prob" or "logit"'),  # pyright: ignore[reportArgumentType]
        (Target(0, 9999), "a token, as text or as an id from 0 to"),
    ],
)
def test_what_is_no_target_is_refused(target: Any, message: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        reading_of(speaker(), TEXT, target)
    assert message in str(raised.value)


def test_a_class_that_is_not_there_is_refused() -> None:
    with pytest.raises(ArgumentError, match="wanted a class from 0 to 2, got 3"):
        settled(reading_of(judge(), "the dog", Target.label(3)))
    with pytest.raises(ArgumentError, match="a class number from 0"):
        Target.label(-1)
    unknown = replace(speaker(), facts=replace(speaker().facts, vocabulary=None))
    with pytest.raises(ArgumentError, match="wanted a token id from 0 to"):
        settled(reading_of(unknown, TEXT, (0, 9999)))


def test_one_target_or_several() -> None:
    assert all(map(is_one, (-1, (3, "x"), (3, 4, 5), Target(3))))
    assert not any(map(is_one, ([-1], [3, 4], (Target(3), Target(4)), ((3, "x"), (3, "y")), [])))
    targets = reading_of(speaker(), TEXT, ((3, " of"), Target(4))).targets
    assert [target.position for target in targets] == [3, 4]


def test_a_text_given_as_ids_is_the_same_text() -> None:
    lm = speaker()
    document = lm.tokenize(TEXT)
    reading = reading_of(lm, document.ids)
    assert reading.document.text == TEXT
    assert reading.document.tokens == document.tokens
    assert reading.document.offsets == document.offsets
    assert reading_of(lm, torch.tensor(document.ids)).document.ids == document.ids  # pyright: ignore[reportArgumentType]


def test_what_is_no_text_of_two_tokens_is_refused() -> None:
    lm = speaker()
    ids = lm.tokenize(TEXT).ids
    pad = lm.tokenizer.pad_token_id
    for padded, end in (([pad, *ids], "start"), ([*ids, pad, pad], "end")):
        with pytest.raises(DocumentError, match=rf"without padding, got '<\|pad\|>' at its {end}; leave"):
            reading_of(lm, padded)
    with pytest.raises(DocumentError, match="at least two tokens, got 1"):
        reading_of(lm, ids[:1])
    with pytest.raises(DocumentError, match="at least two tokens, got 1"):
        reading_of(lm, "x")
    with pytest.raises(DocumentError, match="at most 128 tokens"):
        reading_of(lm, ids * 20)
    with pytest.raises(DocumentError, match="at most 128 tokens"):
        reading_of(lm, TEXT * 20)
    with pytest.raises(ArgumentError, match="text: wanted token ids from 0 to"):
        reading_of(lm, [ids, ids])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match="a str or token ids, got a tensor of 2 axes"):
        reading_of(lm, torch.tensor([ids]))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match=r"lm: wanted what attlas\.load returned"):
        reading_of(lm.model, TEXT)  # pyright: ignore[reportArgumentType]


def test_a_decoder_with_an_encoder_is_asked_at_its_own_positions() -> None:
    lm = translator()
    reading, _ = settled(reading_of(lm, TEXT))
    assert reading.answer == (2,)
    assert reading.rows.tolist() == [[1.0]]
    said = lm.tokenizer(" Rome").input_ids
    reading, values = settled(reading_of(lm, TEXT, [-1, (0, "next")], answer=" Rome"))
    assert reading.answer == (2, *said)
    assert reading.targets[1].token == said[0]
    assert reading_of(lm, TEXT, answer=said).answer == reading.answer
    ids = torch.tensor([lm.tokenize(TEXT).ids])
    with torch.no_grad():
        expected = lm.model(input_ids=ids, decoder_input_ids=torch.tensor([reading.answer])).logits[0].log_softmax(-1)
    assert values == pytest.approx([float(expected[-1].max()), float(expected[0, said[0]])], rel=1e-12)
    with pytest.raises(ArgumentError, match="a position inside of the decoder's tokens, 0 to 0"):
        reading_of(lm, TEXT, 1)
    with pytest.raises(ArgumentError, match="answer: wanted token ids of the vocabulary, got 9999"):
        reading_of(lm, TEXT, answer=[9999])
    with pytest.raises(ArgumentError, match="answer: wanted an encoder-decoder model"):
        reading_of(speaker(), TEXT, answer="x")
