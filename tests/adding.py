"""A model that adds: its logit is the sum of what each token is worth, so the right explanation is known."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

import attlas
from attlas.explain.attribution import Attribution, Span
from attlas.explain.targets import Target
from attlas.models import Facts
from attlas.results import Provenance

WANTED = 1
"""The token whose logit is the sum."""


class Adding(nn.Module):
    """Gives, at every position, the sum of the worth of all tokens up to it as the logit of one token.

    Parameters
    ----------
    worth : sequence of float
        Of each token of the vocabulary.
    """

    def __init__(self, worth: Sequence[float]) -> None:
        super().__init__()
        self.worth = nn.Parameter(torch.tensor(worth, dtype=torch.float64), requires_grad=False)
        self.read = 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> SimpleNamespace:
        """Return logits, (batch, n, 3)."""
        self.read += len(input_ids)
        worth = self.worth[input_ids]
        if attention_mask is not None:
            worth = worth * attention_mask
        logits = torch.zeros(*input_ids.shape, 3, dtype=torch.float64)
        logits[..., WANTED] = worth.cumsum(1)
        return SimpleNamespace(logits=logits)


def adding(worth: Sequence[float]) -> attlas.LanguageModel:
    """Return the model, for which token i of the vocabulary has the given worth."""
    facts = Facts("adding", "adding", "decoder", 4, 1, 1, 1, None, len(worth), len(worth), "")
    return attlas.LanguageModel(Adding(worth), None, facts)


def ids(n: int) -> list[int]:
    """Return a text in which every token stands once; the last one reads the sum."""
    return list(range(n))


def explained(
    lm: attlas.LanguageModel,
    text: str | Sequence[int],
    scores: Sequence[float] | Tensor,
    target: Target,
    *,
    method: str = "made up",
    spans: Sequence[tuple[int, int]] | None = None,
    value: float = float("nan"),
    answer: tuple[int, ...] = (),
) -> Attribution:
    """Return an explanation with scores of one's own."""
    from attlas.capture.asking import document_of

    document = document_of(lm, text)
    given = torch.as_tensor(scores, dtype=torch.float64)
    ends = [(i, i + 1) for i in range(len(document))] if spans is None else spans
    parts = tuple(Span(start, stop, "".join(document.tokens[start:stop])) for start, stop in ends)
    return Attribution(
        tokens=tuple(document.tokens),
        scores=given,
        method=method,
        preset="",
        target=target,
        value=value,
        spans=parts,
        span_scores=torch.stack([given[part.start : part.stop].sum() for part in parts]),
        signed=True,
        text=document.text,
        provenance=Provenance("0"),
        answer=answer,
    )
