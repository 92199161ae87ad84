"""`attlas.profile`: what every candidate pattern loses of every head of a model, on real documents.

For each text one forward pass, and one backward pass that goes down layer by layer: each layer's attention is met with
the loss's slope, measured against every pattern, and let go. What heads lose adds up only roughly, so a few plans are
then run as a whole, and plans are chosen by what these runs measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attlas.capture import LanguageModel
from attlas.capture.asking import provenance_of
from attlas.capture.attended import Attended
from attlas.capture.descent import descend
from attlas.errors import ArgumentError, CaptureError, complaint
from attlas.models.progress import Progress
from attlas.patterns import Full, Pattern
from attlas.planning.checking import check_plan
from attlas.planning.costs import measure_costs
from attlas.planning.effects import Effects, Head, TextRead, no_effects
from attlas.planning.held_out import KEY, mark
from attlas.planning.losses import Exact, losses
from attlas.planning.menu import default_patterns
from attlas.planning.profile import Profile
from attlas.planning.reading import Loss, Text, check_model, texts_of
from attlas.planning.subject import Subject

LENGTH = 2048
"""Tokens that are read of each text: enough to tell near from far, at a few seconds a text."""

AIMS = (0.03, 0.01)
"""At which rises of the loss, in nats, plans are run: where plans are usually wanted; the second corrects the first."""

CHECKED = 2
"""On how many texts each of them is run: in turn, so that all texts have their say."""

_STEPS = 100
"""What one text counts for in progress."""


def profile(
    lm: LanguageModel,
    texts: str | Sequence[str | Sequence[int]],
    patterns: Sequence[Pattern] | None = None,
    *,
    layers: Sequence[int] | None = None,
    length: int = LENGTH,
    aims: Sequence[float] = AIMS,
    loss: Loss | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Profile:
    """Measure what every pattern would lose of every head, and what plans made of them do to the loss.

    Parameters
    ----------
    lm : LanguageModel
        What `attlas.load` returned: a decoder; or, with `loss`, an encoder.
    texts : sequence of str, or of sequences of int
        Documents, or their token ids. Several, and like those that the model will read: what a head needs depends on
        the text.
    patterns : sequence of Pattern, optional
        The candidates; by default windows of 32 to 512 tokens, with 4 sinks, and blocks that are chosen by what they
        hold (`attlas.planning.menu`).
    layers : sequence of int, optional
        Which layers may get a pattern, numbered as a capture numbers them; all by default.
    length : int
        How many tokens are read of each text, from its beginning. More of them tell more of what is far away, and
        attention takes longer by their square.
    aims : sequence of float
        At which rises of the loss plans are run as a whole, each on two of the texts in turn; empty to leave
        predictions unchecked.
    loss : callable, optional
        ``loss(output)``: one number, differentiable, of what the model returns for one text. By default the mean
        next-token loss, in nats. A plan's `error` is by how much exp(loss) may rise, in proportion.
    seed : int
        What is drawn at random: rows in which total variation is sampled, and the heads that costs are timed on.
    progress : callable, optional
        Called as ``progress(done, total, what)``.

    Returns
    -------
    Profile

    Raises
    ------
    DocumentError
        A text is empty, or so short that no pattern would differ from exact attention; the message says how many
        tokens are needed.
    ArgumentError
        Another argument does not fit; or the model predicts no next token, and there is no `loss`.
    UnsupportedModelError
        The model's attention cannot be captured, or gradients cannot be taken.
    NonFiniteError
        A loss or a gradient is not finite.

    Notes
    -----
    Costs about three forward passes a text, a fraction of one for each pattern, and two for each aim. Memory is that of
    a text's logits, and of one layer's backward pass.

    Examples
    --------
    >>> profile = attlas.profile(lm, [first, second, third])  # doctest: +SKIP
    >>> plan = profile.plan(error=0.01)  # doctest: +SKIP
    """
    check_model(lm, loss)
    candidates = _checked_patterns(patterns)
    chosen = _checked_layers(layers, lm.facts.layers)
    if not isinstance(aims, Sequence) or isinstance(aims, str):
        raise ArgumentError(complaint("aims", wanted="several rises of the loss, such as (0.03, 0.01)", got=repr(aims)))
    for aim in aims:
        if isinstance(aim, bool) or not isinstance(aim, int | float) or not aim > 0:
            raise ArgumentError(complaint("aims", wanted="rises of the loss, above 0", got=repr(aim)))
    read = texts_of(lm, texts, candidates, length, loss)
    turns = _turns(len(read), len(aims))
    total = (len(read) + sum(map(len, turns))) * _STEPS

    def told(texts_done: float, what: str) -> None:
        if progress is not None:
            progress(int(texts_done * _STEPS), total, what)

    measured = []
    for number, text in enumerate(read):
        what = f"measuring text {number + 1} of {len(read)}"
        measured.append(_measure(lm, text, candidates, chosen, seed, lambda part, n=number, w=what: told(n + part, w)))
    effects = _together(measured, read, candidates)
    heads = measured[0]
    costs = measure_costs(
        [Full(), *candidates], heads.dim, causal=heads.causal, dtype=heads.dtype, device=heads.device, seed=seed
    )
    settings: dict[str, Any] = {KEY: [mark(text.ids.tolist()) for text in read], "length": length, "seed": seed}
    settings |= {"layers": None if chosen is None else sorted(chosen), "aims": list(aims)}
    settings["loss"] = "mean next-token loss" if loss is None else getattr(loss, "__name__", "own")
    made = Profile(effects, costs, (), Subject.of(lm), heads.names, provenance_of(lm, settings))
    done = len(read)
    for number, (aim, which) in enumerate(zip(aims, turns, strict=True), start=1):
        told(done, f"running plan {number} of {len(aims)}")
        made = check_plan(lm, made, read, aim, which)
        done += len(which)
    told(total / _STEPS, "measured")
    return made


# ---- one text


@dataclass(eq=False)
class _Measured:
    """What one text's descent found, layer by layer."""

    loss: float = 0.0
    heads: dict[int, list[Head]] = field(default_factory=dict)
    values: dict[int, Mapping[str, Tensor]] = field(default_factory=dict)
    layers: dict[int, str] = field(default_factory=dict)
    dim: int = 0
    causal: bool = True
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names, by number."""
        return tuple(self.layers[layer] for layer in sorted(self.layers))


def _measure(
    lm: LanguageModel, text: Text, patterns: Sequence[Pattern], layers: set[int] | None, seed: int, tell: Any
) -> _Measured:
    """Go down through the model once, and measure every pattern on every layer on the way."""
    found = _Measured()

    def told(done: int, total: int, what: str) -> None:
        del what
        tell(done / total)

    with descend(lm.model, text.inputs, text.objective, progress=told) as descent:
        found.loss = text.finite(float(descent.values[0]))
        for attended in descent:
            if attended.layer in found.heads:
                raise CaptureError(f"layer {attended.layer} ({attended.name}): wanted one call in a run, got several")
            matrix = attended.matrix
            found.heads[attended.layer], found.layers[attended.layer] = _heads_of(attended), attended.name
            found.dim, found.dtype, found.device = matrix.query.shape[3], matrix.dtype, str(matrix.device)
            found.causal = matrix.visibility.causal
            skipped = layers is not None and attended.layer not in layers
            found.values[attended.layer] = _of_layer(attended, () if skipped else patterns, len(patterns), text, seed)
    return found


def _of_layer(
    attended: Attended, patterns: Sequence[Pattern], columns: int, text: Text, seed: int
) -> Mapping[str, Tensor]:
    exact = Exact.of(attended, text.terms, seed)
    table = no_effects(exact.heads, columns)
    for column, pattern in enumerate(patterns):
        if not pattern.fits(exact.matrix):
            # These heads cannot have it: they stay NaN, and so exact.
            continue
        for name, values in losses(exact, pattern).items():
            table[name][:, column] = values
    return table


def _heads_of(attended: Attended) -> list[Head]:
    matrix = attended.matrix
    share = matrix.shape[1] // matrix.key.shape[1]
    seen = matrix.visibility
    return [Head(attended.layer, head, head // share, seen.causal, seen.window) for head in range(matrix.shape[1])]


def _together(measured: Sequence[_Measured], read: Sequence[Text], patterns: Sequence[Pattern]) -> Effects:
    layers = sorted(measured[0].heads)
    heads = tuple(head for layer in layers for head in measured[0].heads[layer])
    if any(sorted(one.heads) != layers for one in measured):
        raise CaptureError("model: wanted the same attention calls for every text, got others")
    names = measured[0].values[layers[0]]
    values = {
        name: torch.stack([torch.cat([one.values[layer][name] for layer in layers]) for one in measured])
        for name in names
    }
    texts = tuple(TextRead(len(text.ids), text.of, one.loss) for text, one in zip(read, measured, strict=True))
    return Effects(heads, tuple(patterns), texts, values)


def _turns(texts: int, checks: int) -> list[list[int]]:
    """Return on which texts each plan is run."""
    count = min(CHECKED, texts)
    return [sorted((number * count + one) % texts for one in range(count)) for number in range(checks)]


# ---- arguments


def _checked_patterns(patterns: Sequence[Pattern] | None) -> tuple[Pattern, ...]:
    if patterns is None:
        return default_patterns()
    given = tuple(patterns) if isinstance(patterns, Sequence) else ()
    if not given or not all(isinstance(one, Pattern) for one in given):
        raise ArgumentError(complaint("patterns", wanted="patterns of attlas.patterns, at least one", got=patterns))
    # That a head stays exact is always possible.
    others = tuple(one for one in dict.fromkeys(given) if one != Full())
    if not others:
        raise ArgumentError(complaint("patterns", wanted="one beside Full, which every head can have", got="none"))
    return others


def _checked_layers(layers: Sequence[int] | None, count: int | None) -> set[int] | None:
    if layers is None:
        return None
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < (count or layer + 1):
            wanted = "layer numbers from 0" if count is None else f"layer numbers from 0 to {count - 1}"
            raise ArgumentError(complaint("layers", wanted=wanted, got=repr(layer)))
    return set(layers)
