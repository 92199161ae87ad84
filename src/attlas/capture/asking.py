"""What is asked of a model that reads tokens: which ids, what it predicts of them, and where a result is from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor

from attlas import __version__
from attlas.capture.language_model import LanguageModel
from attlas.errors import ArgumentError, DocumentError, complaint
from attlas.models import Document
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


def document_of(lm: LanguageModel, text: str | Sequence[int]) -> Document:
    """Return a text and its tokens, or the tokens that were given and what they say.

    Raises
    ------
    ArgumentError
        It is neither, or an id is none of the model's vocabulary.
    DocumentError
        It has fewer than two tokens, more than the model has positions, or is padded.
    """
    document = lm.tokenize(text) if isinstance(text, str) else _of_ids(lm, text)
    check_length(lm, document)
    return document


def check_length(lm: LanguageModel, document: Document) -> None:
    """Refuse what the model cannot read at once.

    Raises
    ------
    DocumentError
        It has fewer than two tokens, or more than the model has positions.
    """
    if lm.facts.positions is not None and len(document) > lm.facts.positions:
        raise DocumentError(
            f"text: wanted at most {lm.facts.positions:,} tokens, as many as the model has positions, "
            f"got {len(document):,}; shorten it"
        )
    if len(document) < 2:
        raise DocumentError(f"text: wanted at least two tokens, got {len(document)}")


def ids_of(lm: LanguageModel, text: str | Sequence[int]) -> Tensor:
    """Return the token ids of a text, or the ids that were given; (n,), int64."""
    return torch.tensor(document_of(lm, text).ids)


def _of_ids(lm: LanguageModel, given: Any) -> Document:
    if isinstance(given, Tensor) and given.dim() == 1 and not given.is_floating_point():
        given = given.tolist()
    if not isinstance(given, Sequence):
        got = f"a tensor of {given.dim()} axes" if isinstance(given, Tensor) else f"a {type(given).__name__}"
        raise ArgumentError(complaint("text", wanted="a str or token ids", got=got))
    ids = [_id(lm, one) for one in given]
    tokenizer = lm.tokenizer
    _check_padding(tokenizer, ids)
    tokens = [tokenizer.decode([one]) if tokenizer is not None else f"<{one}>" for one in ids]
    ends = list(accumulate(map(len, tokens)))
    return Document("".join(tokens), ids, tokens, list(zip([0, *ends], ends, strict=False)))


def _check_padding(tokenizer: Any, ids: list[int]) -> None:
    """Refuse ids that begin or end with padding, which a text that is read alone has not."""
    pad = getattr(tokenizer, "pad_token_id", None)
    # Where padding is also what ends a text, nobody can tell the two apart, and the model reads it as an end.
    others = {getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "unk", "cls", "sep")}
    if ids and pad is not None and pad not in others and pad in (ids[0], ids[-1]):
        raise DocumentError(
            complaint(
                "text",
                wanted="the token ids of one text, without padding",
                got=f"{tokenizer.decode([pad])!r} at its {'start' if ids[0] == pad else 'end'}",
                way_out="leave the padding out, and give the texts of a batch one by one",
            )
        )


def _id(lm: LanguageModel, one: object) -> int:
    size = lm.facts.vocabulary
    if isinstance(one, bool) or not isinstance(one, int) or one < 0 or (size is not None and one >= size):
        wanted = "token ids from 0" if size is None else f"token ids from 0 to {size - 1}"
        raise ArgumentError(complaint("text", wanted=wanted, got=repr(one)))
    return one


def provenance_of(lm: LanguageModel, settings: dict[str, Any]) -> Provenance:
    """Return how a result was made."""
    return Provenance(__version__, lm.name, lm.facts.fingerprint, {**settings, "torch": torch.__version__})
