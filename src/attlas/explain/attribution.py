"""An explanation: a score for every token and span of a text, which knows how it was made and how far it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from attlas._showing import shown
from attlas._tables import Table
from attlas.explain.targets import Target
from attlas.results import Provenance

if TYPE_CHECKING:
    from attlas.explain.faithfulness.record import Faithfulness

_NAMED = 8  # how many of several things a description names


@dataclass(frozen=True)
class Span:
    """Some consecutive tokens of a text: a word, a sentence, a line, a turn.

    Parameters
    ----------
    start, stop : int
        Its tokens, from and up to.
    text : str
        What it says.
    """

    start: int
    stop: int
    text: str


@dataclass(frozen=True, eq=False)
class Attribution(Table):
    """How much each part of a text had to do with one target, by one method.

    Parameters
    ----------
    tokens : tuple of str
        The text's tokens, readable.
    scores : Tensor, (n,), float64
        A score for every token; its unit is the method's own.
    method, preset : str
        By which method, and by whose rules where there are several (empty if there is one).
    target : Target
        What is explained.
    value : float
        The target's value on the text.
    spans : tuple of Span
        The parts that people read: tokens, words, sentences …
    span_scores : Tensor, (span,), float64
        The sum of each span's token scores.
    signed : bool
        Whether scores below zero speak against the target.
    text : str
        The document.
    layers : Tensor, (layer, n), optional
        Relevance on the way: what had been passed down to each token below each layer, lowest first.
    low, high : Tensor, (n,), optional
        Bounds of the scores where only bounds are known.
    faithfulness : Faithfulness, optional
        How far it can be trusted; None where that was not measured.
    settings, notes : mapping
        Choices that were made, defaults included; what a reader must know.
    answer : tuple of int
        Of an encoder-decoder model, the token ids that its decoder was given; `target` lies at one of them.
    provenance : Provenance
        How it was made.
    """

    tokens: tuple[str, ...]
    scores: Tensor
    method: str
    preset: str
    target: Target
    value: float
    spans: tuple[Span, ...]
    span_scores: Tensor
    signed: bool
    text: str
    provenance: Provenance
    layers: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None
    faithfulness: Faithfulness | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    answer: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The method, with its preset where it has one."""
        return f"{self.method} ({self.preset})" if self.preset else self.method

    def with_faithfulness(self, faithfulness: Faithfulness) -> Attribution:
        """Return the same explanation, knowing how far it can be trusted."""
        return replace(self, faithfulness=faithfulness)

    def top(self, count: int = 10) -> list[tuple[Span, float]]:
        """Return the spans with the largest scores, by magnitude, and these scores."""
        order = self.span_scores.abs().argsort(descending=True, stable=True)[:count].tolist()
        return [(self.spans[i], float(self.span_scores[i])) for i in order]

    def describe(self) -> str:
        """Say in words how it was made: what is explained, every choice, what a reader must know, and how far it holds.

        Two explanations of the same name can differ in any of these choices.
        """
        where = "pooled over all positions" if self.target.position is None else f"at position {self.target.position}"
        lines = [
            f"{self.name} of the {self.target.quantity} of {self.target.name}, {where}: {self.value:.4g}",
            f"model: {self.provenance.model}, {len(self.tokens):,} tokens in {len(self.spans):,} spans",
            *(f"{name.replace('_', ' ')}: {_words(value)}" for name, value in self.settings.items()),
            *(f"note, {name.replace('_', ' ')}: {_words(value)}" for name, value in self.notes.items()),
            f"faithfulness: {'not measured' if self.faithfulness is None else self.faithfulness.summary}",
        ]
        return "\n".join(lines)

    def about(self) -> Mapping[str, Any]:
        return {
            "target": {"name": self.target.name, "position": self.target.position, "quantity": self.target.quantity},
            "value": self.value,
            "signed": self.signed,
            "settings": dict(self.settings),
            "notes": dict(self.notes),
            "spans": [[span.start, span.stop] for span in self.spans],
        }

    def __repr__(self) -> str:
        trust = "faithfulness not measured" if self.faithfulness is None else self.faithfulness.verdict
        return f"Attribution({self.name} of {self.target.name}, {len(self.tokens):,} tokens, {trust})"

    def show(self, *, title: str = "an explanation", height: int = 640) -> Any:
        """Look around in it, in Jupyter or VS Code: the page of `attlas.view.explanation_page`, in a frame.

        Parameters
        ----------
        title : str
            The document's name.
        height : int
            Of the frame, in pixels.

        Returns
        -------
        object
            A page that the notebook displays, and that stays in it when it is saved.
        """
        return shown(self, title=title, height=height)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the verdict, and the text coloured by the scores."""
        from attlas.explain.markup import markup

        return markup(self)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a token, as plain types."""
        spans = {token: i for i, span in enumerate(self.spans) for token in range(span.start, span.stop)}
        return [
            {
                "method": self.method,
                "preset": self.preset,
                "target": self.target.name,
                "position": i,
                "token": token,
                "score": float(self.scores[i]),
                "span": spans.get(i),
            }
            for i, token in enumerate(self.tokens)
        ]


def _words(value: Any) -> str:
    if value is None:
        return "by default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        value = [f"{name}: {_words(one)}" for name, one in value.items()]
    if isinstance(value, (list, tuple)):
        more = f" and {len(value) - _NAMED:,} more" if len(value) > _NAMED else ""
        return ", ".join(map(_words, value[:_NAMED])) + more
    return str(value)
