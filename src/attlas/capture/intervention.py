"""Changes what attention heads give while a model runs: the mechanism behind `attlas.ablate`.

An intervention comes through the same door as a capture, numbers layers as a capture does, and leaves nothing behind. A
capture that is open at the same time, inside or outside, hears what the kernels really computed: the patterns of the
changed run, and each head's output as the kernel gave it, before it was taken away. So its proof holds.
"""

from __future__ import annotations

import inspect
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import Cache

from attlas.capture.asked import Asking
from attlas.capture.function_mode import AttentionMode
from attlas.capture.hearing import Frame, Hearer, Place, following
from attlas.capture.interface import Scoring, all_deaf, changers, changing, listeners
from attlas.capture.language_model import LanguageModel
from attlas.capture.recorder import checked_model
from attlas.errors import ArgumentError, CaptureError, UnsupportedModelError, complaint

Means = Mapping[tuple[str, int], Tensor]
"""Mean output of each head, (head, value_dim), by module name and turn."""
Row = Mapping[int | str, Sequence[int]]
"""Layer, by number or module name -> heads."""


class Editor(Hearer):
    """Follows a model and acts on its attention calls."""

    replaces = False

    @abstractmethod
    def given(self, place: Place, scoring: Scoring) -> Scoring:
        """Return what the kernel is to be given."""

    @abstractmethod
    def gave(self, place: Place, output: Tensor) -> Tensor:
        """Return what is to be made of the kernel's output; both (batch, head, n_query, value_dim)."""

    def change(self, module: nn.Module | None) -> Edit:
        """Say what is to become of the call that begins."""
        return Edit(self, self.place(module))

    def saw_softmax(self) -> None:
        """Nothing is to be done."""

    def _began(self) -> None:
        """Nothing is to be done."""

    def _left(self, frame: Frame) -> None:
        """Nothing is to be done."""


@dataclass(frozen=True)
class Edit:
    """What an editor makes of one call."""

    editor: Editor
    place: Place

    def given(self, scoring: Scoring) -> Scoring:
        """Return what the kernel is to be given."""
        return self.editor.given(self.place, scoring)

    def instead(self, asking: Asking) -> None:
        """Leave the call to the kernel."""
        del asking

    def gave(self, output: Tensor) -> Tensor:
        """Return what is to be made of the kernel's output."""
        if output.is_nested or output.dim() != 4:
            raise UnsupportedModelError(
                f"{self.place.name}: its attention gives {output.dim()} axes of heads and queries mixed, "
                "so a head cannot be told from another"
            )
        return self.editor.gave(self.place, output)


@contextmanager
def editing(model: nn.Module, editor: Editor) -> Iterator[None]:
    """Let an editor act on what `model` computes inside the block, on this thread."""
    with following(model, editor), changing(editor), AttentionMode():
        yield


class Ablation(Editor):
    """Ablates heads of one model on one thread; see `ablate` for what the kinds mean.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    rows : sequence of mappings
        Which heads: one entry for all batch elements, or one for each.
    means : mapping, optional
        What to put in the place of a head's output; zero by default.
    patterns : {"own", "clean pass", "first element"}
        Whose patterns the model uses: those of the ablated run; those of a pass before it, without the ablation; or
        those of the batch's first element, which then is ablated nowhere.
    numbers : dict, optional
        Numbers of layers that are known already.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: Sequence[Row],
        *,
        means: Means | None = None,
        patterns: Literal["own", "clean pass", "first element"] = "own",
        numbers: dict[tuple[str, int], int] | None = None,
    ) -> None:
        super().__init__(model, numbers)
        self.patterns = patterns
        self._rows, self._means = rows, means
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._met: set[int | str] = set()
        self._clean: dict[int, Scoring] = {}
        self._cleaning = False

    # ---- the clean pass

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run a pass without the ablation first, if `module` begins a pass and its patterns are to be kept."""
        if self._frames or self._deaf or self._cleaning or threading.get_ident() != self._thread:
            return
        if module.training:
            raise UnsupportedModelError('kind="pattern" runs the model twice; call model.eval() first')
        _refuse_cache(module, args, kwargs)
        self._clean.clear()
        self._cleaning = True
        try:
            # Others' ablations hold in the clean pass too, and captures do not hear it.
            with torch.no_grad(), all_deaf(listeners()), ExitStack() as stack:
                for other in changers():
                    if other is not self:
                        stack.enter_context(other.anew())
                module(*args, **kwargs)
        finally:
            self._cleaning = False
            self._frames.clear()

    def _left(self, frame: Frame) -> None:
        if not (self._frames or self._cleaning):
            self._clean.clear()

    # ---- what it does to a call

    def given(self, place: Place, scoring: Scoring) -> Scoring:
        """Keep the clean pass's queries, keys and biases, or put them in the place of the ablated run's."""
        if self.patterns == "first element":
            return _of_first_element(place, scoring)
        if self.patterns == "own":
            return scoring
        if self._cleaning:
            # The mask and the bias are the model's own tensors, which layers mostly share.
            kept = Scoring(scoring.query.clone(), scoring.key.clone(), scoring.mask, scoring.bias)
            self._clean[place.number] = kept
            return scoring
        clean = self._clean.get(place.number)
        if clean is None or (clean.query.shape, clean.key.shape) != (scoring.query.shape, scoring.key.shape):
            raise UnsupportedModelError(
                f'{place.name}: kind="pattern" needs the same attention calls in two passes on the same inputs, and '
                "this call has no counterpart; the model remembers something from one pass to the next"
            )
        return clean

    def gave(self, place: Place, output: Tensor) -> Tensor:
        """Take the chosen heads' output away."""
        batch, heads, _, width = output.shape
        found = self._met_at(place)
        if not found or self._cleaning:
            return output
        chosen = self._chosen(place, heads).to(output.device)
        if chosen.shape[0] not in (1, batch):
            raise UnsupportedModelError(
                f"{place.name}: attends in a batch of {batch} where the model was given {chosen.shape[0]}"
            )
        where = chosen[:, :, None, None]
        if self._means is None:
            return output.masked_fill(where, 0)
        mean = self._means.get((place.name, place.turn))
        if mean is None or mean.shape != (heads, width):
            raise CaptureError(
                f"reference: it did not run {place.name} with {heads} heads of {width} numbers, so their mean is not "
                "known; give inputs that run the whole model"
            )
        return torch.where(where, mean.to(output.device, output.dtype)[:, None], output)

    def _met_at(self, place: Place) -> set[int | str]:
        """Return by which of its names the layer was asked for."""
        found: set[int | str] = {place.number, place.name} & {layer for row in self._rows for layer in row}
        self._met |= found
        return found

    def _chosen(self, place: Place, heads: int) -> Tensor:
        """Return which heads of which batch elements are ablated: bool, (batch or 1, head)."""
        known = self._masks.get((place.number, heads))
        if known is not None:
            return known
        chosen = torch.zeros(len(self._rows), heads, dtype=torch.bool)
        for element, row in enumerate(self._rows):
            for head in (*row.get(place.number, ()), *row.get(place.name, ())):
                if head >= heads:
                    wanted = f"head numbers from 0 to {heads - 1} in layer {place.number} ({place.name})"
                    raise ArgumentError(complaint("heads", wanted=wanted, got=head))
                chosen[element, head] = True
        self._masks[place.number, heads] = chosen
        return chosen

    # ---- at the end

    def check(self) -> None:
        """Complain if what was to be ablated was never run.

        Raises
        ------
        CaptureError
            The model made no attention call.
        ArgumentError
            A layer does not exist.
        """
        if not self.numbers:
            raise CaptureError(
                "model: wanted a call that attends through transformers' attention interface or PyTorch's own "
                "functions, inside of the `with` block and on its thread; got none, so nothing was ablated"
            )
        for layer in {layer for row in self._rows for layer in row} - self._met:
            wanted = f"layers from 0 to {len(self.numbers) - 1}, or names of attention modules that ran"
            raise ArgumentError(complaint("heads", wanted=wanted, got=f"layer {layer!r}"))


def _of_first_element(place: Place, scoring: Scoring) -> Scoring:
    query, key = scoring.query, scoring.key
    if query.dim() != 4 or query.shape[0] != key.shape[0]:
        raise UnsupportedModelError(f"{place.name}: its batch elements cannot be told apart")
    return scoring._replace(query=query[:1].expand_as(query), key=key[:1].expand_as(key))


def _refuse_cache(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a call that reads and writes a cache: two passes would write into it twice."""
    given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    given |= given.get("kwargs", {})
    for name, value in given.items():
        if isinstance(value, Cache) or ("past_key_value" in name and value is not None):
            raise ArgumentError(
                complaint(
                    "kind",
                    wanted='"zero" or "mean" where the model continues a cache',
                    got=f'"pattern", and a model that is given {name}',
                    way_out="call it without a cache; generate with use_cache=False",
                )
            )


def module_of(model: LanguageModel | nn.Module) -> nn.Module:
    """Return the module itself, if it is one whose attention can be changed."""
    module = checked_model(model.model if isinstance(model, LanguageModel) else model)
    for name, part in module.named_modules():
        if hasattr(part, "_orig_mod") or isinstance(part, torch.jit.ScriptModule):
            raise UnsupportedModelError(
                f"{name}: is compiled, so what it computes cannot be changed; use what it was made from"
            )
    return module
