"""Captures, matrices and explanations in Jupyter and VS Code: a still picture everywhere, and a page to look around in.

`show` is behind the methods of the same name, and `still` behind their ``_repr_html_``.
"""

from __future__ import annotations

from typing import Any

from attlas.capture import Capture
from attlas.errors import ArgumentError, complaint
from attlas.explain.attribution import Attribution
from attlas.matrix import AttentionMatrix
from attlas.view.notebook.framed import Framed
from attlas.view.notebook.stills import capture_still, matrix_still

__all__ = ["show", "still"]


def show(thing: Capture | AttentionMatrix | Attribution, **options: Any) -> Any:
    """Return what a notebook displays as a page to look around in.

    Parameters
    ----------
    thing : Capture, AttentionMatrix or Attribution
    **options
        Those of the method of the same name.

    Returns
    -------
    object
        A widget; of an explanation, its page in a frame.

    Raises
    ------
    MissingPackageError
        Widgets need the package anywidget.
    """
    if isinstance(thing, Attribution):
        return Framed.of(thing, **options)
    # Only here: whoever looks at stills alone needs no widgets.
    from attlas.view.notebook.showing import capture_widget, matrix_widget

    if isinstance(thing, Capture):
        return capture_widget(thing, **options)
    if isinstance(thing, AttentionMatrix):
        return matrix_widget(thing, **options)
    wanted = "a Capture, an AttentionMatrix or an Attribution"
    raise ArgumentError(complaint("show", wanted=wanted, got=f"a {type(thing).__name__}"))


def still(thing: Capture | AttentionMatrix) -> str:
    """Return a still picture as a fragment of HTML, without any script and of bounded size."""
    return capture_still(thing) if isinstance(thing, Capture) else matrix_still(thing)
