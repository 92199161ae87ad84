"""A call of a pattern: described by the matrix that the pattern stands for, and changed under its own rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attlas.capture.call import Call
from attlas.capture.interface import Change, Scoring, scored
from attlas.capture.kept import KeptMask
from attlas.capture.visibility import Rule
from attlas.errors import UnsupportedModelError
from attlas.matrix import AttentionMatrix, RelativeBias
from attlas.matrix.bias import ALiBi
from attlas.patterns import Pattern


def call_of(pattern: Pattern, exact: AttentionMatrix, value: Tensor, output: Tensor) -> Call:
    """Describe what a pattern computed.

    Parameters
    ----------
    exact : AttentionMatrix, (batch, head, n_query, n_key)
        What it was given.
    value : Tensor, (batch, kv_head, n_key, value_dim)
    output : Tensor, (batch, head, n_query, value_dim)
        What it gave.

    Raises
    ------
    UnsupportedModelError
        Its matrix is no softmax over some keys, or has a bias that is no table.
    """
    matrix = pattern.matrix(exact)
    if not isinstance(matrix, AttentionMatrix):
        raise UnsupportedModelError(
            f"it runs the pattern {pattern}, whose matrix is no softmax, and captures keep nothing else; "
            "attlas.nn layers give it with need_weights=True"
        )
    seen = matrix.visibility
    mask = seen.mask
    if not (mask is None or isinstance(mask, Tensor)):
        mask = KeptMask(mask, matrix.shape[:2])
    return Call(
        query=matrix.query.detach(),
        key=matrix.key.detach(),
        value=value.detach(),
        output=output.detach(),
        scale=matrix.scale,
        rule=Rule(seen.causal, seen.window, mask),
        bias=_table(matrix),
        softcap=matrix.softcap,
        sinks=None if matrix.sinks is None else matrix.sinks.detach().clone(),
        lse=None,
        window=seen.window,
        fused=True,
        source=exact.key,
    )


def rescored(exact: AttentionMatrix, value: Tensor, changes: Sequence[Change]) -> tuple[AttentionMatrix, Tensor]:
    """Return the queries, keys and values of a call as changes have them, under the call's own rules.

    Raises
    ------
    UnsupportedModelError
        They change who sees whom, or answer more texts than the rules are known for.
    """
    before = Scoring(exact.query, exact.key, None, None, value)
    after = scored(changes, before)
    seen = exact.visibility
    more = after.query.shape[0] != exact.query.shape[0] and (seen.mask is not None or isinstance(exact.bias, Tensor))
    if after.mask is not None or after.bias is not None or more:
        raise UnsupportedModelError("its rules are a pattern's, and cannot be changed together with its scores")
    if after.query is not before.query or after.key is not before.key:
        rules: dict[str, Any] = {"causal": seen.causal, "window": seen.window, "mask": seen.mask, "bias": exact.bias}
        rules |= {"softcap": exact.softcap, "sinks": exact.sinks}
        exact = AttentionMatrix(after.query, after.key, exact.scale, **rules)
    return exact, value if after.value is None else after.value


def _table(matrix: AttentionMatrix) -> Tensor | RelativeBias | None:
    """Return what is added to scores; linear biases as a number for each offset, which a capture can continue."""
    bias, (n_query, n_key) = matrix.bias, matrix.shape[2:]
    if bias is None or isinstance(bias, Tensor | RelativeBias):
        return bias
    if not isinstance(bias, ALiBi):
        raise UnsupportedModelError("it adds a formula to its scores, and captures keep numbers alone")
    reach = max(n_query, n_key)
    offsets = torch.arange(-(reach - 1), reach, device=bias.slopes.device)
    return RelativeBias(-bias.slopes[:, None] * offsets.abs(), -(reach - 1))
