"""One attention call of a run, as whoever goes through a model from the top down meets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from attlas.matrix import AttentionMatrix


@dataclass(frozen=True, eq=False)
class Gradients:
    """What one target depends on in an attention call: its gradient with respect to what the kernel was given and gave.

    Parameters
    ----------
    output : Tensor, (batch, head, n_query, value_dim)
        With respect to the heads' outputs, before the output projection: dO.
    key : Tensor, (batch, kv_head, n_key, dim)
        With respect to the keys, after any position encoding: dK.
    value : Tensor, (batch, kv_head, n_key, value_dim)
        With respect to the values: dV.
    """

    output: Tensor
    key: Tensor
    value: Tensor


@dataclass(frozen=True, eq=False)
class Attended:
    """One attention call.

    Parameters
    ----------
    layer : int
        Its number, as a capture numbers it.
    name : str
        Its module.
    matrix : AttentionMatrix, (batch, head, n_query, n_key)
        Who attended to whom.
    value : Tensor, (batch, kv_head, n_key, value_dim), optional
        What was passed on, if it was kept.
    output : Tensor, (batch, head, n_query, value_dim), optional
        What the kernel gave, if it was kept.
    gradients : tuple of Gradients
        One a target, after a backward pass; empty without one.
    side : {"decoder", "encoder"}
        Which stack asks; models with one stack have but one side.
    cross : bool
        Whether a decoder asks what an encoder has read: then keys are the encoder's tokens.
    """

    layer: int
    name: str
    matrix: AttentionMatrix
    value: Tensor | None = None
    output: Tensor | None = None
    gradients: tuple[Gradients, ...] = ()
    side: Literal["decoder", "encoder"] = "decoder"
    cross: bool = False
