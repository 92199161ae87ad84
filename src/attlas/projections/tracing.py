"""One short run of the model, with what each module was given and gave: the ground on which the views are proved."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attlas.capture import Capture, capture
from attlas.errors import ArgumentError, CaptureError, complaint
from attlas.nn import Decoder

LENGTH = 16
"""Tokens of the made-up text."""


@dataclass(eq=False)
class Run:
    """One run of one module.

    Parameters
    ----------
    name : str
    module : torch.nn.Module
    given : mapping
        Argument -> tensor, copied, since modules may write into what they are given.
    order : int
        How many runs began before it.
    parent : Run, optional
    children : list of Run
    output : Tensor, optional
        The first tensor that it returned, copied.
    """

    name: str
    module: nn.Module
    given: dict[str, Tensor]
    order: int
    parent: Run | None
    children: list[Run] = field(default_factory=list)
    output: Tensor | None = None

    def inside(self) -> Iterator[Run]:
        """Go through the runs below this one, in the order in which they began."""
        for child in self.children:
            yield child
            yield from child.inside()

    def ancestors(self) -> Iterator[Run]:
        """Go through the runs around this one, the nearest first."""
        run = self.parent
        while run is not None:
            yield run
            run = run.parent

    @property
    def device(self) -> torch.device:
        """Where what it was given lies; the CPU if nothing was kept."""
        kept = next((run.first for run in (self, *self.inside()) if run.first is not None), None)
        return torch.device("cpu") if kept is None else kept.device

    @property
    def first(self) -> Tensor | None:
        """The first tensor that it was given."""
        return next(iter(self.given.values()), None)


@dataclass(frozen=True, eq=False)
class Trace:
    """A run of a model: what the capture recorded, and every module's run.

    Parameters
    ----------
    captured : Capture
        With values and outputs.
    root : Run
    unrouted : mapping
        Modules whose attention is not known, and why.
    """

    captured: Capture
    root: Run
    unrouted: Mapping[str, str]

    def attention(self, layer: int) -> tuple[Run, int] | None:
        """Return the run of a layer's attention module and its turn; None where it cannot be told."""
        label = self.captured.names[self.captured.layers.index(layer)]
        name, _, turn = label.partition(" (turn ")
        which = int(turn.removesuffix(")")) - 1 if turn else 0
        runs = [run for run in (self.root, *self.root.inside()) if run.name == name]
        calls = sum(other.partition(" (turn ")[0] == name for other in self.captured.names)
        # Numbers count calls; a module that attends twice in one run has no call of its own for each run.
        return (runs[which], which) if which < len(runs) and calls <= len(runs) else None

    def recorded(self, layer: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the queries, keys, values and output of a layer's kernel, on the device where its states are."""
        matrix = self.captured[layer]
        tensors = (matrix.query, matrix.key, self.captured.values(layer), self.captured.output(layer))
        query, key, value, output = (tensor.to(device) for tensor in tensors)
        return query, key, value, output


def trace(
    model: nn.Module,
    inputs: Mapping[str, Any],
    layers: list[int | str] | None = None,
    only: set[str] | None = None,
) -> Trace:
    """Run the model once and return what happened.

    Cost: one forward pass over `inputs`, and a copy of what every module, or those named in `only`, is given and gives.
    """
    tracer = _Tracer(model, only)
    with ExitStack() as stack:
        for module in model.modules():
            hook = module.register_forward_pre_hook(tracer.entering, with_kwargs=True)
            stack.callback(hook.remove)
            hook = module.register_forward_hook(tracer.leaving, always_call=True)
            stack.callback(hook.remove)
        captured = stack.enter_context(
            capture(model, layers=layers, values=True, output=True, unrouted="report")  # each layer is judged by itself
        )
        stack.enter_context(torch.no_grad())
        model(**inputs)
    if tracer.root is None:
        raise CaptureError("model: its forward did not run")
    return Trace(captured, tracer.root, captured.unrouted)


def text_inputs(model: nn.Module) -> dict[str, Tensor]:
    """Make up a few token ids for a model that reads text.

    Raises
    ------
    ArgumentError
        The model reads something else, or does not say what.
    """
    if isinstance(model, Decoder):
        return {"ids": _made_up(model.embedding.num_embeddings, model.embedding.weight.device)}
    config: Any = getattr(model, "config", None)
    main = getattr(model, "main_input_name", None)
    vocabulary = _vocabulary(model)
    if config is None or main != "input_ids" or vocabulary is None:
        reads = f"reads {main}" if main and main != "input_ids" else "does not say what it reads"
        raise ArgumentError(
            complaint(
                "inputs",
                wanted=f"a dictionary of what a {type(model).__name__} is called with, because it {reads}",
                got="nothing",
                way_out="attlas.projections(model, inputs={...})",
            )
        )
    ids = _made_up(vocabulary, next(model.parameters()).device)
    inputs = {"input_ids": ids}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids.flip(1)[:, : LENGTH // 2 + 1]
    if "use_cache" in inspect.signature(model.forward).parameters:
        inputs["use_cache"] = False  # type: ignore[assignment]  # a flag among tensors
    return inputs


def _made_up(vocabulary: int, device: torch.device) -> Tensor:
    # Multiples of a prime, so that no token comes twice and all lie off the special ones at the start.
    low = min(5, vocabulary // 2)
    return ((torch.arange(LENGTH, device=device) * 7919 + 11) % (vocabulary - low) + low)[None]


def _vocabulary(model: Any) -> int | None:
    try:
        embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    except NotImplementedError:  # a model of several parts (CLIP) has no one table of tokens
        return None
    weight = getattr(embedding, "weight", None)
    return weight.shape[0] if isinstance(weight, Tensor) else None


class _Tracer:
    """Notes each run of each module on this thread."""

    def __init__(self, model: nn.Module, only: set[str] | None) -> None:
        self._only = only
        self.root: Run | None = None
        self._thread = threading.get_ident()
        self._names = {id(module): name or type(module).__name__ for name, module in model.named_modules()}
        self._open: list[Run] = []
        self._begun = 0

    def entering(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        parent = self._open[-1] if self._open else None
        given = {f"argument {i}": value for i, value in enumerate(args)} | kwargs
        name = self._names[id(module)]
        kept = {
            key: value.detach().clone()
            for key, value in given.items()
            if isinstance(value, Tensor) and (self._keeps(name) or "position" in key)
        }
        run = Run(name, module, kept, self._begun, parent)
        self._begun += 1
        if parent is not None:
            parent.children.append(run)
        elif self.root is None:
            self.root = run
        self._open.append(run)

    def leaving(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if threading.get_ident() != self._thread or not self._open:
            return
        run = self._open.pop()
        first = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(first, Tensor) and self._keeps(run.name):
            run.output = first.detach().clone()

    def _keeps(self, name: str) -> bool:
        return self._only is None or name in self._only
