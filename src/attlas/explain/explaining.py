"""`attlas.explain`: which parts of a text made the model say that, by any methods, for any targets.

Methods that look at attention share one run of the model: a plain one if none needs gradients, else one that goes back
down block by block. Methods from outside attention run on their own, and all of them share what their faithfulness is
measured on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from attlas.capture import LanguageModel, capture
from attlas.capture.asking import provenance_of
from attlas.capture.attended import Attended
from attlas.capture.descent import descend
from attlas.capture.walking import walk_capture
from attlas.errors import ArgumentError, DocumentError, complaint
from attlas.explain.attribution import Attribution, Span
from attlas.explain.methods import Choice, choices
from attlas.explain.reading import Reading, reading_of
from attlas.explain.references import EmbeddingWalker, Reference
from attlas.explain.spans import Spans, span_scores, spans_of
from attlas.explain.targets import OneTarget, is_one
from attlas.explain.walk import Found, Walker, walk
from attlas.models.progress import Progress

BUDGET = 64
"""Forward passes that faithfulness may take for each explanation."""


@overload
def explain(
    lm: LanguageModel, text: str | Sequence[int], method: str = ..., target: OneTarget = ..., **options: Any
) -> Attribution: ...


@overload
def explain(
    lm: LanguageModel,
    text: str | Sequence[int],
    method: list[str] | tuple[str, ...],
    target: OneTarget | Sequence[OneTarget] = ...,
    **options: Any,
) -> tuple[Attribution, ...]: ...


@overload
def explain(
    lm: LanguageModel, text: str | Sequence[int], method: str = ..., *, target: list[OneTarget], **options: Any
) -> tuple[Attribution, ...]: ...


@overload
def explain(
    lm: LanguageModel, text: str | Sequence[int], method: str, target: list[OneTarget], **options: Any
) -> tuple[Attribution, ...]: ...


def explain(
    lm: LanguageModel,
    text: str | Sequence[int],
    method: str | Sequence[str] = "rollout",
    target: OneTarget | Sequence[OneTarget] = -1,
    *,
    preset: str | None = None,
    spans: Spans = "token",
    answer: str | Sequence[int] | None = None,
    budget: int = BUDGET,
    faithfulness: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Attribution | tuple[Attribution, ...]:
    """Tell which parts of a text made a model say something, and how far that can be trusted.

    Parameters
    ----------
    lm : LanguageModel
        What `attlas.load` returned.
    text : str or sequence of int
        The text, or its token ids; of an encoder-decoder model, what the encoder reads.
    method : str or sequence of str
        How: a name of `attlas.explain.METHODS`, such as ``"rollout"``; ``"chefer:released-bert"`` names a preset, too.
    target : int, tuple, Target or list of such
        What: by default the model's own top prediction at the last position. Other forms are those of `attlas.Target`.
    preset : str, optional
        By whose rules, where a paper and its released code differ, for every method named without one.
    spans : str or sequence of (int, int)
        In which parts scores are summed up, removed and shown: ``"token"``, ``"word"``, ``"sentence"``, ``"line"``,
        ``"turn"``, ``"function"``, or characters of the text, from and up to.
    answer : str or sequence of int, optional
        Of an encoder-decoder model, what the decoder has said so far; targets lie at positions of the decoder. By
        default it is given its start token alone.
    budget : int
        How many forward passes the measurement of faithfulness may take for each explanation; 0 for none: then the
        explanation says that it was not measured.
    faithfulness : mapping, optional
        Other options of `attlas.faithfulness`, such as ``{"removal": "mask"}``.
    progress : callable, optional
        Called as ``progress(done, total, what)``.
    **settings
        Settings of the methods, each for every method that knows it; ``attlas.explain.METHODS[name].settings``.

    Returns
    -------
    Attribution
        Or a tuple of them where `method` or `target` names several, ordered by target, then method.

    Raises
    ------
    ArgumentError
        There is no such method, preset, setting or span, or a target lies outside of the text or the vocabulary.
    DocumentError
        The text is empty, of one token, padded, or longer than the model's positions.
    UnsupportedModelError
        The model does not give what the target or a method needs; the message says what to do.

    Notes
    -----
    All memory is O(n · dim), except where a method's own documentation says otherwise. Without gradients, one forward
    pass and about as much again for each method; with them, a forward pass, a second one block by block, and its
    backward pass for each target.

    Examples
    --------
    >>> found = attlas.explain(lm, "The capital of France is", target=(-1, " Paris"))  # doctest: +SKIP
    >>> found.top(3), found.faithfulness.verdict  # doctest: +SKIP
    """
    chosen = choices(method, preset, settings)
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
        raise ArgumentError(
            complaint("budget", wanted="a whole number of forward passes, 0 for none", got=repr(budget))
        )
    reading = reading_of(lm, text, target, answer=answer)
    parts = spans_of(spans, reading.document, lm.tokenizer)
    makers = [choice.make() for choice in chosen]
    reading, values, found = _find(reading, parts, makers, progress)
    made = tuple(
        _attribution(reading, parts, one, i, value, choice, maker.signed)
        for i, value in enumerate(values)
        for choice, maker, one in zip(chosen, makers, found, strict=True)
    )
    if budget:
        from attlas.explain.faithfulness.measuring import faithfulness as measure

        try:
            measured = measure(lm, text, made, budget=budget, progress=progress, **(faithfulness or {}))
        except DocumentError as error:
            raise DocumentError(f"{error}; to explain it without measuring faithfulness, pass budget=0") from error
        made = tuple(one.with_faithfulness(how) for one, how in zip(made, measured, strict=True))
    return made[0] if isinstance(method, str) and is_one(target) else made


def _find(
    reading: Reading,
    parts: Sequence[Span],
    makers: Sequence[Walker | Reference],
    progress: Progress | None,
) -> tuple[Reading, list[float], list[Found]]:
    """Return the reading with its targets settled, their values, and what each method found."""
    walkers = [one for one in makers if isinstance(one, Walker)]
    if any(walker.needs_gradients for walker in walkers):
        reading, values, walked = _descended(reading, walkers, progress)
    elif walkers:
        reading, values, walked = _captured(reading, walkers, progress)
    else:
        reading, values = _asked(reading)
        walked = []
    by_walker = dict(zip(walkers, walked, strict=True))
    found = [by_walker[one] if isinstance(one, Walker) else one.explain(reading, parts, progress) for one in makers]
    return reading, values, found


def _asked(reading: Reading) -> tuple[Reading, list[float]]:
    """Run the model plainly: nobody looks inside."""
    with torch.no_grad():
        output = reading.lm.model(**reading.inputs)
        reading = reading.resolved(output)
        return reading, reading.objective(output).tolist()


def _captured(
    reading: Reading, walkers: Sequence[Walker], progress: Progress | None
) -> tuple[Reading, list[float], list[Found]]:
    """Let methods walk over a capture of one forward pass."""
    model = reading.lm.model
    values = any(walker.needs_values for walker in walkers)
    total = reading.lm.facts.layers or 0

    def tell(done: int, name: str) -> None:
        del name
        if progress is not None:
            progress(done, max(total, done), f"reading {reading.n:,} tokens")

    with capture(model, values=values, output=values, device=reading.ids.device, progress=tell) as captured:
        reading, numbers = _asked(reading)
    return reading, numbers, walk(reading, walkers, _told(walk_capture(captured), len(captured), progress))


def _descended(
    reading: Reading, walkers: Sequence[Walker], progress: Progress | None
) -> tuple[Reading, list[float], list[Found]]:
    """Let methods walk while a backward pass goes down."""

    def objective(output: Any) -> Tensor:
        nonlocal reading
        reading = reading.resolved(output)
        return reading.objective(output)

    with descend(reading.lm.model, reading.inputs, objective, progress=progress) as descent:
        numbers = descent.values.tolist()
        for walker in walkers:
            walker.start(reading)
        for attended in descent:
            for walker in walkers:
                walker.visit(attended)
        for walker in walkers:
            if isinstance(walker, EmbeddingWalker):
                walker.arrive(descent.embeddings, descent.embedding_gradients)
    return reading, numbers, [walker.finish() for walker in walkers]


def _told(calls: Iterable[Attended], total: int, progress: Progress | None) -> Iterator[Attended]:
    """Pass attention calls on, and tell how many were walked over."""
    for done, attended in enumerate(calls, start=1):
        yield attended
        if progress is not None:
            progress(done, total, "walking down")


def _attribution(
    reading: Reading, parts: tuple[Span, ...], found: Found, index: int, value: float, choice: Choice, signed: bool
) -> Attribution:
    """Return what one method found of one target."""

    def of_target(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[index]

    document, count = reading.document, len(reading.targets)
    scores = found.scores[index]
    # What is a list says something of every target.
    notes = {
        name: note[index] if isinstance(note, list) and len(note) == count else note
        for name, note in found.notes.items()
    }
    target = reading.targets[index]
    settings = dict(choice.settings)
    told = {"method": choice.method.name, "preset": choice.preset, "target": target.name, "position": target.position}
    return Attribution(
        tokens=tuple(document.tokens),
        scores=scores,
        method=choice.method.name,
        preset=choice.preset,
        target=target,
        value=value,
        spans=parts,
        span_scores=span_scores(parts, scores),
        signed=signed,
        text=document.text,
        provenance=provenance_of(reading.lm, {**told, **settings}),
        layers=of_target(found.layers),
        low=of_target(found.low),
        high=of_target(found.high),
        settings=settings,
        notes=notes,
        answer=reading.answer,
    )
