"""What a model loses when one of its heads is taken away, head by head, beside the first-order prediction of it.

Many heads are ablated in one batch: the same text in every row, another head ablated in each, and none in the first
row, which is what the others are compared with. Blocks before the first ablated layer are not run again. Both are exact
up to rounding, and proved at every batch: the first row has to give what the plain model gave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from attlas._agreement import pearson, spearman
from attlas._intervals import FEWEST, RESAMPLES, Interval, check_resamples, simultaneous
from attlas._tables import Table
from attlas.capture import LanguageModel, capture
from attlas.capture.ablating import checked_heads
from attlas.capture.asking import ids_of, next_token_losses, predicts, provenance_of
from attlas.capture.averaging import Reference
from attlas.capture.intervention import Ablation, Means, Row, editing
from attlas.capture.language_model import reader_of, run_on
from attlas.capture.resuming import Survey
from attlas.errors import ArgumentError, CaptureError, DocumentError, complaint
from attlas.heads.importance import HeadImportance, check_kind, head_importance, means_of
from attlas.models.progress import Progress
from attlas.results import Provenance

Task = Callable[[Tensor, Tensor], float]
"""Called as ``task(logits, ids)``, (n, vocabulary) and (n,); of a model without logits, ``task(states, ids)``."""

STRETCHES = 32
"""Into how many stretches a text is cut for the bootstrap."""

_LOGITS = 2**28  # numbers that a batch's logits may have
_ROWS = 16
LOSS, STATES = "next-token loss", "output states"


@dataclass(frozen=True, eq=False)
class AblationEffects(Table):
    """What ablating each head, alone, does; tensors are float64 on the CPU.

    Parameters
    ----------
    heads : tuple of (layer, head)
        In the order of the entries; layers are numbered as a capture numbers them.
    names : tuple of str
        The attention module of each.
    measure : str
        ``"next-token loss"``, in nats; or ``"output states"`` for a model that predicts no next token: how far the
        states that it gives move, ‖H' - H‖ / ‖H‖ at each position.
    clean : Tensor, (position,)
        The loss of the model as it is; zeros for states.
    change : Tensor, (head, position)
        By how much the measure changes. For a loss, position i is that of the token that is predicted, token i + 1.
    task : Tensor, (head,), optional
        By how much the task's score changes.
    clean_task : float, optional
        The score of the model as it is.
    importance : HeadImportance, optional
        First-order importance of the same heads; only with the next-token loss.
    resamples, seed : int
        Of the bootstrap.
    provenance : Provenance
        How it was made.
    """

    heads: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    measure: str
    clean: Tensor
    change: Tensor
    task: Tensor | None
    clean_task: float | None
    importance: HeadImportance | None
    resamples: int
    seed: int
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.heads)

    @cached_property
    def effect(self) -> Interval:
        """The mean change of each head over all positions, with an interval that holds for all heads at once."""
        return self.over(slice(None))

    def over(self, positions: slice | Sequence[int]) -> Interval:
        """Return the mean change of each head over some positions, with simultaneous 95 % intervals.

        Parameters
        ----------
        positions : slice or sequence of int
            Which entries of `clean` and `change`; at least 8.

        Notes
        -----
        The bootstrap draws stretches of consecutive positions, because a text's neighbouring positions are alike. It
        says how sure the effect is on texts like this one, not on all texts.
        """
        chosen = self.change[:, positions if isinstance(positions, slice) else list(positions)]
        count = chosen.shape[1]
        if count < FEWEST:
            raise ArgumentError(complaint("positions", wanted=f"at least {FEWEST} for an interval", got=count))
        parts = chosen.tensor_split(min(STRETCHES, count), dim=1)
        # Stretches differ in length by one: weighted, so that their mean is that of all positions.
        scores = torch.stack([part.sum(1) * len(parts) / count for part in parts])
        return simultaneous(scores, seed=self.seed, resamples=self.resamples)

    @property
    def correlation(self) -> dict[str, float]:
        """How well first-order importance tells what ablation does, over heads; empty where it is not known.

        ``pearson`` and ``spearman`` compare predicted and measured change, ``absolute`` (Spearman) the absolute
        importance and the size of the change.
        """
        if self.importance is None or len(self) < 2:
            return {}
        measured = self.change.mean(1)
        return {
            "pearson": pearson(self.importance.predicted, measured),
            "spearman": spearman(self.importance.predicted, measured),
            "absolute": spearman(self.importance.absolute, measured.abs()),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as plain types, a row a head."""
        effect = self.effect
        table = []
        for i, ((layer, head), name) in enumerate(zip(self.heads, self.names, strict=True)):
            row: dict[str, Any] = {"layer": layer, "head": head, "module": name, "measure": self.measure}
            row |= {"change": float(effect.mean[i]), "low": float(effect.low[i]), "high": float(effect.high[i])}
            if self.task is not None:
                row["task_change"] = float(self.task[i])
            if self.importance is not None:
                row["predicted_change"] = float(self.importance.predicted[i])
                row["importance_signed"] = float(self.importance.signed[i])
                row["importance_absolute"] = float(self.importance.absolute[i])
            table.append(row)
        return table

    def __repr__(self) -> str:
        worst = int(self.change.mean(1).argmax())
        layer, head = self.heads[worst]
        return (
            f"AblationEffects({self.provenance.model}, {len(self)} heads; "
            f"({layer}, {head}) changes the {self.measure} most: {float(self.change[worst].mean()):+.3f})"
        )


def ablation_effects(
    lm: LanguageModel,
    text: str | Sequence[int],
    heads: Sequence[tuple[int, int]] | None = None,
    kind: str = "zero",
    task: Task | None = None,
    *,
    reference: Reference | None = None,
    batch: int | None = None,
    resume: bool = True,
    importance: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> AblationEffects:
    """Ablate heads one at a time, and measure what the model loses.

    Parameters
    ----------
    lm : LanguageModel
        What `attlas.load` returned.
    text : str or sequence of int
        The text, or its token ids: for example random tokens that are repeated.
    heads : sequence of (layer, head), optional
        Which heads; all by default.
    kind : {"zero", "mean", "pattern"}
        What becomes of a head; `attlas.ablate` explains.
    task : callable, optional
        ``task(logits, ids)`` returns a score, whose change is reported too.
    reference : str, dict, or sequence of these
        For ``"mean"``: what to take means over; the text itself by default.
    batch : int, optional
        Copies of the text that are run together, from 2; by default up to 16, as long as their logits stay below 1 GiB.
    resume : bool
        Do not run again what comes before the first ablated layer. It is given up by itself where it is not exact for
        this model; the provenance says so.
    importance : bool
        Compute first-order importance too, where there is a loss.
    resamples, seed : int
        Of the bootstrap over stretches of the text.
    progress : callable, optional
        Called as ``progress(heads done, all of them, "ablating heads")``.

    Returns
    -------
    AblationEffects

    Raises
    ------
    ArgumentError
        A layer or head does not exist, or another argument does not fit.
    DocumentError
        The text has too few tokens for an interval, or more than the model has positions.
    UnsupportedModelError
        A module's attention cannot be heard, or its heads cannot be told apart.
    CaptureError
        The model treats rows of a batch differently when they are together.

    Notes
    -----
    Costs a forward pass of the text for each head and one more for each batch; where blocks can be skipped, half of
    that on average. Memory is that of a batch, and each block's output, O(layers · n · d_model).
    """
    check_resamples(resamples)
    ids = ids_of(lm, text)
    runner = _Runner(lm, ids, kind, reference, task)
    if len(runner.clean) < FEWEST:
        raise DocumentError(f"text: wanted at least {FEWEST + 1} tokens for an interval, got {len(ids)}")
    chosen = _chosen(heads, runner.survey)
    size = _batch_size(batch, runner.row)
    runner.resume = resume and runner.survey.resumable
    # In the order of layers, so that a batch starts as late as it can.
    order = sorted(range(len(chosen)), key=lambda i: chosen[i])
    change = torch.empty(len(chosen), len(runner.clean), dtype=torch.float64)
    scores = torch.empty(len(chosen), dtype=torch.float64)
    for start in range(0, len(order), size - 1):
        part = order[start : start + size - 1]
        moved, scored = runner.run([chosen[i] for i in part])
        change[part], scores[part] = moved, scored
        if progress is not None:
            progress(min(start + size - 1, len(order)), len(order), "ablating heads")
    settings: dict[str, Any] = {
        "tokens": len(ids), "kind": kind, "heads": "all" if heads is None else len(chosen), "batch": size,
        "resumed": runner.resume, "resamples": resamples, "seed": seed,
        "reference": "none" if kind != "mean" else "own text" if reference is None else "given",
    }  # fmt: skip
    return AblationEffects(
        heads=tuple(chosen),
        names=tuple(runner.survey.names[layer] for layer, _ in chosen),
        measure=LOSS if runner.predicts else STATES,
        clean=runner.clean,
        change=change,
        task=None if task is None else scores,
        clean_task=runner.score,
        importance=_importance(lm, text, kind, reference, chosen) if importance and runner.predicts else None,
        resamples=resamples,
        seed=seed,
        provenance=provenance_of(lm, settings),
    )


class _Runner:
    """Runs one text under many ablations; knows what the model gives without any."""

    def __init__(
        self, lm: LanguageModel, ids: Tensor, kind: str, reference: Reference | None, task: Task | None
    ) -> None:
        check_kind(kind, reference)
        self.predicts = predicts(lm)
        self.resume = False
        self._model = lm.model
        self._part = lm.model if self.predicts else reader_of(lm.model)
        self._ids, self._task = ids, task
        self._means: Means | None = means_of(lm, kind, reference, ids)
        self._patterns: Any = "first element" if kind == "pattern" else "own"
        self.survey = Survey(lm.model)
        # The capture complains about modules whose attention is not heard.
        with torch.no_grad(), capture(lm.model, layers=[0]):
            [result] = self.survey.run(lambda: self._results(1))
        self._states = None if self.predicts else result
        self.row = result.numel()
        self.clean = self._measured(result)
        self.score = None if task is None else float(task(result, ids))

    def run(self, heads: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Return the change of the measure, (head, position), and of the task's score, (head,)."""
        moved, scores = self._run(heads)
        if self._differs(moved[0]) and self.resume:
            self.resume = False
            moved, scores = self._run(heads)
        if self._differs(moved[0]):
            raise CaptureError(
                "batch: a text gives other numbers beside copies of itself than alone, so ablations cannot be "
                "compared; is the model in evaluation mode?"
            )
        return moved[1:] - moved[0], scores[1:] - scores[0]

    def _run(self, heads: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        rows: list[Row] = [{}, *({layer: [head]} for layer, head in heads)]
        ablation = Ablation(self._model, rows, means=self._means, patterns=self._patterns, numbers=self.survey.numbers)
        with torch.no_grad(), ExitStack() as stack:
            if self.resume:
                stack.enter_context(self.survey.resumed(min(layer for layer, _ in heads), len(rows)))
            stack.enter_context(editing(self._model, ablation))
            results = self._results(len(rows))
        ablation.check()
        moved = torch.stack([self._measured(result) for result in results])
        task = self._task
        scores = [0.0] * len(rows) if task is None else [float(task(result, self._ids)) for result in results]
        return moved, torch.tensor(scores, dtype=torch.float64)

    def _results(self, rows: int) -> Tensor:
        """Return logits, (rows, n, vocabulary), or states, (rows, n, d_model)."""
        output = run_on(self._part, self._ids.expand(rows, -1))
        return output.logits if self.predicts else output[0]

    def _measured(self, result: Tensor) -> Tensor:
        if self.predicts:
            return next_token_losses(result, self._ids).double().cpu()
        if self._states is None:
            raise RuntimeError("states are measured against those of the clean run")
        clean = self._states.double()
        return ((result.double() - clean).norm(dim=-1) / clean.norm(dim=-1).clamp(min=1e-300)).cpu()

    def _differs(self, row: Tensor) -> bool:
        """Whether the row without ablation is not what the model gave alone, up to rounding."""
        # Rounding adds up over layers; what a wrong resumption or a leak between rows does is far larger.
        dtype = next(self._model.parameters()).dtype
        return not float((row - self.clean).abs().mean()) <= torch.finfo(dtype).eps ** 0.5


def _chosen(heads: Sequence[tuple[int, int]] | None, survey: Survey) -> list[tuple[int, int]]:
    every = [(layer, head) for layer in sorted(survey.heads) for head in range(survey.heads[layer])]
    if heads is None:
        return every
    checked_heads(heads)
    known = set(every)
    for pair in heads:
        if tuple(pair) not in known:
            most = f"layers from 0 to {max(survey.heads)}, heads from 0 to {max(survey.heads.values()) - 1}"
            raise ArgumentError(complaint("heads", wanted=most, got=repr(pair)))
    return [(layer, head) for layer, head in heads]


def _batch_size(batch: int | None, row: int) -> int:
    if batch is None:
        return max(2, min(_ROWS, _LOGITS // row))
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 2:
        raise ArgumentError(complaint("batch", wanted="a whole number from 2, one of which is not ablated", got=batch))
    return batch


def _importance(
    lm: LanguageModel, text: str | Sequence[int], kind: str, reference: Reference | None, heads: list[tuple[int, int]]
) -> HeadImportance:
    every = head_importance(lm, text, kind, reference=reference)
    where = [every.heads.index(pair) for pair in heads]
    return replace(
        every,
        heads=tuple(heads),
        signed=every.signed[where],
        absolute=every.absolute[where],
        predicted=every.predicted[where],
    )
