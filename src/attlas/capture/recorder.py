"""Records every attention call of a running model, and knows which modules should have been heard but were not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attlas import __version__
from attlas.capture.call import Call
from attlas.capture.function_mode import AttentionMode
from attlas.capture.hearing import Place, following
from attlas.capture.interface import listening
from attlas.capture.keeping import Keeper
from attlas.capture.record import Record, Wanted
from attlas.capture.result import Capture
from attlas.capture.witness import Witness
from attlas.errors import ArgumentError, CaptureError, UnsupportedModelError, by_reason, complaint
from attlas.results import Provenance

LayerProgress = Callable[[int, str], None]
"""Called as ``progress(layers so far, name)`` after each attention call."""


class Recorder(Witness):
    """Hears the attention calls of one model on one thread; see `capture` for what its options mean."""

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Sequence[int | str] | None,
        wanted: Wanted,
        keeper: Keeper,
        unrouted: str,
        progress: LayerProgress | None,
    ) -> None:
        super().__init__(model)
        self._layers = None if layers is None else list(layers)
        self._wanted, self._keeper, self._unrouted, self._progress = wanted, keeper, unrouted, progress
        self.records: dict[int, list[Record]] = {}

    def located(self, module: nn.Module | None) -> Place:
        """Give the call its number."""
        return self.place(module)

    def heard(self, module: nn.Module | None, call: Call) -> None:
        """Take an attention call."""
        self._frames[-1].heard = True
        place = self.located(module)
        name, number = place.name, place.number
        if self._layers is not None and not {number, name} & set(self._layers):
            return
        self._check_heads(name, call)
        try:
            records = self.records.setdefault(number, [])
            if not (records and records[-1].extend(call)):
                records.append(Record(place.label, call, self._keeper, self._wanted))
        except UnsupportedModelError as error:
            self.miss(name, str(error))
        if self._progress is not None:
            self._progress(number + 1, name)

    def _check_heads(self, name: str, call: Call) -> None:
        total = call.query.shape[1]
        if self._wanted.heads is not None and max(self._wanted.heads) >= total:
            raise ArgumentError(
                complaint("heads", wanted=f"numbers from 0 to {total - 1} ({name})", got=max(self._wanted.heads))
            )

    # ---- at the end

    def check(self) -> None:
        """Prove every record on a few rows, and complain about what is missing or wrong.

        Raises
        ------
        UnsupportedModelError
            A module attends in a way that was not heard, or that was heard and does not reproduce the kernel's output.
        CaptureError
            Nothing was heard.
        ArgumentError
            A chosen layer does not exist.
        """
        for number, records in list(self.records.items()):
            reasons = [reason for record in records if (reason := record.layer().unproved())]
            if reasons:
                self.miss(records[0].name, reasons[0])
                del self.records[number]
        if self.missed and self._unrouted == "error":
            raise UnsupportedModelError(_complaint_about(self.missed))
        if not self.numbers and not self.missed:
            raise CaptureError(
                "model: wanted a call that attends, inside of the `with` block and on its thread; got none. "
                "A model without attention (Mamba, FNet) has no attention matrices"
            )
        known = {*self.numbers.values(), *(name for name, _ in self.numbers)}
        for layer in self._layers or ():
            if layer not in known and layer not in self.missed:
                raise ArgumentError(
                    complaint(
                        "layers",
                        wanted=f"numbers from 0 to {len(self.numbers) - 1}, or names of attention modules",
                        got=repr(layer),
                        way_out="capture without `layers` once and look at `cap.names`",
                    )
                )


def _complaint_about(missed: dict[str, str]) -> str:
    way_out = 'To capture what can be, pass unrouted="report"; `cap.unrouted` then names what is missing'
    return f"{by_reason(missed)}. {way_out}"


@contextmanager
def capture(
    model: nn.Module,
    layers: Sequence[int | str] | None = None,
    heads: Sequence[int] | None = None,
    values: bool = False,
    output: bool = False,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    disk: str | Path | None = None,
    unrouted: Literal["error", "report"] = "error",
    progress: LayerProgress | None = None,
) -> Iterator[Capture]:
    """Keep the attention matrices of everything that `model` computes inside the block, on this thread.

    The model runs its own kernels on its own numbers: results with and without a capture are equal to the last bit.
    (One exception: under a capture PyTorch leaves the native fast path of `torch.nn.TransformerEncoder`, which rounds
    differently.)

    Parameters
    ----------
    model : torch.nn.Module
        Any module whose attention runs through transformers' attention interface, `scaled_dot_product_attention`,
        `torch.nn.MultiheadAttention` or `attlas.nn`.
    layers : sequence of int or str, optional
        Which attention modules to keep, by number in the order of their first call, or by name; all by default.
    heads : sequence of int, optional
        Which heads of each; all by default.
    values, output : bool
        Keep the values and the attention's output too.
    device : str or torch.device
        Where to keep tensors.
    dtype : torch.dtype, optional
        What to convert them to; the model's own by default. A narrower one makes the matrix less exact, and `verify`
        says how much.
    disk : path, optional
        A folder in which to keep tensors, memory-mapped, instead of in memory. Nothing is left in it afterwards.
    unrouted : {"error", "report"}
        What to do about a module whose attention cannot be captured: raise, or list it in `Capture.unrouted`.
    progress : callable, optional
        Called as ``progress(layers so far, name)`` after each attention call.

    Yields
    ------
    Capture
        It fills as the model runs. Calls that continue a cache are stitched into one matrix; any other call of a layer
        starts a new one, and `Capture.calls` lists them all.

    Raises
    ------
    UnsupportedModelError
        On leaving: a module's attention was not captured, or what was captured does not reproduce its output.
    CaptureError
        On leaving: the block made no attention call at all.
    ArgumentError
        An option does not fit the model.

    Examples
    --------
    >>> with attlas.capture(model) as cap:  # doctest: +SKIP
    ...     model(**inputs)
    >>> cap[0].received()  # doctest: +SKIP
    """
    recorder = Recorder(
        checked_model(model),
        layers=_checked_layers(layers),
        wanted=Wanted(_checked_heads(heads), values, output),
        keeper=_checked_keeper(device, dtype, disk),
        unrouted=_checked_unrouted(unrouted),
        progress=progress,
    )
    result = Capture(recorder.records, provenance=_provenance(model, layers, heads, dtype))
    with ExitStack() as stack:
        stack.enter_context(following(model, recorder))
        stack.enter_context(listening(recorder))
        stack.enter_context(AttentionMode())
        yield result
    recorder.check()
    result.close(recorder.missed)


def checked_model(model: nn.Module) -> nn.Module:
    """Return the model if it is one whose attention can be heard at all."""
    if not isinstance(model, nn.Module):
        way_out = "pass its .model" if hasattr(model, "model") else ""
        raise ArgumentError(complaint("model", wanted="a torch.nn.Module", got=type(model).__name__, way_out=way_out))
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        raise UnsupportedModelError(
            f"model: a compiled {type(model).__name__} shows nothing of what it computes; "
            "capture the module that it was compiled from"
        )
    return model


def _checked_layers(layers: Sequence[int | str] | None) -> list[int | str] | None:
    if layers is None:
        return None
    if isinstance(layers, str | int) or not layers:
        raise ArgumentError(complaint("layers", wanted="a non-empty list of numbers or names", got=repr(layers)))
    for layer in layers:
        if isinstance(layer, bool) or not isinstance(layer, int | str) or (isinstance(layer, int) and layer < 0):
            raise ArgumentError(complaint("layers", wanted="numbers from 0, or names of modules", got=repr(layer)))
    return list(layers)


def _checked_heads(heads: Sequence[int] | None) -> list[int] | None:
    if heads is None:
        return None
    if isinstance(heads, int) or not len(heads):
        raise ArgumentError(complaint("heads", wanted="a non-empty list of numbers", got=repr(heads)))
    for head in heads:
        if isinstance(head, bool) or not isinstance(head, int) or head < 0:
            raise ArgumentError(complaint("heads", wanted="numbers from 0", got=repr(head)))
    if len(set(heads)) != len(heads):
        raise ArgumentError(complaint("heads", wanted="each head once", got=list(heads)))
    return list(heads)


def _checked_keeper(device: str | torch.device, dtype: torch.dtype | None, disk: str | Path | None) -> Keeper:
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ArgumentError(complaint("dtype", wanted="a floating-point torch.dtype", got=dtype))
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(complaint("device", wanted="a device that is here", got=repr(str(device)))) from error
    if disk is not None and place.type != "cpu":
        raise ArgumentError(complaint("device", wanted='"cpu" when `disk` is given', got=repr(str(device))))
    return Keeper(place, dtype, None if disk is None else Path(disk))


def _checked_unrouted(unrouted: str) -> str:
    if unrouted not in ("error", "report"):
        raise ArgumentError(complaint("unrouted", wanted='"error" or "report"', got=repr(unrouted)))
    return unrouted


def _provenance(
    model: nn.Module, layers: Sequence[int | str] | None, heads: Sequence[int] | None, dtype: torch.dtype | None
) -> Provenance:
    config: Any = getattr(model, "config", None)
    parameter: Tensor | None = next(model.parameters(), None)
    settings = {
        "layers": "all" if layers is None else list(layers),
        "heads": "all" if heads is None else list(heads),
        "kernel": getattr(config, "_attn_implementation", None) or "torch",
        "model_dtype": "none" if parameter is None else str(parameter.dtype).removeprefix("torch."),
        "stored_dtype": "as computed" if dtype is None else str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }
    return Provenance(__version__, type(model).__name__, "", settings)
