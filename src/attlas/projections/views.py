"""The projection matrices of an attention layer and of a head, as views of the model's own weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.indexing import IndexOutOfRange
from attlas.projections.low_rank import LowRank
from attlas.projections.rotation import Rotation


@dataclass(frozen=True, eq=False)
class Norm:
    """A normalisation in front of a projection: ``(x − mean) / rms · gain + bias``, the mean only where it is centred.

    Parameters
    ----------
    gain : Tensor, (d_model,)
        What the normalised state is multiplied with, as the model computes it: 1 + weight for Gemma.
    bias : Tensor, (d_model,), optional
    centred : bool
        Whether the mean is taken off first: LayerNorm does, RMSNorm does not.
    eps : float
        Added to the mean square.
    name : str
        The module.
    """

    gain: Tensor = field(repr=False)
    bias: Tensor | None = field(repr=False)
    centred: bool
    eps: float
    name: str = ""

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise states, (…, d_model), in their own dtype."""
        return _normalised(x, self.gain, self.bias, self.centred, self.eps)


@dataclass(frozen=True, eq=False)
class HeadNorm:
    """A normalisation of queries or keys, after the projection and before the rotation.

    Parameters
    ----------
    gain : Tensor, (dim,) or (head, dim)
        What the normalised vector is multiplied with, as the model computes it.
    bias : Tensor, (dim,) or (head, dim), optional
    centred : bool
        Whether the mean is taken off first.
    eps : float
        Added to the mean square.
    together : bool
        Whether the mean square is taken over all heads together (OLMo 2), not over each head.
    name : str
        The module.
    """

    gain: Tensor = field(repr=False)
    bias: Tensor | None = field(repr=False)
    centred: bool
    eps: float
    together: bool = False
    name: str = ""

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise vectors, (…, head, n, dim), in their own dtype."""
        gain, bias = (None if t is None else _per_head(t) for t in (self.gain, self.bias))
        if not self.together:
            return _normalised(x, gain, bias, self.centred, self.eps)
        flat = _normalised(x.transpose(-3, -2).flatten(-2), None, None, self.centred, self.eps)
        x = flat.unflatten(-1, (x.shape[-3], x.shape[-1])).transpose(-3, -2)
        x = x if gain is None else x * gain.to(x.dtype)
        return x if bias is None else x + bias.to(x.dtype)


@dataclass(frozen=True, eq=False)
class LayerProjections:
    """W_Q, W_K, W_V and W_O of one attention layer, for row vectors: ``Q = X @ W_Q + b``.

    The tensors are views of the model's weights wherever the strides allow it (`shared` says which): they change when
    the weights are trained, and must not be written to. All have the model's dtype.

    Parameters
    ----------
    layer : int
        The number that a capture gives to the layer.
    name : str
        Its attention module.
    kind : {"self", "cross"}
    causal : bool
        Whether a query sees no later key.
    query : Tensor, (head, d_model, dim)
    key : Tensor, (kv_head, d_key, dim)
        d_key is d_model, or the width of the states that a cross-attention looks at.
    value : Tensor, (kv_head, d_key, value_dim)
    output : Tensor, (head, value_dim, d_out)
    query_bias : Tensor, (head, dim), optional
    key_bias : Tensor, (kv_head, dim), optional
    value_bias : Tensor, (kv_head, value_dim), optional
    output_bias : Tensor, (d_out,), optional
    scale : float
        What the product of a query and a key, as `queries` and `keys` give them, is multiplied with before the softmax.
    rotation : Rotation, optional
        The rotary position encoding.
    query_norm, key_norm, value_norm : HeadNorm, optional
        What queries, keys and values are normalised by, before the rotation.
    input_norm : Norm, optional
        The normalisation in front of the attention, where the residual stream itself is not normalised.
    gate : Tensor, (head, d_model, value_dim), optional
        Where a head's output is multiplied with ``sigmoid(X @ gate)`` before W_O (Qwen3-Next).
    gate_bias : Tensor, (head, value_dim), optional
    adapters : mapping
        "query", "key", "value" or "output" -> LowRank of each head, the part of the weights that an unmerged LoRA
        adapter adds. It is included in the weights above.
    factors : (float, float)
        What the model multiplies queries and keys with before its kernel; included in `scale`.
    modules : mapping
        "attention", "query", "key", "value", "output", and "gate" where there is one -> the module's name.
    rows : mapping
        "query", "key", "value", and "gate" where there is one -> which row of its module's weight, (out, in), each
        entry of its last two axes is: int64, (head, dim). Where several share a module, they have different rows of it.
    shared : frozenset of str
        Which of "query", "key", "value", "output" are views of the model's weights; the others were built once.
    notes : tuple of str
        What holds of the model but is not in the weights, such as a rotation that changes with the text's length.
    turn : int
        Which run of the module in one forward pass, where layers share their weights (ALBERT).
    """

    layer: int
    name: str
    kind: str
    causal: bool
    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    query_bias: Tensor | None = None
    key_bias: Tensor | None = None
    value_bias: Tensor | None = None
    output_bias: Tensor | None = None
    scale: float = 1.0
    rotation: Rotation | None = None
    query_norm: HeadNorm | None = None
    key_norm: HeadNorm | None = None
    value_norm: HeadNorm | None = None
    input_norm: Norm | None = None
    gate: Tensor | None = None
    gate_bias: Tensor | None = None
    adapters: Mapping[str, LowRank] = field(default_factory=dict)
    factors: tuple[float, float] = (1.0, 1.0)
    modules: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    shared: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    turn: int = 0

    @property
    def heads(self) -> int:
        """How many heads ask."""
        return self.query.shape[0]

    @property
    def kv_heads(self) -> int:
        """How many heads of keys and values there are."""
        return self.key.shape[0]

    @property
    def group(self) -> int:
        """How many query heads share one key head."""
        return self.heads // self.kv_heads

    @property
    def d_model(self) -> int:
        """Width of the states that queries are made of."""
        return self.query.shape[1]

    @property
    def dim(self) -> int:
        """Width of a query and of a key."""
        return self.query.shape[2]

    @property
    def value_dim(self) -> int:
        """Width of a value."""
        return self.value.shape[2]

    def queries(self, states: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return the queries of hidden states, as the attention module is given them.

        Parameters
        ----------
        states : Tensor, (…, n, d_model)
            In float64 everything is computed in float64, whatever the weights' dtype.
        positions : Tensor, (n,) or (…, n), optional
            Where the tokens stand; without it nothing is rotated.

        Returns
        -------
        Tensor, (…, head, n, dim)
            With bias, normalisation and rotation.
        """
        return self._placed(_normed(_made(states, self.query, self.query_bias), self.query_norm), positions)

    def keys(self, states: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return the keys of hidden states, (…, kv_head, n, dim); see `queries`."""
        return self._placed(_normed(_made(states, self.key, self.key_bias), self.key_norm), positions)

    def values(self, states: Tensor) -> Tensor:
        """Return the values of hidden states, (…, kv_head, n, value_dim)."""
        return _normed(_made(states, self.value, self.value_bias), self.value_norm)

    def outputs(self, heads: Tensor) -> Tensor:
        """Project what each head has gathered, (…, head, n, value_dim), and sum over heads: (…, n, d_out), with bias.

        Where there is a `gate`, its factor has to be in `heads` already.
        """
        summed = heads.transpose(-3, -2).flatten(-2) @ self.output.flatten(0, 1).to(heads.dtype)
        return summed if self.output_bias is None else summed + self.output_bias.to(summed.dtype)

    def head(self, head: int) -> HeadProjections:
        """Return one head; negative numbers count from the end."""
        if isinstance(head, bool) or not isinstance(head, int) or not -self.heads <= head < self.heads:
            raise IndexOutOfRange(
                complaint("head", wanted=f"0 to {self.heads - 1} (layer {self.layer})", got=repr(head))
            )
        return HeadProjections(self, head % self.heads)

    def __getitem__(self, what: str) -> Tensor:
        """Return one of the four matrices by its name."""
        if what not in ("query", "key", "value", "output"):
            raise ArgumentError(complaint("index", wanted='"query", "key", "value" or "output"', got=repr(what)))
        return getattr(self, what)

    def _placed(self, x: Tensor, positions: Tensor | None) -> Tensor:
        if positions is None or self.rotation is None:
            return x
        return self.rotation.rotate(x, positions if positions.dim() < 2 else positions.unsqueeze(-2))

    def __repr__(self) -> str:
        kv = "" if self.group == 1 else f" on {self.kv_heads} key heads"
        rotary = "" if self.rotation is None else ", rotary"
        return (
            f"LayerProjections({self.layer}, {self.name}, {self.heads} heads{kv} of {self.d_model}×{self.dim}{rotary})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class HeadProjections:
    """One head's W_Q, W_K, W_V and W_O, and the two products that say what it looks for and what it passes on.

    Parameters
    ----------
    of : LayerProjections
        The layer.
    head : int
        The head's number in it.
    """

    of: LayerProjections
    head: int

    @property
    def layer(self) -> int:
        """The layer's number."""
        return self.of.layer

    @property
    def kv_head(self) -> int:
        """Which head of keys and values it uses."""
        return self.head // self.of.group

    @property
    def query(self) -> Tensor:
        """W_Q, (d_model, dim)."""
        return self.of.query[self.head]

    @property
    def key(self) -> Tensor:
        """W_K, (d_key, dim)."""
        return self.of.key[self.kv_head]

    @property
    def value(self) -> Tensor:
        """W_V, (d_key, value_dim)."""
        return self.of.value[self.kv_head]

    @property
    def output(self) -> Tensor:
        """W_O, (value_dim, d_out)."""
        return self.of.output[self.head]

    @property
    def query_bias(self) -> Tensor | None:
        """The bias of the queries, (dim,)."""
        return None if self.of.query_bias is None else self.of.query_bias[self.head]

    @property
    def key_bias(self) -> Tensor | None:
        """The bias of the keys, (dim,)."""
        return None if self.of.key_bias is None else self.of.key_bias[self.kv_head]

    @property
    def value_bias(self) -> Tensor | None:
        """The bias of the values, (value_dim,)."""
        return None if self.of.value_bias is None else self.of.value_bias[self.kv_head]

    @property
    def scale(self) -> float:
        """What scores are multiplied with."""
        return self.of.scale

    @property
    def rotation(self) -> Rotation | None:
        """The rotary position encoding."""
        return self.of.rotation

    @property
    def qk(self) -> LowRank:
        """W_Q · W_Kᵀ, (d_model, d_key): what the head looks for, without scale, biases, norms and rotation."""
        return LowRank(self.query, self.key.transpose(-2, -1))

    @property
    def ov(self) -> LowRank:
        """W_V · W_O, (d_key, d_out): what the head passes on of what it sees, without biases."""
        return LowRank(self.value, self.output)

    def qk_at(self, offset: float) -> LowRank:
        """Return W_Q · R · W_Kᵀ, where R is the rotation between two positions that are `offset` apart.

        Parameters
        ----------
        offset : float
            Position of the query minus that of the key.

        Returns
        -------
        LowRank
            Equal to `qk` for a model without rotary encoding; at offset 0 it is `qk` with the rotation's amplitude.
        """
        if self.rotation is None:
            return self.qk
        return LowRank(self.rotation.relative(self.query, offset), self.key.transpose(-2, -1))

    def __repr__(self) -> str:
        return f"HeadProjections(layer {self.layer}, head {self.head}, key head {self.kv_head}, {self.of.name})"


def _made(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made = states.unsqueeze(-3) @ weight.to(states.dtype)
    return made if bias is None else made + bias.to(made.dtype).unsqueeze(-2)


def _normed(x: Tensor, norm: HeadNorm | None) -> Tensor:
    return x if norm is None else norm(x)


def _per_head(t: Tensor) -> Tensor:
    return t if t.dim() == 1 else t.unsqueeze(-2)


def _normalised(x: Tensor, gain: Tensor | None, bias: Tensor | None, centred: bool, eps: float) -> Tensor:
    if centred:
        x = x - x.mean(-1, keepdim=True)
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    x = x if gain is None else x * gain.to(x.dtype)
    return x if bias is None else x + bias.to(x.dtype)
