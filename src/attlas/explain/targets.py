"""Which number of a model's answer is explained: a token's probability, a class, a difference, or one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from attlas.errors import ArgumentError, UnsupportedModelError, complaint

Measure = Literal["log_prob", "logit"]

_SPECS = (
    'a position, (position, token), (position, token, other token), (position, "next"), '
    "Target.label(class), Target.of(function, position), or a list of such"
)


@dataclass(frozen=True)
class Target:
    """A number that the model gives, to be explained.

    Parameters
    ----------
    position : int or None
        The position that answers, from 0, or from the end if negative; where a walk through the attention begins. None
        for an answer that is pooled evenly over all tokens. Of an encoder-decoder model, a position of the decoder.
    token : int, optional
        The token whose prediction at that position is explained; None for the model's own top prediction there.
    against : int, optional
        A second token: then the difference between the two logits is explained.
    class_index : int, optional
        The class whose logit is explained, for a model that classifies; see `Target.label`.
    function : callable, optional
        ``function(output)``: makes one number, differentiable, of what the model returns; see `Target.of`.
    measure : {"log_prob", "logit"}
        What of the token's prediction; differences and classes are of logits.
    name : str
        What people read.
    settled : bool
        Whether the position is known; otherwise it is the one that the model's configuration names.

    Notes
    -----
    `attlas.explain` also takes shorter forms:

    ==============================  ====================================================================
    ``-1``                          the model's own top prediction at the last position
    ``(-1, " Paris")``, ``(-1, 7)`` the log-probability of a token there
    ``(-1, " Paris", " Rome")``     the difference between two logits there
    ``(4, "next")``                 the token that really follows position 4; for the word, give its id
    ``[-1, (4, "next")]``           several: a list
    ==============================  ====================================================================
    """

    position: int | None
    token: int | None = None
    against: int | None = None
    class_index: int | None = None
    function: Callable[[Any], Tensor] | None = None
    measure: Measure = "log_prob"
    name: str = ""
    settled: bool = True

    @classmethod
    def label(cls, index: int, position: int | Literal["default"] | None = "default") -> Target:
        """Return the logit of a class, of a model that classifies.

        Parameters
        ----------
        index : int
            The class.
        position : int or None, optional
            From which position the model's head reads; None if it pools evenly over all tokens. By default the one
            that its configuration names, else the first of an encoder and the last of a decoder.
        """
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise ArgumentError(complaint("target", wanted="a class number from 0", got=repr(index)))
        if position == "default":
            return cls(None, class_index=index, settled=False)
        return cls(position, class_index=index)

    @classmethod
    def of(cls, function: Callable[[Any], Tensor], position: int | None, name: str = "") -> Target:
        """Return a number of one's own.

        Parameters
        ----------
        function : callable
            ``function(output)``: makes one number, differentiable, of what the model returns for one text.
        position : int or None
            Where a walk through the attention begins: the position that the number is read from; None for all alike.
        name : str, optional
            What people read.
        """
        if not callable(function):
            raise ArgumentError(complaint("target", wanted="a function of the model's output", got=repr(function)))
        return cls(position, function=function, name=name or getattr(function, "__name__", "a function"))

    @property
    def quantity(self) -> str:
        """What kind of number it is, such as ``"log-probability"``."""
        if self.function is not None:
            return "value"
        if self.class_index is not None:
            return "logit"
        if self.against is not None:
            return "logit difference"
        return "log-probability" if self.measure == "log_prob" else "logit"

    def value(self, output: Any, row: int) -> Tensor:
        """Return the number, of what the model returned for one text; `row` is the target's row of its logits."""
        if self.function is not None:
            return self.function(output).reshape(())
        if self.class_index is not None:
            return _exact(output.logits[0, self.class_index])
        logits = _exact(output.logits[0, row])
        token = int(logits.argmax()) if self.token is None else self.token
        if self.against is not None:
            return logits[token] - logits[self.against]
        return logits.log_softmax(-1)[token] if self.measure == "log_prob" else logits[token]

    def resolved(self, output: Any, row: int, tokenizer: Any) -> Target:
        """Return the same, knowing which token it is and what to call it.

        Raises
        ------
        UnsupportedModelError
            The model gives no such number.
        ArgumentError
            It has no such class or token.
        """
        if self.function is not None:
            return self
        logits = getattr(output, "logits", None)
        axes = 2 if self.class_index is not None else 3
        if not isinstance(logits, Tensor) or logits.dim() != axes:
            raise _without_output(output, logits, axes)
        size = logits.shape[-1]
        for index in (self.token, self.against, self.class_index):
            if index is not None and not 0 <= index < size:
                kind = "a class" if self.class_index is not None else "a token id"
                raise ArgumentError(complaint("target", wanted=f"{kind} from 0 to {size - 1}", got=index))
        if self.class_index is not None:
            return self
        token = int(logits[0, row].argmax()) if self.token is None else self.token
        return replace(self, token=token, name=self.name or _name(token, self.against, tokenizer))


OneTarget = int | Target | tuple[int, int | str] | tuple[int, int | str, int | str]
"""How a target is asked for; see `Target`."""


def targets_of(
    specs: OneTarget | Sequence[OneTarget],
    tokenizer: Any,
    ids: Sequence[int],
    *,
    config: Any = None,
    vocabulary: int | None = None,
    kind: str,
) -> tuple[Target, ...]:
    """Return targets as they were asked for, with positions from 0 and tokens as ids; predictions are left open.

    Parameters
    ----------
    specs : int, tuple, Target or list of such
        See `Target`.
    tokenizer : PreTrainedTokenizerBase or None
    ids : sequence of int
        What the answering stack reads.
    config : PreTrainedConfig, optional
        The model's; names of classes, and where a classifier reads.
    vocabulary : int, optional
        How many tokens there are.
    kind : str
        ``"decoder"``, ``"encoder"`` or ``"encoder-decoder"``.

    Raises
    ------
    ArgumentError
        A target lies outside of the text or the vocabulary, or is none.
    """
    context = _Context(tokenizer, tuple(ids), config, vocabulary, kind)
    several = [specs] if is_one(specs) else specs
    if isinstance(several, str) or not isinstance(several, Sequence) or not len(several):
        raise ArgumentError(complaint("target", wanted=_SPECS, got=repr(specs)))
    return tuple(context.target(spec) for spec in several)


def is_one(spec: object) -> bool:
    """Whether a specification names one target, not several."""
    if isinstance(spec, tuple):
        return bool(spec) and isinstance(spec[0], int) and not all(isinstance(part, Target) for part in spec)
    return isinstance(spec, (Target, int))


@dataclass(frozen=True)
class _Context:
    tokenizer: Any
    ids: tuple[int, ...]
    config: Any
    vocabulary: int | None
    kind: str

    def target(self, spec: Any) -> Target:
        if isinstance(spec, Target):
            return self._checked(spec)
        if isinstance(spec, int) and not isinstance(spec, bool):
            return Target(self._position(spec))
        if not isinstance(spec, tuple) or not 2 <= len(spec) <= 3:
            raise ArgumentError(complaint("target", wanted=_SPECS, got=repr(spec)))
        position, tokens = self._position(spec[0]), spec[1:]
        if tokens == ("next",):
            return self._named(Target(position, self._next(position)))
        token, *against = map(self._token, tokens)
        return self._named(Target(position, token, against[0] if against else None))

    def _checked(self, target: Target) -> Target:
        if not target.settled:
            target = replace(target, position=_classifier_reads(self.config, self.kind), settled=True)
        position = None if target.position is None else self._position(target.position)
        if target.measure not in ("log_prob", "logit"):
            raise ArgumentError(complaint("target", wanted='measure "log_prob" or "logit"', got=repr(target.measure)))
        if target.function is None and target.class_index is None:
            if position is None:
                wanted = "a position, since a model predicts tokens at positions"
                raise ArgumentError(complaint("target", wanted=wanted, got="position None"))
            if target.against is not None and target.token is None:
                wanted = "a token to compare with the other one"
                raise ArgumentError(complaint("target", wanted=wanted, got=repr(target)))
            for token in (target.token, target.against):
                if token is not None:
                    self._token(token)
        return self._named(replace(target, position=position))

    def _position(self, position: Any) -> int:
        n = len(self.ids)
        if isinstance(position, bool) or not isinstance(position, int) or not -n <= position < n:
            part = "the decoder's tokens" if self.kind == "encoder-decoder" else "the text"
            wanted = f"a position inside of {part}, 0 to {n - 1}, or -{n} to -1 from the end"
            raise ArgumentError(complaint("target", wanted=wanted, got=repr(position)))
        return position % n

    def _next(self, position: int) -> int:
        if self.kind == "encoder":
            wanted = "a model that predicts next tokens"
            raise ArgumentError(
                complaint("target", wanted=wanted, got="an encoder", way_out="name the token: (position, token)")
            )
        if position + 1 >= len(self.ids):
            raise ArgumentError(
                complaint(
                    "target",
                    wanted=f'"next" at a position that a token follows, 0 to {len(self.ids) - 2}',
                    got=position,
                    way_out="name the token, or leave it out for the model's own prediction",
                )
            )
        return self.ids[position + 1]

    def _token(self, token: Any) -> int:
        if isinstance(token, str):
            return token_id(token, self.tokenizer)
        size = self.vocabulary
        if isinstance(token, bool) or not isinstance(token, int) or token < 0 or (size is not None and token >= size):
            wanted = "a token, as text or as an id from 0" + ("" if size is None else f" to {size - 1}")
            raise ArgumentError(complaint("target", wanted=wanted, got=repr(token)))
        return token

    def _named(self, target: Target) -> Target:
        if target.name:
            return target
        if target.class_index is not None:
            names = getattr(self.config, "id2label", None) or {}
            return replace(target, name=str(names.get(target.class_index, f"class {target.class_index}")))
        if target.token is None:
            return target
        return replace(target, name=_name(target.token, target.against, self.tokenizer))


def token_id(text: str, tokenizer: Any) -> int:
    """Return the id of a text that is one token: as it is written, or else with a space in front.

    Raises
    ------
    ArgumentError
        It is none, or several, which are named.
    """
    if tokenizer is None:
        raise ArgumentError(complaint("target", wanted="a token id, for a model without tokenizer", got=repr(text)))
    pieces: list[int] = []
    for spelling in (text, f" {text}"):
        ids = tokenizer(spelling, add_special_tokens=False)["input_ids"] if text else []
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            return int(ids[0])
        pieces = pieces or list(ids)
    unknown = len(pieces) == 1
    got = ", ".join(repr(tokenizer.decode([piece])) for piece in pieces) or "nothing"
    raise ArgumentError(
        complaint(
            "target",
            wanted="one token of the model's vocabulary",
            got=f"{text!r}, which it does not know" if unknown else f"{text!r}, which it cuts into {got}",
            way_out="" if unknown or not pieces else f"explain the first one, {tokenizer.decode(pieces[:1])!r}",
        )
    )


def _exact(logits: Tensor) -> Tensor:
    return logits if logits.dtype.itemsize == 8 else logits.float()


def _name(token: int, against: int | None, tokenizer: Any) -> str:
    names = [
        repr(tokenizer.decode([index])) if tokenizer is not None else f"token {index}"
        for index in (token, against)
        if index is not None
    ]
    return " − ".join(names)


def _classifier_reads(config: Any, kind: str) -> int | None:
    """Return from which position a classifier reads; None if it takes the mean."""
    pooling = getattr(config, "classifier_pooling", None) or getattr(config, "summary_type", None)
    stated = {"cls": 0, "first": 0, "mean": None, "last": -1}
    if pooling in stated:
        return stated[pooling]
    return 0 if kind == "encoder" else -1


def _without_output(output: Any, logits: Any, axes: int) -> UnsupportedModelError:
    asked = "classes" if axes == 2 else "tokens"
    if not isinstance(logits, Tensor):
        got = f"one that returns {type(output).__name__}, without logits"
        way_out = "pass target=Target.of(function of its output, position), or a model with a head"
    elif logits.dim() == 2:
        got, way_out = "one that classifies", "pass target=Target.label(class)"
    else:
        got, way_out = "one that predicts tokens", "pass a position, or (position, token)"
    return UnsupportedModelError(complaint("target", wanted=f"a model that predicts {asked}", got=got, way_out=way_out))
