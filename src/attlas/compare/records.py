"""What a comparison of two models is made of: changed weights, moved attention, heads that explain the output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attlas._tables import Table
from attlas.results import Provenance


@dataclass(frozen=True, eq=False)
class CircuitChange:
    """How the QK or the OV of every head of a layer changed; all tensors (head,), float64, unless said otherwise.

    Parameters
    ----------
    base : Tensor
        ‖W‖, Frobenius, of the base's product.
    change : Tensor
        ‖ΔW‖ of the difference of the two products.
    rank : Tensor, int64
        How many singular values of the difference stand above rounding.
    effective_rank, stable_rank : Tensor
        Of the difference; 0 where nothing changed.
    singular : Tensor, (head, k)
        Its largest singular values, largest first.
    amplification : Tensor
        ‖UᵀΔWV‖ / ‖UᵀWV‖, U and V being the difference's leading singular vectors; NaN where nothing changed.
    left, right : Tensor
        How much of the leading column space (row space) of the difference lies within the base's: φ of Hu et al. 2021,
        from 0 to 1; NaN where nothing changed.
    chance : (float, float)
        What random spaces of these dimensions would give, at the left and at the right.
    """

    base: Tensor
    change: Tensor
    rank: Tensor
    effective_rank: Tensor
    stable_rank: Tensor
    singular: Tensor
    amplification: Tensor
    left: Tensor
    right: Tensor
    chance: tuple[Tensor, Tensor]

    @property
    def relative(self) -> Tensor:
        """‖ΔW‖ / ‖W‖, (head,)."""
        return self.change / self.base


@dataclass(frozen=True, eq=False)
class LayerChange:
    """How the weights of one attention layer changed.

    Parameters
    ----------
    layer : int
        The number that a capture gives to the layer.
    name : str
        Its attention module, in the base.
    heads, group : int
        How many query heads there are, and how many of them share a key head, and with it the key's and the value's
        change.
    qk, ov : CircuitChange
        Of W_Q W_Kᵀ and of W_V W_O, without scale, biases, norms and rotation.
    relative : mapping
        "query", "key", "value", "output" -> ‖ΔW_h‖ / ‖W_h‖ of each query head's own part, (head,), float64.
    biases : Tensor, (head,)
        Frobenius norm of the change of the head's biases of query, key and value together; 0 without any.
    merge_loss : Tensor, (head,)
        What is lost of the head's four changes where base and change are added up and kept in `merge_dtype`:
        ‖cast(W + ΔW) − W − ΔW‖ / ‖ΔW‖; NaN where nothing changed.
    """

    layer: int
    name: str
    heads: int
    group: int
    qk: CircuitChange
    ov: CircuitChange
    relative: Mapping[str, Tensor]
    biases: Tensor
    merge_loss: Tensor


@dataclass(frozen=True, eq=False)
class ModuleTable(Table):
    """A row for every weight matrix that was compared: those that an adapter changes, or all linear maps of a model.

    Parameters
    ----------
    provenance : Provenance
    """

    provenance: Provenance
    _rows: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as plain types; None where a number does not exist, or was not asked for."""
        return [dict(row) for row in self._rows]

    def row(self, module: str) -> dict[str, Any]:
        """Return one module's row."""
        return next(dict(row) for row in self._rows if row["module"] == module)

    def about(self) -> dict[str, Any]:
        from attlas.compare.columns import MODULE_COLUMNS, described

        return {"columns": described(MODULE_COLUMNS)}


@dataclass(frozen=True, eq=False)
class LayerMoved:
    """How one layer's attention matrices moved on a text; all (head, row), float32, unless said otherwise.

    A is the base's matrix, made by the base's weights W of the states x that reach the layer in the base; A' the tuned
    model's, by W' of x'. Total variation is ``½ Σ_j |…|`` of a row: 0 for the same row, 1 for rows that share no key.

    Parameters
    ----------
    layer : int
    name : str
        The attention module, in the base.
    moved : Tensor
        Total variation between A(W, x) and A' = A(W', x').
    own : Tensor
        Between A(W, x) and A(W', x): what the layer's own new weights do to what it received before.
    upstream : Tensor
        Between A(W, x) and A(W, x'): what the changed input does to the old weights.
    own_after : Tensor
        Between A(W, x') and A(W', x'): the layer's own new weights, on the changed input.
    upstream_after : Tensor
        Between A(W', x) and A(W', x'): the changed input, under the new weights.
    entropy, distance : Tensor
        The tuned row's entropy (nats) or mean distance (tokens), minus the base's.
    gained : mapping
        Name of a set of keys -> share of the row that went there (negative: that left), for the sets in `PLACES`.
    received : Tensor, (head, n_key)
        What each key gained, ``Σ_i (A'_ij − A_ij)`` over the measured rows, divided by their number.
    """

    layer: int
    name: str
    moved: Tensor
    own: Tensor
    upstream: Tensor
    own_after: Tensor
    upstream_after: Tensor
    entropy: Tensor
    distance: Tensor
    gained: Mapping[str, Tensor]
    received: Tensor

    @property
    def own_share(self) -> Tensor:
        """Share of the layer's own new weights in what moved, (head,), from 0 to 1; NaN where nothing did.

        ``own`` and ``upstream`` do not add up to ``moved``. Each is measured before and after the other, and the mean
        of the two counts: (own + own_after) / (own + own_after + upstream + upstream_after), of means over rows.
        """
        own = (self.own + self.own_after).double().mean(1)
        both = own + (self.upstream + self.upstream_after).double().mean(1)
        return own / both


@dataclass(frozen=True, eq=False)
class Moved:
    """How attention moved on a text.

    Parameters
    ----------
    tokens : tuple of str
        The text's tokens.
    rows : Tensor, (row,), int64
        Which queries were measured, ascending; `n` of them where it was every row.
    layers : tuple of LayerMoved
    """

    tokens: tuple[str, ...]
    rows: Tensor
    layers: tuple[LayerMoved, ...]

    @property
    def n(self) -> int:
        """How many tokens the text has."""
        return len(self.tokens)

    @property
    def every_row(self) -> bool:
        """Whether all rows were measured, and not a sample."""
        return len(self.rows) == self.n

    def __getitem__(self, layer: int) -> LayerMoved:
        """Return a layer by its number."""
        return next(one for one in self.layers if one.layer == layer)


@dataclass(frozen=True, eq=False)
class Restored:
    """Which heads explain the changed output: what putting one head's base weights back does.

    Parameters
    ----------
    window : (int, int)
        The positions, from and up to, at which outputs are compared.
    divergence : float
        KL(base ‖ tuned) of the next-token distributions in nats, mean over the window.
    heads : tuple of (layer, head)
        All heads, in the order of the table.
    estimate : Tensor, (head,), float64
        First-order estimate of how much nearer the tuned model comes to the base when the head gives what the base's
        head would give on the states that reach it now; in nats, positive where it helps.
    exact : Tensor, (head,), float64
        The same measured, by running the model with that one head put back; NaN for heads that were not run.
    correlation : float
        Spearman's, between estimate and measurement over the heads that were run; NaN for fewer than three.
    """

    window: tuple[int, int]
    divergence: float
    heads: tuple[tuple[int, int], ...]
    estimate: Tensor
    exact: Tensor
    correlation: float
