"""What is explained: a text as the model read it, and the numbers that the model made of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attlas.capture import LanguageModel
from attlas.explain.targets import Target
from attlas.models import Document


@dataclass(frozen=True, eq=False)
class Reading:
    """A text before a model, and what of the model's answer is to be explained.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    document : Document
        The text and its tokens.
    targets : tuple of Target
        What is explained, positions counted from 0.
    """

    lm: LanguageModel
    document: Document
    targets: tuple[Target, ...]

    @property
    def n(self) -> int:
        """How many tokens were read."""
        return len(self.document)

    @property
    def ids(self) -> Tensor:
        """The token ids, (n,), on the model's device."""
        return torch.tensor(self.document.ids, device=next(self.lm.model.parameters()).device)

    @property
    def rows(self) -> Tensor:
        """Where each target's walk begins: its weight on every position, (target, n), float64 on the CPU; sums to 1."""
        rows = torch.zeros(len(self.targets), self.n, dtype=torch.float64)
        for row, target in zip(rows, self.targets, strict=True):
            if target.position is None:
                row.fill_(1 / self.n)
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
        """Return the same, with the model's own predictions filled in where targets left them open."""
        tokenizer = self.lm.tokenizer
        targets = tuple(target.resolved(output, self._row(target), tokenizer) for target in self.targets)
        return replace(self, targets=targets)

    def _row(self, target: Target) -> int:
        """Return which row of the model's logits is the target's."""
        position = target.position or 0
        return position if self.kept is None else self.kept.index(position)

    def as_dict(self) -> Mapping[str, Any]:
        """Return what is explained as plain types."""
        return {"tokens": self.n, "targets": [target.name for target in self.targets]}
