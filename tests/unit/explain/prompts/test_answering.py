"""Prompts are put to a model, and only those that it answers rightly are kept."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from answering import decoder, encoder
from attlas.errors import ArgumentError, UnsupportedModelError
from attlas.explain.prompts import answered, prompts
from attlas.testing.classifiers import classifier
from labelled import decoder as in_pieces


@pytest.fixture(scope="module")
def lm() -> Any:
    return decoder()


def test_kept_prompts_are_those_that_the_model_answers_rightly(lm: Any) -> None:
    found = answered(lm, "agreement", 20, seed=2)
    asked = prompts("agreement", 20 + found.wrong, seed=2)
    vocabulary = lm.tokenizer.get_vocab()
    right = []
    for prompt in asked:
        with torch.no_grad():
            logits = lm.model(torch.tensor([lm.tokenize(prompt.text).ids])).logits[0, -1]
        if logits[vocabulary[prompt.answer.strip()]] > logits[vocabulary[prompt.against.strip()]]:
            right.append(prompt)
    assert found.prompts == tuple(right)
    assert found.wrong > 0, "a random model is wrong at times"
    assert found.unfit == 0
    assert found.accuracy == 20 / len(asked)


def test_targets_are_the_last_position_and_the_tokens(lm: Any) -> None:
    found = answered(lm, "indirect objects", 5)
    vocabulary = lm.tokenizer.get_vocab()
    for prompt, target in zip(found.prompts, found.targets, strict=True):
        assert target.position == len(lm.tokenize(prompt.text)) - 1
        assert target.token == vocabulary[prompt.answer.strip()]
        assert target.against == vocabulary[prompt.against.strip()]
        assert target.name == f"{prompt.answer!r} − {prompt.against!r}"


def test_without_a_rival_the_answer_has_to_be_predicted_before_all_else(lm: Any) -> None:
    with pytest.raises(ArgumentError, match=r"tiny answers at least one in 10 rightly, got 'facts', of which"):
        answered(lm, "facts", 3)


def test_answers_of_several_tokens_are_dropped() -> None:
    with pytest.raises(ArgumentError, match="answers 0 rightly and 0 wrongly, and 20 have no one token"):
        answered(in_pieces(), "indirect objects", 2)


def test_classes_are_prompts_with_labels() -> None:
    classes = classifier(encoder(), "sentiment", texts=60, held_out=20, seed=9).lm
    told: list[tuple[int, int]] = []
    found = answered(classes, "sentiment", 10, progress=lambda done, total, what: told.append((done, total)))
    assert told == [(i, 10) for i in range(1, 11)]
    for prompt, target in zip(found.prompts, found.targets, strict=True):
        with torch.no_grad():
            logits = classes.model(torch.tensor([classes.tokenize(prompt.text).ids])).logits[0]
        assert int(logits.argmax()) == prompt.label == target.class_index


def test_a_model_without_answers_and_a_count_of_none_are_refused(lm: Any) -> None:
    with pytest.raises(UnsupportedModelError, match="neither predicts tokens nor classifies"):
        answered(encoder(), "sentiment", 3)
    with pytest.raises(ArgumentError, match="count: wanted a whole number from 1, got 0"):
        answered(replace(lm), "sentiment", 0)
