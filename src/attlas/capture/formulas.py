"""A mask that stays a formula until someone looks into it, so that nobody need make n × n booleans of it.

transformers builds every mask from a predicate over positions and the padding of the batch. Where attention itself is
computed without a mask, the model is handed a stand-in with the mask's shape, dtype and device, which carries the
predicate. Code that does anything with it but pass it on and ask for its shape gets the real mask, made on the spot and
kept: from then on the stand-in is that tensor, for whoever reads it.

What a predicate says is known where it is one of transformers' own: causal, within a window, or everything. It is then
compared with the rule on a few whole rows; every other predicate is kept as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from transformers import masking_utils

from attlas.capture.visibility import MaskFunction, Reading, Rule

_CHECKED_ROWS = 5

# What may be asked of a stand-in without looking into it.
_OUTSIDE = frozenset(
    {
        Tensor.size,
        Tensor.dim,
        Tensor.ndimension,
        Tensor.numel,
        Tensor.nelement,
        Tensor.is_floating_point,
        Tensor.is_complex,
        Tensor.is_inference,
        Tensor.__len__,
        Tensor.__hash__,
        *(
            getattr(Tensor, name).__get__
            for name in ("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_cuda", "is_meta")
        ),
    }
)


class FormulaMask(Tensor):
    """Stands in for a mask, (batch, 1, n_query, n_key), that nobody has made yet.

    Attributes
    ----------
    function : MaskFunction
        What the mask says.
    looked_into : bool
        Whether someone else has the real mask, and may have written to it.
    """

    function: MaskFunction
    _make: Callable[..., Tensor | None]
    _dense: Tensor | None
    _left_out: bool
    _reading: Reading | None
    looked_into: bool
    _bare: ClassVar[Any] = torch._C.DisableTorchFunctionSubclass

    @staticmethod
    def __new__(cls, function: MaskFunction, make: Callable[..., Tensor | None], dtype: torch.dtype) -> FormulaMask:
        """Stand in for what `make`, called without arguments, would give; keyword arguments replace its own."""
        shape = (function.batch, 1, function.n_query, function.n_key)
        # It has no memory of its own, so that code which does not know of it fails rather than reads nonsense.
        mask = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=function.device)
        mask.function, mask._make = function, make
        mask._dense, mask._left_out, mask._reading, mask.looked_into = None, False, None, False
        return mask

    # ---- the mask itself

    def given(self) -> Tensor | None:
        """Return what the model would have been given: None where transformers leaves a mask out."""
        if self._dense is None and not self._left_out:
            self._dense = self._make()
            self._left_out = self._dense is None
        return self._dense

    def dense(self) -> Tensor:
        """Make the mask, once."""
        if self._dense is None:
            self._dense = self._never_left_out()
        return self._dense

    @property
    def reading(self) -> Reading:
        """What the mask says, found once."""
        if self._reading is None:
            self._reading = read_formula(self.function)
        return self._reading

    def part(self, rows: slice, cols: slice) -> Tensor:
        """Make a part of the mask, without the rest."""
        if self._dense is not None:
            return self._dense[:, :, rows, cols]
        return self._never_left_out(
            q_length=rows.stop - rows.start,
            kv_length=cols.stop - cols.start,
            q_offset=self.function.query_offset + rows.start,
            kv_offset=self.function.key_offset + cols.start,
        )

    def _never_left_out(self, **changed: Any) -> Tensor:
        made = self._make(allow_is_causal_skip=False, allow_is_bidirectional_skip=False, **changed)
        if made is None:
            raise RuntimeError("transformers left out a mask although it was asked not to")
        return made

    # ---- what others do with it

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _OUTSIDE:
            with cls._bare():
                return func(*args, **(kwargs or {}))
        if func in (Tensor.__getitem__, Tensor.to) and isinstance(args[0], FormulaMask):
            same = _takes_all(args[0], args[1]) if func is Tensor.__getitem__ else _stays(args[0], args[1:], kwargs)
            if same:
                return args[0]
        with cls._bare():
            return _with_real(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _with_real(func, args, kwargs)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        with self._bare():
            return f"FormulaMask({tuple(self.shape)}, {self.dtype})"


def _with_real(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    """Call a function with the masks themselves in the place of their stand-ins."""
    real: Any = tree_map(_real, (args, kwargs or {}))
    return func(*real[0], **real[1])


def _real(thing: Any) -> Any:
    if not isinstance(thing, FormulaMask):
        return thing
    thing.looked_into = True
    return thing.dense()


def _takes_all(mask: FormulaMask, index: Any) -> bool:
    """Whether an index is one that leaves everything where it is: models cut masks to a length that they have."""
    index = index if isinstance(index, tuple) else (index,)
    if len(index) > 4 or any(part is not Ellipsis and not isinstance(part, slice) for part in index):
        return False
    if any(part is Ellipsis for part in index[:-1]):
        return len(index) == 2 and _whole(index[1], mask.shape[-1])
    return all(part is Ellipsis or _whole(part, size) for part, size in zip(index, mask.shape, strict=False))


def _whole(part: slice, size: int) -> bool:
    plain = all(end is None or isinstance(end, int) for end in (part.start, part.stop, part.step))
    return plain and part.indices(size) == (0, size, 1)


def _stays(mask: FormulaMask, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> bool:
    """Whether a conversion is to what the mask is already."""
    if kwargs and set(kwargs) - {"device", "dtype", "non_blocking"}:
        return False
    for wanted in (*args, *((kwargs or {}).get(name) for name in ("device", "dtype"))):
        if wanted is None or isinstance(wanted, bool):
            continue
        if isinstance(wanted, torch.dtype):
            if wanted != mask.dtype:
                return False
        elif isinstance(wanted, str | torch.device):
            if torch.device(wanted) != mask.device:
                return False
        else:
            return False
    return True


# ---- what a formula says


def read_formula(function: MaskFunction) -> Reading:
    """Find the rule that a mask's predicate follows, without making the mask.

    Parameters
    ----------
    function : MaskFunction
        The predicate, with its padding and the places of its rows and columns.

    Returns
    -------
    Reading
        Keys that no query sees because they are yet to come (the free places of a cache of fixed size) are left out
        where the predicate is known.

    Notes
    -----
    O(n) in time and memory where the predicate is known; otherwise the predicate itself is the rule.
    """
    n_query, n_key = function.n_query, function.n_key
    ahead = function.query_offset + n_query - (function.key_offset + n_key)
    shape = _shape_of(function.function)
    if shape is not None:
        causal, window = shape
        used = n_key + ahead if causal and ahead < 0 else n_key
        narrow = replace(function, n_key=used)
        positioned = causal or window is not None
        rule = Rule(causal, window, _padding_of(narrow))
        if (not positioned or used == n_key + ahead) and _agrees(rule, narrow):
            return Reading(rule, None, used, dropped=_dropped(function), aligned=used == n_key + ahead)
    # Several texts in a row, chunks: how far apart two tokens are is not what their places say.
    return Reading(Rule(mask=function), None, n_key, dropped=_dropped(function), aligned=False)


def _shape_of(function: Callable[..., Tensor]) -> tuple[bool, int | None] | None:
    """Return whether a predicate is causal, and its window; None if it is not one of transformers' own."""
    if function is masking_utils.causal_mask_function:
        return True, None
    if function is masking_utils.bidirectional_mask_function:
        return False, None
    code, held = getattr(function, "__code__", None), _held(function)
    # The same code with another number in it says the same with another number.
    if code is _AND:
        parts = [_shape_of(part) for part in held.get("mask_functions", ())]
        if not parts or any(part is None for part in parts):
            return None
        known = [part for part in parts if part is not None]
        windows = [window for _, window in known if window is not None]
        return any(causal for causal, _ in known), min(windows, default=None)
    window = held.get("sliding_window")
    if isinstance(window, bool) or not isinstance(window, int):
        return None
    if code is _WINDOW:
        # One-sided: it is a window only together with a causal order, which the comparison of rows makes sure of.
        return False, window
    return (False, window + 1) if code is _WINDOW_BOTH_WAYS else None


def _held(function: Callable[..., Tensor]) -> dict[str, Any]:
    return dict(inspect.getclosurevars(function).nonlocals) if inspect.isfunction(function) else {}


_AND = masking_utils.and_masks(masking_utils.causal_mask_function).__code__
_WINDOW = masking_utils.sliding_window_overlay(1).__code__
_WINDOW_BOTH_WAYS = masking_utils.sliding_window_bidirectional_overlay(1).__code__


def _padding_of(function: MaskFunction) -> Tensor | None:
    """Return which keys are tokens, (batch, 1, 1, n_key); None if all of them are."""
    if function.padding is None:
        return None
    first = function.key_offset
    padding = function.padding[:, first : first + function.n_key]
    return None if bool(padding.all()) else padding.to(torch.bool)[:, None, None]


def _dropped(function: MaskFunction) -> tuple[int, ...]:
    """Return how many tokens of each batch element a cache has let go of; empty if it holds all of them."""
    if function.key_offset <= 0:
        return ()
    if function.padding is None:
        return (function.key_offset,) * function.batch
    gone = function.padding[:, : function.key_offset].to(torch.bool)
    seen = gone.any(-1)
    first = torch.where(seen, gone.int().argmax(-1), function.key_offset)
    return tuple(int(count) for count in function.key_offset - first)


def _agrees(rule: Rule, function: MaskFunction) -> bool:
    """Compare a rule with the predicate on a few rows, over all columns."""
    n_query, n_key = function.n_query, function.n_key
    device = function.device
    reach = rule.window or 0
    chosen = {0, n_query - 1, n_query // 2, min(reach, n_query - 1), max(n_query - 1 - reach, 0)}
    rows = torch.tensor(sorted(chosen)[:_CHECKED_ROWS], device=device)
    expected = rule.seen(rows, n_query, n_key)
    actual = Rule(mask=function).seen(rows, n_query, n_key)
    return torch.equal(*torch.broadcast_tensors(expected, actual))
