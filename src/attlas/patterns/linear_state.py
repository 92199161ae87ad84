"""What linear attention remembers of a text to read on: sums of a fixed size, and the keys that are still near."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own abbreviation
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.softmax import AttentionMatrix
from attlas.patterns.features import Features
from attlas.patterns.hybrid import Hybrid, Near
from attlas.patterns.sums import Running


@dataclass(frozen=True)
class LinearState:
    """Some heads in the middle of a text; `Linear.read` makes one, and `step` the next.

    Parameters
    ----------
    features : Features
    near : Near
        Which keys are exact.
    running : Running
        For each feature the sums over all keys that are far by now: of their features, and of these times values;
        (batch, head, features, value_dim + 1).
    key, value : Tensor, (batch, kv_head, held, dim or value_dim)
        The first `sinks` keys and the last `window`, and their values.
    weights : Tensor, (batch or 1, head or 1, held), optional
        What is added to all scores of a key that is held; minus infinity hides it.
    scale, softcap, sinks
        As of the heads' `AttentionMatrix`.
    dtype : torch.dtype
        What sums are taken in.

    Notes
    -----
    Its size does not depend on how long the text is, nor does the cost of a step, O(features · value_dim + (window +
    sinks) · dim) a head.
    """

    features: Features
    near: Near
    running: Running
    key: Tensor
    value: Tensor
    weights: Tensor | None
    scale: float
    softcap: float | None
    sinks: Tensor | None
    dtype: torch.dtype

    @staticmethod
    def reading(hybrid: Hybrid, value: Tensor, running: Running | None = None) -> tuple[Tensor, LinearState]:
        """Attend, and return also the state after the last key.

        Parameters
        ----------
        hybrid : Hybrid
            Causal heads, whose queries are the last rows.
        value : Tensor, (batch, kv_head, n_key, value_dim)
        running : Running, optional
            The sums over keys that were read before these, all of them far; none by default.
        """
        exact = hybrid.exact
        n_key = exact.shape[3]
        if not exact.visibility.causal or exact.shape[2] > n_key:
            got = "more queries than keys" if exact.visibility.causal else "heads that see what is to come"
            raise ArgumentError(complaint("exact", wanted="causal heads, to be read from left to right", got=got))
        rows, running = hybrid.continued(value, running)
        first = min(hybrid.near.sinks, n_key)
        held = torch.arange(n_key, device=exact.device)
        held = held[(held < first) | (held >= n_key - hybrid.near.window)]
        state = LinearState(
            features=hybrid.features,
            near=hybrid.near,
            running=running,
            key=exact.key.index_select(2, held),
            value=value.index_select(2, held),
            weights=None if hybrid.weights is None else hybrid.weights.index_select(2, held),
            scale=exact.scale,
            softcap=exact.softcap,
            sinks=exact.sinks,
            dtype=hybrid.dtype,
        )
        return rows.mean().to(value.dtype), state

    def step(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, LinearState]:
        """Read the next token, or the next few.

        Parameters
        ----------
        query : Tensor, (batch, head, tokens, dim)
            After any position encoding, as are keys.
        key : Tensor, (batch, kv_head, tokens, dim)
        value : Tensor, (batch, kv_head, tokens, value_dim)

        Returns
        -------
        Tensor, (batch, head, tokens, value_dim)
            What `Linear.attend` gives for the last rows of the whole text.
        LinearState
            The state after these tokens.
        """
        for name, new, held in (("key", key, self.key), ("value", value, self.value)):
            if new.ndim != 4 or new.shape[:2] != held.shape[:2] or new.shape[3] != held.shape[3]:
                wanted = f"shape ({held.shape[0]}, {held.shape[1]}, tokens, {held.shape[3]})"
                raise ArgumentError(complaint(name, wanted=wanted, got=f"shape {tuple(new.shape)}"))
        if not query.shape[2] == key.shape[2] == value.shape[2]:
            got = f"{query.shape[2]}, {key.shape[2]} and {value.shape[2]}"
            raise ArgumentError(complaint("query, key and value", wanted="as many tokens each", got=got))
        # Which keys are near is a question of how far back they lie, and the first keys stay first: that those between
        # are gone makes no difference.
        exact = AttentionMatrix(
            query,
            torch.cat([self.key, key], dim=2),
            scale=self.scale,
            causal=True,
            bias=None if self.weights is None else F.pad(self.weights, (0, key.shape[2])).unsqueeze(2),
            softcap=self.softcap,
            sinks=self.sinks,
        )
        hybrid = Hybrid.of(exact, self.features, self.near.window, self.near.sinks, self.dtype)
        return LinearState.reading(hybrid, torch.cat([self.value, value], dim=2), self.running)

    @property
    def nbytes(self) -> int:
        """Bytes that the state holds."""
        held = [self.key, self.value, self.running.top, self.running.total]
        return sum(t.numel() * t.element_size() for t in held)
