"""How long the vectors are that tokens pass on to each other, exactly and without the vectors.

``‖Σ_h a_h f_h‖`` of H vectors f depends on their H × H inner products alone (their Gram matrix), so a token needs H²
numbers instead of H · width. They are kept as the triangular factor R of the vectors themselves, ``‖Σ_h a_h f_h‖ =
‖R a‖``, which loses nothing where the vectors cancel, as a product with their squares would.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own abbreviation
from torch import Tensor

from attlas.matrix.contributions import STRIP, Contributions
from attlas.matrix.operator import Reader
from attlas.matrix.pairs import Diagonal, OfPairs, PairReader
from attlas.matrix.threads import each
from attlas.matrix.visibility import Indices


@dataclass(frozen=True, eq=False)
class Triangles:
    """The triangular factors of what heads write of each token, and of what the token hands on to itself.

    Parameters
    ----------
    heads : Tensor, (batch, head, head, n_key)
        R, zero below the diagonal of its first two axes.
    residual : Tensor, (batch, head, n_query), optional
        The residual's part along what the heads write of the same token.
    beside : Tensor, (batch, n_query), optional
        The length of what is left of it.
    """

    heads: Tensor
    residual: Tensor | None
    beside: Tensor | None

    @staticmethod
    def of(vectors: Contributions, dtype: torch.dtype) -> Triangles:
        """Compute them, a strip of tokens at a time; O(n_key · head² · width)."""
        batch, head, _, n_key = vectors.matrix.shape
        offset = vectors.matrix.offset
        triangles = vectors.value.new_empty((batch, head, head, n_key), dtype=dtype)
        last = triangles.new_zeros((batch, head + 1, n_key))

        def factor(keys: slice) -> None:
            # Rounded before, squares would not fit the inner products that they are subtracted from.
            columns = vectors.written(keys, dtype)
            if vectors.residual is not None:
                own = columns.new_zeros((batch, 1, keys.stop - keys.start, vectors.width))
                first = max(keys.start, offset)
                if first < keys.stop:
                    own[:, 0, first - keys.start :] = vectors.residual.detach()[:, first - offset : keys.stop - offset]
                columns = torch.cat([columns, own], dim=1)
            # Each token's vectors are the columns of a matrix: (batch, keys, width, vectors).
            upper = torch.linalg.qr(columns.permute(0, 2, 3, 1), mode="r").R
            upper = F.pad(upper, (0, 0, 0, head + 1 - upper.shape[2])).permute(0, 2, 3, 1)
            triangles[..., keys] = upper[:, :head, :head]
            if vectors.residual is not None:
                last[..., keys] = upper[:, :, head]

        length = max(1, STRIP // (batch * (head + 1) * vectors.width))
        strips = [slice(start, min(start + length, n_key)) for start in range(0, n_key, length)]
        each(factor, strips, triangles.device)
        if vectors.residual is None:
            return Triangles(triangles, None, None)
        return Triangles(triangles, last[:, :head, offset:], last[:, head, offset:])

    def narrow(self, batch: Indices) -> Triangles:
        """Return those of some batch elements."""
        residual, beside = (None if t is None else t[batch] for t in (self.residual, self.beside))
        return Triangles(self.heads[batch], residual, beside)

    def squares(self, weights: Tensor, cols: Indices, diagonal: Diagonal | None) -> Tensor:
        """Return ``‖Σ_h a_h f_h + residual‖²`` of some pairs.

        Parameters
        ----------
        weights : Tensor, (batch, head, rows, cols)
            a.
        cols : slice or Tensor
            Which keys.
        diagonal : Diagonal, optional
            Where the residual is added.

        Returns
        -------
        Tensor, (batch, rows, cols)
        """
        upper = self.heads[..., cols].unsqueeze(3)
        total = torch.zeros_like(weights[:, 0])
        line = torch.empty_like(total)
        for k in range(weights.shape[1]):
            torch.mul(weights[:, k], upper[:, k, k], out=line)
            for h in range(k + 1, weights.shape[1]):
                line.addcmul_(weights[:, h], upper[:, k, h])
            if diagonal is not None and self.residual is not None:
                line[:, diagonal.rows, diagonal.cols] += self.residual[:, k, diagonal.queries]
            total.addcmul_(line, line)
        if diagonal is not None and self.beside is not None:
            total[:, diagonal.rows, diagonal.cols] += self.beside[:, diagonal.queries].square()
        return total


class GramNorm(OfPairs):
    """The lengths ``‖T_ij‖`` of what tokens pass on to each other; one head.

    Parameters
    ----------
    vectors : Contributions
        T.

    Notes
    -----
    Exact, in O(head²) for an entry beside what the entries of all heads cost; head² numbers are held for each key, and
    never the vectors. Source of the norms: Kobayashi et al. 2020 (arXiv 2004.10102) and 2021 (arXiv 2109.07152).
    """

    def __init__(self, vectors: Contributions) -> None:
        super().__init__(vectors)
        self._triangles: Triangles | None = None

    @property
    def triangles(self) -> Triangles:
        """The tokens' triangular factors, computed on first use and kept."""
        if self._triangles is None:
            self._triangles = Triangles.of(self.vectors, self.accumulator)
        return self._triangles

    def of_batch(self, batch: Indices) -> GramNorm:
        narrowed = GramNorm(self.vectors.narrow(batch))
        narrowed._triangles = None if self._triangles is None else self._triangles.narrow(batch)
        return narrowed

    def prepare(self) -> None:
        super().prepare()
        _ = self.triangles

    def reader(self) -> Reader:
        return _GramReader(self)


class _GramReader(PairReader):
    def __init__(self, norms: GramNorm) -> None:
        super().__init__(norms, norms.accumulator)
        self._triangles = norms.triangles

    def part(self, weights: Tensor, rows: Indices, cols: Indices, diagonal: Diagonal | None) -> Tensor:
        lengths = self._triangles.squares(weights, cols, diagonal).sqrt_()
        if (outer := self.vectors.factor("outer", rows, self.dtype)) is not None:
            lengths.mul_(outer.abs().unsqueeze(-1))
        return lengths
