"""`attlas.faithfulness`: takes away what explanations mark, and sees whether the model misses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

from attlas.capture import LanguageModel
from attlas.capture.asking import document_of
from attlas.errors import ArgumentError, complaint
from attlas.explain.attribution import Attribution
from attlas.explain.faithfulness.orders import POSITIONAL
from attlas.explain.faithfulness.questions import By, Choices, Question
from attlas.explain.faithfulness.record import Faithfulness
from attlas.explain.faithfulness.removing import Removal
from attlas.models import Document
from attlas.models.progress import Progress

FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)
"""ERASER's shares of a text."""


@overload
def faithfulness(
    lm: LanguageModel,
    text: str | Sequence[int],
    attribution: Attribution,
    *,
    budget: int = ...,
    removal: Removal = ...,
    fractions: Sequence[float] = ...,
    by: By = ...,
    baselines: Sequence[str] = ...,
    neutral: int | str | None = ...,
    layers: Sequence[int | str] | None = ...,
    seed: int = ...,
    progress: Progress | None = ...,
) -> Faithfulness: ...


@overload
def faithfulness(
    lm: LanguageModel,
    text: str | Sequence[int],
    attribution: Sequence[Attribution],
    *,
    budget: int = ...,
    removal: Removal = ...,
    fractions: Sequence[float] = ...,
    by: By = ...,
    baselines: Sequence[str] = ...,
    neutral: int | str | None = ...,
    layers: Sequence[int | str] | None = ...,
    seed: int = ...,
    progress: Progress | None = ...,
) -> tuple[Faithfulness, ...]: ...


def faithfulness(
    lm: LanguageModel,
    text: str | Sequence[int],
    attribution: Attribution | Sequence[Attribution],
    *,
    budget: int = 64,
    removal: Removal = "delete",
    fractions: Sequence[float] = FRACTIONS,
    by: By = "span",
    baselines: Sequence[str] = POSITIONAL,
    neutral: int | str | None = None,
    layers: Sequence[int | str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Faithfulness | tuple[Faithfulness, ...]:
    """Measure how far explanations of one text can be trusted: take away what they mark, and see what the model loses.

    Parameters
    ----------
    lm : LanguageModel
        The model that was explained.
    text : str or sequence of int
        The text that was explained, or its token ids.
    attribution : Attribution, or sequence of them
        What to measure. Those with the same target and spans share what is drawn at random, and so most passes.
    budget : int
        Sequences that may be run for each explanation, those that it shares with others counted for each. With five
        fractions, 27 are enough for the rank correlation with random ablations, which then carries the verdict; 72 add
        AOPC, comprehensiveness and what else is made of deletion, with intervals; 147 add insertion and sufficiency;
        from 302 on there are enough random orders for AOPC to carry the verdict. On short texts, where several
        fractions are as many tokens, fewer do.
    removal : {"delete", "mask", "mean", "knockout"}
        What it means to take tokens away; always in token ids, never by cutting a new text into tokens.

        ``"delete"``
            They are dropped, and what follows moves up.
        ``"mask"``
            The mask token stands in their place, or `neutral`.
        ``"mean"``
            The mean embedding of the text's tokens stands in their place.
        ``"knockout"``
            No query sees their keys, in all layers or in `layers`; other tokens stay where they were.
    fractions : sequence of float
        Shares of the tokens that are taken away, or put back; rising, above 0 and below 1.
    by : {"span", "token"}
        Whether the explanation's spans go as wholes, or single tokens.
    baselines : sequence of str
        Orders by position alone to compare with: some of ``"recency"``, ``"first_token"``, ``"null_attention"``.
    neutral : int or str, optional
        With ``"mask"``: the token to put in the place of others; the tokenizer's mask token by default.
    layers : sequence of int or str, optional
        With ``"knockout"``: in which layers, by number or module name; all by default.
    seed : int
        What orders and ablations are drawn from.
    progress : callable, optional
        Called as ``progress(sequences run, all of them, "taking parts away")``.

    Returns
    -------
    Faithfulness, or a tuple of them

    Raises
    ------
    ArgumentError
        The budget is too small for an interval (the message says what each measure needs), the explanation is of
        another text, target or model, or an argument does not fit.
    DocumentError
        Fewer than two parts of the text can be taken away.
    UnsupportedModelError
        The model cannot be run with tokens taken away in this way.

    Notes
    -----
    The tokens that the tokenizer adds ([CLS] …) and the one at which the target is read always stay; for a decoder,
    the text ends there. Parts go by falling score, of signed explanations those that speak for the target most first;
    equal ones in random order (`notes["tied"]` counts them). Every order takes away exactly as many tokens at a share.

    What each measure is stands in `attlas.explain.faithfulness.measures`: ``lds``, ``aopc``, ``top_k_drop``,
    ``comprehensiveness``, ``sufficiency``, ``insertion``, and the monotone conventions. Those that the budget does not
    reach are left out, and `notes["left_out"]` says what they need. The verdict is about AOPC where there are 39 random
    orders, and about the rank correlation otherwise, whatever comes out. It is "cannot tell" unless the explanation is
    better, or worse, than 97.5 % of chance: of random orders, or of its own scores given to other parts.

    Texts of up to 512 tokens share batches, padded on the right, once it is proved on this text that padding changes
    nothing. A deleted text is no text that the model was trained on; that holds for the random orders, too.
    """
    several = [attribution] if isinstance(attribution, Attribution) else list(attribution)
    choices = Choices(budget, removal, tuple(fractions), by, tuple(baselines), neutral, layers, seed)
    choices.check()
    document = document_of(lm, text)
    for one in several:
        _check_same(lm, document, one)
    spent = _Spent(progress)
    questions: dict[Any, Question] = {}
    asked = []
    for one in several:
        spans = tuple((span.start, span.stop) for span in one.spans) if by == "span" else None
        about = (replace(one.target, name=""), one.answer, spans)
        if about not in questions:
            questions[about] = Question(lm, document, one, choices, spent)
        asked.append((questions[about], questions[about].ordered(one)))
    for question in questions.values():
        spent.expect(question.runner.count(question.planned.shared))
    spent.expect(sum(question.own_cost(ordered) for question, ordered in asked))
    found = tuple(question.measure(ordered) for question, ordered in asked)
    return found[0] if isinstance(attribution, Attribution) else found


class _Spent:
    """Tells how many sequences have been run, of all that are planned."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done, self._total = progress, 0, 0

    def expect(self, count: int) -> None:
        """Take the news that so many more are planned."""
        self._total = max(self._total, self._done) + count

    def __call__(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, max(self._done, self._total), "taking parts away")


def _check_same(lm: LanguageModel, document: Document, attribution: Any) -> None:
    if not isinstance(attribution, Attribution):
        wanted = "an Attribution, which attlas.explain returns, or several"
        raise ArgumentError(complaint("attribution", wanted=wanted, got=f"a {type(attribution).__name__}"))
    if attribution.text != document.text or len(attribution.scores) != len(document):
        raise ArgumentError(
            complaint(
                "attribution",
                wanted=f"one of this text, of {len(document)} tokens",
                got=f"{attribution.name} of another one, of {len(attribution.scores)}",
                way_out="pass the text that was explained",
            )
        )
    if not bool(attribution.scores.isfinite().all()):
        raise ArgumentError(complaint("attribution", wanted="finite scores", got="NaN or infinity among them"))
    made_with = attribution.provenance.fingerprint
    if made_with and made_with != lm.facts.fingerprint:
        raise ArgumentError(
            complaint(
                "attribution",
                wanted=f"one of {lm.name} ({lm.facts.fingerprint})",
                got=f"{attribution.name} of {attribution.provenance.model} ({made_with})",
            )
        )
