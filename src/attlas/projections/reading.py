"""What a layer's heads read and write: the stacked weights, with the norm in front of them folded in on request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attlas.projections.low_rank import LowRank


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """The four stacked projections of one layer.

    Parameters
    ----------
    query : Tensor, (head, d_model, dim)
        W_Q.
    key : Tensor, (kv_head, d_key, dim)
        W_K; query head h belongs to kv head ``h // (heads // kv_heads)``.
    value : Tensor, (kv_head, d_key, value_dim)
        W_V.
    output : Tensor, (head, value_dim, d_out)
        W_O.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor

    @classmethod
    def of(cls, layer: Any, normed: bool = False, kv_heads: slice = slice(None)) -> LayerWeights:
        """Take the weights from a layer's projections.

        Parameters
        ----------
        layer : LayerProjections
            A layer.
        normed : bool
            Whether to fold the gain of the norm in front of the layer, and its centring, into what reads its output.
            In cross-attention that is the query alone.
        kv_heads : slice
            Which kv heads to take, with the query heads that they serve; all of them by default.
        """
        norm = layer.input_norm if normed else None
        first, last, _ = kv_heads.indices(len(layer.key))
        served = len(layer.query) // len(layer.key)
        heads = slice(first * served, last * served)
        query, key, value = layer.query[heads], layer.key[kv_heads], layer.value[kv_heads]
        if norm is not None:
            query = folded(query, norm.gain, norm.centred)
            if layer.kind != "cross":
                key, value = (folded(weight, norm.gain, norm.centred) for weight in (key, value))
        return cls(query, key, value, layer.output[heads])

    @property
    def group(self) -> int:
        """How many query heads share a kv head."""
        return self.query.shape[0] // self.key.shape[0]

    @property
    def qk(self) -> LowRank:
        """W_Q·W_Kᵀ of every head, (kv_head, group, d_model, d_key): the kv heads are not copied."""
        return LowRank(self.query.unflatten(0, (-1, self.group)), self.key.mT[:, None])

    @property
    def ov(self) -> LowRank:
        """W_V·W_O of every head, (kv_head, group, d_key, d_out)."""
        return LowRank(self.value[:, None], self.output.unflatten(0, (-1, self.group)))


def folded(weight: Tensor, gain: Tensor, centred: bool) -> Tensor:
    """Return the weights (head, d_model, dim) that read the input before a norm's gain, and before its centring."""
    weight = weight * gain.to(weight.dtype)[:, None]
    return weight - weight.mean(-2, keepdim=True) if centred else weight


def layers_of(projections: Any) -> Iterator[Any]:
    """Go through the layers of `attlas.projections` in order."""
    return (projections[layer] for layer in projections.layers)
