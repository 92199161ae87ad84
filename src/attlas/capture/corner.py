"""A corner of an attention call, small enough to run the model's own kernel on it and see what it computes.

A function that is registered as attention may do something of its own with what it is given: leave keys out, add a bias
that it learnt. Before anything is computed in its place, it is run on the call's last few queries and keys, and what it
gives is compared with the softmax attention that those ask for, as a capture does with every call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attlas.capture.call import Call
from attlas.capture.formulas import FormulaMask
from attlas.capture.keeping import Keeper
from attlas.capture.record import Record, Wanted

_SIZE = 48


@dataclass(frozen=True, eq=False)
class Corner:
    """Some of a call's queries and keys, with the mask and the options that go with them."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    options: dict[str, Any]


def corners(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: Mapping[str, Any], *, causal: bool
) -> list[Corner]:
    """Cut the last corner of a call, and the first one, which shows more where the texts are padded on the right.

    Parameters
    ----------
    causal : bool
        Whether the kernel itself hides the future: then the first query stands at the first key.
    """
    n_query, n_key = query.shape[2], key.shape[2]
    n_key = min(n_key, n_query) if causal else n_key
    height, width = min(n_query, _SIZE), min(n_key, _SIZE)
    ends = [(slice(n_query - height, n_query), slice(n_key - width, n_key))]
    if ends[0] != (slice(0, height), slice(0, width)):
        ends.append((slice(0, height), slice(0, width)))
    found = []
    for rows, cols in ends:
        bias = options.get("position_bias")
        inner = {**options, "position_bias": _part(bias, rows, cols)} if isinstance(bias, Tensor) else dict(options)
        part = mask.part(rows, cols) if isinstance(mask, FormulaMask) else _part(mask, rows, cols)
        found.append(Corner(query[:, :, rows], key[:, :, cols], value[:, :, cols], part, inner))
    return found


def disproved(corner: Corner, run: Callable[[Corner], Call]) -> str | None:
    """Return why a kernel does not compute what the call asks for; empty if it does, None if the corner is empty."""
    with torch.no_grad():
        call = run(corner)
        if not bool(call.rule.sees_something(call.n_query, call.n_key, call.query.device).any()):
            return None
        return Record("its attention", call, Keeper(call.query.device), Wanted()).layer().unproved()


def _part(tensor: Tensor | None, rows: slice, cols: slice) -> Tensor | None:
    """Cut a mask or a bias, whose axes may be of size 1."""
    if tensor is None:
        return None
    if tensor.shape[-1] > 1:
        tensor = tensor[..., cols]
    return tensor[..., rows, :] if tensor.dim() > 1 and tensor.shape[-2] > 1 else tensor
