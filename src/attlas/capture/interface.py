"""The door into transformers: while a capture is open, attention functions say what they compute, masks what they mean.

The model and its configuration are not touched. `AttentionInterface.get_interface`, through which attention modules ask
for their function on every call, hands out the same function with a listener around it; and the registered mask
functions are wrapped, so that the predicate behind a mask is known. So kernels, masks and numbers are those of the
plain run, to the bit. Threads without an open capture get the original function.

An ablation comes through the same door: it may change what a kernel is given, and what is made of what it gave.
Listeners stand between the two: they hear what the kernel really computed.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface

from attlas.capture.call import Call, describe
from attlas.capture.kernels import KernelWatch
from attlas.capture.visibility import MaskFunction, MaskMemory
from attlas.errors import UnsupportedModelError

AttentionFunction = Callable[..., tuple[Tensor, Any]]

# These hand a kernel something else than the mask and the tensors of one batch, so what it computed cannot be
# described.
_REFUSED = ("flash", "flex", "paged")


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

    def gave(self, output: Tensor) -> Tensor:
        """Return what is to be made of the kernel's output; both (batch, head, n_query, value_dim)."""
        ...


class Changer(Protocol):
    """Who changes attention calls on this thread."""

    def hears(self, module: nn.Module) -> bool:
        """Whether this call is one of the changer's."""
        ...

    def inside(self) -> bool:
        """Whether the model is running, and its call is not already being dealt with."""
        ...

    def change(self, module: nn.Module | None) -> Change:
        """Say what is to become of the call that begins."""
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
        if not any(word in name for word in _REFUSED):
            _wrap_mask_function(name, function)


def _wrap_mask_function(name: str, original: Callable[..., Tensor | None]) -> None:
    @wraps(original)
    def mask_function(*args: Any, **kwargs: Any) -> Tensor | None:
        mask = original(*args, **kwargs)
        if isinstance(mask, Tensor) and listeners() and not torch.compiler.is_compiling():
            function = _predicate(original, args, kwargs, mask)
            if function is not None:
                for listener in listeners():
                    listener.masks.remember(mask, function)
        return mask

    AttentionMaskInterface.register(name, mask_function)

    def restore() -> None:
        if AttentionMaskInterface._global_mapping.get(name) is mask_function:
            AttentionMaskInterface.register(name, original)

    _undo.append(restore)


def _predicate(
    original: Callable[..., Tensor | None], args: tuple[Any, ...], kwargs: dict[str, Any], mask: Tensor
) -> MaskFunction | None:
    """Return the predicate that a mask was made from; None where it cannot be asked for tiles."""
    signature = inspect.signature(original)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    given = {**bound.arguments, **bound.arguments.get("kwargs", {})}
    function = given.get("mask_function")
    # Predicates written for vmap need not accept index tensors.
    if function is None or given.get("use_vmap", False) or mask.dim() != 4:
        return None
    padding, offset = given.get("attention_mask"), int(given.get("kv_offset", 0))
    n_key = int(given["kv_length"])
    if padding is not None and (missing := n_key + offset - padding.shape[-1]) > 0:
        padding = nn.functional.pad(padding, (0, missing))
    return MaskFunction(
        function,
        padding,
        int(given.get("q_offset", 0)),
        offset,
        mask.shape[0],
        int(given["q_length"]),
        n_key,
        mask.device,
    )


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
        if not (hearing or changing):
            return function(module, query, key, value, attention_mask, *args, **kwargs)
        changes = [changer.change(module) for changer in changing]
        reason = _reason_to_refuse(function, implementation, query, args, kwargs)
        for listener in hearing if reason else ():
            listener.refused(module, reason)
        describing = [] if reason else hearing
        if changes:
            scoring = scored(changes, Scoring(query, key, attention_mask, kwargs.get("position_bias"), value))
            query, key, attention_mask, bias = scoring[:4]
            value = value if scoring.value is None else scoring.value
            if "position_bias" in kwargs:
                kwargs = {**kwargs, "position_bias": bias}
        fused = implementation != "eager"
        with all_deaf([*hearing, *changing]), KernelWatch(enabled=fused and bool(describing)) as watch:
            output, weights = function(module, query, key, value, attention_mask, *args, **kwargs)
        with torch.no_grad(), all_deaf([*hearing, *changing]):
            for listener in describing:
                try:
                    call = _describe(
                        function,
                        fused,
                        module,
                        query,
                        key,
                        value,
                        attention_mask,
                        output,
                        kwargs,
                        watch.lse,
                        listener.masks,
                    )
                except UnsupportedModelError as error:
                    listener.refused(module, str(error))
                    continue
                listener.heard(module, call)
        return (changed(changes, output.transpose(1, 2)).transpose(1, 2) if changes else output), weights

    return attention


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


def _reason_to_refuse(
    function: AttentionFunction, implementation: str, query: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str:
    if any(word in implementation for word in _REFUSED):
        return (
            f"it uses attn_implementation={implementation!r}, whose kernel takes no mask that can be read; "
            'call model.set_attn_implementation("sdpa") first'
        )
    if args:
        return f"it calls {function.__name__} with positional arguments whose meaning is not known"
    if kwargs.get("dropout"):
        return "it drops attention weights at random; call model.eval() first"
    if kwargs.get("cache") is not None:
        return (
            "it uses a paged cache, in which the sequences of a batch lie mixed; generate without continuous batching"
        )
    if query.dim() != 4:
        return f"its query has {query.dim()} axes, not (batch, head, query, dim)"
    return ""


def _describe(
    function: AttentionFunction,
    fused: bool,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    output: Tensor,
    kwargs: dict[str, Any],
    lse: Tensor | None,
    masks: MaskMemory,
) -> Call:
    """Describe the call by the conventions of transformers' attention functions."""
    if mask is not None and not isinstance(mask, Tensor):
        raise UnsupportedModelError(f"its mask is a {type(mask).__name__}, which cannot be read")
    is_causal = kwargs.get("is_causal")
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    # Eager functions see only the mask; transformers' own fused one does not know of sinks, and runs without them.
    is_causal = fused and mask is None and query.shape[2] > 1 and bool(is_causal)
    knows_sinks = function is not sdpa_attention_forward
    return describe(
        query=query,
        key=key,
        value=value,
        output=output.transpose(1, 2),
        mask=mask,
        masks=masks,
        scale=kwargs.get("scaling"),
        is_causal=is_causal,
        bias=kwargs.get("position_bias"),
        softcap=kwargs.get("softcap"),
        sinks=kwargs.get("s_aux") if knows_sinks else None,
        window=kwargs.get("sliding_window"),
        lse=lse,
        fused=fused,
    )
