"""What it means to take parts of a text away, in token ids: a text is never put together and cut into tokens again.

What stays is protected: the tokens that the tokenizer added ([CLS], a begin-of-text token …), and the token at which
the target is read, whose own prediction is explained. Behind the target a causal model reads nothing that matters, so
there the text ends.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from attlas.capture.knocking import knocked_out
from attlas.errors import ArgumentError, DocumentError, UnsupportedModelError, complaint
from attlas.explain.reading import Reading
from attlas.explain.targets import token_id

Removal = Literal["delete", "mask", "mean", "knockout"]


@dataclass(frozen=True, eq=False)
class Passage:
    """What of a text matters to one target, and what of it may be taken away.

    Parameters
    ----------
    reading : Reading
        The text and its one target.
    ids : Tensor, (n,), int64, on the CPU
        Its tokens, up to the last one that the target can depend on.
    free : Tensor, (free,), int64
        Positions that may be taken away, ascending.
    row : int or None
        Position of the protected token at which the target is read; None where it is not one of these.
    """

    reading: Reading
    ids: Tensor
    free: Tensor
    row: int | None

    @property
    def n(self) -> int:
        """How many tokens it has."""
        return len(self.ids)

    def without(self, removed: Tensor) -> Tensor:
        """Return which tokens stay when those at some positions go: bool, (n,)."""
        present = torch.ones(self.n, dtype=torch.bool)
        present[removed] = False
        return present


def passage_of(reading: Reading) -> Passage:
    """Return what may be taken away from a text whose one target is known.

    Raises
    ------
    DocumentError
        Fewer than two tokens may be taken away, so that no order among them can be told from another.
    """
    [target] = reading.targets
    kind, document = reading.lm.facts.kind, reading.document
    ids = torch.tensor(document.ids)
    reads_here = not reading.answer and target.position is not None
    row = target.position if reads_here else None
    if kind == "decoder" and target.function is None and target.class_index is None and row is not None:
        ids = ids[: row + 1]
    front, behind = document.added
    protected = torch.zeros(len(document), dtype=torch.bool)
    protected[:front] = True
    protected[len(document) - behind :] = True
    if row is not None:
        protected[row] = True
    free = (~protected[: len(ids)]).nonzero().flatten()
    if len(free) < 2:
        raise DocumentError(
            f"text: wanted at least two tokens that can be taken away before the target, got {len(free)}; "
            "added tokens and the target's own stay"
        )
    return Passage(reading, ids, free, row)


class Remover(ABC):
    """One way to take tokens away.

    Parameters
    ----------
    passage : Passage
        What from.
    """

    shortens: ClassVar[bool] = False
    """Whether the model reads fewer tokens then."""

    def __init__(self, passage: Passage) -> None:
        self.passage = passage
        self._model: Any = passage.reading.lm.model
        self._takes = inspect.signature(self._model.forward).parameters
        self._device = next(self._model.parameters()).device

    @abstractmethod
    def texts(self, present: Tensor) -> dict[str, Any]:
        """Return what the model reads when only some tokens stay; `present` is bool, (batch, n)."""

    def inputs(self, present: Tensor) -> dict[str, Any]:
        """Return all that the model's forward is given."""
        inputs = {name: value.to(self._device) for name, value in self.texts(present).items()}
        if self.passage.reading.answer:
            answer = torch.tensor([self.passage.reading.answer], device=self._device)
            inputs["decoder_input_ids"] = answer.expand(len(present), -1)
        if "use_cache" in self._takes:
            inputs["use_cache"] = False
        return inputs

    def running(self, present: Tensor) -> AbstractContextManager[None]:
        """Return what has to be open while the model reads these texts."""
        return nullcontext()

    def length(self, present: Tensor) -> int:
        """How many tokens the model reads; `present` is bool, (n,)."""
        return int(present.sum()) if self.shortens else len(present)

    def row(self, present: Tensor) -> int:
        """Return at which position the target is read."""
        row = self.passage.row
        if row is None:
            return self.passage.reading.targets[0].position or 0
        return int(present[:row].sum()) if self.shortens else row

    def about(self) -> dict[str, Any]:
        """Return choices beside the name."""
        return {}

    def _check_takes(self, name: str, removal: str) -> None:
        if name not in self._takes:
            raise UnsupportedModelError(
                complaint(
                    "removal",
                    wanted=f"a model that takes {name}, for {removal!r}",
                    got=type(self._model).__name__,
                    way_out='use removal="delete"',
                )
            )


class Deleting(Remover):
    """Drops the ids; what comes behind moves up."""

    shortens = True

    def texts(self, present: Tensor) -> dict[str, Any]:
        """Return the ids that stay, padded on the right and hidden there where their numbers differ."""
        lengths = present.sum(1)
        inside = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        ids = torch.full(inside.shape, self.padding)
        ids[inside] = self.passage.ids.expand(len(present), -1)[present]
        return {"input_ids": ids} if bool(inside.all()) else {"input_ids": ids, "attention_mask": inside.long()}

    @property
    def padding(self) -> int:
        """What to pad with: any token does, since it is hidden, but some models count positions by it."""
        stated = getattr(self._model.config, "pad_token_id", None) if hasattr(self._model, "config") else None
        return stated if isinstance(stated, int) and stated >= 0 else 0


class KnockingOut(Remover):
    """Hides the tokens' keys from all queries, in all layers or some; see `attlas.capture.knocking`.

    Parameters
    ----------
    passage : Passage
        What from.
    layers : sequence of int or str, optional
        In which layers; all by default.
    """

    def __init__(self, passage: Passage, layers: Sequence[int | str] | None = None) -> None:
        super().__init__(passage)
        self.layers = None if layers is None else list(layers)

    def texts(self, present: Tensor) -> dict[str, Any]:
        """Return the whole text, for each."""
        return {"input_ids": self.passage.ids.expand(len(present), -1)}

    def running(self, present: Tensor) -> AbstractContextManager[None]:
        """Hide the keys."""
        return knocked_out(self._model, ~present, self.layers)

    def about(self) -> dict[str, Any]:
        """Return which layers."""
        return {"layers": "all" if self.layers is None else self.layers}

    def shorter(self) -> Hiding | None:
        """Return a way to do the same with less work, which has to be proved; None where there is none."""
        may = self.layers is None and {"position_ids", "attention_mask"} <= self._takes.keys()
        may = may and len(self.passage.free) < self.passage.n
        return Hiding(self.passage) if may else None


class Hiding(Deleting):
    """Drops the ids, but leaves all others where they were: the same as a knockout in all layers, where it is exact.

    No query sees a hidden key in any layer, so what a hidden token itself computes reaches nobody, and need not be
    computed. That holds where a model takes positions from `position_ids` alone, and not from where a key stands (as a
    sliding window or a relative bias does).
    """

    def texts(self, present: Tensor) -> dict[str, Any]:
        """Return the ids that stay, and the positions that they have in the whole text."""
        found = super().texts(present)
        inside = found.get("attention_mask", torch.ones_like(found["input_ids"])).bool()
        positions = torch.zeros_like(found["input_ids"])
        positions[inside] = torch.arange(self.passage.n).expand(len(present), -1)[present]
        # Without a mask, transformers takes a gap between positions for the border between two texts.
        return {**found, "attention_mask": inside.long(), "position_ids": positions}


class Masking(Remover):
    """Puts one token in the place of all that are taken away.

    Parameters
    ----------
    passage : Passage
        What from.
    neutral : int or str, optional
        That token; the tokenizer's mask token by default.
    """

    def __init__(self, passage: Passage, neutral: int | str | None) -> None:
        super().__init__(passage)
        tokenizer, size = passage.reading.lm.tokenizer, passage.reading.lm.facts.vocabulary
        found = getattr(tokenizer, "mask_token_id", None) if neutral is None else neutral
        if isinstance(found, str):
            found = token_id(found, tokenizer)
        if found is None:
            raise ArgumentError(
                complaint(
                    "removal",
                    wanted='"delete", "mean" or "knockout" for a model whose tokenizer has no mask token',
                    got='"mask"',
                    way_out="or name a token to put in the place of others: neutral=",
                )
            )
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < (size or found + 1):
            raise ArgumentError(complaint("neutral", wanted="a token of the vocabulary", got=repr(neutral)))
        self._neutral = found

    def texts(self, present: Tensor) -> dict[str, Any]:
        """Return the ids with the others in place."""
        return {"input_ids": self.passage.ids.masked_fill(~present, self._neutral)}

    def about(self) -> dict[str, Any]:
        """Return which token it is."""
        return {"neutral": self._neutral}


class Averaging(Remover):
    """Puts the mean embedding of the text's tokens in the place of all that are taken away."""

    def __init__(self, passage: Passage) -> None:
        super().__init__(passage)
        self._check_takes("inputs_embeds", "mean")
        with torch.no_grad():
            self._own = self._model.get_input_embeddings()(passage.ids.to(self._device))

    def texts(self, present: Tensor) -> dict[str, Any]:
        """Return embeddings, (batch, n, width)."""
        return {"inputs_embeds": torch.where(present.to(self._device).unsqueeze(-1), self._own, self._own.mean(0))}


def remover(
    removal: str, passage: Passage, *, neutral: int | str | None = None, layers: Sequence[int | str] | None = None
) -> Remover:
    """Return the way to take tokens away that goes by a name.

    Raises
    ------
    ArgumentError
        There is none of that name, or this model has no token to put in the place of others.
    UnsupportedModelError
        The model does not take what it needs.
    """
    if neutral is not None and removal != "mask":
        raise ArgumentError(complaint("neutral", wanted='none unless removal="mask"', got=repr(neutral)))
    if layers is not None and removal != "knockout":
        raise ArgumentError(complaint("layers", wanted='none unless removal="knockout"', got=repr(layers)))
    if removal == "delete":
        if len(passage.free) == passage.n:
            way_out = 'use removal="mask" or "mean"'
            wanted = "a text with tokens that stay, added by its tokenizer or read by the target"
            raise ArgumentError(complaint("removal", wanted=wanted, got='"delete" and none', way_out=way_out))
        return Deleting(passage)
    if removal == "knockout":
        return KnockingOut(passage, layers)
    if removal == "mask":
        return Masking(passage, neutral)
    if removal == "mean":
        return Averaging(passage)
    raise ArgumentError(complaint("removal", wanted='"delete", "mask", "mean" or "knockout"', got=repr(removal)))
