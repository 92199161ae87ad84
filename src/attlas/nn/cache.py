"""The keys and values of what was read so far, so that what follows can be read token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint


class KeyValueCache:
    """The keys and values of one layer; it begins empty.

    Attributes
    ----------
    length : int
        How many tokens it holds.

    Notes
    -----
    It holds all tokens, whatever the layer's pattern would forget. Memory grows by doubling, so that a token costs no
    copy of those before it. For use inside of ``torch.no_grad()``: what is written in place has no gradient.

    Examples
    --------
    >>> import torch, attlas
    >>> layer = attlas.nn.MultiHeadAttention(64, 4, causal=True)
    >>> text, cache = torch.randn(1, 10, 64), attlas.nn.KeyValueCache()
    >>> with torch.no_grad():
    ...     parts = [layer(text[:, i : i + 1], cache=cache)[0] for i in range(10)]
    >>> cache.length
    10
    """

    def __init__(self) -> None:
        self.length = 0
        self._held: tuple[Tensor, Tensor] | None = None

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add tokens, and return all that it holds now.

        Parameters
        ----------
        key, value : Tensor, (batch, kv_head, n, dim)

        Returns
        -------
        key, value : Tensor, (batch, kv_head, length, dim)
            Views of its memory.

        Raises
        ------
        ArgumentError
            They have gradients, or are of other texts, heads, dtypes or devices than those before.
        """
        if key.requires_grad or value.requires_grad:
            raise ArgumentError(
                complaint(
                    "cache",
                    wanted="tokens without gradients",
                    got="some that have one",
                    way_out="call the layer inside of torch.no_grad()",
                )
            )
        first, self.length = self.length, self.length + key.shape[2]
        try:
            self._held = self._room(key, 0), self._room(value, 1)
        except ArgumentError:
            self.length = first
            raise
        for held, new in zip(self._held, (key, value), strict=True):
            held[:, :, first : self.length] = new
        held_key, held_value = (held[:, :, : self.length] for held in self._held)
        return held_key, held_value

    def _room(self, new: Tensor, which: int) -> Tensor:
        """Return memory for all tokens, with those that it holds already."""
        batch, kv_head, n, dim = new.shape
        if self._held is None:
            return new.new_empty(batch, kv_head, n, dim)
        held = self._held[which]
        same = (held.shape[:2], held.shape[3], held.dtype, held.device)
        came = (new.shape[:2], dim, new.dtype, new.device)
        if same != came:
            raise ArgumentError(complaint("cache", wanted=f"more of what it holds: {_said(same)}", got=_said(came)))
        if held.shape[2] >= self.length:
            return held
        larger = held.new_empty(batch, kv_head, max(self.length, 2 * held.shape[2]), dim)
        larger[:, :, : held.shape[2]] = held
        return larger


def _said(of: tuple[torch.Size, int, torch.dtype, torch.device]) -> str:
    (batch, kv_head), dim, dtype, device = of
    return f"{batch} texts, {kv_head} heads of width {dim}, {dtype} on {device}"
