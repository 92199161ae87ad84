"""How much of what a layer makes of a token comes from other tokens."""

from __future__ import annotations

from torch import Tensor

from attlas.matrix.contributions import Contributions


def mixing_ratio(vectors: Contributions, heads: Tensor | None = None) -> Tensor:
    """Return ``‖Σ_{j ≠ i} T_ij‖ / (‖Σ_{j ≠ i} T_ij‖ + ‖T_ii‖)`` of every token.

    Parameters
    ----------
    vectors : Contributions
        T.
    heads : Tensor, (batch, head, n_query, value_dim), optional
        What the heads gave, A·v, if it is at hand.

    Returns
    -------
    Tensor, (batch, n_query)
        0 where a token keeps to itself, 1 where it is made of others only; 0 for a token that is given nothing at all.

    Notes
    -----
    Costs one product with the attention matrix, and O(n · head · value_dim · width). Source: Kobayashi et al. 2021
    (arXiv 2109.07152), section 3.
    """
    given = vectors.matrix @ vectors.value if heads is None else heads
    own = vectors.own()
    mixed = (vectors.of_heads(given.to(own.dtype)) - own).norm(dim=-1)
    both = mixed + own.norm(dim=-1)
    return mixed / both.masked_fill(both == 0, 1)
