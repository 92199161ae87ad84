"""How much a loss depends on each head, to first order, from one backward pass.

A head whose output O were scaled by (1 - ε) would change the loss by -ε Σ_i ⟨O_i, dO_i⟩, dO being the loss's gradient
with respect to it: so the sum, over positions, is the head's importance, and its negative the first-order prediction
of what zeroing the head would do (Michel et al. 2019, "Are sixteen heads really better than one?", which takes its
absolute value). It equals the sum of A ⊙ ∂A over the whole attention matrix, without making that matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attlas._tables import Table
from attlas.capture import LanguageModel, capture
from attlas.capture.asking import ids_of, next_token_losses, predicts, provenance_of
from attlas.capture.averaging import Reference, mean_outputs
from attlas.capture.intervention import Means
from attlas.capture.language_model import run_on
from attlas.capture.outputs import HeadOutputs, probed_outputs
from attlas.errors import ArgumentError, NonFiniteError, complaint
from attlas.results import Provenance

KINDS = ("zero", "mean", "pattern")
"""What may become of a head; `attlas.ablate` explains."""

Objective = Callable[[Any], Tensor]
"""Makes one number, differentiable, of what the model returns."""


@dataclass(frozen=True, eq=False)
class HeadImportance(Table):
    """First-order importance of every head; tensors are float64 on the CPU, one entry a head.

    Parameters
    ----------
    heads : tuple of (layer, head)
        In the order of the entries; layers are numbered as a capture numbers them.
    signed : Tensor, (head,)
        Σ_i ⟨O_i, dO_i⟩ over positions: positive where the loss would rise if the head spoke louder.
    absolute : Tensor, (head,)
        Σ_i |⟨O_i, dO_i⟩|: what positions do, without cancelling one another.
    predicted : Tensor, (head,)
        First-order prediction of how the loss changes when the head is ablated: Σ_i ⟨R - O_i, dO_i⟩, R being what is
        put in its place (0, or its mean).
    loss : float
        The loss itself, in nats where it is the next-token loss.
    provenance : Provenance
        How it was made.
    """

    heads: tuple[tuple[int, int], ...]
    signed: Tensor
    absolute: Tensor
    predicted: Tensor
    loss: float
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.heads)

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as plain types."""
        columns = zip(self.heads, self.signed, self.absolute, self.predicted, strict=True)
        return [
            {"layer": at[0], "head": at[1], "signed": float(s), "absolute": float(a), "predicted_change": float(p)}
            for at, s, a, p in columns
        ]


def head_importance(
    lm: LanguageModel,
    text: str | Sequence[int],
    kind: str = "zero",
    *,
    reference: Reference | None = None,
    objective: Objective | None = None,
) -> HeadImportance:
    """Return the first-order importance of every head, from one forward and one backward pass.

    Parameters
    ----------
    lm : LanguageModel
        What `attlas.load` returned.
    text : str or sequence of int
        The text, or its token ids.
    kind : {"zero", "mean", "pattern"}
        Which ablation is predicted; with ``"pattern"``, no gradient flows through queries and keys.
    reference : str, dict, or sequence of these
        For ``"mean"``: what to take means over; the text itself by default.
    objective : callable, optional
        ``objective(output)``: makes one number of what the model returns, for which gradients are taken. By default the
        mean next-token loss, which only models that predict next tokens have.

    Returns
    -------
    HeadImportance

    Raises
    ------
    ArgumentError
        An argument does not fit; an encoder is given without `objective`.
    DocumentError
        The text is empty, or too short or too long.
    UnsupportedModelError
        A module's attention cannot be heard.
    NonFiniteError
        A gradient is not finite.

    Notes
    -----
    Costs about three forward passes, and the memory of an ordinary backward pass. Nothing is left behind: the `grad` of
    no parameter is touched.
    """
    ids = ids_of(lm, text)
    check_kind(kind, reference)
    means = means_of(lm, kind, reference, ids)
    objective = objective or _next_token_objective(lm, ids)
    with capture(lm.model, layers=[0]), torch.enable_grad():
        with probed_outputs(lm.model, keep_patterns=kind == "pattern") as found:
            loss = objective(run_on(lm.model, ids[None]))
    _check_loss(loss)
    gradients = torch.autograd.grad(loss, [one.probe for one in found], allow_unused=True)
    heads, signed, absolute, predicted = [], [], [], []
    for one, gradient in zip(found, gradients, strict=True):
        output = one.output.double()
        slope = torch.zeros_like(output) if gradient is None else gradient.double()
        if not bool(slope.isfinite().all()):
            raise NonFiniteError(f"{one.place.name}: the gradient of its heads' outputs is not finite")
        part = (output * slope).sum(-1)
        heads += [(one.place.number, h) for h in range(output.shape[1])]
        signed.append(part.sum((0, 2)))
        absolute.append(part.abs().sum((0, 2)))
        instead = 0.0 if means is None else (_mean_of(one, means).to(slope)[:, None] * slope).sum(-1)
        predicted.append((instead - part).sum((0, 2)))
    settings = {"tokens": len(ids), "kind": kind, "objective": getattr(objective, "__name__", "own")}
    return HeadImportance(
        tuple(heads),
        torch.cat(signed).cpu(),
        torch.cat(absolute).cpu(),
        torch.cat(predicted).cpu(),
        float(loss.detach()),
        provenance_of(lm, settings),
    )


def _mean_of(one: HeadOutputs, means: Means) -> Tensor:
    layer = (one.place.name, one.place.turn)
    if layer not in means:
        raise ArgumentError(complaint("reference", wanted=f"inputs that run {one.place.name} too", got="others"))
    return means[layer]


def _next_token_objective(lm: LanguageModel, ids: Tensor) -> Objective:
    if not predicts(lm):
        raise ArgumentError(
            complaint(
                "objective",
                wanted="a callable, for a model that predicts no next token",
                got="none",
                way_out="pass one that makes a number of what the model returns",
            )
        )

    def next_token_loss(output: Any) -> Tensor:
        return next_token_losses(output.logits[0], ids).mean()

    return next_token_loss


def _check_loss(loss: object) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise ArgumentError(complaint("objective", wanted="one number with a gradient", got=got))


# ---- what ablation has in common with this


def check_kind(kind: str, reference: Reference | None) -> None:
    """Refuse a kind of ablation that there is not, and a reference that would not be used."""
    if kind not in KINDS:
        raise ArgumentError(complaint("kind", wanted='"zero", "mean" or "pattern"', got=repr(kind)))
    if reference is not None and kind != "mean":
        raise ArgumentError(complaint("reference", wanted=f"none with kind={kind!r}", got="one"))


def means_of(lm: LanguageModel, kind: str, reference: Reference | None, ids: Tensor) -> Means | None:
    """Return the means that a mean ablation needs, over the reference or else over the text itself."""
    if kind != "mean":
        return None
    if reference is not None:
        return mean_outputs(lm, reference)
    return mean_outputs(lm, {"input_ids": ids[None].to(next(lm.model.parameters()).device)})
