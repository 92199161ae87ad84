"""The door into transformers: while a capture is open, attention functions say what they compute, masks what they mean.

The model and its configuration are not touched. `AttentionInterface.get_interface`, through which attention modules ask
for their function on every call, hands out the same function with a listener around it; and the registered mask
functions are wrapped, so that the predicate behind a mask is known. So kernels, masks and numbers are those of the
plain run, to the bit. Threads without an open capture get the original function.

An ablation comes through the same door: it may change what a kernel is given, and what is made of what it gave.
Listeners stand between the two: they hear what the kernel really computed. So does a plan of efficient patterns, which
computes calls in the kernel's place; while one is applied, mask functions hand out formulas instead of n × n booleans.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from attlas.capture.asked import Asking, Replaced
from attlas.capture.call import Call
from attlas.capture.formulas import FormulaMask
from attlas.capture.given import REFUSED, AttentionFunction, Given
from attlas.capture.kernels import KernelWatch
from attlas.capture.masking import formula_of, predicate_of
from attlas.capture.visibility import MaskMemory
from attlas.errors import UnsupportedModelError


class Listener(Protocol):
    """Who wants to know of attention calls on this thread."""

    masks: MaskMemory

    def hears(self, module: nn.Module) -> bool:
        """Whether this call is one of the listener's."""
        ...

    def inside(self) -> bool:
        """Whether the model is running, and its call is not already being heard."""
        ...

    def saw_softmax(self) -> None:
        """Take the news of a softmax over four axes outside of any known function."""
        ...

    def heard(self, module: nn.Module | None, call: Call) -> None:
        """Take a call."""
        ...

    def refused(self, module: nn.Module | None, reason: str) -> None:
        """Take the news that a call cannot be described."""
        ...

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Do not hear what happens inside of a call that is being taken."""
        ...


class Scoring(NamedTuple):
    """What decides an attention pattern, and what is passed on by it.

    Parameters
    ----------
    query, key : Tensor
        As the attention function is given them.
    mask : Tensor or other, optional
        Who sees whom.
    bias : Tensor, optional
        What is added to the scores beside the mask.
    value : Tensor, optional
        What is passed on. None, where a change gives it, leaves the call's own.
    """

    query: Tensor
    key: Tensor
    mask: Any = None
    bias: Any = None
    value: Tensor | None = None


class Change(Protocol):
    """What is to become of one attention call."""

    def given(self, scoring: Scoring) -> Scoring:
        """Return what the kernel is to be given."""
        ...

    def instead(self, asking: Asking) -> Replaced | None:
        """Compute the call in the kernel's place; None leaves it to the kernel."""
        ...

    def gave(self, output: Tensor) -> Tensor:
        """Return what is to be made of the kernel's output; both (batch, head, n_query, value_dim)."""
        ...


class Changer(Protocol):
    """Who changes attention calls on this thread."""

    replaces: bool
    """Whether it computes calls in the kernel's place, so that masks need not be made."""

    def hears(self, module: nn.Module) -> bool:
        """Whether this call is one of the changer's."""
        ...

    def inside(self) -> bool:
        """Whether the model is running, and its call is not already being dealt with."""
        ...

    def change(self, module: nn.Module | None) -> Change:
        """Say what is to become of the call that begins."""
        ...

    def saw_softmax(self) -> None:
        """Take the news of a softmax over four axes outside of any known function."""
        ...

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Do not hear what happens inside of a call that is being changed."""
        ...

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Take what happens inside for passes of their own."""
        ...


_here = threading.local()
_lock = threading.Lock()
_open = 0
_undo: list[Callable[[], None]] = []


def listeners() -> list[Listener]:
    """Return this thread's listeners, the one opened last at the end."""
    if not hasattr(_here, "listeners"):
        _here.listeners = []
    return _here.listeners


def changers() -> list[Changer]:
    """Return who changes this thread's attention calls, the one opened last at the end."""
    if not hasattr(_here, "changers"):
        _here.changers = []
    return _here.changers


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let `listener` hear this thread's attention calls."""
    with _present(listeners(), listener):
        yield


@contextmanager
def changing(changer: Changer) -> Iterator[None]:
    """Let `changer` change this thread's attention calls."""
    with _present(changers(), changer):
        yield


@contextmanager
def _present(those: list[Any], one: object) -> Iterator[None]:
    global _open
    with _lock:
        if _open == 0:
            _wrap_everything()
        _open += 1
    those.append(one)
    try:
        yield
    finally:
        those.remove(one)
        with _lock:
            _open -= 1
            if _open == 0:
                while _undo:
                    _undo.pop()()


def _wrap_everything() -> None:
    original = AttentionInterface.get_interface

    @wraps(original)
    def get_interface(
        self: AttentionInterface, attn_implementation: str, default: AttentionFunction
    ) -> AttentionFunction:
        function = original(self, attn_implementation, default)
        if not (listeners() or changers()) or torch.compiler.is_compiling():
            return function
        return _heard(function, attn_implementation)

    AttentionInterface.get_interface = get_interface

    def restore() -> None:
        # If someone else has replaced it since, theirs stays; ours then only passes through.
        if AttentionInterface.get_interface is get_interface:
            AttentionInterface.get_interface = original

    _undo.append(restore)
    for name, function in list(AttentionMaskInterface._global_mapping.items()):
        if not any(word in name for word in REFUSED):
            _wrap_mask_function(name, function)


def _wrap_mask_function(name: str, original: Callable[..., Tensor | None]) -> None:
    @wraps(original)
    def mask_function(*args: Any, **kwargs: Any) -> Tensor | None:
        if torch.compiler.is_compiling():
            return original(*args, **kwargs)
        if any(changer.replaces and changer.inside() for changer in changers()):
            formula = formula_of(original, args, kwargs)
            if formula is not None:
                return formula
        mask = original(*args, **kwargs)
        if isinstance(mask, Tensor) and mask.dim() == 4 and listeners():
            function = predicate_of(original, args, kwargs)
            if function is not None:
                for listener in listeners():
                    listener.masks.remember(mask, function)
        return mask

    AttentionMaskInterface.register(name, mask_function)

    def restore() -> None:
        if AttentionMaskInterface._global_mapping.get(name) is mask_function:
            AttentionMaskInterface.register(name, original)

    _undo.append(restore)


def _heard(function: AttentionFunction, implementation: str) -> AttentionFunction:
    @wraps(function)
    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Any]:
        hearing = [listener for listener in listeners() if listener.hears(module)]
        changing = [changer for changer in changers() if changer.hears(module)]
        given = Given(function, implementation, module, query, key, value, attention_mask, kwargs, args)
        if not (hearing or changing):
            return _plain(given).run()
        changes = [changer.change(module) for changer in changing]
        reason = given.refusal
        for listener in hearing if reason else ():
            listener.refused(module, reason)
        describing = [] if reason else hearing
        given = _changed(given, changes)
        with all_deaf([*hearing, *changing]):
            replaced = computed(changes, given.asking())
            if replaced is not None:
                output, weights, lse = replaced.output.transpose(1, 2).contiguous(), None, None
            else:
                given = _plain(given)
                with KernelWatch(enabled=given.fused and bool(describing)) as watch:
                    output, weights = given.run()
                lse = watch.lse
        if describing:
            with torch.no_grad(), all_deaf([*hearing, *changing]):
                for listener in describing:
                    try:
                        check_exact(replaced)
                        call = given.call(output.transpose(1, 2), lse, listener.masks)
                    except UnsupportedModelError as error:
                        listener.refused(module, str(error))
                        continue
                    listener.heard(module, call)
        return (changed(changes, output.transpose(1, 2)).transpose(1, 2) if changes else output), weights

    return attention


def _plain(given: Given) -> Given:
    """Give a kernel the mask itself, where a formula stands in for it."""
    return replace(given, mask=given.mask.given()) if isinstance(given.mask, FormulaMask) else given


def _changed(given: Given, changes: Sequence[Change]) -> Given:
    if not changes:
        return given
    bias = given.options.get("position_bias")
    scoring = scored(changes, Scoring(given.query, given.key, given.mask, bias, given.value))
    options = {**given.options, "position_bias": scoring.bias} if "position_bias" in given.options else given.options
    value = given.value if scoring.value is None else scoring.value
    return replace(given, query=scoring.query, key=scoring.key, value=value, mask=scoring.mask, options=options)


def computed(changes: Sequence[Change], asking: Asking) -> Replaced | None:
    """Let the first change that would compute the call in the kernel's place do so."""
    return next((replaced for change in changes if (replaced := change.instead(asking)) is not None), None)


def check_exact(replaced: Replaced | None) -> None:
    """Refuse to describe a call as softmax attention that was computed as something else.

    Raises
    ------
    UnsupportedModelError
        It was computed by other patterns than the model's own.
    """
    if replaced is not None and not replaced.exact:
        raise UnsupportedModelError(
            "a plan computes it by patterns of its own, so no exact matrix gave its output; capture outside of the plan"
        )


def scored(changes: Sequence[Change], scoring: Scoring) -> Scoring:
    """Let every change say what the kernel is given, the one opened first to begin with."""
    for change in changes:
        scoring = change.given(scoring)
    return scoring


def changed(changes: Sequence[Change], output: Tensor) -> Tensor:
    """Let every change act on the kernel's output, the one opened first to begin with."""
    for change in changes:
        output = change.gave(output)
    return output


@contextmanager
def all_deaf(those: Sequence[Listener | Changer]) -> Iterator[None]:
    """Let none of them hear what happens inside."""
    if not those:
        yield
        return
    with those[0].deaf(), all_deaf(those[1:]):
        yield
