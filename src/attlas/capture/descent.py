"""Goes down through a model's attention with the gradients of what the model said, one block at a time.

One ordinary forward pass keeps each block's input; then each block, top first, is run again where gradients flow, and
is let go (gradient checkpointing, Chen et al. 2016, arXiv 1604.06174). So memory is that of all blocks' inputs and of
one block. Several targets share both runs of a block.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from attlas.capture.attended import Attended
from attlas.capture.blocks import blocks_of
from attlas.capture.differentiable import check_differentiable
from attlas.capture.freeing import give_back
from attlas.capture.graphs import origins
from attlas.capture.hearing import Hearer
from attlas.capture.interface import changers
from attlas.capture.intervention import module_of
from attlas.capture.language_model import LanguageModel
from attlas.capture.tape import Block, Embedded, NoChainError, Recording, Tape, tapping
from attlas.capture.tapping import Tap, Tapped
from attlas.capture.walking import Side, sides_of
from attlas.errors import ArgumentError, CaptureError, UnsupportedModelError, by_reason, complaint
from attlas.models.progress import Progress

Objective = Callable[[Any], Tensor]
"""``objective(output)``: the numbers that are explained, (target,), differentiable, of what the model returned."""


def descend(
    model: LanguageModel | nn.Module,
    inputs: Mapping[str, Any],
    objective: Objective,
    *,
    progress: Progress | None = None,
    blocks: bool = True,
) -> Descent:
    """Run a model forward, and be ready to go down through its attention with gradients.

    Parameters
    ----------
    model : LanguageModel or torch.nn.Module
        The model, in evaluation mode. Its parameters and their `grad` stay as they are.
    inputs : mapping
        What its forward is given. Where the model can, ``logits_to_keep`` saves the memory of logits that no target
        needs.
    objective : callable
        ``objective(output)``: a number a target, (target,), differentiable, of what the model returned.
    progress : callable, optional
        Called as ``progress(done, total, "going down")`` after each block.
    blocks : bool
        Run block after block again, so that memory is that of one block. False keeps the whole graph instead: faster
        on short inputs. A model that is no chain of blocks is always treated so.

    Returns
    -------
    Descent
        The forward pass is over; iterate it, once, to go down.

    Raises
    ------
    ArgumentError
        The objective's numbers have no gradient, or inputs continue a cache.
    UnsupportedModelError
        An attention call cannot be captured (as `attlas.capture`), or gradients cannot be taken: the model is
        quantised, or drops numbers at random.
    CaptureError
        The model made no attention call.

    Examples
    --------
    >>> descent = descend(lm, inputs, lambda output: output.logits[0, -1, [42]])  # doctest: +SKIP
    >>> for attended in descent:  # doctest: +SKIP
    ...     print(attended.name, attended.gradients[0].output.norm())
    """
    module = module_of(model)
    check_differentiable(module)
    given = _checked_inputs(module, inputs)
    embeddings = _embeddings_of(module)
    chain = blocks_of(module, embeddings) if blocks else []
    recording = Recording(module, chain, embeddings)
    for other in changers():
        if isinstance(other, Hearer) and other.shares(recording.tap):
            raise ArgumentError(
                complaint("model", wanted="one that runs as it is", got="one inside of `attlas.ablate` or the like")
            )
    try:
        tape = recording.run(given, objective)
    except NoChainError:
        recording = Recording(module, [], embeddings)
        tape = recording.run(given, objective)
    if recording.tap.missed:
        raise UnsupportedModelError(by_reason(recording.tap.missed))
    if not tape.names:
        raise CaptureError("model: wanted one that attends, got one that made no attention call")
    _check_values(tape.values)
    return Descent(tape, recording.tap, progress)


class Descent:
    """A model's attention from the top down, with gradients; made by `descend`.

    Attributes
    ----------
    values : Tensor, (target,)
        What the objective gave.
    blocks : int
        How many blocks are run again; 1 where the whole graph was kept.
    """

    def __init__(self, tape: Tape, tap: Tap, progress: Progress | None) -> None:
        self.values = tape.values.detach()
        self.blocks = sum(isinstance(event, Block) for event in tape.events) or 1
        self._tape, self._tap, self._progress = tape, tap, progress
        self._sides = sides_of(tape.names)
        self._gradients = _Gradients(len(tape.values))
        self._pending = _Gradients(len(tape.values))
        self._first: dict[int, int] = {}
        for index, event in enumerate(tape.events):
            for tensor in event.inputs if isinstance(event, Block) else ():
                self._first.setdefault(id(tensor), index)
        self._state = "fresh"

    def __iter__(self) -> Iterator[Attended]:
        """Yield every attention call, the top layer first; once.

        Raises
        ------
        CaptureError
            It went down before; or a block, run again, gave something else than before.
        """
        if self._state != "fresh":
            raise CaptureError("a descent can be gone down once; call `descend` again")
        self._state = "begun"
        return self._down()

    def _down(self) -> Iterator[Attended]:
        events, total = self._tape.events, len(self._tape.events)
        ones = torch.eye(len(self.values), dtype=self.values.dtype, device=self.values.device)
        self._pending.add(self._tape.values, list(ones))
        while events:
            self._pass_on(len(events) - 1)
            event = events.pop()
            found = self._again(event) if isinstance(event, Block) else [self._outside(event)]
            del event
            give_back()
            while found:
                yield found.pop()
            if self._progress is not None:
                self._progress(total - len(events), total, "going down")
        self._pass_on(-1)
        self._state = "done"

    # ---- between blocks

    def _pass_on(self, index: int) -> None:
        """Take gradients from what blocks above event `index` were given down to what made it."""
        due = [tensor for tensor in self._pending.tensors if self._first.get(id(tensor), index + 1) > index]
        ends = self._ends(index)
        known = {id(tensor) for tensor in ends}
        needed_again = any(isinstance(event, Block) for event in self._tape.events[: index + 1])
        gradients = [(tensor, self._pending.take(tensor)) for tensor in due]
        for tensor, found in gradients:
            if id(tensor) in known:
                self._gradients.add(tensor, found)
        rest = [(tensor, found) for tensor, found in gradients if id(tensor) not in known]
        for target in range(len(self.values)):
            last = target == len(self.values) - 1
            given = [(tensor, found[target]) for tensor, found in rest if found[target] is not None]
            got = _backward(given, ends, keep=needed_again or not last)
            for tensor, gradient in zip(ends, got, strict=True):
                self._gradients.add_one(tensor, target, gradient)

    def _ends(self, index: int) -> list[Tensor]:
        """Return what the gradients of the graph outside of blocks are taken with respect to."""
        ends = [embedded.tensor for embedded in self._tape.embedded]
        for event in self._tape.events[: index + 1]:
            held = event.outputs if isinstance(event, Block) else event.read_from
            ends += [tensor for tensor in held if tensor is not None]
        return ends

    def _outside(self, tapped: Tapped) -> Attended:
        """Return an attention call that lies outside of any block."""
        found = [self._gradients.take(tensor) for tensor in tapped.read_from]
        return self._attended(tapped, list(zip(*found, strict=True)))

    # ---- blocks

    def _again(self, block: Block) -> list[Attended]:
        """Run a block again, and take gradients through it; return its attention calls in the order of the run."""
        wanted = [None if leaf is None else self._gradients.take(leaf) for leaf in block.outputs]
        with tapping(block.module, self._tap), self._tap.continuing(block.turns):
            inner, outputs = block.run()
            tapped = self._tap.take()
        self._compare(block, outputs, tapped)
        ends = [*inner, *(tensor for one in tapped for tensor in one.read_from)]
        calls: list[list[tuple[Tensor | None, ...]]] = [[] for _ in tapped]
        targets = range(len(self.values))
        given = [
            [
                (tensor, found[target])
                for tensor, found in zip(outputs, wanted, strict=True)
                if found is not None and found[target] is not None
            ]
            for target in targets
        ]
        last = max((target for target in targets if given[target]), default=-1)
        for target in targets:
            got = _backward(given[target], ends, keep=target != last)
            for tensor, gradient in zip(block.inputs, got, strict=False):
                self._pending.add_one(tensor, target, gradient)
            for number, one in enumerate(calls):
                start = len(inner) + 3 * number
                one.append(tuple(got[start : start + 3]))
        return [self._attended(one, found) for one, found in zip(tapped, calls, strict=True)]

    def _compare(self, block: Block, outputs: Sequence[Tensor], tapped: Sequence[Tapped]) -> None:
        if self._tap.missed:
            raise UnsupportedModelError(by_reason(self._tap.missed))
        same = len(outputs) == len(block.outputs) and [one.place for one in tapped] == block.places
        if not same or not all(
            before is None or torch.equal(before, after.detach())
            for before, after in zip(block.outputs, outputs, strict=True)
        ):
            name = type(block.module).__name__
            raise CaptureError(
                f"{name}: wanted the same numbers from the same input in two runs, got different ones; "
                "the model draws random numbers, remembers something, or was changed in between; pass blocks=False"
            )

    # ---- what is yielded

    def _attended(self, tapped: Tapped, found: Sequence[Sequence[Tensor | None]]) -> Attended:
        place, layer = tapped.place, tapped.layer
        side: Side = self._sides[place.name]
        both = len(set(self._sides.values())) > 1
        cross = both and side == "decoder" and origins([tapped.query]).keys() != origins([tapped.key]).keys()
        gradients = tuple(tapped.gradients(one) for one in found)
        return Attended(place.number, layer.name, layer.matrix, layer.values, layer.output, gradients, side, cross)

    # ---- where gradients end

    @property
    def embeddings(self) -> Tensor:
        """What the input embeddings were, (batch, n, width): the encoder's, where there are two stacks.

        They are what `model.get_input_embeddings()` gave, or the input itself where that is an image or a sound.
        """
        return self._embedded("encoder").tensor.detach()

    @property
    def embedding_gradients(self) -> Tensor:
        """The gradients with respect to them, (target, batch, n, width); known when the descent is over."""
        return self._embedding_gradients("encoder")

    @property
    def decoder_embeddings(self) -> Tensor:
        """What the decoder's input embeddings were, (batch, n, width), where there are two stacks."""
        return self._embedded("decoder").tensor.detach()

    @property
    def decoder_embedding_gradients(self) -> Tensor:
        """The gradients with respect to them, (target, batch, n, width); known when the descent is over."""
        return self._embedding_gradients("decoder")

    def _embedded(self, side: Side) -> Embedded:
        both = len(set(self._sides.values())) > 1
        # Vectors of tokens before what others are made of.
        for embedded in sorted(self._tape.embedded, key=lambda one: not one.tokens):
            of_decoder = both and "decoder" in embedded.name.replace("_", ".").split(".")
            if of_decoder == (side == "decoder" and both):
                return embedded
        raise CaptureError(f"embeddings: the model did not embed anything for its {side}")

    def _embedding_gradients(self, side: Side) -> Tensor:
        embedded = self._embedded(side)
        if self._state != "done":
            raise CaptureError("embedding_gradients: wanted a descent that is over, got one that has not arrived")
        return torch.stack(
            [
                torch.zeros_like(embedded.tensor, requires_grad=False) if gradient is None else gradient
                for gradient in self._gradients.of(embedded.tensor)
            ]
        )

    def close(self) -> None:
        """Let go of everything that a descent holds that was not gone down to the end."""
        if self._state != "done":
            self._tape.events.clear()
            self._state = "closed"

    def __enter__(self) -> Descent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Gradients:
    """Gradients of several targets with respect to tensors; None where a target does not depend on one."""

    def __init__(self, targets: int) -> None:
        self._targets = targets
        self._held: dict[int, tuple[Tensor, list[Tensor | None]]] = {}

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for tensor, _ in self._held.values()]

    def add(self, tensor: Tensor, gradients: Sequence[Tensor | None]) -> None:
        for target, gradient in enumerate(gradients):
            self.add_one(tensor, target, gradient)

    def add_one(self, tensor: Tensor, target: int, gradient: Tensor | None) -> None:
        if gradient is not None:
            _, held = self._held.setdefault(id(tensor), (tensor, [None] * self._targets))
            before = held[target]
            held[target] = gradient if before is None else before + gradient

    def of(self, tensor: Tensor) -> list[Tensor | None]:
        return self._held.get(id(tensor), (tensor, [None] * self._targets))[1]

    def take(self, tensor: Tensor) -> list[Tensor | None]:
        return self._held.pop(id(tensor), (tensor, [None] * self._targets))[1]


def _backward(
    given: Sequence[tuple[Tensor, Tensor | None]], ends: Sequence[Tensor], *, keep: bool
) -> Sequence[Tensor | None]:
    """Take gradients of `given` (tensors, and the gradients with respect to them) with respect to `ends`."""
    if not given:
        return [None] * len(ends)
    outputs, gradients = zip(*given, strict=True)
    try:
        return torch.autograd.grad(outputs, ends, gradients, retain_graph=keep, allow_unused=True)
    except RuntimeError as error:
        if "derivative" not in str(error):
            raise
        raise UnsupportedModelError(
            f"model: wanted one that gradients can be taken of, got one whose computation has none ({error}); "
            "load its weights in a floating-point dtype"
        ) from error


def _checked_inputs(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(inputs)
    for name, value in given.items():
        if ("past_key_value" in name and value is not None) or (name == "use_cache" and value):
            raise ArgumentError(complaint("inputs", wanted="none that use a cache", got=name, way_out="leave it out"))
    if "use_cache" in inspect.signature(model.forward).parameters:
        given["use_cache"] = False
    return given


def _check_values(values: object) -> None:
    wanted = "one number a target, in one axis"
    if not isinstance(values, Tensor) or values.dim() != 1 or not values.is_floating_point() or not len(values):
        got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
        raise ArgumentError(complaint("objective", wanted=wanted, got=got))
    if not values.requires_grad:
        raise ArgumentError(
            complaint(
                "objective",
                wanted="numbers with a gradient with respect to the input",
                got="numbers without one",
                way_out="do not detach or round them; a quantised model has no gradients",
            )
        )


def _embeddings_of(model: nn.Module) -> list[nn.Module]:
    """Return the modules that turn input ids into vectors: the model's own, and those of its parts."""
    found: dict[int, nn.Module] = {}
    for part in model.modules():
        ask = getattr(part, "get_input_embeddings", None)
        try:
            module = ask() if callable(ask) else None
        except (NotImplementedError, AttributeError):
            continue
        # A convolution gives no vectors of tokens, but what they are made of.
        if isinstance(module, nn.Module) and not isinstance(module, nn.modules.conv._ConvNd):
            found.setdefault(id(module), module)
    return list(found.values())
