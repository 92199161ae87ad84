"""A short trial: a thin adapter beside every candidate at once, and what each of its steps brings on fresh examples.

A gradient at the start says little of where training will lower the loss: at first all of it goes into what every
example has in common, and its size says nothing of how far a step may go. So some steps are really taken, as LoRA takes
them, each on a batch that was not seen before; and each module, row and column of a weight is credited with its part of
what the loss falls by. With the gradient G of the next, fresh batch after a step that has moved a weight by ΔW, the
part of an entry is −G·ΔW, which adds up to what the loss of unseen examples fell by, to first order and with what
curvature takes back charged to who caused it (Lan et al. 2019, LCA: Loss Change Allocation for Neural Network Training,
who sum it over the examples that are trained on).

Nothing of a weight's size is held: with ΔW = s·(B₁A₁ − B₀A₀), sums over the rows or columns of G ⊙ ΔW are products of
thin matrices with the inputs of a module and the gradients of its outputs, (tokens, in) and (tokens, out).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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
    Cost: a forward and a backward pass over each batch without gradients of the weights. Memory: what one training step
    with an adapter keeps.
    """
    thin = {name: _Thin(name, model.get_submodule(name), rank, seed, number) for number, name in enumerate(names)}
    optimizer = torch.optim.Adam([one for part in thin.values() for one in (part.down, part.up)], lr=RATE)
    losses = []
    with _tried(model, thin.values()):
        for step, batch in enumerate(batches):
            loss = mean_loss(model, batch["input_ids"], batch["labels"])
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise NonFiniteError(f"the loss of the trial is {losses[-1]} after {step} steps; look at the data")
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1.0, (step + 1) / WARMUP)
            for part in thin.values():
                part.settle()
            optimizer.step()
            if progress is not None:
                progress(step + 1, len(batches), f"trying, loss {losses[-1]:.3f}")
    return {name: part.found() for name, part in thin.items()}, losses


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
        # What the last step changed from; the gradients of A and B; what it brought by row and by column.
        self._before: tuple[Tensor, Tensor] | None = None
        self._sums: list[Tensor] | None = None
        self._steps: list[tuple[Tensor, Tensor]] = []

    def added(self, x: Tensor, made: Tensor) -> Tensor:
        """Return a module's output with the product's beside it, and listen to its gradient."""
        down, up = self.down.detach().to(x.dtype), self.up.detach().to(x.dtype)
        made = made + SCALE * ((x @ down.T) @ up.T)
        states = x.detach()
        made.register_hook(lambda gradient: self._heard(states.flatten(0, -2), gradient.flatten(0, -2)))
        return made

    @torch.no_grad()
    def _heard(self, x: Tensor, gradient: Tensor) -> None:
        """Add up the gradients of A and B, and what the last step brought by row and by column."""
        x, gradient = x.to(self.down.dtype), gradient.to(self.down.dtype)
        of_down, of_up, row, column = self._at(self.down, self.up, x, gradient)
        _, _, row_before, column_before = self._at(*(self._before or (self.down, self.up)), x, gradient)
        parts = [of_down, of_up, row_before - row, column_before - column]
        # A module may run more than once, where layers share it.
        self._sums = parts if self._sums is None else [a + b for a, b in zip(self._sums, parts, strict=True)]

    @staticmethod
    def _at(down: Tensor, up: Tensor, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of A and B, and the sums over rows and over columns of G ⊙ (s·B·A)."""
        of_up = SCALE * gradient.T @ (x @ down.T)
        of_down = SCALE * (gradient @ up).T @ x
        return of_down, of_up, (up * of_up).sum(1).double(), (down * of_down).sum(0).double()

    def settle(self) -> None:
        """Hand the gradients to the optimiser, and keep what the last step brought."""
        if self._sums is None:
            raise ArgumentError(complaint("projections", wanted="modules that the loss depends on", got=self.name))
        self.down.grad, self.up.grad, rows, columns = self._sums
        if self._before is not None:
            self._steps.append((rows.cpu(), columns.cpu()))
        self._before = self.down.detach().clone(), self.up.detach().clone()
        self._sums = None

    def found(self) -> Tried:
        """Return what the steps brought."""
        rows, columns = zip(*self._steps, strict=True)
        return Tried(torch.stack(rows), torch.stack(columns))


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
