"""A plan: which pattern every head of a model has, what it is expected to cost and lose, and how it was made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from attlas import __version__
from attlas.capture.intervention import module_of
from attlas.capture.language_model import LanguageModel
from attlas.capture.replacing import replacing
from attlas.errors import ArgumentError, complaint
from attlas.patterns import Full, Pattern
from attlas.planning.decoding import cache_for
from attlas.planning.dispatch import Applied, Dispatcher, Layer
from attlas.planning.subject import Site, Subject, numbered, sites_of
from attlas.results import Provenance

Patterns = (
    Mapping[tuple[int, int], Pattern]
    | Mapping[tuple[str, int], Pattern]
    | Mapping[tuple[Layer, int], Pattern]
    | Callable[[int, int], Pattern | None]
)
"""(layer, head) -> pattern, as a mapping or a function; what is left out, or None, stays exact."""


@dataclass(frozen=True)
class Expected:
    """A number that a plan was made with.

    Parameters
    ----------
    value : float
    meaning : str
        What it is, in words, with its unit.
    """

    value: float
    meaning: str


@dataclass(frozen=True)
class Plan:
    """Which pattern every head of a model has.

    Made by `Plan.of`, `Plan.exact`, `Profile.plan` and `attlas.open_plan`.

    Parameters
    ----------
    subject : Subject
        Which model it is for.
    patterns : mapping
        (layer, head) -> pattern. A layer is its number, in the order of first calls, or its module's name. Heads that
        are not in it stay exact.
    layers : tuple of str
        The names of the model's attention layers by number; empty where they are not known.
    sizes : tuple of int
        How many heads each of these layers has.
    expected : mapping
        Name -> `Expected`: what was measured when it was made, such as its error and its cost.
    provenance : Provenance
        How it was made.

    Examples
    --------
    >>> lm = attlas.load("smollm2-135m")  # doctest: +SKIP
    >>> plan = attlas.Plan.of(lm, {(0, 3): attlas.patterns.SlidingWindow(256, sinks=4)})  # doctest: +SKIP
    >>> with plan.applied(lm) as applied:  # doctest: +SKIP
    ...     lm.model(**inputs)
    >>> print(applied)  # doctest: +SKIP
    """

    subject: Subject
    patterns: Mapping[tuple[Layer, int], Pattern]
    layers: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    expected: Mapping[str, Expected] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=lambda: Provenance(__version__))

    def __post_init__(self) -> None:
        kept = {place: pattern for place, pattern in self.patterns.items() if not isinstance(pattern, Full)}
        object.__setattr__(self, "patterns", MappingProxyType(dict(sorted(kept.items(), key=_by_place))))
        object.__setattr__(self, "expected", MappingProxyType(dict(self.expected)))
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if self.sizes and len(self.sizes) != len(self.layers):
            wanted, got = f"a number of heads for each of {len(self.layers)} layers", f"{len(self.sizes)} numbers"
            raise ArgumentError(complaint("sizes", wanted=wanted, got=got))

    # ---- making

    @classmethod
    def of(
        cls,
        model: LanguageModel | nn.Module,
        patterns: Patterns,
        *,
        layers: Sequence[str] | None = None,
        expected: Mapping[str, Expected] | None = None,
        texts: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> Plan:
        """Make a plan.

        Parameters
        ----------
        model : LanguageModel or torch.nn.Module
            Whom it is for. A bare module has no fingerprint, so a plan for it is checked less strictly.
        patterns : mapping or callable
            (layer, head) -> pattern; or a function of layer and head, for a model whose layers and heads are known.
            Heads that are left out, or None, stay exact.
        layers : sequence of str, optional
            The names of its attention layers in the order of their calls, as `Capture.names` has them. A LanguageModel
            is asked by reading four tokens.
        expected : mapping, optional
            Name -> `Expected`.
        texts : sequence of str, optional
            What it was made from; their hashes and lengths are kept, not the texts.
        settings : mapping, optional
            Choices that it was made with, as plain JSON values.

        Raises
        ------
        ArgumentError
            A layer, head or pattern is not one.
        """
        module_of(model)  # refuses what is no model
        sites = sites_of(model) if layers is None and isinstance(model, LanguageModel) else ()
        names = tuple(layers) if layers is not None else tuple(site.label for site in sites)
        given: Any = patterns.items() if isinstance(patterns, Mapping) else _asked(patterns, sites)
        made = {
            "made": datetime.now(UTC).date().isoformat(),
            "texts": [_described(model, text) for text in texts],
            **(settings or {}),
        }
        subject = Subject.of(model)
        return cls(
            subject,
            {_checked_place(place, names, sites): _checked(pattern) for place, pattern in given},
            names,
            tuple(site.heads for site in sites),
            dict(expected or {}),
            Provenance(__version__, subject.name, subject.fingerprint, made),
        )

    @classmethod
    def exact(cls, model: LanguageModel | nn.Module) -> Plan:
        """Make the plan that leaves every head exact.

        Families whose own attention is n × n (gpt-oss, Gemma 2) run under it in O(n) memory.
        """
        return cls.of(model, {})

    # ---- running

    @contextmanager
    def applied(self, model: LanguageModel | nn.Module, *, guard: float | None = None) -> Iterator[Applied]:
        """Run a model by the plan inside of the block, on this thread; the model is called as always.

        Parameters
        ----------
        model : LanguageModel or torch.nn.Module
            The model that the plan is for, or its bare module.
        guard : float, optional
            Look at a few rows of every call, and run a head exactly in it where its pattern changes them by more than
            this mean total variation distance, from 0 to 1. Of cached decoding, one step of every 16 is looked at, and
            what was found holds until the next look, so up to 15 tokens in a row may pass unseen.

        Yields
        ------
        Applied
            What was routed, what stayed exact, and why; it fills as the model runs.

        Raises
        ------
        ArgumentError
            The plan is for another model, or a plan is applied to it already; in a forward pass, that the plan names a
            head that a layer does not have.
        UnsupportedModelError
            The model is compiled.

        Notes
        -----
        In a step of cached decoding, heads whose pattern chooses keys by what they hold are exact: to choose, it would
        have to look at all keys, and that is all that exact attention takes.

        In a batch that is padded on the left, patterns count from each text's first token. Gradients flow; with
        gradient checkpointing, run the backward pass inside of the block too.
        """
        check_guard(guard)
        module = module_of(model)
        self.subject.check(model)
        self._check_layers(module)
        dispatcher = Dispatcher(
            module,
            self.patterns,
            numbered(self.layers),
            guard=guard,
            cache=lambda: cache_for(self, module, dispatcher, guarded=guard is not None),
        )
        with replacing(module, dispatcher):
            yield dispatcher.applied

    def _check_layers(self, module: nn.Module) -> None:
        named = {layer for layer, _ in self.patterns if isinstance(layer, str)}
        wanted = {name for name, _ in numbered([*self.layers, *named])}
        missing = sorted(wanted - {name or type(module).__name__ for name, module in module.named_modules()})
        if missing:
            raise ArgumentError(
                complaint(
                    "model",
                    wanted=f"one with the module {missing[0]}, for which the plan was made",
                    got=f"{type(module).__name__} without it",
                    way_out="pass the model as a whole, as the plan was made for it",
                )
            )

    # ---- looking

    @property
    def heads(self) -> tuple[tuple[Layer, int], ...]:
        """All heads of the model, as (layer, head); those that the plan names, where others are not known."""
        if not self.sizes:
            return tuple(self.patterns)
        return tuple((layer, head) for layer, size in enumerate(self.sizes) for head in range(size))

    def pattern(self, layer: Layer, head: int) -> Pattern:
        """Return a head's pattern; `Full` where the plan names none."""
        return self.patterns.get((layer, head), _FULL)

    @property
    def kinds(self) -> dict[Pattern, int]:
        """How many heads have each pattern, the most frequent first; heads that stay exact are not counted."""
        counts: dict[Pattern, int] = {}
        for pattern in self.patterns.values():
            counts[pattern] = counts.get(pattern, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def __str__(self) -> str:
        lines = [f"plan for {self.subject}"]
        lines += [f"{count:>6,} heads  {pattern}" for pattern, count in self.kinds.items()]
        lines += [f"{name}: {one.value:g} ({one.meaning})" for name, one in self.expected.items()]
        return "\n".join([*lines, "all other heads exact"])

    # ---- keeping

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the plan to a JSON file; learned feature maps go to a safetensors file beside it.

        Raises
        ------
        StoreError
            It cannot be written.
        """
        from attlas.planning.plan_file import write_plan

        return write_plan(self, Path(path))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Plan:
        """Read a plan that `save` wrote; the same as `attlas.open_plan`.

        Raises
        ------
        StoreError
            The file is missing, or is not a whole plan of this format.
        """
        return open_plan(path)


_FULL = Full()


def check_guard(guard: object) -> None:
    """Refuse what is neither None nor a mean total variation distance.

    Raises
    ------
    ArgumentError
        It is no number from 0 to 1.
    """
    if guard is not None and (isinstance(guard, bool) or not isinstance(guard, int | float) or not 0 <= guard <= 1):
        raise ArgumentError(complaint("guard", wanted="a number from 0 to 1", got=repr(guard)))


def open_plan(path: str | PathLike[str]) -> Plan:
    """Read a plan that `Plan.save` wrote.

    Raises
    ------
    StoreError
        The file is missing, was written in another version of the format, is damaged, or learned feature maps that
        belong to it are not beside it or are not those that were saved.
    """
    from attlas.planning.plan_file import read_plan

    return read_plan(Path(path))


def _by_place(item: tuple[tuple[Layer, int], Pattern]) -> tuple[bool, Layer, int]:
    (layer, head), _ = item
    return isinstance(layer, str), layer, head


def _asked(
    patterns: Callable[[int, int], Pattern | None], sites: Sequence[Site]
) -> Iterator[tuple[tuple[int, int], Pattern]]:
    if not callable(patterns):
        wanted = "a mapping of (layer, head) to a pattern, or a function of layer and head"
        raise ArgumentError(complaint("patterns", wanted=wanted, got=type(patterns).__name__))
    if not sites:
        raise ArgumentError(
            complaint(
                "patterns",
                wanted="a mapping for a bare module, whose layers and heads are not known",
                got="a function",
                way_out="pass what attlas.load returned, or a mapping",
            )
        )
    for number, site in enumerate(sites):
        for head in range(site.heads):
            pattern = patterns(number, head)
            if pattern is not None:
                yield (number, head), pattern


def _checked(pattern: Pattern) -> Pattern:
    if not isinstance(pattern, Pattern):
        got = f"the class {pattern.__name__}" if isinstance(pattern, type) else f"a {type(pattern).__name__}"
        raise ArgumentError(complaint("patterns", wanted="patterns, of attlas.patterns", got=got))
    return pattern


def _checked_place(place: tuple[Layer, int], names: Sequence[str], sites: Sequence[Site]) -> tuple[Layer, int]:
    """Return the place of a head, its layer by number where the model's layers are known."""
    if not (isinstance(place, tuple) and len(place) == 2):
        raise ArgumentError(complaint("patterns", wanted="keys (layer, head)", got=repr(place)))
    layer, head = place
    if isinstance(layer, str) and names:
        if layer not in names:
            raise ArgumentError(complaint("patterns", wanted=f"layers among {_some(names)}", got=repr(layer)))
        layer = names.index(layer)
    if not isinstance(layer, str):
        last = len(names) - 1 if names else None
        layer = _whole("layer", layer, last)
    heads = sites[layer].heads if sites and isinstance(layer, int) else 0
    return layer, _whole("head", head, heads - 1 if heads else None)


def _whole(what: str, number: object, last: int | None) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 0 or (last is not None and number > last):
        wanted = f"{what} numbers from 0" + (f" to {last}" if last is not None else "")
        raise ArgumentError(complaint("patterns", wanted=wanted, got=repr(number)))
    return number


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} … {names[-1]}"


def _described(model: LanguageModel | nn.Module, text: str) -> dict[str, Any]:
    """Return what is kept of a text: its hash and its length."""
    found: dict[str, Any] = {
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "characters": len(text),
    }
    return {**found, "tokens": len(model.tokenize(text))} if isinstance(model, LanguageModel) else found
