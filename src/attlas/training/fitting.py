"""The loop: AdamW on an adapter that is in place, a step after the other, with evaluations and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from attlas.errors import ArgumentError, NonFiniteError, complaint
from attlas.models.progress import Progress
from attlas.training.adapting import Adapted
from attlas.training.batches import in_batches, step_batch, step_seed
from attlas.training.examples import Examples
from attlas.training.losses import mean_loss, mean_losses
from attlas.training.settings import TrainingSettings


@dataclass
class Course:
    """How far a run is, and what it has seen: all that is needed to go on, besides the adapter's numbers.

    Parameters
    ----------
    step : int
        Steps done.
    losses : list of float
        Of each step's batch, in nats a token, before the step.
    evaluations : list of (int, float)
        After how many steps, and the mean loss on the held-out examples.
    seconds : float
        So far, loading and saving included.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0


Save = Callable[[Course, torch.optim.Optimizer], None]


def fit(
    adapted: Adapted,
    examples: Examples,
    settings: TrainingSettings,
    *,
    held_out: Examples | None = None,
    course: Course | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    save: Save | None = None,
    progress: Progress | None = None,
) -> Course:
    """Train an adapter that is in place.

    Parameters
    ----------
    adapted : Adapted
        What `attlas.training.adapt` returned; its numbers are changed.
    examples : Examples
        What to learn from.
    settings : TrainingSettings
        `held_out` of it is not read.
    held_out : Examples, optional
        Evaluated before the first step, every `TrainingSettings.evaluate_every` steps and after the last.
    course, optimizer : optional
        A run to go on with, and its optimiser; by default one begins.
    save : callable, optional
        Called as ``save(course, optimizer)`` every `TrainingSettings.save_every` steps and after the last.
    progress : callable, optional
        Called as ``progress(done, total, what)`` after each step.

    Returns
    -------
    Course

    Raises
    ------
    NonFiniteError
        The loss or its gradient is NaN or infinite; the message says at which step. The adapter is as before the step.

    Notes
    -----
    The model is in training mode in between, with the dropout of its configuration. What a step draws at random
    depends on seed and step alone; the global random numbers are left as they are.
    """
    if not len(examples):
        raise ArgumentError(complaint("examples", wanted="one at least", got="none"))
    course = course or Course()
    optimizer = optimizer or optimizer_of(adapted, settings)
    begun = time.monotonic() - course.seconds
    trained = list(adapted.parameters.values())
    modes = {module: module.training for module in adapted.of.modules()}

    def evaluate() -> None:
        if held_out is not None and len(held_out):
            adapted.of.eval()
            loss = mean_losses(adapted.of, in_batches(held_out, settings.batch))
            course.evaluations.append((course.step, loss))

    device = next(adapted.of.parameters()).device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            if course.step == 0 and not course.evaluations:
                evaluate()
            while course.step < settings.steps:
                course.losses.append(_step(adapted.of, examples, settings, course.step, optimizer, trained))
                course.step += 1
                last = course.step == settings.steps
                if last or _due(course.step, settings.evaluate_every):
                    evaluate()
                course.seconds = time.monotonic() - begun
                if save is not None and (last or _due(course.step, settings.save_every)):
                    save(course, optimizer)
                if progress is not None:
                    progress(course.step, settings.steps, f"training, loss {course.losses[-1]:.3f}")
    finally:
        for module, mode in modes.items():
            module.training = mode
    return course


def optimizer_of(adapted: Adapted, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return the optimiser of a new run."""
    return torch.optim.AdamW(adapted.groups(settings.weight_decay), lr=settings.learning_rate)


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Return the learning rate of a step, counted from 0: a straight line up, then a cosine or a straight line to 0."""
    up = round(settings.warmup * settings.steps)
    if step < up:
        return settings.learning_rate * (step + 1) / up
    if settings.decay == "constant":
        return settings.learning_rate
    done = (step - up) / max(1, settings.steps - up)
    left = 1 - done if settings.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
    return settings.learning_rate * left


def _step(
    model: nn.Module,
    examples: Examples,
    settings: TrainingSettings,
    step: int,
    optimizer: torch.optim.Optimizer,
    trained: list[Any],
) -> float:
    """Learn from one batch and return its loss before that."""
    model.train()
    torch.manual_seed(step_seed(settings.seed, step))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(settings, step)
    batch = step_batch(examples, settings.batch, settings.seed, step)
    loss = mean_loss(model, batch["input_ids"], batch["labels"])
    value, norm = float(loss.detach()), math.nan
    if math.isfinite(value):
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(trained, settings.clip))
    if not math.isfinite(norm):
        optimizer.zero_grad()
        what = (
            f"a loss of {value}" if not math.isfinite(value) else f"a loss of {value:.3f} with gradients that are not"
        )
        raise NonFiniteError(
            complaint(f"step {step + 1}", wanted="a finite loss", got=what, way_out="take a smaller learning rate")
        )
    optimizer.step()
    optimizer.zero_grad()
    return value


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
