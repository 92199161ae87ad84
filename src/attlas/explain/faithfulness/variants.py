"""Runs a text many times with other attention at the target's row: permuted among the keys that it sees, or uniform.

Each batch holds the unchanged text too: there every head's row is put in its own place. That has to give what the plain
model gave, which proves that changed rows are computed like the model's own, and it is what the others are compared
with.

A decoder's answer depends on nothing behind the target, and before it on the keys and values alone. So the text is cut
off there, its keys and values are kept, and a variant runs one token. Where the unchanged text then does not give what
the plain model gave, the whole text is run for every variant.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from attlas.capture import Capture, capture
from attlas.capture.intervention import editing
from attlas.capture.prefix import Prefix
from attlas.capture.rows import RowChange, Rows
from attlas.errors import CaptureError, UnsupportedModelError
from attlas.explain.reading import Reading
from attlas.matrix.hiding import Hiding

SIZE = 64
"""Elements of a batch, the unchanged text among them."""

NUMBERS = 2**28
"""Numbers that a batch's keys and values, states or logits may have."""


@dataclass(frozen=True, eq=False)
class Row:
    """One layer's attention at the target.

    Parameters
    ----------
    layer : int
        Its number, as a capture numbers it.
    name : str
        Its module.
    weights : Tensor, (head, n_key), float32 or better
        From the target's position to every key.
    visible : Tensor, (head, n_key), bool
        Which keys are seen.
    """

    layer: int
    name: str
    weights: Tensor
    visible: Tensor

    def uniform(self) -> Tensor:
        """Return the same mass, spread evenly over the keys that are seen."""
        share = self.weights.sum(1) / self.visible.sum(1).clamp(min=1)
        return share[:, None] * self.visible

    def permuted(self, keys: Tensor) -> Tensor:
        """Return the weights in the order of random numbers, (n_key,), each head's among the keys that it sees."""
        rows = self.weights.clone()
        for row, own, seen in zip(rows, self.weights, self.visible, strict=True):
            places = seen.nonzero().flatten()
            row[places] = own[places[keys[places].argsort()]]
        return rows


@dataclass(frozen=True)
class Variant:
    """What is changed in one run of the text.

    Parameters
    ----------
    layer : int or None
        In which layer; None for all.
    head : int or None
        In which head; None for all of the layer.
    shuffle : int or None
        By which permutation; None for uniform attention.
    """

    layer: int | None
    head: int | None
    shuffle: int | None


class Variants:
    """A text, its attention at the target, and what becomes of the target in variants of it.

    Parameters
    ----------
    reading : Reading
        The text and its one target.

    Attributes
    ----------
    target : Target
        What is looked at, with the model's own prediction filled in.
    rows : list of Row
        The layers' attention at the target's position.
    value : float
        The target's value.
    noise : float
        By how much the unchanged text has moved it at most.
    passes : int
        Forward passes so far, of the text or of one token behind it.
    cached : bool
        Whether a variant runs one token.

    Raises
    ------
    UnsupportedModelError
        The model has two stacks, or the target is no token or class read at a position.
    """

    def __init__(self, reading: Reading) -> None:
        lm, [target] = reading.lm, reading.targets
        if lm.facts.kind == "encoder-decoder":
            raise UnsupportedModelError(
                f"{lm.name}: wanted a model of one stack; in one of two, the encoder's heads do nothing at the target"
            )
        if target.function is not None or target.position is None:
            got = "a function of the output" if target.function is not None else "one pooled over all positions"
            raise UnsupportedModelError(f"target: wanted a token or class that is read at one position, got {got}")
        self._model: Any = lm.model
        self._decoder = lm.facts.kind == "decoder"
        self._position: int = target.position
        self._ids = reading.ids[: target.position + 1] if self._decoder else reading.ids
        self._parameters = inspect.signature(self._model.forward).parameters
        self._classes = target.class_index is not None
        with capture(self._model) as cap, torch.no_grad():
            output = self._whole(1)
        self.target = target.resolved(*self._answer(output), lm.tokenizer)
        self.value = float(self._values(self._logits(output)))
        self.rows = list(_rows(cap, self._position, len(self._ids)))
        self.noise, self.passes = 0.0, 1
        prefix = Prefix(self._model, self._ids) if self._decoder and len(self._ids) > 1 else None
        self.passes += prefix is not None
        self._prefix = prefix if prefix is not None and prefix.known else None

    @property
    def cached(self) -> bool:
        return self._prefix is not None

    @property
    def size(self) -> int:
        """How many variants a batch holds, beside the unchanged text."""
        if self._decoder and self._classes and getattr(self._model.config, "pad_token_id", None) is None:
            return 1  # such a head refuses a batch
        vocabulary = 1 if self._classes else self._vocabulary
        tokens = 1 if self._prefix is not None else len(self._ids)
        logits = vocabulary * (1 if self._keeps else tokens)
        states = tokens * sum(row.weights.shape[0] for row in self.rows)
        one = max(logits, states, 0 if self._prefix is None else self._prefix.size)
        return max(2, min(SIZE, NUMBERS // one)) - 1

    def run(self, variants: Sequence[Variant], orders: Tensor) -> tuple[Tensor, Tensor]:
        """Run variants in one batch.

        Parameters
        ----------
        variants : sequence of Variant
            No more than `size`.
        orders : Tensor, (shuffle, n)
            Random numbers, from which permutations are made.

        Returns
        -------
        change : Tensor, (variant,), float64
            The target's value, less its value in the unchanged text.
        distance : Tensor, (variant,), float64
            Total variation between the two distributions over tokens or classes.

        Raises
        ------
        CaptureError
            The unchanged text does not give what it gave alone.
        """
        change, distance, noise = self._run(variants, orders)
        # Rounding adds up over layers; what a wrong row does is far larger.
        near = torch.finfo(next(self._model.parameters()).dtype).eps ** 0.5 * max(1.0, abs(self.value))
        if not noise <= near and self._prefix is not None:
            self._prefix = None
            change, distance, noise = self._run(variants, orders)
        if not noise <= near:
            raise CaptureError(
                f"model: with every row of attention put in its own place the target moves by {noise:.2g}, so changed "
                "rows cannot be compared; is the model in evaluation mode?"
            )
        self.noise = max(self.noise, noise)
        return change, distance

    def _run(self, variants: Sequence[Variant], orders: Tensor) -> tuple[Tensor, Tensor, float]:
        changes = [RowChange(0, row.layer, torch.arange(len(row.weights)), row.weights) for row in self.rows]
        for element, variant in enumerate(variants, start=1):
            changes += self._changes(element, variant, orders)
        batch = 1 + len(variants)
        editor = Rows(self._model, changes, -1 if self._decoder else self._position)
        with torch.no_grad(), editing(self._model, editor):
            output = self._whole(batch) if self._prefix is None else self._prefix.run(batch)
        editor.check()
        self.passes += batch
        logits = self._logits(output)
        values, shares = self._values(logits), logits.softmax(-1)
        distance = (shares[1:] - shares[0]).abs().sum(1) / 2
        return (values[1:] - values[0]).cpu(), distance.cpu(), abs(float(values[0]) - self.value)

    def _changes(self, element: int, variant: Variant, orders: Tensor) -> Iterator[RowChange]:
        for row in self.rows:
            if variant.layer in (None, row.layer):
                weights = row.uniform() if variant.shuffle is None else row.permuted(orders[variant.shuffle])
                heads = torch.arange(len(weights)) if variant.head is None else torch.tensor([variant.head])
                yield RowChange(element, row.layer, heads, weights[heads])

    # ---- the model's answer

    @property
    def _keeps(self) -> bool:
        return "logits_to_keep" in self._parameters and self._decoder and not self._classes

    def _whole(self, batch: int) -> Any:
        inputs: dict[str, Any] = {"input_ids": self._ids.expand(batch, -1)}
        inputs |= {"use_cache": False} if "use_cache" in self._parameters else {}
        inputs |= {"logits_to_keep": 1} if self._keeps else {}
        return self._model(**inputs)

    def _answer(self, output: Any) -> tuple[Any, int]:
        """Return what the model returned, and the target's row of its logits."""
        return output, -1 if self._decoder else self._position

    def _logits(self, output: Any) -> Tensor:
        """Return the logits that the target is read from, (batch, token or class), float64."""
        found, row = self._answer(output)
        logits = found.logits if self._classes else found.logits[:, row]
        return logits.detach().double()

    def _values(self, logits: Tensor) -> Tensor:
        """Return the target's value in each element, (batch,)."""
        given = logits[:, None] if self._classes else logits[:, None, None]
        return torch.stack([self.target.value(SimpleNamespace(logits=one), 0) for one in given])

    @property
    def _vocabulary(self) -> int:
        return int(self._model.get_output_embeddings().weight.shape[0])


def _rows(cap: Capture, position: int, n: int) -> Iterator[Row]:
    for layer, name in zip(cap.layers, cap.names, strict=True):
        matrix = cap[layer]
        heads = matrix.shape[1]
        if matrix.shape[2:] != (n, n):
            raise UnsupportedModelError(
                f"{name}: attends from {matrix.shape[2]} positions to {matrix.shape[3]}, not over the text's {n} tokens"
            )
        visible = torch.ones(1, heads, 1, n)
        row = slice(position, position + 1)
        Hiding(matrix).clear(visible, row, slice(0, n))
        weights = matrix[:, :, row, :][0, :, 0].cpu()
        yield Row(layer, name, weights if weights.dtype.itemsize == 8 else weights.float(), visible[0, :, 0] > 0)
