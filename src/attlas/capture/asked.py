"""What an attention call asks for, before anything has computed it: enough to compute it in the kernel's place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from attlas.capture.formulas import FormulaMask
from attlas.capture.holding import gap_of
from attlas.capture.kept import KeptMask
from attlas.capture.visibility import MaskMemory, Reading, Rule, TopLeft, relative_table
from attlas.errors import UnsupportedModelError
from attlas.matrix import AttentionMatrix, RelativeBias


@dataclass(frozen=True, eq=False)
class Asked:
    """What an attention call asks for.

    Parameters
    ----------
    query : Tensor, (batch, head, n_query, dim)
    key : Tensor, (batch, kv_head, n_key, dim)
    value : Tensor, (batch, kv_head, n_key, value_dim)
    scale : float
    rule : Rule
        Who sees whom.
    bias : Tensor or RelativeBias, optional
        Added to the scaled scores.
    softcap : float, optional
    sinks : Tensor, (head,), optional
    window : int, optional
        The sliding window that the model says it has, whether or not it shows at this length.
    dropped : tuple of int
        How many tokens of each batch element the model's cache has let go of before the first key; empty if none.
    aligned : bool
        Whether the queries are known to be the last rows.
    gap : int
        How many tokens are missing between the first and the nearest ones; see `attlas.capture.holding`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    rule: Rule
    bias: Tensor | RelativeBias | None
    softcap: float | None
    sinks: Tensor | None
    window: int | None
    dropped: tuple[int, ...] = ()
    aligned: bool = True
    gap: int = 0

    @property
    def n_query(self) -> int:
        """Rows of the matrix."""
        return self.query.shape[2]

    @property
    def n_key(self) -> int:
        """Columns of the matrix."""
        return self.key.shape[2]

    @property
    def matrix(self) -> AttentionMatrix:
        """The exact matrix of the call, made anew.

        Raises
        ------
        ArgumentError
            It cannot be one: its numbers are not finite, or its tensors do not fit together.
        """
        return AttentionMatrix(
            self.query,
            self.key,
            self.scale,
            causal=self.rule.causal,
            window=self.rule.window,
            mask=self.rule.mask,
            bias=self.bias,
            softcap=self.softcap,
            sinks=self.sinks,
        )

    # ---- parts of it

    def of_heads(self, heads: Sequence[int]) -> Asked:
        """Return the call of some heads only; they go on sharing keys where each key head has as many of them."""
        total = self.query.shape[1]
        if list(heads) == list(range(total)):
            return self
        kv = shared_heads(heads, total // self.key.shape[1])
        rule, bias = rules_of_heads(self.rule, self.bias, heads)
        return replace(
            self,
            query=_of(self.query, heads),
            key=_of(self.key, kv),
            value=_of(self.value, kv),
            rule=rule,
            bias=bias,
            sinks=None if self.sinks is None else self.sinks[list(heads)],
        )

    def of_texts(self, elements: Sequence[int], first: int) -> Asked | None:
        """Return the call of some batch elements, from their token `first` on, where padding ends; None if it is empty.

        Rows that stand in the padding are left out. Only for calls whose rule has structure.
        """
        if first == 0 and list(elements) == list(range(self.query.shape[0])):
            return self
        cut = max(0, first - (self.n_key - self.n_query))
        if cut >= self.n_query:
            return None
        chosen = torch.tensor(list(elements), device=self.query.device)

        def of(tensor: Tensor, axis: int, start: int) -> Tensor:
            tensor = tensor if tensor.shape[0] == 1 else tensor.index_select(0, chosen.to(tensor.device))
            return tensor if tensor.shape[axis] == 1 else tensor.narrow(axis, start, tensor.shape[axis] - start)

        rule, padding = self.rule, self.rule.padding
        if padding is not None:
            padding = of(padding, 3, first)
            rule = replace(rule, mask=None if bool(padding.all()) else padding)
        bias = self.bias
        if isinstance(bias, Tensor):
            bias = of(of(bias, 2, cut), 3, first)
        return replace(
            self,
            query=of(self.query, 2, cut),
            key=of(self.key, 2, first),
            value=of(self.value, 2, first),
            rule=rule,
            bias=bias,
            dropped=tuple(self.dropped[element] for element in elements) if self.dropped else (),
        )

    @property
    def starts(self) -> list[int]:
        """Where the text of each batch element begins, padding on the left left out; 0 if padding is not known."""
        batch, first = self.query.shape[0], list(self.rule.starts) or [0]
        return first * batch if len(first) == 1 else first


class Replaced(NamedTuple):
    """What was computed in the place of a kernel.

    Parameters
    ----------
    output : Tensor, (batch, head, n_query, value_dim)
    exact : bool
        Whether it is the softmax attention that the call asked for.
    """

    output: Tensor
    exact: bool


@dataclass(frozen=True)
class Asking:
    """A call that may be computed in the kernel's place.

    Parameters
    ----------
    asked : callable
        Given what is known about masks, describes the call, or raises `UnsupportedModelError`.
    disproved : callable
        Runs the model's own kernel on a corner of the call, and says why it does not compute what `asked` describes.
        Empty if it does; None if the corner shows nothing.
    """

    asked: Callable[[MaskMemory], Asked]
    disproved: Callable[[], str | None]


def ask(
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    masks: MaskMemory,
    scale: float | None = None,
    is_causal: bool = False,
    bias: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    window: int | None = None,
) -> Asked:
    """Describe a call by what the attention function is given.

    Parameters
    ----------
    mask : Tensor, optional
        Boolean (True = may be seen) or added to the scores, and broadcasts.
    masks : MaskMemory
        What is known about mask tensors already.
    is_causal : bool
        As PyTorch means it: the first query at the first key.

    Other parameters are those of `Asked`. Gradients flow to query, key, value and sinks.
    """
    source = key
    batch = max(query.shape[0], key.shape[0])
    query, key, value = (
        tensor if tensor.shape[0] == batch else tensor.expand(batch, -1, -1, -1) for tensor in (query, key, value)
    )
    if value.shape[1] != key.shape[1]:
        raise UnsupportedModelError(
            f"attention with {key.shape[1]} key heads and {value.shape[1]} value heads is not known"
        )
    n_query, n_key = query.shape[2], key.shape[2]
    if is_causal and n_key > n_query:
        # The first query stands at the first key, so keys beyond the last query are seen by nobody: an empty cache's
        # free places.
        n_key = n_query
    reading, gap = Reading(Rule(), None, n_key), gap_of(source)
    if gap:
        reading = _over_gap(mask, n_query, n_key, gap)
    elif is_causal:
        rule = Rule(causal=True) if n_query == n_key else Rule(mask=TopLeft(n_key - n_query))
        reading = Reading(rule, None, n_key, aligned=n_query == n_key)
    elif isinstance(mask, FormulaMask) and not mask.looked_into:
        reading = _of_formula(mask, batch, n_query, n_key)
    elif mask is not None:
        mask = mask.dense() if isinstance(mask, FormulaMask) else mask
        reading = masks.read(mask, n_query, n_key, window, lambda used: not bool(source[:, :, used:].any()))
    n_key = reading.n_key
    if n_key < key.shape[2]:
        key, value = key[:, :, :n_key], value[:, :, :n_key]
    return Asked(
        query=query,
        key=key,
        value=value,
        scale=float(scale) if scale is not None else query.shape[-1] ** -0.5,
        rule=reading.rule,
        bias=_bias(bias, reading.bias, n_query, n_key),
        softcap=None if softcap is None else float(softcap),
        sinks=None if sinks is None else sinks.reshape(-1),
        window=window,
        dropped=reading.dropped if any(reading.dropped) else (),
        aligned=reading.aligned,
        gap=gap,
    )


def shared_heads(heads: Sequence[int], group: int) -> list[int]:
    """Return the key heads of some query heads, `group` of which share one; each once where all have as many of them.

    Consecutive query heads share a key head, so a repeated key head is left out only where the rest stays even.
    """
    each = [head // group for head in heads]
    once = list(dict.fromkeys(each))
    count, rest = divmod(len(each), len(once))
    return once if rest == 0 and each == [kv for kv in once for _ in range(count)] else each


def rules_of_heads(
    rule: Rule, bias: Tensor | RelativeBias | None, heads: Sequence[int]
) -> tuple[Rule, Tensor | RelativeBias | None]:
    """Return what hides and what is added to some heads' scores; what all heads share stays as it is."""
    chosen = list(heads)
    if isinstance(rule.mask, Tensor) and rule.mask.shape[1] > 1:
        rule = replace(rule, mask=rule.mask[:, chosen])
    elif isinstance(rule.mask, KeptMask):
        rule = replace(rule, mask=rule.mask.of_heads(chosen))
    if isinstance(bias, RelativeBias):
        bias = RelativeBias(bias.table[chosen] if bias.table.shape[0] > 1 else bias.table, bias.lowest)
    elif bias is not None and bias.shape[1] > 1:
        bias = bias[:, chosen]
    return rule, bias


def _of(tensor: Tensor, heads: Sequence[int]) -> Tensor:
    """Select heads; a view where they are consecutive."""
    first = heads[0]
    if list(heads) == list(range(first, first + len(heads))):
        return tensor.narrow(1, first, len(heads))
    return tensor[:, list(heads)]


def _of_formula(mask: FormulaMask, batch: int, n_query: int, n_key: int) -> Reading:
    """Read a mask that nobody has made."""
    made_for = mask.function
    if (made_for.n_query, made_for.n_key) != (n_query, n_key) or made_for.batch not in (1, batch):
        raise UnsupportedModelError(
            f"its mask is for {made_for.n_query} queries and {made_for.n_key} keys of {made_for.batch} texts, and it "
            f"attends with {n_query} queries and {n_key} keys of {batch}"
        )
    return mask.reading


def _over_gap(mask: Tensor | None, n_query: int, n_key: int, gap: int) -> Reading:
    """Read the mask of a text that has a gap between its first and its nearest tokens."""
    if isinstance(mask, FormulaMask) and not mask.looked_into:
        reading = _of_formula(mask, mask.function.batch, n_query, n_key + gap)
        if reading.rule.causal and reading.rule.window is None and reading.rule.mask is None and reading.aligned:
            return Reading(Rule(causal=True), None, n_key)
    raise UnsupportedModelError(
        "its cache holds only what a plan needs, which is possible for causal texts without padding alone; use the "
        "model's own cache"
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
