"""What is asked of a model that reads tokens: which ids, what it predicts of them, and where a result is from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor

from attlas import __version__
from attlas.capture.language_model import LanguageModel
from attlas.errors import ArgumentError, DocumentError, complaint
from attlas.models import check_length
from attlas.results import Provenance


def predicts(lm: LanguageModel) -> bool:
    """Whether the model predicts next tokens."""
    model: Any = lm.model
    return lm.facts.kind == "decoder" and model.get_output_embeddings() is not None


def next_token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the loss, in nats, of every token but the first, given those before it; (n - 1,), float32 or better.

    Parameters
    ----------
    logits : Tensor, (n, vocabulary)
    ids : Tensor, (n,), int64
    """
    logits = logits[:-1]
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(exact, ids[1:].to(logits.device), reduction="none")


def ids_of(lm: LanguageModel, text: str | Sequence[int]) -> Tensor:
    """Return the token ids of a text, or the ids that were given; (n,), int64."""
    if isinstance(text, str):
        document = lm.tokenize(text)
        check_length(document, lm.facts.positions)
        ids = document.ids
    else:
        ids = [_id(lm, one) for one in text] if isinstance(text, Sequence) else None
        if ids is None:
            raise ArgumentError(complaint("text", wanted="a str or token ids", got=f"a {type(text).__name__}"))
        if lm.facts.positions is not None and len(ids) > lm.facts.positions:
            raise DocumentError(
                f"text: wanted at most {lm.facts.positions:,} tokens, as many as the model has positions, "
                f"got {len(ids):,}; shorten it"
            )
    if len(ids) < 2:
        raise DocumentError(f"text: wanted at least two tokens, got {len(ids)}")
    return torch.tensor(ids)


def _id(lm: LanguageModel, one: object) -> int:
    size = lm.facts.vocabulary
    if isinstance(one, bool) or not isinstance(one, int) or one < 0 or (size is not None and one >= size):
        wanted = "token ids from 0" if size is None else f"token ids from 0 to {size - 1}"
        raise ArgumentError(complaint("text", wanted=wanted, got=repr(one)))
    return one


def provenance_of(lm: LanguageModel, settings: dict[str, Any]) -> Provenance:
    """Return how a result was made."""
    return Provenance(__version__, lm.name, lm.facts.fingerprint, {**settings, "torch": torch.__version__})
