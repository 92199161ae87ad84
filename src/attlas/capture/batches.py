"""Many short sequences, read together: padded batches in which every sequence's matrix is the one it has when alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attlas.capture.language_model import LanguageModel, reader_of
from attlas.capture.recorder import capture
from attlas.capture.result import Capture
from attlas.errors import ArgumentError, DocumentError, complaint
from attlas.models.progress import Progress

SIZE = 32
"""Sequences in a batch."""


class Batch(NamedTuple):
    """Some sequences that were read together.

    Parameters
    ----------
    capture : Capture
        Its matrices have one batch element a sequence, in the order given.
    lengths : tuple of int
        How many tokens each has: its own matrix is ``capture[layer][b, :, :length, :length]``; what lies behind that
        is padding.
    """

    capture: Capture
    lengths: tuple[int, ...]


def read_batches(
    lm: LanguageModel,
    ids: Sequence[Sequence[int]],
    size: int = SIZE,
    layers: Sequence[int | str] | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Iterator[Batch]:
    """Read many short sequences of tokens, several in one forward pass.

    Parameters
    ----------
    lm : LanguageModel
        What `attlas.load` returned.
    ids : sequence of sequences of int
        Token ids of each sequence, special ones included. Sort them by length first: then little is padded.
    size : int
        How many sequences a batch has at most.
    layers : sequence of int or str, optional
        Which layers to keep; all by default.
    progress : callable, optional
        Called as ``progress(sequences read, all of them, "reading sequences")``.
    **options
        Other options of `attlas.capture`: heads, values, output, device, dtype, unrouted.

    Yields
    ------
    Batch
        In the order of `ids`. Only the batch that was yielded last is held here, so memory stays that of one batch.

    Raises
    ------
    ArgumentError
        `ids` or `size` does not fit.
    DocumentError
        A sequence has more tokens than the model has positions.
    UnsupportedModelError
        As `attlas.capture`.

    Notes
    -----
    Sequences are padded on the right, where padding moves no position, and hidden from the model by its own mask.
    That this changes nothing is not taken for granted: one sequence of the first padded batch is read alone too, and
    where its queries differ (a convolution over tokens sees padding, for one), only sequences of equal length share a
    batch from then on.
    """
    sequences = [list(map(int, sequence)) for sequence in ids]
    _check(lm, sequences, size)
    reader: Any = reader_of(lm.model)
    accepts = inspect.signature(reader.forward).parameters
    may_pad = None if "attention_mask" in accepts else False

    def read(part: list[list[int]]) -> Batch:
        with capture(lm.model, layers, **options) as captured, torch.no_grad():
            reader(**_inputs(lm, part, accepts))
        return Batch(captured, tuple(map(len, part)))

    done = 0
    for start in range(0, len(sequences), size):
        part = sequences[start : start + size]
        batches: Iterator[Batch] | None = None
        if len(set(map(len, part))) > 1 and may_pad is not False:
            padded = read(part)
            if may_pad is None:
                shortest = min(range(len(part)), key=lambda i: len(part[i]))
                may_pad = _same(padded, shortest, read([part[shortest]]))
            if may_pad:
                batches = iter([padded])
        for batch in batches or (read(list(equal)) for _, equal in groupby(part, len)):
            yield batch
            done += len(batch.lengths)
            if progress is not None:
                progress(done, len(sequences), "reading sequences")


def _check(lm: LanguageModel, sequences: list[list[int]], size: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ArgumentError(complaint("size", wanted="a whole number from 1", got=repr(size)))
    vocabulary = lm.facts.vocabulary
    for number, sequence in enumerate(sequences):
        if not sequence:
            raise ArgumentError(complaint(f"ids[{number}]", wanted="at least one token", got="none"))
        if min(sequence) < 0 or (vocabulary is not None and max(sequence) >= vocabulary):
            most = "" if vocabulary is None else f" to {vocabulary - 1}"
            bad = next(i for i in sequence if i < 0 or (vocabulary is not None and i >= vocabulary))
            raise ArgumentError(complaint(f"ids[{number}]", wanted=f"token ids from 0{most}", got=bad))
        if lm.facts.positions is not None and len(sequence) > lm.facts.positions:
            raise DocumentError(
                f"ids[{number}]: wanted at most {lm.facts.positions:,} tokens, as many as the model has positions, "
                f"got {len(sequence):,}; leave it out or shorten it"
            )


def _inputs(lm: LanguageModel, part: list[list[int]], accepts: Any) -> dict[str, Any]:
    device = next(lm.model.parameters()).device
    longest = max(map(len, part))
    pad = _padding(lm)
    padded = torch.tensor([sequence + [pad] * (longest - len(sequence)) for sequence in part], device=device)
    inputs: dict[str, Any] = {"input_ids": padded}
    if any(len(sequence) < longest for sequence in part):
        lengths = torch.tensor([len(sequence) for sequence in part], device=device)
        inputs["attention_mask"] = (torch.arange(longest, device=device) < lengths.unsqueeze(1)).long()
    if "use_cache" in accepts:
        inputs["use_cache"] = False
    return inputs


def _padding(lm: LanguageModel) -> int:
    """Return what to pad with: any token does, since it is hidden, but some models count positions by it."""
    config: Any = getattr(lm.model, "config", None)
    stated = getattr(config, "pad_token_id", None)
    return stated if isinstance(stated, int) and 0 <= stated < (lm.facts.vocabulary or 0) else 0


def _same(padded: Batch, element: int, alone: Batch) -> bool:
    """Whether a sequence asks in a batch what it asks alone, up to rounding, in the last layer that was kept."""
    if not len(alone.capture):
        return True
    length = alone.lengths[0]
    one: Tensor = alone.capture[-1].query[0].double()
    other: Tensor = padded.capture[-1].query[element, :, :length].double()
    if one.shape != other.shape:
        return False
    # Rounding adds up over layers, so half of the dtype's digits have to agree; what leaks is far larger than that.
    tolerance = torch.finfo(alone.capture[-1].dtype).eps ** 0.5
    return float((one - other).norm()) <= tolerance * float(one.norm())
