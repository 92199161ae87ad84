"""Prompts that a model answers rightly: only of those can it be said what an explanation should point at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from attlas.capture import LanguageModel
from attlas.capture.asking import predicts
from attlas.errors import ArgumentError, UnsupportedModelError, complaint
from attlas.explain.prompts.making import endless
from attlas.explain.prompts.prompt import Prompt
from attlas.explain.targets import Target
from attlas.models.progress import Progress

MOST = 10
"""How many times as many prompts as are wanted are tried."""


@dataclass(frozen=True)
class Answered:
    """Prompts of one kind that a model answers rightly, and how many it did not.

    Parameters
    ----------
    kind : str
        Of which kind.
    prompts : tuple of Prompt
        Those that are kept.
    targets : tuple of Target
        What is to be explained of each, positions from 0.
    unfit : int
        How many were dropped because the model's tokenizer has no single token for an answer.
    wrong : int
        How many were dropped because the model answers them wrongly.
    """

    kind: str
    prompts: tuple[Prompt, ...]
    targets: tuple[Target, ...]
    unfit: int
    wrong: int

    @property
    def accuracy(self) -> float:
        """The share of prompts answered rightly, of those that could be put to the model."""
        return len(self.prompts) / (len(self.prompts) + self.wrong)


def answered(lm: LanguageModel, kind: str, count: int, seed: int = 0, *, progress: Progress | None = None) -> Answered:
    """Put prompts of a kind to a model until it has answered as many rightly as are wanted.

    Parameters
    ----------
    lm : LanguageModel
        A model that predicts next tokens, or one with two classes.
    kind : str
        As for `prompts`.
    count : int
        How many; from 1.
    seed : int
        What prompts are drawn from.
    progress : callable, optional
        Called as ``progress(kept, count, "asking the model")``.

    Returns
    -------
    Answered

    Raises
    ------
    ArgumentError
        There is no such kind, or the model answers fewer than a tenth of the prompts rightly.
    UnsupportedModelError
        The model neither predicts tokens nor classifies.

    Notes
    -----
    Costs a forward pass for each prompt that is tried.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ArgumentError(complaint("count", wanted="a whole number from 1", got=repr(count)))
    labelled = classifies(lm)
    if not (labelled or predicts(lm)):
        raise UnsupportedModelError(f"{lm.name}: neither predicts tokens nor classifies, so it cannot answer a prompt")
    kept: list[Prompt] = []
    targets: list[Target] = []
    unfit = wrong = 0
    for prompt in endless(kind, seed, labelled=labelled):
        target = target_of(lm, prompt)
        if target is None:
            unfit += 1
        elif answers(lm, prompt, target):
            kept.append(prompt)
            targets.append(target)
            if progress is not None:
                progress(len(kept), count, "asking the model")
        else:
            wrong += 1
        if len(kept) == count:
            return Answered(kind, tuple(kept), tuple(targets), unfit, wrong)
        if unfit + wrong + len(kept) >= MOST * count:
            break
    raise ArgumentError(
        complaint(
            "kind",
            wanted=f"prompts of which {lm.name} answers at least one in {MOST} rightly",
            got=f"{kind!r}, of which it answers {len(kept)} rightly and {wrong} wrongly, and {unfit} have no one token",
        )
    )


def classifies(lm: LanguageModel) -> bool:
    """Whether the model gives logits of classes."""
    model: Any = lm.model
    return "SequenceClassification" in type(model).__name__


def target_of(lm: LanguageModel, prompt: Prompt) -> Target | None:
    """Return what of the model's answer is to be explained; None where the answer is no single token."""
    document = lm.tokenize(prompt.text)
    if prompt.label is not None:
        return Target.label(prompt.label)
    position = len(document) - 1
    token = _next_token(lm, document.ids, prompt.text, prompt.answer)
    if token is None or not prompt.against:
        return None if token is None else Target(position, token, name=repr(prompt.answer))
    against = _next_token(lm, document.ids, prompt.text, prompt.against)
    if against is None or against == token:
        return None
    return Target(position, token, against, name=f"{prompt.answer!r} − {prompt.against!r}")


def _next_token(lm: LanguageModel, ids: list[int], text: str, word: str) -> int | None:
    """Return the one token that a text goes on with, if it is one."""
    longer = lm.tokenize(text + word).ids
    return longer[-1] if longer[:-1] == ids else None


def answers(lm: LanguageModel, prompt: Prompt, target: Target) -> bool:
    """Whether the model answers rightly: prefers the answer to what it is set against, or to everything."""
    ids = torch.tensor([lm.tokenize(prompt.text).ids], device=next(lm.model.parameters()).device)
    with torch.no_grad():
        logits = lm.model(input_ids=ids).logits[0]
    if prompt.label is not None:
        return int(logits.argmax()) == prompt.label
    if target.against is not None:
        return bool(logits[-1, target.token] > logits[-1, target.against])
    return int(logits[-1].argmax()) == target.token
