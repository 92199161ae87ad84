"""A short trial: a thin adapter beside every candidate at once, and what each of its steps brings on fresh examples.

A gradient at the start says little of where training will lower the loss: at first all of it goes into what every
example has in common, and its size says nothing of how far a step may go. So some steps are really taken, as LoRA takes
them, each on a batch that was not seen before; and each module, row and column of a weight is credited with its part of
what the loss falls by. When a step has moved a weight by ΔW, the part of an entry in what the loss of a fresh batch
falls by is −G·ΔW, where G is the mean of that batch's gradients before and after the step (Lan et al. 2019, LCA: Loss
Change Allocation for Neural Network Training, who sum it over the examples that are trained on, and with a finer rule
along the step). The parts add up to the fall of the loss to second order. The gradient after the step alone, half the
work, charges curvature twice over: it can call a trial useless in which the loss falls from 4.6 to 0.9.

Nothing of a weight's size is held: with ΔW = s·(B₁A₁ − B₀A₀), sums over the rows or columns of G ⊙ ΔW are products of
thin matrices with the inputs of a module and the gradients of its outputs, (tokens, in) and (tokens, out).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attlas.errors import ArgumentError, NonFiniteError, complaint
from attlas.models.progress import Progress
from attlas.training.losses import mean_loss
from attlas.training.sites import shape_of

RATE = 2e-3
"""Adam's learning rate; its steps do not depend on the size of gradients."""

SCALE = 8.0
"""What the product B·A is multiplied with."""

WARMUP = 4
"""Steps in which the learning rate grows."""


@dataclass(frozen=True, eq=False)
class Tried:
    """What a trial found of one module, in nats a token of fresh batches; float64.

    Parameters
    ----------
    rows : Tensor, (step, out)
        By how much the loss fell through each row of the weight, (out, in), in each step.
    columns : Tensor, (step, in)
        The same through each column. Both have the same sum in each step.
    """

    rows: Tensor
    columns: Tensor

    @property
    def falls(self) -> Tensor:
        """By how much the loss fell through the whole weight, (step,)."""
        return self.rows.sum(1)


def trial(
    model: nn.Module,
    names: Sequence[str],
    batches: Sequence[Mapping[str, Tensor]],
    *,
    rank: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[str, Tried], list[float]]:
    """Train a thin adapter of every module for a step a batch, and see through which the loss of the next batch falls.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model of transformers; its weights are not changed.
    names : sequence of str
        Its linear modules that are tried.
    batches : sequence of mapping
        ``input_ids`` and ``labels``, (batch, n); no example should be in two of them.
    rank : int
        Of the products.
    seed : int
        Of the first values of A, drawn in the order of `names`; B begins at zero.
    progress : callable, optional
        Called as ``progress(done, total, what)`` after each batch.

    Returns
    -------
    (dict, list of float)
        By name, what was found in one step less than there are batches; and the loss of each batch before its step.

    Raises
    ------
    NonFiniteError
        A loss is NaN or infinite.
    ArgumentError
        The loss does not depend on a module.

    Notes
    -----
    Cost: two forward and two backward passes over each batch, but for the first, without gradients of the weights.
    Memory: what one training step with an adapter keeps.
    """
    thin = {name: _Thin(name, model.get_submodule(name), rank, seed, number) for number, name in enumerate(names)}
    optimizer = torch.optim.Adam([one for part in thin.values() for one in (part.down, part.up)], lr=RATE)
    losses = []
    with _tried(model, thin.values()):
        for step, batch in enumerate(batches):
            losses.append(_heard_by(thin.values(), model, batch))
            if not math.isfinite(losses[-1]):
                raise NonFiniteError(f"the loss of the trial is {losses[-1]} after {step} steps; look at the data")
            if step:
                with _one_step_back(thin.values()):
                    _heard_by(thin.values(), model, batch)
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1.0, (step + 1) / WARMUP)
            for part in thin.values():
                part.settle()
            optimizer.step()
            if progress is not None:
                progress(step + 1, len(batches), f"trying, loss {losses[-1]:.3f}")
    return {name: part.found() for name, part in thin.items()}, losses


def _heard_by(thin: Iterable[_Thin], model: nn.Module, batch: Mapping[str, Tensor]) -> float:
    """Let the products hear the gradient of a batch's loss, and return the loss."""
    loss = mean_loss(model, batch["input_ids"], batch["labels"])
    loss.backward()
    for part in thin:
        part.check()
    return float(loss.detach())


@contextmanager
def _one_step_back(thin: Iterable[_Thin]) -> Iterator[None]:
    """Let a model compute with the products as they were before their last step."""
    for part in thin:
        part.back = True
    yield
    for part in thin:
        part.back = False


class _Thin:
    """A product B·A beside one module: what it adds, its gradients, and what its last step brought."""

    def __init__(self, name: str, module: Any, rank: int, seed: int, number: int) -> None:
        out, into = shape_of(module)
        generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
        # As PEFT begins: even between ±1/√in, and zero.
        down = (2 * torch.rand(rank, into, generator=generator) - 1) / into**0.5
        like: Any = {"device": module.weight.device, "dtype": torch.promote_types(module.weight.dtype, torch.float32)}
        self.name, self.module = name, module
        self.down = down.to(**like).requires_grad_()
        self.up = torch.zeros(out, rank, **like).requires_grad_()
        # Whether it stands as it was before the last step, and how that was.
        self.back = False
        self._before: tuple[Tensor, Tensor] | None = None
        # The gradients of A and B now; what the last step brought by row and by column, before and after it.
        self._gradients: list[Tensor] | None = None
        self._parts: dict[bool, list[Tensor]] = {}
        self._steps: list[tuple[Tensor, Tensor]] = []

    def added(self, x: Tensor, made: Tensor) -> Tensor:
        """Return a module's output with the product's beside it, and listen to its gradient."""
        pair = self._before if self.back and self._before else (self.down.detach(), self.up.detach())
        down, up = (one.to(x.dtype) for one in pair)
        made = made + SCALE * ((x @ down.T) @ up.T)
        states = x.detach()
        made.register_hook(lambda gradient: self._heard(states.flatten(0, -2), gradient.flatten(0, -2)))
        return made

    @torch.no_grad()
    def _heard(self, x: Tensor, gradient: Tensor) -> None:
        """Add up the gradients of A and B, and what the last step brought by row and by column."""
        x, gradient = x.to(self.down.dtype), gradient.to(self.down.dtype)
        of_down, of_up, row, column = self._at(self.down, self.up, x, gradient)
        # A module may run more than once, where layers share it.
        if not self.back:
            self._gradients = _summed(self._gradients, [of_down, of_up])
        if self._before is not None:
            _, _, row_before, column_before = self._at(*self._before, x, gradient)
            found = [row_before - row, column_before - column]
            self._parts[self.back] = _summed(self._parts.get(self.back), found)

    @staticmethod
    def _at(down: Tensor, up: Tensor, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of A and B, and the sums over rows and over columns of G ⊙ (s·B·A)."""
        of_up = SCALE * gradient.T @ (x @ down.T)
        of_down = SCALE * (gradient @ up).T @ x
        return of_down, of_up, (up * of_up).sum(1).double(), (down * of_down).sum(0).double()

    def check(self) -> None:
        """Raise if the loss does not depend on the module."""
        if self._gradients is None:
            raise ArgumentError(complaint("projections", wanted="modules that the loss depends on", got=self.name))

    def settle(self) -> None:
        """Hand the gradients to the optimiser, and keep what the last step brought."""
        self.check()
        if self._before is not None:
            rows, columns = ((after + before) / 2 for after, before in zip(*self._parts.values(), strict=True))
            self._steps.append((rows.cpu(), columns.cpu()))
        self.down.grad, self.up.grad = self._gradients or (None, None)
        self._before = self.down.detach().clone(), self.up.detach().clone()
        self._gradients, self._parts = None, {}

    def found(self) -> Tried:
        """Return what the steps brought."""
        rows, columns = zip(*self._steps, strict=True)
        return Tried(torch.stack(rows), torch.stack(columns))


def _summed(sums: list[Tensor] | None, more: list[Tensor]) -> list[Tensor]:
    return more if sums is None else [a + b for a, b in zip(sums, more, strict=True)]


@contextmanager
def _tried(model: nn.Module, thin: Any) -> Iterator[None]:
    """Let a model compute with the products, without gradients of its own weights, and put it back as it was."""
    needed = {one: one.requires_grad for one in model.parameters()}
    training = {module: module.training for module in model.modules()}
    embedding: Any = model.get_input_embeddings()  # pyright: ignore[reportCallIssue] - a model of transformers
    # The graph begins at the embedded tokens, as no weight asks for a gradient.
    handles = [embedding.register_forward_hook(lambda module, given, made: made.detach().requires_grad_())]
    handles += [
        part.module.register_forward_hook(lambda module, given, made, part=part: part.added(given[0], made))
        for part in thin
    ]
    try:
        model.eval()
        for one in needed:
            one.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for one, before in needed.items():
            one.requires_grad_(before)
        for module, mode in training.items():
            module.training = mode
