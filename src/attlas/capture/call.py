"""One call of an attention function, described so that its matrix can be made again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attlas.capture.asked import ask, rules_of_heads, shared_heads
from attlas.capture.visibility import MaskMemory, Rule
from attlas.errors import UnsupportedModelError
from attlas.matrix import RelativeBias


@dataclass(frozen=True, eq=False)
class Call:
    """What one attention call computed.

    Parameters
    ----------
    query : Tensor, (batch, head, n_query, dim)
    key : Tensor, (batch, kv_head, n_key, dim)
    value : Tensor, (batch, kv_head, n_key, value_dim)
    output : Tensor, (batch, head, n_query, value_dim)
        What the kernel gave; a head axis of size 1 before several heads means that the heads were projected and summed.
    scale : float
    rule : Rule
        Who sees whom.
    bias : Tensor or RelativeBias, optional
        Added to the scaled scores.
    softcap : float, optional
    sinks : Tensor, (head,), optional
    lse : Tensor, (batch, head, n_query), optional
        The kernel's own log-sum-exp of each row, when it gave one.
    window : int, optional
        The sliding window that the model says it has, whether or not it shows at this length.
    fused : bool
        Whether a fused kernel ran, which keeps its scores in float32 or better.
    source : Tensor
        The key tensor as the model handed it over; a cache that hands over the same one again continues it.
    shadows : (Tensor, Tensor), optional
        The shadows of `value` and `output`, where they are not simply made of them: code that projects its heads
        together shows the sum.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    scale: float
    rule: Rule
    bias: Tensor | RelativeBias | None
    softcap: float | None
    sinks: Tensor | None
    lse: Tensor | None
    window: int | None
    fused: bool
    source: Tensor
    shadows: tuple[Tensor, Tensor] | None = None

    @property
    def n_query(self) -> int:
        """Rows of the matrix."""
        return self.query.shape[2]

    @property
    def n_key(self) -> int:
        """Columns of the matrix."""
        return self.key.shape[2]

    def narrowed(self, heads: list[int]) -> Call:
        """Return the call of some heads only; they go on sharing keys where each key head has as many of them."""
        total = self.query.shape[1]
        if self.output.shape[1] != total:
            raise UnsupportedModelError(
                "heads: this layer projects its heads together, so chosen heads cannot be proved; capture all of them"
            )
        kv = shared_heads(heads, total // self.key.shape[1])
        rule, bias = rules_of_heads(self.rule, self.bias, heads)
        return replace(
            self,
            query=self.query[:, heads],
            key=self.key[:, kv],
            value=self.value[:, kv],
            output=self.output[:, heads],
            rule=rule,
            bias=bias,
            sinks=None if self.sinks is None else self.sinks[heads],
            lse=None if self.lse is None else self.lse[:, heads],
        )


def describe(
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    mask: Tensor | None,
    masks: MaskMemory,
    scale: float | None = None,
    is_causal: bool = False,
    bias: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    window: int | None = None,
    lse: Tensor | None = None,
    fused: bool = True,
) -> Call:
    """Describe a call from what the attention function was given and gave back.

    Parameters
    ----------
    is_causal : bool
        As PyTorch means it: the first query at the first key.
    masks : MaskMemory
        What is known about mask tensors already.

    Other parameters are those of `Call`; `mask` is boolean (True = may be seen) or added to the scores, and broadcasts.
    """
    asked = ask(
        query=query.detach(),
        key=key.detach(),
        value=value.detach(),
        mask=mask,
        masks=masks,
        scale=scale,
        is_causal=is_causal,
        bias=bias,
        softcap=softcap,
        sinks=None if sinks is None else sinks.detach().clone(),
        window=window,
    )
    return Call(
        query=asked.query,
        key=asked.key,
        value=asked.value,
        output=output.detach(),
        scale=asked.scale,
        rule=asked.rule,
        bias=asked.bias,
        softcap=asked.softcap,
        sinks=asked.sinks,
        lse=_row_lse(lse, asked.query),
        window=window,
        fused=fused,
        source=key,
    )


def _row_lse(lse: Tensor | None, query: Tensor) -> Tensor | None:
    """Return the kernel's log-sum-exp as (batch, head, n_query), or nothing if it is not that."""
    if lse is None or query.dtype == torch.float64:
        # A float32 log-sum-exp would spoil a float64 matrix.
        return None
    shape = query.shape[:3]
    if lse.shape == shape:
        return lse.detach().to(torch.float32)
    # One query with grouped heads is handed to the kernel as (batch, kv_head, group).
    if query.shape[2] == 1 and lse.shape[:1] == shape[:1] and lse.numel() == shape.numel():
        return lse.detach().to(torch.float32).reshape(shape)
    return None
