"""Opens what a notebook shows: a capture with its document and model, or one matrix by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attlas import __version__
from attlas.capture import Capture, LanguageModel
from attlas.errors import ArgumentError, CaptureError, complaint
from attlas.matrix import AttentionMatrix
from attlas.results import Provenance
from attlas.view.desk_captures import Exhibit
from attlas.view.notebook.asking import Asking
from attlas.view.notebook.framed import check_height
from attlas.view.notebook.stills import capture_still, matrix_still
from attlas.view.notebook.widget import widget
from attlas.view.opening import open_desk

if TYPE_CHECKING:
    from attlas.capture.layer import Layer


def capture_widget(
    capture: Capture,
    *,
    model: LanguageModel | None = None,
    title: str = "",
    height: int = 720,
    still: Callable[[], str] | None = None,
) -> Any:
    """Return a widget that shows a capture; `Capture.show` says what the options are.

    Where there are no widgets, `still` stands in its place, by default the capture's own.
    """
    check_height(height)
    if not len(capture):
        raise CaptureError("the capture is empty: call the model inside of the `with` block first")
    if model is not None and not isinstance(model, LanguageModel):
        wanted = "what attlas.load returned"
        raise ArgumentError(complaint("model", wanted=wanted, got=f"a {type(model).__name__}"))
    named = title or ("a document" if capture.text is not None else "a run")
    exhibit = Exhibit(capture, named, model=model)
    return widget(partial(Asking, partial(open_desk, [exhibit])), height, still or partial(capture_still, capture))


def matrix_widget(
    matrix: AttentionMatrix, *, tokens: Sequence[str] | None = None, title: str = "", height: int = 720
) -> Any:
    """Return a widget that shows a matrix; `AttentionMatrix.show` says what the options are."""
    if tokens is not None and (isinstance(tokens, str) or len(tokens) != matrix.shape[3]):
        wanted = f"a text for each of the {matrix.shape[3]} keys"
        raise ArgumentError(complaint("tokens", wanted=wanted, got=f"{len(tokens)} of them"))
    still = partial(matrix_still, matrix)
    return capture_widget(alone(matrix, tokens), title=title or "a matrix", height=height, still=still)


def alone(matrix: AttentionMatrix, tokens: Sequence[str] | None = None) -> Capture:
    """Return a matrix as a capture of one layer, which has no run that it could be compared with."""
    provenance = Provenance(__version__, "AttentionMatrix", "", {})
    return Capture({0: [_Given(matrix)]}, provenance=provenance, tokens=None if tokens is None else list(tokens))


class _Given:
    """Stands in for a captured layer: what the view asks of one is its matrix and its name."""

    def __init__(self, matrix: AttentionMatrix) -> None:
        self.matrix = matrix
        self.name = "matrix"
        self.nbytes = matrix.nbytes

    def layer(self) -> Layer:
        return self  # pyright: ignore[reportReturnType] - it is no layer: nothing ran that could prove it
