"""Relevance that crosses from a decoder to an encoder, by the rules of Chefer, Gur and Wolf (ICCV 2021).

With s the decoder's tokens and q the encoder's, every self-attention Ē = E_h((A ⊙ ∂A)⁺) updates R_ss ← R_ss + Ē·R_ss
and R_sq ← R_sq + Ē·R_sq (rules 6 and 7; the encoder's R_qq likewise), and every cross-attention Ē updates

    R_sq ← R_sq + norm(R_ss)ᵀ · Ē · norm(R_qq),    norm(R) = (R − I) / rowsum(R − I) + I    (rules 8 to 10)

(rule 11 has nothing to do where the encoder does not see the decoder). Only the target's row of R_sq is wanted. It is a
sum over decoder layers of a row that has walked down to the layer, times these three factors; norm(R_ss)ᵀ turns it into
a column that walks up to the layer again. So all that is needed are rows that walk down and columns that walk up; what
they meet is kept, O(layers · n · dim), and no R is ever formed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attlas.capture.attended import Attended
from attlas.explain.gradient_parts import depends, relevance
from attlas.explain.passing import passed
from attlas.explain.walk import Found, check_one_text, gradients_of, value_of


class CrossingSweep:
    """Keeps attention calls on the way down, and goes over them again at the end.

    Parameters
    ----------
    rows : Tensor, (target, n_decoder), float64
        Where the walk begins.
    """

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows
        self._decoder: list[Attended] = []
        self._encoder: list[Attended] = []

    def visit(self, attended: Attended) -> None:
        """Keep a call."""
        on_encoder = attended.side == "encoder" and not attended.cross
        check_one_text(attended, attended.matrix.shape[3] if on_encoder else self._rows.shape[1])
        (self._encoder if on_encoder else self._decoder).append(attended)

    def finish(self) -> Found:
        """Return the target's row of R_sq."""
        return Found(torch.stack([self._row(target) for target in range(len(self._rows))]))

    def _row(self, target: int) -> Tensor:
        # Down the decoder: what later layers' self-attention makes of the target's row, at each cross-attention.
        row, down = self._rows[target], []
        for attended in self._decoder:
            down.append(row)
            if not attended.cross:
                row = row + self._down(attended, row, target)
        # Up the decoder: columns of R_ss, of all ones and of those rows.
        columns = torch.stack([torch.ones_like(row), *down], dim=1)
        begun = columns
        crossed: Tensor | None = None
        for place in range(len(self._decoder) - 1, -1, -1):
            attended = self._decoder[place]
            if not attended.cross:
                columns = columns + self._up(attended, columns, target)
                continue
            sums, gained = (columns[:, i] - begun[:, i] for i in (0, place + 1))
            through = _divided(gained, sums) + begun[:, place + 1]
            part = self._down(attended, through, target)
            crossed = part if crossed is None else crossed + part
        if crossed is None:
            raise RuntimeError("a crossing without cross-attention")
        # Through norm(R_qq): its row sums walk up the encoder, then the row walks down.
        sums = torch.ones(crossed.shape[0], 1, dtype=torch.float64)
        for attended in reversed(self._encoder):
            sums = sums + self._up(attended, sums, target)
        shares = _divided(crossed, sums[:, 0] - 1)
        walked = shares
        for attended in self._encoder:
            walked = walked + self._down(attended, walked, target)
        return walked - shares + crossed

    def _down(self, attended: Attended, row: Tensor, target: int) -> Tensor:
        """Return ``row · Ē``."""
        gradients = gradients_of(attended, len(self._rows))[target]
        edges = relevance(attended, value_of(attended), gradients)
        return passed(edges, (row * depends(gradients))[None])[0].mean(0)

    def _up(self, attended: Attended, columns: Tensor, target: int) -> Tensor:
        """Return ``Ē · columns``, (n_query, width)."""
        edges = relevance(attended, value_of(attended), gradients_of(attended, len(self._rows))[target])
        operand = columns.to(device=edges.device, dtype=edges.accumulator)[None, None]
        return (edges @ operand.expand(1, edges.shape[1], -1, -1))[0].double().mean(0).cpu()


def _divided(numbers: Tensor, sums: Tensor) -> Tensor:
    """Return ``numbers / sums``, and 0 where a row has no relevance to be divided."""
    return torch.where(sums > 0, numbers / torch.where(sums > 0, sums, 1.0), 0.0)
