"""What a capture holds: one attention matrix a layer, where it came from, and the proof that it is the model's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from attlas._showing import shown, still
from attlas.capture.layer import Layer, kept
from attlas.errors import ArgumentError, CaptureError, complaint
from attlas.matrix import AttentionMatrix
from attlas.results import Provenance

if TYPE_CHECKING:
    from os import PathLike

    from attlas.capture.language_model import LanguageModel


class Source(Protocol):
    """Something that can give a layer as it is now."""

    def layer(self) -> Layer:
        """Return the layer."""
        ...


class Capture:
    """The attention matrices of one run.

    Made by `attlas.capture`, `LanguageModel.read` and `attlas.open_capture`. ``cap[12]`` is the matrix of layer 12,
    ``cap["name"]`` that of a
    module; ``len(cap)`` and iteration go over the layers that were kept.

    Attributes
    ----------
    tokens : list of str, optional
        The document's tokens, readable, when it is known.
    text : str, optional
        The document.
    provenance : Provenance
        How it was made.
    unrouted : dict
        Modules whose attention is not here, and why; empty unless it was captured with ``unrouted="report"``.
    """

    def __init__(
        self,
        sources: Mapping[int, Sequence[Source]],
        *,
        provenance: Provenance,
        tokens: list[str] | None = None,
        text: str | None = None,
        unrouted: Mapping[str, str] | None = None,
    ) -> None:
        self._sources = sources
        self.provenance = provenance
        self.tokens = tokens
        self.text = text
        self.unrouted = dict(unrouted or {})

    @property
    def layers(self) -> list[int]:
        """The numbers of the layers that are here, in the order of their first call."""
        return sorted(number for number, calls in self._sources.items() if calls)

    @property
    def names(self) -> list[str]:
        """The names of their modules, in the same order."""
        return [self._latest(number).name for number in self.layers]

    @property
    def nbytes(self) -> int:
        """Bytes held, all of it together."""
        return sum(source.layer().nbytes for calls in self._sources.values() for source in calls)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[AttentionMatrix]:
        return (self[number] for number in self.layers)

    def __getitem__(self, layer: int | str) -> AttentionMatrix:
        """Return a layer's matrix, by number (negative ones count from the end) or by module name."""
        return self._latest(self._number(layer)).matrix

    def calls(self, layer: int | str) -> list[AttentionMatrix]:
        """Return all matrices of a layer, oldest first: one for each call that did not continue a cache."""
        return [source.layer().matrix for source in self._sources[self._number(layer)]]

    def heads(self, layer: int | str) -> tuple[int, ...]:
        """Return the numbers of the heads of a layer that are here, in the order of its matrix."""
        chosen = self.provenance.settings.get("heads", "all")
        return tuple(range(self[layer].shape[1])) if chosen == "all" else tuple(chosen)

    def values(self, layer: int | str) -> Tensor:
        """Return a layer's values, (batch, kv_head, n_key, value_dim), if they were kept."""
        found = self._latest(self._number(layer))
        return kept(found.values, "values", "values", found.name)

    def output(self, layer: int | str) -> Tensor:
        """Return what a layer's attention gave, (batch, head, n_query, value_dim), if it was kept.

        `torch.nn.MultiheadAttention` shows only the sum of its projected heads, (batch, 1, n_query, d_model), without
        the bias.
        """
        found = self._latest(self._number(layer))
        return kept(found.output, "output", "output", found.name)

    def verify(self, rows: int | None = 64, layers: Sequence[int | str] | None = None) -> dict[int, float]:
        """Compare every matrix with what the model's own kernel gave.

        A·(V·R) is computed from what is held now, on sampled rows of all batch elements and heads, and compared with
        O·R, where R are four fixed random directions, and V and O the values and the output of the run.

        Parameters
        ----------
        rows : int, optional
            How many rows of each matrix: the first, the last and others at random. None for all of them.
        layers : sequence, optional
            Which layers; all by default.

        Returns
        -------
        dict
            For each layer the worst relative error: around 1e-6 for float32 and a few 1e-3 for bfloat16; a matrix that
            is not the model's own shows a large number.
        """
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
            raise ArgumentError(complaint("rows", wanted="a whole number from 1, or None for all rows", got=repr(rows)))
        numbers = self.layers if layers is None else [self._number(layer) for layer in layers]
        return {number: max(source.layer().error(rows)[0] for source in self._sources[number]) for number in numbers}

    def save(self, path: str | PathLike[str]) -> Path:
        """Write everything to one file, atomically: whatever happens, the old file or the new one is there, whole.

        Raises
        ------
        StoreError
            The folder cannot be written, or the disk is full.
        """
        from attlas.capture.store import save_capture

        return save_capture(self, path)

    def show(self, *, model: LanguageModel | None = None, title: str = "", height: int = 720) -> Any:
        """Look around in it, in Jupyter or VS Code: every layer and head as a map that can be zoomed.

        Parameters
        ----------
        model : LanguageModel, optional
            The model that read it: with it, chat turns, the spectra of heads and explanations are there, too.
        title : str
            What it is called.
        height : int
            Of the widget, in pixels.

        Returns
        -------
        AnyWidget
            A widget that the notebook displays.

        Raises
        ------
        MissingPackageError
            The package anywidget is not installed: ``pip install 'attlas[notebook]'``.
        """
        return shown(self, model=model, title=title, height=height)

    def of_document(self, text: str, tokens: list[str], *, model: str, fingerprint: str) -> Capture:
        """Return the same capture, knowing its document and its model."""
        provenance = replace(self.provenance, model=model, fingerprint=fingerprint)
        return Capture(self._sources, provenance=provenance, tokens=tokens, text=text, unrouted=self.unrouted)

    def close(self, unrouted: Mapping[str, str]) -> None:
        """Note what was not captured, when the run is over."""
        self.unrouted = dict(unrouted)

    def stored_layers(self) -> dict[int, list[Layer]]:
        """Return everything that is held, for each layer its calls."""
        return {number: [source.layer() for source in self._sources[number]] for number in self.layers}

    def _latest(self, number: int) -> Layer:
        return self._sources[number][-1].layer()

    def _number(self, layer: int | str) -> int:
        here = self.layers
        if not here:
            raise CaptureError("the capture is empty: call the model inside of the `with` block first")
        if isinstance(layer, str):
            found = [number for number in here if self._latest(number).name == layer]
            if not found:
                raise ArgumentError(complaint("layer", wanted=f"one of {', '.join(self.names)}", got=repr(layer)))
            return found[0]
        number = here[layer] if isinstance(layer, int) and -len(here) <= layer < 0 else layer
        if number not in here:
            span = (
                f"{here[0]} to {here[-1]}" if here == list(range(here[0], here[-1] + 1)) else ", ".join(map(str, here))
            )
            raise ArgumentError(complaint("layer", wanted=f"a captured layer ({span})", got=repr(layer)))
        return number

    def _repr_html_(self) -> str:
        """Return what a notebook shows: some facts, and some rows of some heads."""
        return still(self)

    def __repr__(self) -> str:
        if not self.layers:
            return f"Capture({self.provenance.model}, empty)"
        shapes = {tuple(matrix.shape) for matrix in self}
        shape = "×".join(map(str, shapes.pop())) if len(shapes) == 1 else "several shapes"
        return f"Capture({self.provenance.model}, {len(self)} layers of {shape}, {self.nbytes / 1e6:,.1f} MB)"
