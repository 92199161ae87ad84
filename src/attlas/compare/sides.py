"""The two models that are compared, whatever way they were given: what differs by module, and how to run each.

An adapter is never a second model: its changes are put into the weights that they touch while the tuned model has to
run, and taken out again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from attlas.capture import LanguageModel, load
from attlas.compare.changes import Change
from attlas.compare.injected import injected, plain_model, set_aside, wrapped
from attlas.errors import ArgumentError, complaint
from attlas.models.adapter_file import AdapterFile, AdapterPart, is_adapter, open_adapter

Model = LanguageModel | nn.Module | str | os.PathLike[str]
"""A model as `attlas.compare` takes it."""


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two, opened.

    Parameters
    ----------
    name : str
    fingerprint : str
        Empty where it is not known.
    model : torch.nn.Module
        Without what PEFT has put around it, but with what it has put into it.
    lm : LanguageModel, optional
        With a tokenizer, where there is one.
    """

    name: str
    fingerprint: str
    model: nn.Module
    lm: LanguageModel | None


@dataclass(frozen=True, eq=False)
class Sides:
    """Both sides.

    Parameters
    ----------
    base : Side
    name, fingerprint : str
        Of the tuned one.
    kind : {"adapter", "model"}
    changes : mapping
        Module of the base -> its change: those that an adapter has a part for, or all linear maps of two models.
    tuned : Side, optional
        The other model, where there are two.
    """

    base: Side
    name: str
    fingerprint: str
    kind: str
    changes: Mapping[str, Change]
    tuned: Side | None = None

    @contextmanager
    def as_base(self) -> Iterator[nn.Module]:
        """Give the base, with any adapter that PEFT has put into it set aside inside the block."""
        with set_aside(self.base.model):
            yield self.base.model

    @contextmanager
    def as_tuned(self) -> Iterator[nn.Module]:
        """Give the tuned model; an adapter's changes are in the base's weights inside the block, and only there.

        Only the weights that are touched are copied. The parameters themselves are exchanged and not written to, so
        whatever happens inside, the old ones come back untouched.
        """
        if self.tuned is not None:
            yield self.tuned.model
            return
        with self.as_base() as model, torch.no_grad():
            swapped: list[tuple[nn.Module, nn.Parameter]] = []
            try:
                for change in self.changes.values():
                    own: Any = change.module.weight
                    merged = nn.Parameter(change.merged(), requires_grad=False)
                    swapped.append((change.module, own))
                    change.module.weight = merged
                with torch.enable_grad():
                    yield model
            finally:
                for module, own in reversed(swapped):
                    module.weight = own


def open_sides(base: Model, tuned: Model | AdapterFile, options: Mapping[str, Any]) -> Sides:
    """Open what is to be compared.

    Raises
    ------
    ArgumentError
        An argument is none of what can be compared, or the two do not belong together; the first module that does not
        fit is named.
    ModelNotFound, StoreError, UnsupportedModelError, NonFiniteError
        A model or an adapter cannot be opened.
    """
    if isinstance(base, str | os.PathLike) and is_adapter(base):
        way_out = "give the model first and the adapter second; to compare two adapters, merge the first"
        raise ArgumentError(complaint("base", wanted="a model", got=f"an adapter, {base}", way_out=way_out))
    first = _side("base", base, options)
    if isinstance(tuned, str | os.PathLike) and is_adapter(tuned):
        tuned = open_adapter(tuned)
    if isinstance(tuned, AdapterFile):
        _no_adapter_inside(first.model)
        changes = _of_parts(first.model, tuned.parts, tuned.name)
        return Sides(first, tuned.name, tuned.fingerprint, "adapter", changes)
    second = _side("tuned", tuned, options)
    if wrapped(second.model):
        return _of_injected(first, second)
    _no_adapter_inside(first.model)
    if second.model is first.model:
        raise ArgumentError(complaint("tuned", wanted="another model than base", got="the same one"))
    return Sides(first, second.name, second.fingerprint, "model", _of_models(first.model, second.model), second)


def _side(argument: str, given: Any, options: Mapping[str, Any]) -> Side:
    if isinstance(given, str | os.PathLike):
        given = load(given, **options)
    if isinstance(given, LanguageModel):
        return Side(given.name, given.facts.fingerprint, plain_model(given.model), given)
    if isinstance(given, nn.Module):
        plain = plain_model(given)
        return Side(type(plain).__name__, "", plain, None)
    wanted = "a model that attlas.load returned, a torch.nn.Module, a name or a folder"
    raise ArgumentError(complaint(argument, wanted=wanted, got=f"a {type(given).__name__}"))


def _no_adapter_inside(model: nn.Module) -> None:
    for name in wrapped(model):
        way_out = "merge it (PEFT: model.merge_and_unload()), or unload it (model.unload())"
        raise ArgumentError(
            complaint("base", wanted="a model without an adapter in it", got=f"one at {name}", way_out=way_out)
        )


# ---- adapters


def _of_parts(model: nn.Module, parts: Mapping[str, AdapterPart], adapter: str) -> dict[str, Change]:
    modules = dict(model.named_modules())
    changes = {}
    for name, part in parts.items():
        module: Any = modules.get(name)
        if module is None:
            raise ArgumentError(
                complaint(
                    "tuned",
                    wanted="an adapter for this base",
                    got=f"{adapter}, whose first module that does not fit is {name}, which this base does not have",
                    way_out="give the model that it was trained on" + _near(name, list(modules)),
                )
            )
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() != 2 or isinstance(module, nn.Embedding):
            raise ArgumentError(
                complaint(
                    "tuned",
                    wanted="an adapter of linear maps",
                    got=f"{adapter}, with {name}, a {type(module).__name__}",
                )
            )
        change = Change(name, module, part)
        shape = tuple(change.before.weight.shape)
        if shape != part.shape:
            raise ArgumentError(
                complaint(
                    "tuned",
                    wanted="an adapter for this base",
                    got=f"{adapter}, whose first module that does not fit is {name}: it changes a weight of "
                    f"{part.shape[0]} × {part.shape[1]}, which here has {shape[0]} × {shape[1]}",
                    way_out="give the model that it was trained on",
                )
            )
        changes[name] = change
    return changes


def _near(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, 1)
    return f" (near is {close[0]})" if close else ""


def _of_injected(first: Side, second: Side) -> Sides:
    """Take the adapter of a model that PEFT has wrapped; the base may be the very model that it lives in."""
    parts = injected(second.model)
    if not parts:
        raise ArgumentError(
            complaint("tuned", wanted="a model with an adapter at work", got="one whose adapters are off")
        )
    layers = wrapped(second.model)
    if first.model is not second.model:
        _no_adapter_inside(first.model)
    with set_aside(first.model):
        changes = _of_parts(first.model, parts, second.name)
        for name, change in changes.items():
            own: Any = layers[name]
            theirs, ours = own.base_layer.weight, _weight(change.module)
            if theirs is not ours and not torch.equal(theirs.to(ours), ours):
                raise ArgumentError(
                    complaint(
                        "tuned",
                        wanted="an adapter on this base",
                        got=f"one whose own base differs, first at {name}",
                        way_out="merge it (PEFT: model.merge_and_unload()), and compare that as a model",
                    )
                )
    return Sides(first, f"{second.name} with an adapter", "", "adapter", changes)


# ---- two models


def _of_models(base: nn.Module, tuned: nn.Module) -> dict[str, Change]:
    theirs = dict(tuned.named_modules())
    changes = {}
    for name, module in base.named_modules():
        if not _linear(module):
            continue
        other = theirs.get(name)
        if other is None or not _linear(other):
            raise ArgumentError(
                complaint(
                    "tuned",
                    wanted="a model of the same layout as base",
                    got=f"one without {name}, the first that differs",
                    way_out="compare a fine-tune with the model that it was made from",
                )
            )
        change = Change(name, module, other=other)
        before, after = tuple(change.before.weight.shape), tuple(change.after.weight.shape)
        if before != after:
            raise ArgumentError(
                complaint(
                    "tuned",
                    wanted="a model of the same layout as base",
                    got=f"one in which {name}, the first that differs, is {after[0]} × {after[1]}, "
                    f"where base has {before[0]} × {before[1]}",
                    way_out="compare a fine-tune with the model that it was made from",
                )
            )
        changes[name] = change
    return changes


def _linear(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 2 and not isinstance(module, nn.Embedding)


def other_changes(base: nn.Module, tuned: nn.Module, compared: Mapping[str, Change]) -> tuple[str, ...]:
    """Say which parameters differ that are in no module that was compared: norms, embeddings."""
    theirs = dict(tuned.named_parameters())
    seen = {f"{name}.{what}" for name in compared for what in ("weight", "bias")}
    moved = [
        name
        for name, own in base.named_parameters()
        if name not in seen
        and name in theirs
        and (own.shape != theirs[name].shape or not torch.equal(own, theirs[name].to(own)))
    ]
    if not moved:
        return ()
    named = ", ".join(moved[:3]) + (f" and {len(moved) - 3} more" if len(moved) > 3 else "")
    return (f"also changed, and in no weight that was compared: {named}",)


def _weight(module: Any) -> Tensor:
    return module.weight
