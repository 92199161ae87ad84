"""Runs a model forward once and notes what is needed to go back down: each block's input, and the graph between blocks.

Blocks run on detached inputs, and of their graphs nothing is kept but what came from what. So it can be proved, block
by block, that its output comes from its own input alone; and that all else comes from blocks' outputs and the input
embeddings alone. If not (blocks that talk to one another behind the stack's back), the model is no chain of blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attlas.capture.constants import Constants
from attlas.capture.freeing import give_back
from attlas.capture.function_mode import AttentionMode
from attlas.capture.graphs import origins, replaced, skeleton, tensors_in
from attlas.capture.hearing import Place, following
from attlas.capture.interface import all_deaf, changing, listeners, listening
from attlas.capture.tapping import Tap, Tapped

INPUTS = ("inputs_embeds", "decoder_inputs_embeds", "pixel_values", "input_features", "input_values")
"""Inputs of a model that are numbers, not token ids, so that gradients can be taken with respect to them."""


class NoChainError(Exception):
    """What ran is not a chain of blocks that can be run again one by one."""


@dataclass(eq=False)
class Block:
    """One call of a block.

    Parameters
    ----------
    module : torch.nn.Module
    args, kwargs
        What it was given.
    inputs : list of Tensor
        Those of the given tensors that gradients flow through.
    turns : dict
        How often modules had attended before it began.
    places : list of Place
        Its attention calls.
    outputs : list of (Tensor or None)
        Every tensor that it gave, as a leaf if gradients flow through it, else None.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    turns: dict[str, int]
    places: list[Place] = field(default_factory=list)
    outputs: list[Tensor | None] = field(default_factory=list)

    def detached(self) -> tuple[list[Tensor], tuple[Any, ...], dict[str, Any]]:
        """Return leaves with the numbers of `inputs`, and the arguments made of these."""
        inner = {id(tensor): tensor.detach().requires_grad_() for tensor in self.inputs}

        def instead(tensor: Tensor) -> Tensor:
            leaf = inner.get(id(tensor))
            # A copy, since a block may write into what it is given.
            return tensor if leaf is None else leaf.clone()

        return list(inner.values()), replaced(self.args, instead), replaced(self.kwargs, instead)

    def run(self) -> tuple[list[Tensor], list[Tensor]]:
        """Run it on detached inputs; return these, and every tensor that it gave."""
        inner, args, kwargs = self.detached()
        return inner, list(tensors_in(self.module(*args, **kwargs)))


@dataclass(eq=False)
class Embedded:
    """What an embedding gave, or an input that is numbers itself.

    Parameters
    ----------
    name : str
        Where it was made: a module, or an input.
    tensor : Tensor, (batch, n, width)
        A leaf of the graph.
    tokens : bool
        Whether it has a vector for each token; else it is what such vectors are made of later, an image or a sound.
    """

    name: str
    tensor: Tensor
    tokens: bool


@dataclass(eq=False)
class Tape:
    """A forward pass.

    Parameters
    ----------
    events : list of (Block or Tapped)
        Calls of blocks, and attention calls outside of any, in the order of the run.
    embedded : list of Embedded
        Where gradients end.
    values : Tensor, (target,)
        What the objective gave, with its graph.
    names : set of str
        All modules that attended.
    """

    events: list[Block | Tapped] = field(default_factory=list)
    embedded: list[Embedded] = field(default_factory=list)
    values: Tensor = field(default_factory=lambda: torch.empty(0))
    names: set[str] = field(default_factory=set)


class Recording:
    """Makes a tape of one forward pass.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    blocks : sequence of torch.nn.Module
        Which modules are to be run again one by one; none means that the whole graph is kept.
    embeddings : sequence of torch.nn.Module
        The modules whose outputs the gradients end at.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[nn.Module], embeddings: Sequence[nn.Module]) -> None:
        self.tape = Tape()
        self.tap = Tap(model)
        self._model, self._blocks, self._embeddings = model, blocks, embeddings
        self._thread = threading.get_ident()
        self._leaves: set[int] = set()
        self._running: Block | None = None
        self._inner: list[Tensor] = []
        self._keeping_nothing = ExitStack()

    def run(self, inputs: Mapping[str, Any], objective: Callable[[Any], Tensor]) -> Tape:
        """Run the model and the objective.

        Raises
        ------
        NoChainError
            The blocks cannot be run again one by one.
        """
        with ExitStack() as stack:
            stack.callback(self._keeping_nothing.close)
            stack.enter_context(self._told_of_calls())
            for module in self._embeddings:
                stack.callback(module.register_forward_hook(self._embeds).remove)
            for module in self._blocks:
                hook = module.register_forward_pre_hook(self._enters, with_kwargs=True, prepend=True)
                stack.callback(hook.remove)
                stack.callback(module.register_forward_hook(self._leaves_block).remove)
            stack.enter_context(tapping(self._model, self.tap))
            output = self._run_model(inputs)
            self._collect()
            self.tape.values = objective(output)
            if isinstance(self.tape.values, Tensor):
                self._check([self.tape.values])
        return self.tape

    def _run_model(self, inputs: Mapping[str, Any]) -> Any:
        try:
            return self._model(**{name: self._given(name, value) for name, value in inputs.items()})
        except RuntimeError as error:
            # Something between blocks writes into what a block gave, which the way down needs as it was.
            if self._blocks and "leaf Variable" in str(error):
                raise NoChainError from error
            raise

    @contextmanager
    def _told_of_calls(self) -> Iterator[None]:
        before, self.tap.begins = self.tap.begins, self._begins
        try:
            yield
        finally:
            # The tap outlives this recording, and must not keep it.
            self.tap.begins = before

    # ---- where gradients end

    def _given(self, name: str, value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_inference():
            value = value.clone()
        if name in INPUTS and isinstance(value, Tensor) and value.is_floating_point():
            return self._embedded(name, value, tokens="embeds" in name)
        return value

    def _embeds(self, module: nn.Module, _: object, output: object) -> Tensor | None:
        if threading.get_ident() != self._thread or not isinstance(output, Tensor):
            return None
        return self._embedded(self.tap.running, output, tokens=True)

    def _embedded(self, name: str, tensor: Tensor, *, tokens: bool) -> Tensor:
        leaf = tensor.detach().requires_grad_()
        self._leaves.add(id(leaf))
        self.tape.embedded.append(Embedded(name, leaf, tokens))
        # A copy, since the model may write into it.
        return leaf.clone()

    # ---- blocks

    def _enters(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread or self._running is not None:
            return None
        inputs = list({id(one): one for one in tensors_in((args, kwargs)) if one.requires_grad}.values())
        self._check(inputs)
        self._collect()
        self._running = Block(module, args, kwargs, inputs, self.tap.turns)
        self._keeping_nothing.enter_context(skeleton())
        self._inner, args, kwargs = self._running.detached()
        return args, kwargs

    def _leaves_block(self, module: nn.Module, _: object, output: Any) -> Any:
        block = self._running
        if threading.get_ident() != self._thread or block is None or block.module is not module:
            return None
        self._keeping_nothing.close()
        if not origins(tensors_in(output)).keys() <= {id(leaf) for leaf in self._inner}:
            raise NoChainError
        self._running, self._inner = None, []
        output = replaced(output, self._as_leaf)
        block.outputs = [one if one.requires_grad else None for one in tensors_in(output)]
        self.tape.events.append(block)
        give_back()
        return output

    def _as_leaf(self, tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        leaf = tensor.detach().requires_grad_()
        self._leaves.add(id(leaf))
        return leaf

    def _check(self, tensors: Sequence[Tensor]) -> None:
        """Make sure that what lies between blocks comes from blocks' outputs and embeddings alone."""
        if self._blocks and not origins(tensors).keys() <= self._leaves:
            raise NoChainError

    # ---- attention

    def _begins(self, place: Place) -> bool:
        self.tape.names.add(place.name)
        if self._running is None:
            return True
        self._running.places.append(place)
        return False

    def _collect(self) -> None:
        """Put attention calls outside of blocks on the tape."""
        self.tape.events += self.tap.take()


@contextmanager
def tapping(model: nn.Module, tap: Tap) -> Iterator[None]:
    """Let gradients flow and `tap` hear what `model` computes inside, on this thread; nobody else hears it."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(all_deaf(listeners()))
        stack.enter_context(following(model, tap))
        stack.enter_context(listening(tap))
        stack.enter_context(changing(tap))
        stack.enter_context(AttentionMode())
        stack.enter_context(Constants())
        yield
