"""Runs a model on a text of which parts are missing, many of them in one batch, each once; counts what it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attlas.explain.faithfulness.removing import KnockingOut, Passage, Remover

SIZE = 32
"""Sequences in a batch."""

TOKENS = 8192
"""Tokens in a batch of several sequences."""

PADDED = 512
"""Tokens up to which sequences of different lengths share a batch; the mask that hides padding has n × n entries."""

LOGITS = 2**25
"""Numbers that a batch's logits may have."""


class Value(NamedTuple):
    """What the model says without some tokens.

    Parameters
    ----------
    value : float
        The target's number.
    probability : float
        Of the target's token or class; NaN where there is none, as for a difference.
    """

    value: float
    probability: float


class Runner:
    """Knows the target's value on every subset of a text that it was asked for.

    Parameters
    ----------
    remover : Remover
        How tokens are taken away.
    progress : callable, optional
        Called with the number of sequences in each batch that was run.
    """

    def __init__(self, remover: Remover, progress: Callable[[int], None] | None = None) -> None:
        self.passes = 0
        self._remover, self._progress = remover, progress
        [self._target] = remover.passage.reading.targets
        self._model: Any = remover.passage.reading.lm.model
        self._known: dict[bytes, Value] = {}
        self._may_pad = False

    def begin(self, full: Tensor, empty: Tensor) -> tuple[Value, Value]:
        """Return the value on the whole text, and without all that may be taken away.

        Where padding would save batches, both are read together, padded, and the shorter one once more alone: only if
        the two agree, up to rounding, others are padded too.
        """
        if not _could_pad(self._remover):
            self.run([full, empty])
            return self[full], self[empty]
        self._read(torch.stack([full, empty]))
        together = self[empty]
        self._read(empty.unsqueeze(0))
        self._may_pad = self.agree(together.value, self[empty].value)
        return self[full], self[empty]

    def agree(self, one: float, other: float) -> bool:
        """Whether two values of the same thing are the same, up to rounding."""
        # Rounding adds up over layers, so half of the dtype's digits have to agree; what is wrong is far off.
        dtype = next(self._model.parameters()).dtype
        return abs(one - other) <= torch.finfo(dtype).eps ** 0.5 * max(1.0, abs(one))

    def __getitem__(self, present: Tensor) -> Value:
        return self._known[key(present)]

    def count(self, wanted: Iterable[Tensor]) -> int:
        """Return how many of these texts are still to be run."""
        return len({key(present) for present in wanted} - self._known.keys())

    def run(self, wanted: Iterable[Tensor]) -> None:
        """Run the model on texts of which only some tokens stay, each bool, (n,); those known already are not run."""
        new = {key(present): present for present in wanted}
        new = {name: present for name, present in new.items() if name not in self._known}
        order = sorted(new.values(), key=self._remover.length)
        groups = [order] if self._may_pad else [list(equal) for _, equal in groupby(order, self._remover.length)]
        for group in groups:
            for batch in self._batches(group):
                self._read(torch.stack(batch))

    def _batches(self, group: list[Tensor]) -> Iterator[list[Tensor]]:
        batch: list[Tensor] = []
        for present in group:
            # Lengths rise, so the one that comes is the longest.
            if batch and len(batch) >= self._most(self._remover.length(present)):
                yield batch
                batch = []
            batch.append(present)
        if batch:
            yield batch

    def _most(self, length: int) -> int:
        """Return how many texts of at most this length are run together."""
        if self._target.function is not None or (_reads_ends(self._remover.passage) and self._pad_unknown):
            return 1
        most = min(SIZE, max(1, TOKENS // length))
        if self._target.class_index is None:
            # Each text needs one row of logits; computed are, for each, those that any text of the batch needs.
            vocabulary = self._remover.passage.reading.lm.facts.vocabulary or 1
            while most > 1 and most * (most if self._keeps else length) * vocabulary > LOGITS:
                most //= 2
        return most

    @property
    def _pad_unknown(self) -> bool:
        return getattr(getattr(self._model, "config", None), "pad_token_id", None) is None

    @property
    def _keeps(self) -> bool:
        return self._remover.passage.reading.kept is not None

    def _read(self, present: Tensor) -> None:
        inputs = self._remover.inputs(present)
        rows = [self._remover.row(one) for one in present]
        if self._keeps and self._target.class_index is None:
            kept = sorted(set(rows))
            inputs["logits_to_keep"] = torch.tensor(kept, device=next(self._model.parameters()).device)
            rows = [kept.index(row) for row in rows]
        with torch.no_grad(), self._remover.running(present):
            output = self._model(**inputs)
        for number, (one, row) in enumerate(zip(present, rows, strict=True)):
            self._known[key(one)] = self._value(output, number, row)
        self.passes += len(present)
        if self._progress is not None:
            self._progress(len(present))

    def _value(self, output: Any, number: int, row: int) -> Value:
        target = self._target
        if target.function is not None:
            return Value(float(target.value(output, row)), math.nan)
        answers = output.logits[number] if target.class_index is not None else output.logits[number, row]
        answers = answers.double()
        # As if it were the only text, of which the model gave one row.
        alone = answers[None] if target.class_index is not None else answers[None, None]
        own = float(target.value(SimpleNamespace(logits=alone), 0))
        if target.against is not None:
            return Value(own, math.nan)
        index = target.token if target.class_index is None else target.class_index
        return Value(own, float(answers.softmax(-1)[index]))


def most_to_begin(remover: Remover) -> int:
    """Return how many sequences `runner_of` and `Runner.begin` run at most."""
    shorter = _shorter(remover)
    return (2 if shorter is None else 4) + _could_pad(shorter or remover)


def _could_pad(remover: Remover) -> bool:
    """Whether texts of different lengths could share a batch."""
    passage = remover.passage
    alone = passage.reading.targets[0].function is not None or _reads_ends(passage)
    return remover.shortens and passage.n <= PADDED and not alone


def _reads_ends(passage: Passage) -> bool:
    """Whether the model looks for the last token that is not padding by its id, which may stand in the text, too."""
    reading = passage.reading
    return reading.targets[0].class_index is not None and reading.lm.facts.kind == "decoder"


def _shorter(remover: Remover) -> Remover | None:
    return remover.shorter() if isinstance(remover, KnockingOut) else None


def runner_of(remover: Remover, progress: Callable[[int], None] | None, seed: int) -> Runner:
    """Return what runs a model without some tokens, by the shortest way that is proved to be exact.

    A knockout in all layers is the same as leaving tokens out without moving the others, unless the model reads
    positions off from where keys stand. One random half of the text is run both ways to see; that costs two sequences.
    """
    exact = Runner(remover, progress)
    shorter = _shorter(remover)
    if shorter is None:
        return exact
    passage = remover.passage
    drawn = torch.rand(len(passage.free), generator=torch.Generator().manual_seed(seed)) < 0.5
    half = passage.without(passage.free[drawn])
    quick = Runner(shorter, progress)
    for runner in (exact, quick):
        runner.run([half])
    found = quick if exact.agree(exact[half].value, quick[half].value) else exact
    found.passes = 2
    return found


def key(present: Tensor) -> bytes:
    """Return what tells a subset of a text from another."""
    return present.numpy().tobytes()
