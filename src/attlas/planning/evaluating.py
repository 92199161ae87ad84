"""`attlas.evaluate`: runs a plan and the exact model on texts that the plan was not made from, and tells them apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from attlas._intervals import FEWEST, simultaneous
from attlas.capture import LanguageModel
from attlas.capture.asking import check_length, document_of, predicts, provenance_of
from attlas.errors import ArgumentError, DocumentError, UnsupportedModelError, complaint
from attlas.models import Document
from attlas.models.progress import Progress
from attlas.patterns import Full, Pattern
from attlas.patterns.keep_set import KeepSet
from attlas.planning.answers import answers, difference
from attlas.planning.continuing import greedy
from attlas.planning.evaluation import Continued, Estimate, Evaluation, Held, Judged
from attlas.planning.flipping import flips_of
from attlas.planning.haystacks import Grid, haystacks
from attlas.planning.held_out import check_held_out
from attlas.planning.plan import Plan, check_guard
from attlas.planning.retrieval import retrieval
from attlas.planning.speed import speed
from attlas.planning.subject import sites_of

if TYPE_CHECKING:
    from attlas.planning.dispatch import Applied

STRETCHES = 16
"""Stretches that each text is cut into for its interval."""

SHORTEST = 32
"""Tokens of the shortest stretch."""

LEAST = 32
"""Tokens of the shortest text that says anything."""

LARGEST = 700.0
"""Nats beyond which a perplexity's ratio is infinite."""

PROMPT = 512
"""The most tokens that are read before text is generated."""


@dataclass(frozen=True)
class _Read:
    """What one text said of the plan, token by token."""

    judged: Judged
    rise: Tensor  # (n - 1,), float64: the plan's loss less the exact one


def evaluate(
    lm: LanguageModel,
    plan: Plan,
    texts: str | Sequence[str | Sequence[int]],
    *,
    length: int | None = None,
    needles: bool | Grid = True,
    generate: int = 32,
    timing: int = 3,
    flips: bool = True,
    guard: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare a model under a plan with the exact model, on texts that the plan was not made from.

    Parameters
    ----------
    lm : LanguageModel
        The model that the plan is for; it predicts next tokens.
    plan : Plan
        From `Profile.plan`, or a file.
    texts : str, or sequence of str or of sequences of int
        Held-out documents, or their token ids. With eight or more, the interval of the perplexity says how sure it is
        on other texts like these; with fewer, only on these.
    length : int, optional
        How many tokens are read of each text, from its beginning; all of them by default.
    needles : bool or Grid
        Whether planted facts are looked for, and which: by default of 512 and 1,024 tokens, or what the model can read.
    generate : int
        How many tokens are written after the first half of each text; 0 for none.
    timing : int
        How many rounds reading and writing are timed on the longest text; 0 for none.
    flips : bool
        Whether to measure which heads would get another pattern on these texts. Costs about what the profile did.
    guard : float, optional
        Run with a check: a head whose pattern drops more than this share of its attention, on a few rows of a call,
        runs exactly in this call.
    seed : int
        What haystacks, resamples and sampled rows are drawn from.
    progress : callable, optional
        Called as ``progress(done, total, what)``.

    Returns
    -------
    Evaluation

    Raises
    ------
    DocumentError
        There is no text; one is too short, has more tokens than the model has positions, or is one that the plan was
        made from.
    ArgumentError
        The plan is for another model, or another argument does not fit.
    UnsupportedModelError
        The model predicts no next token, or none of its attention can be routed.

    Notes
    -----
    Two forward passes for each text, four for the timing of one, and those of `retrieval`; memory is O(n · d_model),
    or O(n · vocabulary) for a model that does more to logits than to embed states.

    Examples
    --------
    >>> print(attlas.evaluate(lm, plan, [text]).summary)  # doctest: +SKIP
    """
    _check_kinds(lm, plan)
    if not predicts(lm):
        raise UnsupportedModelError(
            f"{lm.name}: predicts no next token, so there is no perplexity and no text to compare; compare its states"
        )
    plan.subject.check(lm)
    grid = _checked_grid(lm, needles)
    _check_counts(generate=generate, timing=timing)
    check_guard(guard)
    documents = _documents(lm, plan, texts, length)
    ids = [document.ids for document in documents]
    if grid is not None:
        # Whether the model can be asked is found out before the long work.
        haystacks(lm, replace(grid, depths=grid.depths[:1], each=1), seed)
    table = patterns_of(lm, plan)
    if not table:
        raise UnsupportedModelError(f"{lm.name}: none of its attention can be routed, so no plan changes it")
    dispatched: list[Applied] = []

    def applied() -> AbstractContextManager[Any]:
        return _noting(plan, lm, guard, dispatched)

    read = _read_all(lm, applied, ids, progress)
    continued = _continue_all(lm, applied, ids, generate, progress) if generate else ()
    longest = max(ids, key=len)
    full = sum(isinstance(pattern, Full) for pattern in table.values())
    settings = {
        "texts": len(ids), "tokens": [len(one) for one in ids], "generate": generate, "timing": timing, "guard": guard,
        "needles": None if grid is None else {"lengths": grid.lengths, "depths": grid.depths, "each": grid.each},
        "seed": seed, "plan": plan.provenance.as_dict(),
    }  # fmt: skip
    ratio, units = _overall(read, seed)
    return Evaluation(
        texts=_with_intervals(read, seed),
        ratio=ratio,
        units=units,
        retrieval=None if grid is None else retrieval(lm, applied, grid, seed=seed, progress=progress),
        continued=continued,
        flips=flips_of(
            lm, table, ids, together=plan.provenance.settings.get("by") == "kv_head", seed=seed, progress=progress
        )
        if flips
        else None,
        speed=speed(lm, applied, longest, full=full / len(table), rounds=timing, progress=progress) if timing else None,
        held=held_by(table, lm, len(longest)),
        heads=len(table),
        full=full,
        routed=_routed(dispatched),
        stayed=_stayed(dispatched),
        strayed=len({head for report in dispatched for head in report.strayed}),
        ahead=sum(isinstance(pattern, KeepSet) and pattern.chooses for pattern in table.values()),
        provenance=provenance_of(lm, settings),
    )


def patterns_of(lm: LanguageModel, plan: Plan) -> dict[tuple[int, int], Pattern]:
    """Return the pattern of every head of a model under a plan, those that stay exact among them."""
    table = {}
    for number, site in enumerate(sites_of(lm)):
        for head in range(site.heads):
            named = plan.patterns.get((site.label, head), Full())
            table[number, head] = plan.patterns.get((number, head), named)
    return table


def held_by(table: Mapping[tuple[int, int], Pattern], lm: LanguageModel, tokens: int) -> Held:
    """Return the keys and values that have to be held after some tokens, of everything and under a plan's patterns.

    Sliding windows of the model's own are not counted on either side.
    """
    units: dict[tuple[int, int], int] = {}
    heads, kv_heads = lm.facts.heads or 1, lm.facts.kv_heads or lm.facts.heads or 1
    for (layer, head), pattern in table.items():
        unit = layer, head * kv_heads // heads
        units[unit] = max(units.get(unit, 0), min(tokens, pattern.held(tokens)))
    each = 2 * (lm.facts.dim or 0) * next(lm.model.parameters()).element_size()
    return Held(tokens, each * tokens * len(units), each * sum(units.values()))


@contextmanager
def _noting(plan: Plan, lm: LanguageModel, guard: float | None, reports: list[Applied]) -> Iterator[None]:
    """Apply a plan, and keep what it says became of it."""
    with plan.applied(lm, guard=guard) as report:
        yield
    reports.append(report)


def _routed(reports: Sequence[Applied]) -> int:
    """Return how many heads ran by a pattern other than full."""
    heads = {
        (layer, head)
        for report in reports
        for layer, groups in report.routed.items()
        for group in groups.values()
        for head in group
    }
    return len(heads)


def _stayed(reports: Sequence[Applied]) -> dict[str, str]:
    """Return what could not be routed, and why."""
    found: dict[str, str] = {}
    for report in reports:
        for kept in report.exact:
            found[f"{kept.layer}, heads {', '.join(map(str, kept.heads))}"] = kept.reason
        found.update(report.left)
    return found


def _read_all(
    lm: LanguageModel,
    applied: Callable[[], AbstractContextManager[Any]],
    ids: Sequence[Sequence[int]],
    progress: Progress | None,
) -> list[_Read]:
    found = []
    for number, one in enumerate(ids):
        exact = answers(lm, one)
        if progress is not None:
            progress(2 * number + 1, 2 * len(ids), "reading held-out texts")
        with applied():
            planned = answers(lm, one)
        told = difference(exact, planned, one)
        rise = told.planned - told.exact
        worst = int(told.divergence.argmax())
        found.append(
            _Read(
                Judged(
                    text=number,
                    tokens=len(one),
                    exact=float(told.exact.mean()),
                    planned=float(told.planned.mean()),
                    ratio=Estimate(_grown(float(rise.mean())), math.nan, math.nan),
                    divergence=float(told.divergence.mean()),
                    divergence_p95=float(told.divergence.quantile(0.95)),
                    divergence_worst=float(told.divergence[worst]),
                    worst_at=worst,
                    same=float(told.same.double().mean()),
                ),
                rise,
            )
        )
        if progress is not None:
            progress(2 * number + 2, 2 * len(ids), "reading held-out texts")
    return found


def _overall(read: Sequence[_Read], seed: int) -> tuple[Estimate, Literal["texts", "stretches"]]:
    """Return the plan's perplexity over the exact one on all tokens, and what its interval draws."""
    rises = [one.rise for one in read]
    if len(rises) >= FEWEST:
        return _estimate(rises, seed), "texts"
    return _estimate([part for rise in rises for part in rise.tensor_split(_parts(rise))], seed), "stretches"


def _estimate(units: Sequence[Tensor], seed: int) -> Estimate:
    """Return the ratio of all units' tokens together, with an interval that draws units."""
    total = sum(len(unit) for unit in units)
    middle = _grown(float(torch.cat(list(units)).mean()))
    if len(units) < FEWEST:
        return Estimate(middle, math.nan, math.nan)
    # Units differ in length: weighted, so that their mean is that of all tokens.
    scores = torch.stack([unit.sum() * len(units) / total for unit in units])
    found = simultaneous(scores[:, None], seed=seed)
    return Estimate(middle, _grown(float(found.low[0])), _grown(float(found.high[0])))


def _with_intervals(read: Sequence[_Read], seed: int) -> tuple[Judged, ...]:
    """Give every text its interval; they hold for all texts at once."""
    if min(_parts(one.rise) for one in read) < FEWEST:
        return tuple(one.judged for one in read)
    count = min(_parts(one.rise) for one in read)
    columns = [
        torch.stack([part.sum() * count / len(one.rise) for part in one.rise.tensor_split(count)]) for one in read
    ]
    found = simultaneous(torch.stack(columns, dim=1), seed=seed)
    ends = zip(read, found.low.tolist(), found.high.tolist(), strict=True)
    return tuple(
        replace(one.judged, ratio=Estimate(one.judged.ratio.value, _grown(low), _grown(high)))
        for one, low, high in ends
    )


def _parts(rise: Tensor) -> int:
    """Return into how many stretches a text is cut: fewer where they would be very short."""
    return min(STRETCHES, len(rise) // SHORTEST) or 1


def _grown(rise: float) -> float:
    """Return the factor by which perplexity grows with a loss that rises; infinity where that is beyond a float."""
    return math.exp(rise) if rise < LARGEST else math.inf


def _continue_all(
    lm: LanguageModel,
    applied: Callable[[], AbstractContextManager[Any]],
    ids: Sequence[Sequence[int]],
    count: int,
    progress: Progress | None,
) -> tuple[Continued, ...]:
    found = []
    for number, one in enumerate(ids):
        # What follows is written, so that a text that fills all positions leaves room for it.
        read = max(1, min(PROMPT, len(one) // 2, (lm.facts.positions or len(one) + count) - count))
        exact = greedy(lm, one[:read], count).tokens
        with applied():
            planned = greedy(lm, one[:read], count).tokens
        equal = [a == b for a, b in zip(exact, planned, strict=True)]
        parted = equal.index(False) if False in equal else count
        texts = (_decoded(lm, tokens) for tokens in (exact, planned))
        found.append(Continued(number, read, count, parted, sum(equal) / count, *texts))
        if progress is not None:
            progress(number + 1, len(ids), "generating text")
    return tuple(found)


def _decoded(lm: LanguageModel, tokens: Sequence[int]) -> str:
    return lm.tokenizer.decode(list(tokens)) if lm.tokenizer is not None else " ".join(map(str, tokens))


def _documents(lm: LanguageModel, plan: Plan, texts: Any, length: int | None) -> list[Document]:
    several = [texts] if isinstance(texts, str) else texts
    if not isinstance(several, Sequence) or not several:
        raise DocumentError("texts: wanted at least one held-out text, got none; give texts the plan was not made from")
    if all(isinstance(one, int) for one in several):
        raise ArgumentError(complaint("texts", wanted="several texts", got="the token ids of one; put them in a list"))
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < LEAST):
        raise ArgumentError(complaint("length", wanted=f"a whole number of tokens from {LEAST}", got=repr(length)))
    whole = [lm.tokenize(one) if isinstance(one, str) else document_of(lm, one[:length]) for one in several]
    found = [one if length is None else document_of(lm, one.ids[:length]) for one in whole]
    for document in found:
        check_length(lm, document)
    # A text is known again by its beginning, of which a plan may have read more than is read here.
    check_held_out(plan.provenance.settings, whole)
    for number, document in enumerate(found):
        if len(document) < LEAST:
            raise DocumentError(
                f"texts: wanted at least {LEAST} tokens in each, got {len(document)} in text {number + 1}; give a "
                "longer one"
            )
    return found


def _checked_grid(lm: LanguageModel, needles: bool | Grid) -> Grid | None:
    if isinstance(needles, Grid):
        return needles
    if not isinstance(needles, bool):
        raise ArgumentError(complaint("needles", wanted="True, False or a Grid", got=repr(needles)))
    if not needles:
        return None
    positions = lm.facts.positions or max(Grid().lengths)
    lengths = tuple(length for length in Grid().lengths if length <= positions)
    return replace(Grid(), lengths=lengths or (positions,))


def _check_kinds(lm: object, plan: object) -> None:
    """Refuse what is easily taken for a model that can read, or for a plan."""
    if not isinstance(lm, LanguageModel):
        raise ArgumentError(complaint("lm", wanted="what attlas.load returned", got=f"a {type(lm).__name__}"))
    if not isinstance(plan, Plan):
        way_out = "attlas.open_plan opens a file, and profile.plan makes one"
        raise ArgumentError(complaint("plan", wanted="a Plan", got=f"a {type(plan).__name__}", way_out=way_out))


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ArgumentError(complaint(name, wanted="a whole number from 0", got=repr(value)))
