"""Walks that look at attention alone: its rows, rollout, and rollout against what geometry alone would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attlas.capture.attended import Attended
from attlas.errors import ArgumentError, complaint
from attlas.explain.even_walk import evenly_passed
from attlas.explain.passing import passed
from attlas.explain.reading import Reading
from attlas.explain.walk import Found, Presets, RowWalker, Walker, check_one_text, checked_share, chosen_heads
from attlas.matrix import AttentionMatrix
from attlas.matrix.withholding import without_keys

EVERY_ROW_LIMIT = 512
"""Tokens of which rollout follows every row at once; n × n numbers, unlike the row of one target."""

Heads = int | Sequence[int] | None


class RawAttention(Walker):
    """What the target's own row attends to, averaged over heads and layers.

    Of a model with an encoder it is the decoder's cross-attention: that is where the encoder's tokens are attended to.

    Parameters
    ----------
    layers : int or sequence of int, optional
        Which layers; negative ones count from the top. All by default.
    heads : int or sequence of int, optional
        Which heads of each; all by default.

    Notes
    -----
    Costs one row a layer, O(n · head · dim).
    """

    def __init__(self, layers: int | Sequence[int] | None = None, heads: Heads = None) -> None:
        self.layers = [layers] if isinstance(layers, int) else None if layers is None else list(layers)
        self.heads = heads

    def start(self, reading: Reading) -> None:
        self._rows = reading.rows
        self._crosses = False
        self._met: list[int] = []
        self._found: list[Tensor] = []

    def visit(self, attended: Attended) -> None:
        self._crosses |= attended.cross
        if self._crosses and not attended.cross:
            return
        check_one_text(attended, self._rows.shape[1])
        self._met.append(attended.layer)
        if self.layers is None or {attended.layer, -len(self._met)} & set(self.layers):
            self._found.append(passed(chosen_heads(attended, self.heads), self._rows).mean(1))

    def finish(self) -> Found:
        missing = [one for one in self.layers or [] if one not in self._met and not -len(self._met) <= one < 0]
        if missing or not self._found:
            kind = "layers with cross-attention" if self._crosses else "layers"
            wanted = f"{kind}: {', '.join(map(str, sorted(self._met)))}, or negative ones from the top"
            raise ArgumentError(complaint("layers", wanted=wanted, got=missing or "none"))
        layers = torch.stack(self._found[::-1], dim=1)
        return Found(layers.mean(1), layers=layers)


class Rollout(RowWalker):
    """Attention rollout: r ← r·Â, with Â = (1 − residual) · mean over heads of A + residual · I.

    Parameters
    ----------
    residual : float
        What stays with a token in each layer, from 0 to below 1; half, as published. A layer of cross-attention leaves
        that share with the decoder's token, too.
    heads : int or sequence of int, optional
        Which heads of each layer; all by default.
    every_row : bool
        Follow all rows and take each token's largest share in any of them, as the authors' scripts do, instead of the
        target's row. It needs n × n numbers, and is refused for more than 512 tokens.

    Notes
    -----
    Abnar and Zuidema, Quantifying Attention Flow in Transformers, 2020 (arXiv 2005.00928), section 3. One target costs
    a pass a layer, of one row in the top one; several targets share it. The share of a learned sink leads nowhere, and
    is lost.
    """

    presets: ClassVar[Presets] = {"paper": {}, "released": {"every_row": True}}

    def __init__(self, residual: float = 0.5, heads: Heads = None, *, every_row: bool = False) -> None:
        self.residual = checked_share(residual)
        self.heads = heads
        self.every_row = every_row

    def start(self, reading: Reading) -> None:
        super().start(reading)
        self._targets, n = self.rows.shape
        if self.every_row:
            if n > EVERY_ROW_LIMIT:
                raise ArgumentError(
                    complaint(
                        "preset",
                        wanted=f"at most {EVERY_ROW_LIMIT} tokens for 'released', which follows the row of every token",
                        got=f"{n:,}",
                        way_out='take preset="paper", the row of the target',
                    )
                )
            self.rows = torch.eye(n, dtype=torch.float64)

    def step(self, rows: Tensor, attended: Attended) -> tuple[Tensor, Tensor]:
        moved = self.attended(chosen_heads(attended, self.heads), rows)
        return (1 - self.residual) * moved, self.residual * rows

    def attended(self, matrix: AttentionMatrix, rows: Tensor) -> Tensor:
        """Return ``rows`` times the mean of the heads."""
        return passed(matrix, rows).mean(1)

    def shown(self, rows: Tensor) -> Tensor:
        return rows.amax(0).expand(self._targets, -1) if self.every_row else rows


class _Withheld(Rollout):
    """Rollout with the first keys taken away and rows renormalised."""

    def __init__(self, sinks: int, residual: float, heads: Heads) -> None:
        super().__init__(residual, heads)
        self.sinks = sinks

    def attended(self, matrix: AttentionMatrix, rows: Tensor) -> Tensor:
        return passed(without_keys(matrix, range(min(self.sinks, matrix.shape[3]))), rows).mean(1)


class _Even(Rollout):
    """Rollout of the even spread."""

    def __init__(self, sinks: int, residual: float, heads: Heads) -> None:
        super().__init__(residual, heads)
        self.sinks = sinks

    def attended(self, matrix: AttentionMatrix, rows: Tensor) -> Tensor:
        return evenly_passed(matrix, rows, without=self.sinks)


class RolloutNull(Walker):
    """Rollout against its null model: the rollout of attention that spreads evenly over what each query may see.

    Parameters
    ----------
    residual : float
        As in `Rollout`.
    heads : int or sequence of int, optional
        As in `Rollout`.
    sinks : int
        So many first tokens are taken out of every layer's attention and of the null's, and rows are divided anew: such
        tokens soak up what a head has no other place for. Their ratio is 0 (unless one is the target). 1 by default.
    by : {"ratio", "difference"}
        Rollout over the null, where 1 says as much as geometry alone would give; or less it.

    Notes
    -----
    A plain rollout through many causal layers ends at the first tokens whatever the text says; the null model shows how
    much of it that is. It costs O(n) a layer where visibility is causal, windowed, both or neither.

    `Found.notes` tell what share of plain rollout its own null explains, ``sum_j min(rollout_j, null_j) / sum_j
    rollout_j``. With `sinks`, the plain rollout behind that note takes a pass a layer of its own.
    """

    def __init__(
        self,
        residual: float = 0.5,
        heads: Heads = None,
        *,
        sinks: int = 1,
        by: Literal["ratio", "difference"] = "ratio",
    ) -> None:
        if isinstance(sinks, bool) or not isinstance(sinks, int) or sinks < 0:
            raise ArgumentError(complaint("sinks", wanted="how many first tokens to take away, from 0", got=sinks))
        if by not in ("ratio", "difference"):
            raise ArgumentError(complaint("by", wanted="'ratio' or 'difference'", got=repr(by)))
        self.by = by
        self.signed = by == "difference"
        self._plain = Rollout(residual, heads)
        self._plain_null = _Even(0, residual, heads)
        # Without sinks, what is corrected is the plain rollout itself.
        self._real = _Withheld(sinks, residual, heads) if sinks else self._plain
        self._null = _Even(sinks, residual, heads) if sinks else self._plain_null

    @property
    def _walks(self) -> list[Rollout]:
        return list(dict.fromkeys([self._plain, self._plain_null, self._real, self._null]))

    def start(self, reading: Reading) -> None:
        for one in self._walks:
            one.start(reading)

    def visit(self, attended: Attended) -> None:
        for one in self._walks:
            one.visit(attended)

    def finish(self) -> Found:
        plain, plain_null, real, null = (
            one.finish() for one in (self._plain, self._plain_null, self._real, self._null)
        )
        shared = torch.minimum(plain.scores, plain_null.scores).sum(1) / plain.scores.sum(1).clamp(min=1e-300)
        layers = None
        if real.layers is not None and null.layers is not None:
            layers = self._against(real.layers, null.layers)
        notes = {**real.notes, "explained_by_null": shared.tolist(), "null": null.scores.tolist()}
        return Found(self._against(real.scores, null.scores), layers=layers, notes=notes)

    def _against(self, real: Tensor, null: Tensor) -> Tensor:
        if self.by == "difference":
            return real - null
        return torch.where(null > 0, real / torch.where(null > 0, null, 1.0), 0.0)
