"""Multi-head attention with learned projections, to be trained, whose pattern is a choice."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor, nn

from attlas.errors import ArgumentError, complaint
from attlas.matrix import AttentionMatrix, AttentionOperator
from attlas.matrix.bias import ALiBi
from attlas.nn.cache import KeyValueCache
from attlas.nn.exporting import dense_mask
from attlas.nn.rotary import BASE, rotated
from attlas.patterns import Full, Pattern
from attlas.patterns.pattern import attend

Position = Literal["rotary", "alibi"]
"""How a layer knows where tokens are: by turning queries and keys, or by what is taken from scores."""

_FULL = Full()


class MultiHeadAttention(nn.Module):
    """Multi-head attention: softmax(Q Kᵀ / √dim) V by head, between learned projections W_Q, W_K, W_V and W_O.

    It takes what `torch.nn.MultiheadAttention` with ``batch_first=True`` takes, and gives the same, gradients too; its
    weights can be loaded from that module's state dict. Where the two differ: `need_weights` is false unless asked for,
    and gives the attention matrices of all heads, lazy, in place of a dense mean.

    Parameters
    ----------
    d_model : int
        The width of what is read and given.
    heads : int
        Heads.
    kv_heads : int, optional
        Heads of keys and values, each shared by ``heads / kv_heads`` heads (grouped-query attention, Ainslie et al.
        2023, arXiv 2305.13245); as many as `heads` by default.
    dim : int, optional
        The width of a head; ``d_model / heads`` by default.
    bias : bool
        Whether projections add a bias.
    position : {"rotary", "alibi"}, optional
        Rotary encoding (arXiv 2104.09864), or linear biases with the published slopes (arXiv 2108.12409); none by
        default.
    rotary_base : float
        Of the rotary wavelengths.
    causal : bool
        Hide every key after the query.
    dropout : float
        The share of attention weights that is dropped in training; from 0, below 1. Only for full attention.
    pattern : Pattern
        What of the matrix is computed: `attlas.patterns.SlidingWindow` and the like.
    device, dtype
        Of the parameters.

    Attributes
    ----------
    q_proj, k_proj, v_proj, o_proj : torch.nn.Linear
        W_Q, W_K, W_V and W_O.

    Raises
    ------
    ArgumentError
        A size is no whole number from 1, heads do not divide, or a choice does not go with another.

    Notes
    -----
    Full attention runs in PyTorch's fused kernel, in memory linear in the length; so do the patterns, in their own
    time. Two things are not linear in memory: an `attn_mask` of the caller's own, which is n × n already, and dropout
    in training on a CPU, where PyTorch's fused kernel has none.

    References
    ----------
    Vaswani et al. (2017), "Attention is all you need", arXiv 1706.03762, section 3.2.

    Examples
    --------
    >>> import torch, attlas
    >>> layer = attlas.nn.MultiHeadAttention(64, 4, kv_heads=2, position="rotary", causal=True)
    >>> output, attention = layer(torch.randn(2, 1000, 64), need_weights=True)
    >>> output.shape, attention.shape
    (torch.Size([2, 1000, 64]), (2, 4, 1000, 1000))
    """

    batch_first = True
    # `torch.nn.TransformerEncoderLayer` asks for these before it would compute attention itself, and then does not.
    in_proj_bias = None
    in_proj_weight = None

    def __init__(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None = None,
        dim: int | None = None,
        *,
        bias: bool = True,
        position: Position | None = None,
        rotary_base: float = BASE,
        causal: bool = False,
        dropout: float = 0.0,
        pattern: Pattern = _FULL,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.d_model, self.heads = whole("d_model", d_model), whole("heads", heads)
        self.kv_heads = self.heads if kv_heads is None else whole("kv_heads", kv_heads)
        if self.heads % self.kv_heads:
            raise ArgumentError(complaint("kv_heads", wanted=f"a divisor of heads = {heads}", got=kv_heads))
        if dim is None and d_model % heads:
            raise ArgumentError(
                complaint("heads", wanted=f"a divisor of d_model = {d_model}", got=heads, way_out="or give dim")
            )
        self.dim = d_model // heads if dim is None else whole("dim", dim)
        _check_choices(self, position, rotary_base, dropout, pattern)
        self.position, self.rotary_base, self.causal = position, float(rotary_base), bool(causal)
        self.dropout, self.pattern = float(dropout), pattern
        made: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.q_proj = nn.Linear(d_model, self.heads * self.dim, **made)
        self.k_proj = nn.Linear(d_model, self.kv_heads * self.dim, **made)
        self.v_proj = nn.Linear(d_model, self.kv_heads * self.dim, **made)
        self.o_proj = nn.Linear(self.heads * self.dim, d_model, **made)
        self._alibi = ALiBi.for_heads(self.heads) if position == "alibi" else None
        self.register_load_state_dict_pre_hook(_from_torch_names)
        self.reset_parameters()

    @classmethod
    def from_torch(cls, module: nn.MultiheadAttention, **choices: Any) -> Self:
        """Return a layer that computes what a `torch.nn.MultiheadAttention` does, with a copy of its weights.

        Parameters
        ----------
        module : torch.nn.MultiheadAttention
            With ``batch_first=True``, and keys and values as wide as queries.
        **choices
            `pattern`, `causal`, `position` and so on: what that module cannot do.

        Raises
        ------
        ArgumentError
            It has what this layer has not: another order of axes, keys or values of another width, or keys of its own.
        """
        own = {
            "batch_first=True": module.batch_first,
            "kdim and vdim as wide as embed_dim": module.in_proj_weight is not None,
            "no bias_k and bias_v": module.bias_k is None,
            "add_zero_attn=False": not module.add_zero_attn,
        }
        for wanted, there in own.items():
            if not there:
                raise ArgumentError(complaint("module", wanted=f"one with {wanted}", got="one that differs"))
        weight = module.in_proj_weight
        given: dict[str, Any] = {"dropout": module.dropout, "device": weight.device, "dtype": weight.dtype, **choices}
        layer = cls(module.embed_dim, module.num_heads, bias=module.in_proj_bias is not None, **given)
        layer.load_state_dict(module.state_dict())
        return layer.train(module.training)

    def reset_parameters(self) -> None:
        """Draw new weights: uniform as Glorot and Bengio (2010) have it for W_Q, W_K and W_V; biases begin at 0."""
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight)
        self.o_proj.reset_parameters()
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            if projection.bias is not None:
                nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, AttentionOperator | None]:
        """Attend.

        Parameters
        ----------
        query : Tensor, (batch, n_query, d_model) or (n_query, d_model)
            What asks.
        key, value : Tensor, (batch, n_key, d_model) or (n_key, d_model), optional
            What is asked, and what is passed on; `query` itself by default, and `key` for `value`.
        key_padding_mask : Tensor, (batch, n_key), optional
            Boolean, True = ignored: PyTorch's convention for this argument; or numbers that are added to scores.
        need_weights : bool
            Return the attention matrices too. They are lazy, outside of any gradient, and change nothing.
        attn_mask : Tensor, (n_query, n_key) or (batch · heads, n_query, n_key), optional
            Boolean, True = hidden; or numbers that are added to scores.
        is_causal : bool
            Hide every key after the query in this call; `attn_mask` then says the same, and is not looked at.
        cache : KeyValueCache, optional
            What was read before: its tokens come before those of `query`, which are added to it. For self-attention.

        Returns
        -------
        output : Tensor, like `query`
            A query that sees no key gets the output projection of zeros, where PyTorch's gives NaN.
        attention : AttentionOperator, (batch, heads, n_query, n_key), or None
            What the pattern stands for where it is asked for; an `attlas.AttentionMatrix` for full attention.

        Raises
        ------
        ArgumentError
            Shapes do not fit; or a cache is given together with keys or masks of the caller's own.
        """
        unbatched = query.dim() == 2
        key = query if key is None else key
        value = key if value is None else value
        states = [x.unsqueeze(0) if unbatched else x for x in (query, key, value)]
        _check_states(self.d_model, *states)
        if cache is not None and (key is not query or key_padding_mask is not None or attn_mask is not None):
            raise ArgumentError(
                complaint("cache", wanted="self-attention without masks", got="keys or masks beside it")
            )
        if key_padding_mask is not None and unbatched:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        q, k, v = (
            projection(x).unflatten(2, (-1, self.dim)).transpose(1, 2)
            for projection, x in zip((self.q_proj, self.k_proj, self.v_proj), states, strict=True)
        )
        if self.position == "rotary":
            before = 0 if cache is None else cache.length
            q, k = rotated(q, before, self.rotary_base), rotated(k, before, self.rotary_base)
        if cache is not None:
            k, v = cache.extend(k, v)
        causal = self.causal or is_causal
        hidden = _Hidden(q, k, key_padding_mask, None if is_causal else attn_mask)
        attended = self._attend(q, k, v, hidden, causal=causal)
        output = self.o_proj(attended.transpose(1, 2).flatten(2))
        output = output.squeeze(0) if unbatched else output
        if not need_weights:
            return output, None
        if torch.compiler.is_exporting():
            raise ArgumentError(complaint("need_weights", wanted="false in an exported graph", got="true"))
        with torch.no_grad():
            return output, self.pattern.matrix(self._matrix(q.detach(), k.detach(), hidden, causal=causal))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, hidden: _Hidden, *, causal: bool) -> Tensor:
        """Return each head's output, (batch, heads, n_query, dim)."""
        dropped = self.dropout if self.training else 0.0
        plain = isinstance(self.pattern, Full) and self._alibi is None
        if plain and not hidden:
            if not causal or q.shape[2] == 1:
                return self._fused(q, k, v, None, dropped, causal=False)
            # The kernel's causal rule begins at the first key, so it is the rule here where there is a query for each.
            if q.shape[2] == k.shape[2]:
                return self._fused(q, k, v, None, dropped, causal=True)
        if torch.compiler.is_exporting():
            return self._exported(q, k, v, hidden, dropped, causal=causal)
        if plain and (dropped or hidden.dense):
            return self._fused(q, k, v, hidden.together(causal=causal), dropped, causal=False)
        # What is checked there depends on numbers, so a compiled model runs it as it is.
        run: Any = torch.compiler.disable(self._by_pattern) if torch.compiler.is_compiling() else self._by_pattern
        return run(q, k, v, hidden, causal=causal)

    def _by_pattern(self, q: Tensor, k: Tensor, v: Tensor, hidden: _Hidden, *, causal: bool) -> Tensor:
        return attend(self.pattern, self._matrix(q, k, hidden, causal=causal), v)

    def _exported(self, q: Tensor, k: Tensor, v: Tensor, hidden: _Hidden, dropped: float, *, causal: bool) -> Tensor:
        seen, added = dense_mask(self.pattern, q, k, hidden.seen, self._bias(hidden), causal=causal)
        attended = self._fused(q, k, v, seen if added is None else added, dropped, causal=False)
        # A row that sees nothing is 0 here, and NaN in other runtimes.
        return attended.masked_fill(~seen.any(-1, keepdim=True), 0)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropped: float, *, causal: bool) -> Tensor:
        shared = self.kv_heads != self.heads
        return F.scaled_dot_product_attention(q, k, v, mask, dropped, causal, enable_gqa=shared)

    def _matrix(self, q: Tensor, k: Tensor, hidden: _Hidden, *, causal: bool) -> AttentionMatrix:
        return AttentionMatrix(q, k, causal=causal, mask=hidden.seen, bias=self._bias(hidden))

    def _bias(self, hidden: _Hidden) -> Tensor | ALiBi | None:
        if self._alibi is not None and hidden.bias is not None:
            raise ArgumentError(
                complaint("attn_mask, key_padding_mask", wanted="booleans beside linear biases", got="numbers to add")
            )
        return self._alibi if hidden.bias is None else hidden.bias

    def extra_repr(self) -> str:
        """Return what `print` shows beside the projections."""
        sizes = f"d_model={self.d_model}, heads={self.heads}, kv_heads={self.kv_heads}, dim={self.dim}"
        choices = f"position={self.position!r}, causal={self.causal}, dropout={self.dropout}"
        return f"{sizes}, {choices}, pattern={self.pattern}"


class _Hidden:
    """What the caller's masks hide and add, in PyTorch's convention: True = hidden.

    Attributes
    ----------
    seen : Tensor or None
        Boolean, True = may be seen; broadcastable to (batch, heads, n_query, n_key).
    bias : Tensor or None
        What is added to scores, broadcastable likewise.
    dense : bool
        Whether the caller's masks are n × n themselves.
    """

    def __init__(self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None) -> None:
        self._n_query, self._n_key = q.shape[2], k.shape[2]
        self.dense = mask is not None
        self.seen: Tensor | None = None
        self.bias: Tensor | None = None
        batch, heads = q.shape[:2]
        if padding is not None:
            _check_shape("key_padding_mask", padding, [(batch, self._n_key)])
            self._add(padding[:, None, None], q.dtype)
        if mask is not None:
            size = (self._n_query, self._n_key)
            _check_shape("attn_mask", mask, [size, (batch * heads, *size)])
            self._add(mask.unflatten(0, (batch, heads)) if mask.dim() == 3 else mask[None, None], q.dtype)

    def __bool__(self) -> bool:
        return self.seen is not None or self.bias is not None

    def _add(self, mask: Tensor, dtype: torch.dtype) -> None:
        if mask.dtype == torch.bool:
            self.seen = ~mask if self.seen is None else self.seen & ~mask
        else:
            self.bias = mask.to(dtype) if self.bias is None else self.bias + mask.to(dtype)

    def together(self, *, causal: bool) -> Tensor | None:
        """Return one n × n mask for PyTorch's own function: of booleans, True = may be seen, or of numbers."""
        seen = self.seen
        if causal:
            device = next((t.device for t in (self.seen, self.bias) if t is not None), None)
            triangle = torch.ones(self._n_query, self._n_key, dtype=torch.bool, device=device)
            triangle = triangle.tril(self._n_key - self._n_query)
            seen = triangle if seen is None else seen & triangle
        if self.bias is None or seen is None:
            return seen if self.bias is None else self.bias
        return self.bias.masked_fill(~seen, -torch.inf)


def whole(name: str, given: object, least: int = 1) -> int:
    """Return a size, or refuse what is none."""
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise ArgumentError(complaint(name, wanted=f"a whole number from {least}", got=repr(given)))
    return given


def _check_choices(
    layer: MultiHeadAttention, position: object, rotary_base: float, dropout: float, pattern: object
) -> None:
    if position not in (None, "rotary", "alibi"):
        raise ArgumentError(complaint("position", wanted='"rotary", "alibi" or None', got=repr(position)))
    if position == "rotary" and layer.dim % 2:
        raise ArgumentError(complaint("dim", wanted="an even width for rotary encoding", got=layer.dim))
    if not rotary_base > 0:
        raise ArgumentError(complaint("rotary_base", wanted="a number above 0", got=rotary_base))
    if not 0 <= dropout < 1:
        raise ArgumentError(complaint("dropout", wanted="a share from 0, below 1", got=dropout))
    if not isinstance(pattern, Pattern):
        raise ArgumentError(complaint("pattern", wanted="a pattern of attlas.patterns, made", got=repr(pattern)))
    if dropout and (not isinstance(pattern, Full) or position == "alibi"):
        other = "linear biases" if isinstance(pattern, Full) else str(pattern)
        raise ArgumentError(
            complaint(
                "dropout",
                wanted=f"0 with {other}, whose weights are never held",
                got=dropout,
                way_out="drop out of the layer's output instead",
            )
        )


def _check_states(d_model: int, query: Tensor, key: Tensor, value: Tensor) -> None:
    for name, states in (("query", query), ("key", key), ("value", value)):
        if states.dim() != 3 or states.shape[2] != d_model:
            wanted = f"(batch, n, {d_model}) or (n, {d_model})"
            raise ArgumentError(complaint(name, wanted=wanted, got=f"shape {tuple(states.shape)}"))
    if key.shape[:2] != value.shape[:2] or key.shape[0] != query.shape[0]:
        got = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
        raise ArgumentError(complaint("key, value", wanted="one value a key, for the queries' own texts", got=got))


def _check_shape(name: str, given: Tensor, wanted: list[tuple[int, ...]]) -> None:
    if tuple(given.shape) not in wanted:
        sizes = " or ".join(str(size) for size in wanted)
        raise ArgumentError(complaint(name, wanted=f"shape {sizes}", got=tuple(given.shape)))


def _from_torch_names(module: nn.Module, state: dict[str, Any], prefix: str, *unused: Any) -> None:
    """Give the weights of a `torch.nn.MultiheadAttention` the names that they have here."""
    del module, unused
    for kind in ("weight", "bias"):
        together = state.pop(f"{prefix}in_proj_{kind}", None)
        if together is not None:
            for name, part in zip(("q_proj", "k_proj", "v_proj"), together.chunk(3), strict=True):
                state[f"{prefix}{name}.{kind}"] = part
        out = state.pop(f"{prefix}out_proj.{kind}", None)
        if out is not None:
            state[f"{prefix}o_proj.{kind}"] = out
