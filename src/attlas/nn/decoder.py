"""A small decoder of multi-head attention layers: to be trained in minutes, and to be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor, nn

from attlas.errors import ArgumentError, complaint
from attlas.matrix import AttentionOperator
from attlas.nn.attention import MultiHeadAttention, whole
from attlas.nn.cache import KeyValueCache
from attlas.patterns import Full, Pattern


class Decoder(nn.Module):
    """Predicts the next token, by causal attention and, between, two-layer networks; each reads what a norm gives.

    Parameters
    ----------
    vocabulary : int
        How many tokens there are.
    d_model, heads : int
        The width of the stream, and heads a layer.
    layers : int
        How many.
    hidden : int, optional
        The width of the networks; ``4 * d_model`` by default, 0 for a model of attention alone.
    patterns : Pattern or sequence of Pattern
        Of all layers, or one a layer.
    **choices
        Whatever else `MultiHeadAttention` takes: `kv_heads`, `dim`, `bias`, `position` ...

    Attributes
    ----------
    layers : torch.nn.ModuleList
        Each with `attention`, a `MultiHeadAttention`.

    Raises
    ------
    ArgumentError
        A size is no whole number, patterns are not one a layer, or as `MultiHeadAttention`.

    Notes
    -----
    The output's weights are those of the embedding (Press and Wolf 2017, arXiv 1608.05859); norms are root mean squares
    (Zhang and Sennrich 2019, arXiv 1910.07467), before each part.

    Examples
    --------
    >>> import torch, attlas
    >>> model = attlas.nn.Decoder(100, 64, 4, 2, hidden=0, position="rotary")
    >>> ids = torch.randint(100, (8, 50))
    >>> model(ids).shape
    torch.Size([8, 50, 100])
    >>> [attention.shape for attention in model.attention(ids)]
    [(8, 4, 50, 50), (8, 4, 50, 50)]
    """

    def __init__(
        self,
        vocabulary: int,
        d_model: int,
        heads: int,
        layers: int,
        *,
        hidden: int | None = None,
        patterns: Pattern | Sequence[Pattern] = Full(),  # noqa: B008 - a frozen record
        **choices: Any,
    ) -> None:
        super().__init__()
        whole("vocabulary", vocabulary)
        whole("layers", layers)
        each = [patterns] * layers if isinstance(patterns, Pattern) else list(patterns)
        if len(each) != layers:
            raise ArgumentError(complaint("patterns", wanted=f"one, or one for each of {layers} layers", got=len(each)))
        width = 4 * d_model if hidden is None else whole("hidden", hidden, 0)
        self.embedding = nn.Embedding(vocabulary, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.layers = nn.ModuleList(_Layer(d_model, heads, width, pattern, choices) for pattern in each)
        self.norm = nn.RMSNorm(d_model)

    def forward(self, ids: Tensor, *, cache: Sequence[KeyValueCache] | None = None) -> Tensor:
        """Return the logits of the next token at every position.

        Parameters
        ----------
        ids : Tensor, (batch, n), int64
            Tokens.
        cache : sequence of KeyValueCache, optional
            What `new_cache` gave: the tokens before these, which are added to it.

        Returns
        -------
        Tensor, (batch, n, vocabulary)
        """
        states, _ = self._read(ids, cache, need_weights=False)
        return F.linear(self.norm(states), self.embedding.weight)

    @torch.no_grad()
    def attention(self, ids: Tensor) -> list[AttentionOperator]:
        """Return the attention matrices of every layer on a text, (batch, heads, n, n) each, lazy."""
        return self._read(ids, None, need_weights=True)[1]

    def new_cache(self) -> list[KeyValueCache]:
        """Return an empty cache for every layer."""
        return [KeyValueCache() for _ in self.layers]

    def _read(
        self, ids: Tensor, cache: Sequence[KeyValueCache] | None, *, need_weights: bool
    ) -> tuple[Tensor, list[AttentionOperator]]:
        states = self.embedding(ids)
        seen = []
        for layer, held in zip(self.layers, cache or [None] * len(self.layers), strict=True):
            states, attention = layer(states, need_weights, held)
            if attention is not None:
                seen.append(attention)
        return states, seen


class _Layer(nn.Module):
    def __init__(self, d_model: int, heads: int, hidden: int, pattern: Pattern, choices: dict[str, Any]) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(d_model)
        self.attention = MultiHeadAttention(d_model, heads, causal=True, pattern=pattern, **choices)
        self.network = (
            nn.Sequential(nn.RMSNorm(d_model), nn.Linear(d_model, hidden), nn.GELU(), nn.Linear(hidden, d_model))
            if hidden
            else None
        )

    def forward(
        self, states: Tensor, need_weights: bool, cache: KeyValueCache | None
    ) -> tuple[Tensor, AttentionOperator | None]:
        passed, attention = self.attention(self.norm(states), need_weights=need_weights, cache=cache)
        states = states + passed
        return (states if self.network is None else states + self.network(states)), attention
