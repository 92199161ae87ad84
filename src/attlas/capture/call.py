"""One call of an attention function, described so that its matrix can be made again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attlas.capture.visibility import MaskMemory, Rule, TopLeft, relative_table
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
        """Return the call of some heads only; their keys stay un-repeated where whole groups were chosen."""
        total = self.query.shape[1]
        if self.output.shape[1] != total:
            raise UnsupportedModelError(
                "heads: this layer projects its heads together, so chosen heads cannot be proved; capture all of them"
            )
        group = total // self.key.shape[1]
        shared = sorted({head // group for head in heads})
        regular = heads == [kv * group + i for kv in shared for i in range(group)]
        kv = shared if regular else [head // group for head in heads]
        rule, bias = self.rule, self.bias
        if isinstance(rule.mask, Tensor) and rule.mask.shape[1] > 1:
            rule = replace(rule, mask=rule.mask[:, heads])
        if isinstance(bias, RelativeBias):
            bias = RelativeBias(bias.table[heads] if bias.table.shape[0] > 1 else bias.table, bias.lowest)
        elif bias is not None and bias.shape[1] > 1:
            bias = bias[:, heads]
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
    source = key
    query, key, value = (tensor.detach() for tensor in (query, key, value))
    batch = max(query.shape[0], key.shape[0])
    query, key, value = (tensor.expand(batch, -1, -1, -1) for tensor in (query, key, value))
    if value.shape[1] != key.shape[1]:
        raise UnsupportedModelError(
            f"attention with {key.shape[1]} key heads and {value.shape[1]} value heads is not known"
        )
    n_query, n_key = query.shape[2], key.shape[2]
    if is_causal and n_key > n_query:
        # The first query stands at the first key, so keys beyond the last query are seen by nobody: an empty cache's
        # free places.
        n_key = n_query
    rule, offset_bias = Rule(), None
    if is_causal:
        rule = Rule(causal=True) if n_query == n_key else Rule(mask=TopLeft(n_key - n_query))
    elif mask is not None:
        reading = masks.read(mask, n_query, n_key, window, lambda used: not bool(source[:, :, used:].any()))
        rule, offset_bias, n_key = reading.rule, reading.bias, reading.n_key
    key, value = key[:, :, :n_key], value[:, :, :n_key]
    return Call(
        query=query,
        key=key,
        value=value,
        output=output.detach(),
        scale=float(scale) if scale is not None else query.shape[-1] ** -0.5,
        rule=rule,
        bias=_bias(bias, offset_bias, n_query, n_key),
        softcap=None if softcap is None else float(softcap),
        sinks=None if sinks is None else sinks.detach().reshape(-1).clone(),
        lse=_row_lse(lse, query),
        window=window,
        fused=fused,
        source=source,
    )


def _bias(bias: Tensor | None, from_mask: Tensor | None, n_query: int, n_key: int) -> Tensor | RelativeBias | None:
    """Join what is added to the scores, as a table over offsets where it depends on offsets alone."""
    if bias is None:
        # The model may write into its own mask later.
        return None if from_mask is None else from_mask.clone()
    bias = bias.detach()[..., -n_query:, :n_key] if bias.shape[-2] != 1 else bias.detach()[..., :n_key]
    if from_mask is not None:
        return bias + from_mask
    if not bool(bias.any()):
        return None
    table = relative_table(bias) if bias.dim() == 4 and bias.shape[2:] == (n_query, n_key) else None
    return bias.clone() if table is None else table


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
