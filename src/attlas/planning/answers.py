"""What a model predicts at every position of a text, held as states and made into logits a few rows at a time.

Logits have a number for each token and word: 1.6 GB for 8,192 tokens and 49,152 words. A plan is judged by those of two
runs, so they are made where they are needed, from the states before the output embedding. Whether that gives what the
model gives is proved for the last position of every text; where it does not (logits that are capped or scaled), the
logits themselves are held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attlas.capture import LanguageModel
from attlas.capture.language_model import run_on

ROWS = 64
"""Positions whose logits are made at a time."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model predicts at every position of a text.

    Parameters
    ----------
    held : Tensor, (n, d_model) or (n, vocabulary)
        States before the output embedding, or logits.
    head : callable, optional
        Makes logits of states; None where `held` are logits.
    """

    held: Tensor
    head: Callable[[Tensor], Tensor] | None

    def __len__(self) -> int:
        return len(self.held)

    def chances(self, rows: slice) -> Tensor:
        """Return log-probabilities of some positions' next tokens, (rows, vocabulary), float64."""
        with torch.no_grad():
            logits = self.held[rows] if self.head is None else self.head(self.held[None, rows])[0]
        return logits.double().log_softmax(-1)


def answers(lm: LanguageModel, ids: Sequence[int]) -> Answers:
    """Read a text in one forward pass, without gradients and without a cache.

    Parameters
    ----------
    lm : LanguageModel
        A model that predicts next tokens.
    ids : sequence of int
        The text's tokens.

    Returns
    -------
    Answers
        In O(n · d_model) memory, or O(n · vocabulary) for a model that does more to logits than to embed states.
    """
    model: Any = lm.model
    head: nn.Module = model.get_output_embeddings()
    given = torch.tensor([list(ids)])
    seen: list[Tensor] = []

    def keep(module: nn.Module, states: tuple[Any, ...]) -> Any:
        del module
        seen.append(states[0])
        return (states[0][:, -1:], *states[1:])

    hook = head.register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            last = run_on(model, given).logits
    finally:
        hook.remove()
    if len(seen) == 1 and seen[0].shape[:2] == given.shape:
        with torch.no_grad():
            again = head(seen[0][:, -1:])
        if torch.equal(again, last):
            return Answers(seen[0][0], head)
    with torch.no_grad():
        return Answers(run_on(model, given).logits[0], None)


@dataclass(frozen=True, eq=False)
class Difference:
    """How the predictions of two runs on one text differ; float64 on the CPU.

    Parameters
    ----------
    exact, planned : Tensor, (n - 1,)
        The loss, in nats, of every token but the first.
    divergence : Tensor, (n,)
        Kullback–Leibler divergence of the plan's predictions from the exact ones at every position, in nats.
    same : Tensor, (n,), bool
        Where both find the same next token the likeliest.
    """

    exact: Tensor
    planned: Tensor
    divergence: Tensor
    same: Tensor


def difference(exact: Answers, planned: Answers, ids: Sequence[int]) -> Difference:
    """Compare two runs on one text, a few positions at a time."""
    following = torch.tensor(list(ids[1:]))
    losses: tuple[list[Tensor], list[Tensor]] = ([], [])
    divergence, same = [], []
    for start in range(0, len(exact), ROWS):
        rows = slice(start, min(start + ROWS, len(exact)))
        both = exact.chances(rows), planned.chances(rows)
        wanted = following[rows].to(both[0].device)
        for found, chances in zip(losses, both, strict=True):
            found.append(-chances[: len(wanted)].gather(1, wanted[:, None])[:, 0].cpu())
        likely = both[0].exp()
        # What the exact run thinks impossible adds nothing, however impossible it is.
        terms = torch.where(likely > 0, likely * (both[0] - both[1]), 0.0)
        divergence.append(terms.sum(-1).clamp(min=0).cpu())
        same.append((both[0].argmax(-1) == both[1].argmax(-1)).cpu())
    return Difference(torch.cat(losses[0]), torch.cat(losses[1]), torch.cat(divergence), torch.cat(same))
