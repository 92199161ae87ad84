"""Walks that look at attention and its gradient: their product, its positive part, and what suppressing a key would do.

The gradient with respect to an attention matrix is ``dO · Vᵀ``, so that signed sums have closed forms that cost no
pass, and positive parts cost one pass a layer; see `attlas.matrix.AttentionGradient`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attlas.capture.attended import Attended, Gradients
from attlas.errors import ArgumentError, complaint
from attlas.explain.crossing import CrossingSweep
from attlas.explain.gradient_parts import depends, paired, relevance
from attlas.explain.passing import passed, row_sums
from attlas.explain.reading import Reading
from attlas.explain.walk import Found, Presets, RowWalker, Walker, check_one_text, gradients_of, value_of
from attlas.matrix import AttentionGradient, Product


class KeyWalker(Walker):
    """A walk that sums up what each layer says of its keys; a layer's part does not depend on the layers above.

    Of a model with an encoder those layers count whose keys are the encoder's tokens.
    """

    needs_values = True
    needs_gradients = True

    of_targets_row: bool = False
    """Whether only the target's own query counts; then the encoder's self-attention, where it has none, does not."""

    mean: bool = False
    """Whether layers are averaged instead of summed."""

    def start(self, reading: Reading) -> None:
        self.rows = reading.rows
        self._crosses = False
        self._found: list[Tensor] = []

    def visit(self, attended: Attended) -> None:
        self._crosses |= attended.cross
        on_encoder = self._crosses and attended.side == "encoder" and not attended.cross
        if self._crosses and not attended.cross and (self.of_targets_row or not on_encoder):
            return
        check_one_text(attended, attended.matrix.shape[3] if on_encoder else self.rows.shape[1])
        value = value_of(attended)
        given = gradients_of(attended, len(self.rows))
        self._found.append(self.parts(attended, value, given))

    @abstractmethod
    def parts(self, attended: Attended, value: Tensor, given: tuple[Gradients, ...]) -> Tensor:
        """Return what a call says of its keys, heads summed or averaged.

        Parameters
        ----------
        attended : Attended
            The call.
        value : Tensor, (1, kv_head, n_key, value_dim)
            Its values.
        given : tuple of Gradients
            One a target.

        Returns
        -------
        Tensor, (target, n_key), float64
            On the CPU.
        """

    def finish(self) -> Found:
        layers = torch.stack(self._found[::-1], dim=1)
        return Found(layers.mean(1) if self.mean else layers.sum(1), layers=layers)


class AttentionTimesGradient(KeyWalker):
    """Attention times its gradient, with its sign: what each key's edges, all together, gave to the target.

    Parameters
    ----------
    rows : {"all", "target"}
        The edges of all queries, ``Σ_layers Σ_heads Σ_i (A ⊙ ∂A)_ij``; or those of the target's own query.

    Notes
    -----
    All queries cost nothing beyond the backward pass: ``Σ_i (A ⊙ ∂A)_ij = ⟨V_j, dV_j⟩``. One query costs a row.
    """

    signed = True

    def __init__(self, rows: Literal["all", "target"] = "all") -> None:
        if rows not in ("all", "target"):
            raise ArgumentError(complaint("rows", wanted="'all' or 'target'", got=repr(rows)))
        self.of_targets_row = rows == "target"

    def parts(self, attended: Attended, value: Tensor, given: tuple[Gradients, ...]) -> Tensor:
        if not self.of_targets_row:
            return torch.stack([paired(value, one.value) for one in given])
        matrix = attended.matrix
        products = [Product(matrix, AttentionGradient(matrix, one.output, value)) for one in given]
        return torch.stack([passed(edges, row[None])[0].sum(0) for edges, row in zip(products, self.rows, strict=True)])


class GradSam(KeyWalker):
    """Grad-SAM: attention times the positive part of its gradient, averaged over layers, heads and queries.

    Notes
    -----
    Barkan et al., Grad-SAM, 2021 (arXiv 2204.11073), equation 3, and the mean over rows. A pass a layer and target,
    over the rows that the target depends on.
    """

    mean = True

    def parts(self, attended: Attended, value: Tensor, given: tuple[Gradients, ...]) -> Tensor:
        _, heads, n_query, _ = attended.matrix.shape
        counts = [depends(one).double() / (heads * n_query) for one in given]
        return torch.stack(
            [passed(relevance(attended, value, one), c[None])[0].sum(0) for one, c in zip(given, counts, strict=True)]
        )


class Suppression(KeyWalker):
    """What suppressing a key in all layers, heads and queries would take from the target, to first order.

    Parameters
    ----------
    form : {"additive", "multiplicative"}
        A constant is taken from the key's scores, or the scores are multiplied with a factor below 1. Positive scores
        are of tokens that speak for the target: it falls when they are suppressed.

    Notes
    -----
    The derivatives are ``⟨V_j, dV_j⟩ − (Aᵀ D)_j`` with ``D_i = ⟨O_i, dO_i⟩``, which costs a pass a layer, and
    ``⟨K_j, dK_j⟩``, which costs nothing. With a soft cap the factor applies before it and the constant behind it.
    After AtMan (Deiseroth et al., 2023, arXiv 2301.08110), which measures the change with a forward pass a token
    instead; a derivative can miss what saturates.
    """

    presets: ClassVar[Presets] = {"additive": {"form": "additive"}, "multiplicative": {"form": "multiplicative"}}
    signed = True

    def __init__(self, form: Literal["additive", "multiplicative"] = "additive") -> None:
        if form not in self.presets:
            raise ArgumentError(complaint("form", wanted="'additive' or 'multiplicative'", got=repr(form)))
        self.form = form

    def parts(self, attended: Attended, value: Tensor, given: tuple[Gradients, ...]) -> Tensor:
        if self.form == "multiplicative":
            return torch.stack([paired(attended.matrix.key, one.key) for one in given])
        output = (attended.matrix @ value if attended.output is None else attended.output).double()
        # One pass serves all targets.
        shares = torch.stack([(output * one.output.double()).sum(-1)[0].cpu() for one in given])
        return torch.stack([paired(value, one.value) for one in given]) - passed(attended.matrix, shares).sum(1)


class Chefer(RowWalker):
    """Gradient-weighted attention: r ← r + r·Ē, with Ē = mean over heads of ``(A ⊙ ∂A)⁺``, from the target's row down.

    Parameters
    ----------
    normalise_rows : bool
        Divide the rows of I + Ē by their sums, layer by layer.
    start_layer : int, optional
        The lowest layer that counts; a negative one counts from the top, so that -1 is the top layer alone. All by
        default.
    own : {"keep", "zero", "minimum"}
        What the target's own position is given: what it has, which includes the 1 that the walk began with; nothing; or
        the least score of any position. A target that is pooled over all positions has none.
    crossing : {"rules", "row"}
        How relevance goes from a decoder to an encoder: by rules 5 to 11 of the ICCV paper, in which relevance in both
        stacks is normalised and the decoder's own is transposed; or as everywhere else, by the row that walks down.

    Notes
    -----
    Chefer, Gur and Wolf, ICCV 2021 (arXiv 2103.15679), rules 5 to 11, is `presets` "paper". In an encoder-decoder model
    its rules keep what the walk needs of every layer, O(layers · n · dim), and walk up once more; where a row of
    relevance is all zero, its normalisation leaves it so, while the authors' code lets it void the whole layer.

    The released code for BERT and ViT (CVPR 2021, arXiv 2012.09838) multiplies ∂A with a relevance of A by layer-wise
    relevance propagation, of which the attention itself takes the place here: "released-bert" and "released-vit" are
    their rules of rows, layers and own positions, and no LRP. "released-bert" normalises rows, uses the top layer alone
    (their default of 11 is BERT-base's top) and gives [CLS] the least score; "released-vit" shows all but [CLS].

    A pass a layer and target, two with `normalise_rows`; one row in the top layer.
    """

    presets: ClassVar[Presets] = {
        "paper": {},
        "released-bert": {"normalise_rows": True, "start_layer": -1, "own": "minimum"},
        "released-vit": {"own": "zero"},
        "row": {"crossing": "row"},
    }
    needs_values = True
    needs_gradients = True

    def __init__(
        self,
        *,
        normalise_rows: bool = False,
        start_layer: int | None = None,
        own: Literal["keep", "zero", "minimum"] = "keep",
        crossing: Literal["rules", "row"] = "rules",
    ) -> None:
        if start_layer is not None and (isinstance(start_layer, bool) or not isinstance(start_layer, int)):
            raise ArgumentError(complaint("start_layer", wanted="a layer's number, or None for all", got=start_layer))
        if own not in ("keep", "zero", "minimum"):
            raise ArgumentError(complaint("own", wanted="'keep', 'zero' or 'minimum'", got=repr(own)))
        if crossing not in ("rules", "row"):
            raise ArgumentError(complaint("crossing", wanted="'rules' or 'row'", got=repr(crossing)))
        self.normalise_rows, self.start_layer, self.own, self.crossing = normalise_rows, start_layer, own, crossing

    def start(self, reading: Reading) -> None:
        super().start(reading)
        self._begun = reading.rows
        self._met: list[int] = []
        self._sweep: CrossingSweep | None = None

    def visit(self, attended: Attended) -> None:
        if attended.cross:
            self._refuse_crossing()
        if attended.cross and self.crossing == "rules" and self._sweep is None:
            self._sweep = CrossingSweep(self._begun)
        if self._sweep is not None:
            value_of(attended)
            gradients_of(attended, len(self._begun))
            self._sweep.visit(attended)
            return
        self._met.append(attended.layer)
        if self.start_layer is None or self._counts(attended.layer):
            super().visit(attended)

    def _counts(self, layer: int) -> bool:
        start = self.start_layer or 0
        return len(self._met) <= -start if start < 0 else layer >= start

    def _refuse_crossing(self) -> None:
        if self.normalise_rows or self.start_layer is not None or self.own != "keep":
            raise ArgumentError(
                complaint(
                    "preset",
                    wanted="'paper' or 'row' for a model with an encoder and a decoder",
                    got="rules that were made for one stack: normalise_rows, start_layer or own",
                )
            )

    def step(self, rows: Tensor, attended: Attended) -> tuple[Tensor, Tensor]:
        value = value_of(attended)
        moved, kept = [], []
        for row, one in zip(rows, gradients_of(attended, len(rows)), strict=True):
            edges = relevance(attended, value, one)
            if self.normalise_rows:
                row = row / (1 + row_sums(edges, (row != 0) & depends(one)).mean(0))
            moved.append(passed(edges, (row * depends(one))[None])[0].mean(0))
            kept.append(row)
        return torch.stack(moved), torch.stack(kept)

    def finish(self) -> Found:
        if self._sweep is not None:
            return self._sweep.finish()
        if self.start_layer is not None and not (
            self.start_layer in self._met or -len(self._met) <= self.start_layer < 0
        ):
            wanted = f"a layer from {min(self._met)} to {max(self._met)}, or a negative number from the top"
            raise ArgumentError(complaint("start_layer", wanted=wanted, got=self.start_layer))
        return super().finish()

    def shown(self, rows: Tensor) -> Tensor:
        if self.own == "keep":
            return rows
        rows = rows.clone()
        for row, begun in zip(rows, self._begun, strict=True):
            position = int(begun.argmax())
            if begun[position] == 1:
                row[position] = 0 if self.own == "zero" else row.min()
        return rows
