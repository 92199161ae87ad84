"""Every method by name: what it computes, whose it is, by which rules, and where it is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from attlas.errors import ArgumentError, complaint

if TYPE_CHECKING:
    from attlas.explain.references import Reference
    from attlas.explain.walk import Walker

Needs = Literal["attention", "values", "gradients", "passes", "nothing"]
"""What a method needs of the model: a forward pass and its attention; the values, too; a backward pass; many forward
passes; or nothing."""


@dataclass(frozen=True)
class Method:
    """A method.

    Parameters
    ----------
    name : str
        What it is called.
    summary : str
        What it computes, in a line.
    paper : str
        Whose it is; empty where it is nobody's.
    needs : str
        What it needs of the model; see `Needs`.
    signed : bool
        Whether scores below zero speak against the target.
    home : str
        The module that makes it, and the name there.
    rules : mapping
        Its presets, unless what makes it has some of its own.
    """

    name: str
    summary: str
    paper: str
    needs: Needs
    signed: bool
    home: str
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def maker(self) -> Callable[..., Walker | Reference]:
        """What makes it, of its settings."""
        module, name = self.home.split(":")
        return getattr(import_module(f"attlas.explain.{module}"), name)

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings and their defaults."""
        return {one.name: one.default for one in inspect.signature(self.maker).parameters.values()}

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """By whose rules it can be computed: name -> the settings that make it so, the default first.

        Empty where there is one way.
        """
        return getattr(self.maker, "presets", self.rules)

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as plain types."""
        return {
            "name": self.name,
            "summary": self.summary,
            "paper": self.paper,
            "needs": self.needs,
            "signed": self.signed,
            "presets": list(self.presets),
        }


_ALL = (
    Method(
        "attention",
        "the attention of the target's position, averaged over layers and heads, or of one",
        "",
        "attention",
        signed=False,
        home="attention_walks:RawAttention",
    ),
    Method(
        "rollout",
        "products of the layers' head means, each mixed with the residual stream",
        "Abnar and Zuidema 2020",
        "attention",
        signed=False,
        home="attention_walks:Rollout",
    ),
    Method(
        "rollout_null",
        "rollout beside what even attention would give in the same places, with the first token's part removed",
        "",
        "attention",
        signed=False,
        home="attention_walks:RolloutNull",
    ),
    Method(
        "flow",
        "the largest flow from each token to the target through the strongest edges, with bounds",
        "Abnar and Zuidema 2020",
        "attention",
        signed=False,
        home="flow:Flow",
    ),
    Method(
        "attention_gradient",
        "attention times its gradient, summed over queries, heads and layers",
        "",
        "gradients",
        signed=True,
        home="gradient_walks:AttentionTimesGradient",
    ),
    Method(
        "chefer",
        "products over layers of the positive part of attention times its gradient",
        "Chefer, Gur and Wolf 2021",
        "gradients",
        signed=False,
        home="gradient_walks:Chefer",
    ),
    Method(
        "grad_sam",
        "attention times the positive part of its gradient, averaged over queries, heads and layers",
        "Barkan et al. 2021",
        "gradients",
        signed=False,
        home="gradient_walks:GradSam",
    ),
    Method(
        "value_norm",
        "norms of what attention passes on: weights times transformed values",
        "Kobayashi et al. 2020, 2021",
        "values",
        signed=False,
        home="value_norms:ValueNorm",
        rules={
            "paper-2020": {},
            "heads": {"of": "heads"},
            "residual": {"of": "residual"},
            "paper-2021": {"of": "residual-norm"},
        },
    ),
    Method(
        "globenc",
        "products over layers of the norms of what attention, residual stream and normalisation pass on",
        "Modarressi et al. 2022",
        "values",
        signed=False,
        home="value_norms:GlobEnc",
        rules={"paper": {}, "released": {"normalise": False}, "pre-norm": {"norms": False}},
    ),
    Method(
        "alti",
        "products over layers of how near each token's part comes to the block's result",
        "Ferrando, Gállego and Costa-jussà 2022",
        "values",
        signed=False,
        home="value_norms:Alti",
        rules={"paper": {}, "euclidean": {"order": 2}},
    ),
    Method(
        "suppression",
        "what the target would lose, to first order, if all queries attended less to a token",
        "Deiseroth et al. 2023 (AtMan)",
        "gradients",
        signed=True,
        home="gradient_walks:Suppression",
    ),
    Method(
        "gradient_input",
        "each token's embedding times the target's gradient, summed over its width",
        "Simonyan, Vedaldi and Zisserman 2014; Denil, Demiraj and de Freitas 2014",
        "gradients",
        signed=True,
        home="references:GradientInput",
    ),
    Method(
        "integrated_gradients",
        "the same, with the gradient averaged on the way from a baseline to the text",
        "Sundararajan, Taly and Yan 2017",
        "passes",
        signed=True,
        home="integrated:IntegratedGradients",
    ),
    Method(
        "occlusion",
        "what the target loses when a span is taken away, one span after another",
        "Zeiler and Fergus 2014",
        "passes",
        signed=True,
        home="occlusion:Occlusion",
    ),
    Method("random", "random numbers: what chance explains", "", "nothing", signed=False, home="references:Random"),
    Method("recency", "nearness to the target's position", "", "nothing", signed=False, home="references:Recency"),
    Method(
        "first_token",
        "everything on the first token, where attention likes to rest",
        "",
        "nothing",
        signed=False,
        home="references:FirstToken",
    ),
)

METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}
"""Every method by its name."""


@dataclass(frozen=True)
class Choice:
    """A method as it is to be used.

    Parameters
    ----------
    method : Method
        Which.
    preset : str
        By whose rules; empty where there is one way.
    given : mapping
        Settings that the caller chose; they come before the preset's.
    """

    method: Method
    preset: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting: the method's defaults, the preset's, the caller's."""
        rules = dict(self.method.presets[self.preset]) if self.preset else {}
        return {**self.method.settings, **rules, **self.given}

    def make(self) -> Walker | Reference:
        """Make a new one."""
        return self.method.maker(**self.settings)


def choices(
    method: str | Sequence[str], preset: str | None = None, settings: Mapping[str, Any] | None = None
) -> tuple[Choice, ...]:
    """Return the methods that are to be used.

    Parameters
    ----------
    method : str or sequence of str
        Names; ``"chefer:released-bert"`` names a method and its preset.
    preset : str, optional
        For every method that is named without one.
    settings : mapping, optional
        Each goes to every method that knows it.

    Raises
    ------
    ArgumentError
        There is no such method, preset or setting, or one is named twice.
    """
    if not isinstance(method, (str, Sequence)):
        raise ArgumentError(complaint("method", wanted="a name, or a sequence of names", got=repr(method)))
    names = [method] if isinstance(method, str) else list(method)
    if not names:
        raise ArgumentError(complaint("method", wanted="at least one method", got="none"))
    found = [_named(name, preset) for name in names]
    for i, one in enumerate(found):
        if one in found[:i]:
            raise ArgumentError(complaint("method", wanted="each method once", got=f"{names[i]!r} twice"))
    given = dict(settings or {})
    known = {name: None for one, _ in found for name in one.settings}
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, 1)
            raise ArgumentError(
                complaint(
                    name,
                    wanted=f"a setting of {', '.join(one.name for one, _ in found)} ({', '.join(known) or 'none'})",
                    got="one that is not known",
                    way_out=f"did you mean {close[0]}?" if close else "",
                )
            )
    return tuple(
        Choice(one, rules, {name: value for name, value in given.items() if name in one.settings})
        for one, rules in found
    )


def _named(name: object, preset: str | None) -> tuple[Method, str]:
    if not isinstance(name, str):
        raise ArgumentError(complaint("method", wanted="the name of a method, or a sequence of them", got=repr(name)))
    plain, _, own = name.partition(":")
    method = METHODS.get(plain)
    if method is None:
        close = get_close_matches(plain, METHODS, 1)
        raise ArgumentError(
            complaint(
                "method",
                wanted=f"one of {', '.join(METHODS)}",
                got=repr(name),
                way_out=f"did you mean {close[0]}?" if close else "",
            )
        )
    rules = own or preset
    if rules is None:
        return method, next(iter(method.presets), "")
    if rules not in method.presets:
        wanted = f"one of {', '.join(method.presets)}" if method.presets else "none"
        raise ArgumentError(complaint("preset", wanted=f"{wanted} for {plain}", got=repr(rules)))
    return method, rules
