"""How far weights alone tell what heads do: numbers read off the weights, against roles that were measured.

Many such numbers are in use, and most of them were found on one model. Whether they hold on this one is a question that
measured roles can answer: the probability that a head with the role has the larger number than one without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attlas._agreement import spearman
from attlas._resampling import times_drawn
from attlas.capture.batches import read_batches
from attlas.errors import AttlasError
from attlas.heads.role_table import HeadTable, Prediction
from attlas.models.progress import Progress

if TYPE_CHECKING:
    from attlas.projections.whole import Projections

FEWEST = 3
"""Heads with and without a role below which nothing can be told from them."""

SENDERS = 5
"""Heads with the largest kernel at the previous token, whose K-composition is asked about."""

PREDICTED: Mapping[str, tuple[str, ...]] = {
    "kernel at the previous token": ("previous_token",),
    "copying z, after the first MLP": ("induction", "copying"),
    "copying z, bare embedding": ("induction", "copying"),
    "copying eigenvalues, vocabulary": ("induction", "copying"),
    "copying eigenvalues, residual": ("induction", "copying"),
    "query-key eigenvalues": ("duplicate_token", "induction"),
    "K-composition with previous-token heads": ("induction",),
}
"""What is compared: a number, and the roles that it is said to tell."""

TEXT = (
    "The old teacher walked slowly to the river in the morning, and the rain had stopped. Nobody knew why the "
    "bridge was closed, but a young farmer said that it would open again before the evening. They waited for an "
    "hour; then the captain came back from the market with bread, two apples and a letter from her cousin. It was "
    "not long. 'We are leaving for the north,' it said, 'as soon as the road is dry.' The teacher read it twice, "
    "put it in his coat and looked at the grey water below the mill. Last summer there had been boats on it, and "
    "children in the high grass on the other side. Now there was only the wind. He asked what she would do. 'I "
    "shall stay,' she answered, 'because somebody has to look after the garden, the dog and the old piano.' So "
    "they went home by the long way, past the school and the station, and talked about other things: the price of "
    "wood, the new doctor, a film that neither of them had liked."
)
"""Plain text over which queries and keys are averaged for the kernel."""


def predict_roles(
    projections: Projections,
    table: HeadTable,
    *,
    seed: int = 0,
    resamples: int = 2000,
    progress: Progress | None = None,
) -> tuple[Prediction, ...]:
    """Compare numbers that are read off the weights with the roles that were measured.

    Parameters
    ----------
    projections : Projections
        Of the same model.
    table : HeadTable
        Its roles.
    seed, resamples : int
        Of the bootstrap over heads.
    progress : callable, optional
        Called as ``progress(done, total, "reading weights")``.

    Returns
    -------
    tuple of Prediction
        Of each number and role that this model has, if at least three heads have the role and three have not.

    Notes
    -----
    The numbers are those of `attlas.projections.kernel`, `copying`, `spectra` and `composition`; the kernel's mean
    queries and keys are of a short text. The interval draws heads with and without the role separately, and tells how
    much depends on single heads; it is no test on other models.
    """
    predictors = read_weights(projections, progress=progress)
    found = []
    for name, numbers in predictors.items():
        shared = [i for i, head in enumerate(table.heads) if head in numbers]
        values = torch.tensor([numbers[table.heads[i]] for i in shared], dtype=torch.float64)
        for role in PREDICTED[name]:
            if role not in table.scores or not len(shared):
                continue
            scores = table.scores[role]
            having = scores.passes[shared]
            if min(int(having.sum()), int((~having).sum())) < FEWEST:
                continue
            auc, low, high = auc_with_interval(values, having, seed=seed, resamples=resamples)
            correlation = spearman(values, scores.score[shared])
            found.append(Prediction(name, role, auc, low, high, int(having.sum()), correlation))
    return tuple(found)


def read_weights(
    projections: Projections, *, progress: Progress | None = None
) -> dict[str, dict[tuple[int, int], float]]:
    """Return each number for each head that has it: name -> (layer, head) -> number."""
    from attlas.projections.composing import composition
    from attlas.projections.copy_scores import copying
    from attlas.projections.kernel import offset_kernel
    from attlas.projections.singular_spectra import spectra

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, 4, "reading weights")

    numbers: dict[str, dict[tuple[int, int], float]] = {}
    if projections.lm is not None and projections.lm.tokenizer is not None:
        ids = projections.lm.tokenize(TEXT).ids[: projections.lm.facts.positions]
        ((captured, _),) = read_batches(projections.lm, [ids])
        rows = offset_kernel(projections, captured).layers
        shares = {
            (layer.layer, head): float(layer.shares[i, 1])
            for layer in rows
            if layer.shares is not None
            for i, head in enumerate(layer.heads)
        }
        numbers["kernel at the previous token"] = shares
    tell(1)
    try:
        copied = copying(projections)
    except AttlasError:
        copied = None  # a model without an output layer over the vocabulary has none of these
    if copied is not None:
        for name, values in (
            ("copying z, after the first MLP", copied.effective),
            ("copying z, bare embedding", copied.raw),
            ("copying eigenvalues, vocabulary", copied.eigenvalue),
            ("copying eigenvalues, residual", copied.eigenvalue_residual),
        ):
            if values is not None:
                numbers[name] = dict(zip(copied.heads, values.tolist(), strict=True))
    tell(2)
    found = {
        (layer.layer, head): float(value)
        for layer in spectra(projections).layers
        if "positivity" in layer.qk.numbers
        for head, value in enumerate(layer.qk.numbers["positivity"])
    }
    numbers["query-key eigenvalues"] = found
    tell(3)
    senders = sorted(numbers.get("kernel at the previous token", {}).items(), key=lambda item: -item[1])[:SENDERS]
    if senders:
        composed = composition(projections, "k", normed=True)
        at = {layer: i for i, layer in enumerate(composed.layers)}
        z = torch.stack([composed.z[at[layer], head] for (layer, head), _ in senders])
        feeds = torch.stack([composed.paired[at[layer]] for (layer, _), _ in senders]).any(0)
        numbers["K-composition with previous-token heads"] = {
            (layer, head): float(z[:, i, head].max())
            for i, (layer, count) in enumerate(zip(composed.layers, composed.heads, strict=True))
            if bool(feeds[i])
            for head in range(count)
        }
    tell(4)
    return {name: values for name, values in numbers.items() if values}


def auc_with_interval(
    values: Tensor, having: Tensor, *, seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """Return the area under the ROC curve, and the 95 % interval of a bootstrap within both groups.

    Parameters
    ----------
    values : Tensor, (head,)
    having : Tensor, (head,), bool
        At least one of each.
    """
    with_it, without = values[having], values[~having]
    above = (with_it.unsqueeze(1) > without).double() + 0.5 * (with_it.unsqueeze(1) == without).double()
    generator = torch.Generator().manual_seed(seed)
    draws = [times_drawn(count, resamples, generator) / count for count in above.shape]
    samples = ((draws[0] @ above) * draws[1]).sum(1)
    low, high = samples.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return float(above.mean()), low, high
