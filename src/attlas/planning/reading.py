"""The texts that a profile is made of: how much of each is read, and what is asked of the model about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attlas.capture import LanguageModel
from attlas.capture.asking import document_of, next_token_losses, predicts
from attlas.errors import ArgumentError, DocumentError, NonFiniteError, complaint
from attlas.patterns import Pattern
from attlas.planning.costs import FAR

Loss = Callable[[Any], Tensor]
"""Makes one number, differentiable, of what the model returns for one text."""


@dataclass(frozen=True, eq=False)
class Text:
    """One text that is read.

    Parameters
    ----------
    ids : Tensor, (n,), int64
        The tokens that are read of it, on the model's device.
    of : int
        How many tokens it has.
    own : callable, optional
        The caller's loss; the mean next-token loss without one.
    """

    ids: Tensor
    of: int
    own: Loss | None

    @property
    def inputs(self) -> dict[str, Any]:
        """What the model is given."""
        return {"input_ids": self.ids[None]}

    @property
    def terms(self) -> int:
        """Of how many tokens' losses the loss is the mean; 1 for the caller's own, of which nothing is known."""
        return len(self.ids) - 1 if self.own is None else 1

    def loss(self, output: Any) -> Tensor:
        """Return the loss of what the model returned: one number, with a gradient if the output has one."""
        if self.own is None:
            return next_token_losses(output.logits[0], self.ids).mean()
        found = self.own(output)
        if not isinstance(found, Tensor) or found.numel() != 1:
            got = (
                f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            )
            raise ArgumentError(complaint("loss", wanted="a function that gives one number", got=got))
        return found.reshape(())

    def objective(self, output: Any) -> Tensor:
        """Return the loss as a descent wants it, (1,)."""
        return self.loss(output).reshape(1)

    @staticmethod
    def finite(loss: float) -> float:
        """Return a loss if it is a number to reckon with."""
        if not math.isfinite(loss):
            raise NonFiniteError(complaint("loss", wanted="a finite number", got=loss))
        return loss


def texts_of(
    lm: LanguageModel,
    texts: str | Sequence[str | Sequence[int]],
    patterns: Sequence[Pattern],
    length: int,
    loss: Loss | None,
) -> list[Text]:
    """Cut texts into tokens, and keep what is read of each.

    Raises
    ------
    ArgumentError
        An argument does not fit.
    DocumentError
        There is no text, or some are too short; all of those are named.
    """
    if isinstance(length, bool) or not isinstance(length, int) or length < 2:
        raise ArgumentError(complaint("length", wanted="a whole number of tokens from 2", got=repr(length)))
    if not isinstance(texts, Sequence):
        raise ArgumentError(complaint("texts", wanted="a sequence of texts", got=f"a {type(texts).__name__}"))
    given = [texts] if isinstance(texts, str) else list(texts)
    fewest = needed(patterns)
    if not given:
        raise DocumentError(f"texts: wanted at least one, of {fewest} tokens or more, got none")
    most = min(length, lm.facts.positions or length)
    if most < fewest:
        raise ArgumentError(
            complaint(
                "length",
                wanted=f"at least {fewest} tokens, twice what the narrowest of the patterns sees",
                got=most if most == length else f"{length}, of which {lm.name} can read {most}",
                way_out="give a narrower pattern, or read more" if most == length else "give a narrower pattern",
            )
        )
    read, short = [], []
    for number, text in enumerate(given):
        count, ids = _ids(lm, text, most)
        if count < fewest:
            short.append(f"texts[{number}] has {count}")
        read.append(Text(ids, count, loss))
    if short:
        raise DocumentError(
            f"texts: wanted at least {fewest} tokens in each, twice what the narrowest pattern sees, so that there is "
            f"something to lose; {', '.join(short)}; give longer ones, or leave them out"
        )
    return read


def needed(patterns: Sequence[Pattern]) -> int:
    """Return how many tokens a text needs: twice what the narrowest pattern that forgets still sees at its end."""
    narrowest = min((pattern.held(FAR) for pattern in patterns), default=FAR)
    return 2 * narrowest if narrowest < FAR else 2


def _ids(lm: LanguageModel, text: str | Sequence[int], most: int) -> tuple[int, Tensor]:
    """Return how many tokens a text has, and the first of them."""
    if isinstance(text, str):
        ids: Sequence[int] = lm.tokenize(text).ids if text.strip() else []
    else:
        # Its ids are checked below.
        ids = text
    count = len(ids) if isinstance(ids, Sequence | Tensor) else 2
    if count < 2:
        return count, torch.empty(0, dtype=torch.int64)
    head = ids[:most] if isinstance(ids, Sequence | Tensor) else ids
    found = torch.tensor(document_of(lm, head).ids, device=next(lm.model.parameters()).device)
    return count, found


def check_model(lm: LanguageModel, loss: Loss | None) -> None:
    """Refuse a model of which there is no loss.

    Raises
    ------
    ArgumentError
        It is none that reads one text, or predicts no next token and there is no `loss`.
    """
    if not isinstance(lm, LanguageModel):
        raise ArgumentError(complaint("lm", wanted="what attlas.load returned", got=f"a {type(lm).__name__}"))
    if lm.facts.kind not in ("decoder", "encoder"):
        raise ArgumentError(complaint("lm", wanted="a decoder or an encoder", got=f"a model of kind {lm.facts.kind}"))
    if loss is not None and not callable(loss):
        raise ArgumentError(complaint("loss", wanted="a function of what the model returns", got=repr(loss)))
    if loss is None and not predicts(lm):
        raise ArgumentError(
            complaint(
                "loss",
                wanted="a function of what the model returns, for a model that predicts no next token",
                got="none",
                way_out="in Python, pass loss=...: one number, differentiable, that should not rise",
            )
        )
