"""What is explained: a text as the model read it, and the numbers that the model made of it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attlas.capture import LanguageModel
from attlas.capture.asking import document_of
from attlas.errors import ArgumentError, UnsupportedModelError, complaint
from attlas.explain.targets import OneTarget, Target, targets_of
from attlas.models import Document


@dataclass(frozen=True, eq=False)
class Reading:
    """A text before a model, and what of the model's answer is to be explained.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    document : Document
        The text and its tokens; of an encoder-decoder model, what the encoder reads.
    targets : tuple of Target
        What is explained, positions counted from 0.
    answer : tuple of int
        Of an encoder-decoder model, the token ids that its decoder is given, the start token first; targets lie at
        their positions. Empty for other models.
    """

    lm: LanguageModel
    document: Document
    targets: tuple[Target, ...]
    answer: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """How many tokens were read: those that are given a score."""
        return len(self.document)

    @property
    def ids(self) -> Tensor:
        """The token ids, (n,), on the model's device."""
        return torch.tensor(self.document.ids, device=next(self.lm.model.parameters()).device)

    @property
    def rows(self) -> Tensor:
        """Where each target's walk begins: its weight on every position, float64 on the CPU; sums to 1.

        (target, n); of an encoder-decoder model, (target, len(answer)).
        """
        rows = torch.zeros(len(self.targets), len(self.answer) or self.n, dtype=torch.float64)
        for row, target in zip(rows, self.targets, strict=True):
            if target.position is None:
                row.fill_(1 / len(row))
            else:
                row[target.position] = 1
        return rows

    @property
    def kept(self) -> tuple[int, ...] | None:
        """At which positions the model gives logits: the targets, where it can be told; None for all."""
        takes = inspect.signature(self.lm.model.forward).parameters
        if "logits_to_keep" not in takes or any(target.function is not None for target in self.targets):
            return None
        return tuple(sorted({target.position for target in self.targets if target.position is not None})) or None

    @property
    def inputs(self) -> dict[str, Any]:
        """What the model's forward is given."""
        inputs: dict[str, Any] = {"input_ids": self.ids[None]}
        if self.answer:
            inputs["decoder_input_ids"] = torch.tensor([self.answer], device=self.ids.device)
        if "use_cache" in inspect.signature(self.lm.model.forward).parameters:
            inputs["use_cache"] = False
        if self.kept is not None:
            # Logits of every position would be n × vocabulary numbers, of which a target needs one row.
            inputs["logits_to_keep"] = torch.tensor(self.kept, device=self.ids.device)
        return inputs

    def objective(self, output: Any) -> Tensor:
        """Return the numbers that are explained, (target,), differentiable, of what the model returned."""
        return torch.stack([target.value(output, self._row(target)) for target in self.targets])

    def resolved(self, output: Any) -> Reading:
        """Return the same, with the model's own predictions filled in where targets left them open.

        Raises
        ------
        UnsupportedModelError, ArgumentError
            The model gives no such number; see `Target.resolved`.
        """
        tokenizer = self.lm.tokenizer
        targets = tuple(target.resolved(output, self._row(target), tokenizer) for target in self.targets)
        return replace(self, targets=targets)

    def _row(self, target: Target) -> int:
        """Return which row of the model's logits is the target's."""
        position = target.position or 0
        return position if self.kept is None or target.class_index is not None else self.kept.index(position)


def reading_of(
    lm: LanguageModel,
    text: str | Sequence[int],
    target: OneTarget | Sequence[OneTarget] = -1,
    *,
    answer: str | Sequence[int] | None = None,
) -> Reading:
    """Return a text and targets, ready to be given to the model.

    Parameters
    ----------
    lm : LanguageModel
        What `attlas.load` returned.
    text : str or sequence of int
        The text, or its token ids.
    target : int, tuple, Target or list of such
        See `Target`.
    answer : str or sequence of int, optional
        What the decoder of an encoder-decoder model has said so far, behind its start token; nothing by default.

    Raises
    ------
    DocumentError
        The text is empty, of one token, padded, or longer than the model's positions.
    ArgumentError
        A target lies outside of the text or the vocabulary.
    UnsupportedModelError
        The decoder's start token is not known.
    """
    if not isinstance(lm, LanguageModel):
        raise ArgumentError(complaint("lm", wanted="what attlas.load returned", got=f"a {type(lm).__name__}"))
    document = document_of(lm, text)
    kind = lm.facts.kind
    if kind == "encoder-decoder":
        begun = _begun(lm, answer)
    elif answer is not None:
        raise ArgumentError(complaint("answer", wanted="an encoder-decoder model", got=f"{lm.name}, which is none"))
    else:
        begun = ()
    targets = targets_of(
        target,
        lm.tokenizer,
        begun or document.ids,
        config=getattr(lm.model, "config", None),
        vocabulary=lm.facts.vocabulary,
        kind=kind,
    )
    return Reading(lm, document, targets, begun)


def _begun(lm: LanguageModel, answer: str | Sequence[int] | None) -> tuple[int, ...]:
    """Return what the decoder is given: its start token, and the answer as far as it goes."""
    model: Any = lm.model
    configs = (getattr(model, "generation_config", None), model.config)
    found = (getattr(config, name, None) for name in ("decoder_start_token_id", "bos_token_id") for config in configs)
    start = next((index for index in found if isinstance(index, int)), None)
    if start is None:
        raise UnsupportedModelError(
            f"{lm.name}: its configuration names no token that its decoder starts with; "
            "set model.config.decoder_start_token_id"
        )
    if answer is None:
        return (start,)
    if isinstance(answer, str):
        if lm.tokenizer is None:
            raise ArgumentError(complaint("answer", wanted="token ids, for a model without tokenizer", got="a str"))
        ids = list(lm.tokenizer(text_target=answer)["input_ids"])
        # As in training: the labels, moved on by one, so that the token that ends them is not given.
        ids = ids[:-1] if ids and ids[-1] == lm.tokenizer.eos_token_id else ids
    else:
        ids = list(answer)
        size = lm.facts.vocabulary
        bad = [one for one in ids if not isinstance(one, int) or one < 0 or (size is not None and one >= size)]
        if bad:
            raise ArgumentError(complaint("answer", wanted="token ids of the vocabulary", got=repr(bad[0])))
    return (start, *ids)
