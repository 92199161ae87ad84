"""A score is what reading each item alone, and writing its answer token by token, would give."""

from typing import Any

import pytest
import torch

from attlas.errors import ArgumentError
from attlas.training.tasks import Item, score
from explained import speaker

PROMPTS = ("The capital of France is", "It rains, and nobody", "Why", "The capital of Italy is Rome, and")


def written(model: Any, ids: list[int], count: int) -> list[int]:
    for _ in range(count):
        ids = [*ids, int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[-count:]


@torch.no_grad()
def test_a_loss_is_that_of_the_answers_tokens_and_right_is_what_greedy_writing_gives() -> None:
    lm = speaker()
    model: Any = lm.model
    items = [Item(PROMPTS[0], " Paris."), Item(PROMPTS[1], " knows why."), Item(PROMPTS[3], " it.")]
    found = score(lm, items, batch=2)
    for item, loss, right in zip(items, found.losses, found.right, strict=True):
        prompt, answer = (lm.tokenizer(text)["input_ids"] for text in (item.prompt, item.answer))
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].double()
        each = [-logits[len(prompt) - 1 + i].log_softmax(0)[token] for i, token in enumerate(answer)]
        assert loss == pytest.approx(float(sum(each)) / len(answer), rel=1e-5)
        assert right == (written(model, prompt, len(answer)) == answer)


@torch.no_grad()
def test_an_answer_that_the_model_writes_is_right() -> None:
    lm = speaker()
    first = [lm.tokenizer.decode(written(lm.model, lm.tokenizer(prompt)["input_ids"], 1)) for prompt in PROMPTS]
    items = [Item(prompt, token) for prompt, token in zip(PROMPTS, first, strict=True) if token.isascii() and token]
    assert items
    assert score(lm, items).accuracy == 1
    wrong = [Item(item.prompt, f"{item.answer}qq") for item in items]
    assert score(lm, wrong).accuracy < 1


def test_a_model_is_left_in_the_mode_that_it_was_in() -> None:
    lm = speaker()
    lm.model.train()
    score(lm, [Item("Why", " it")])
    assert lm.model.training


def test_nothing_to_answer_is_refused() -> None:
    with pytest.raises(ArgumentError, match="items: wanted at least one item, got none"):
        score(speaker(), [])
    with pytest.raises(ArgumentError, match="batch: wanted a whole number from 1, got 0"):
        score(speaker(), [Item("Why", " it")], batch=0)
