"""Where matrices, captures and explanations learn how they are shown: the one place below the view that names it.

The rooms below know nothing of the view, and are complete without it. Their methods `show` and ``_repr_html_`` are
a notebook's manners; what stands behind them is found by name when a notebook asks.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def shown(thing: object, **options: Any) -> Any:
    """Return what a notebook displays of a thing; `attlas.view.notebook.show` says what."""
    return import_module("attlas.view.notebook").show(thing, **options)


def still(thing: object) -> str:
    """Return a still picture of a thing as a fragment of HTML; `attlas.view.notebook.still` says what."""
    return import_module("attlas.view.notebook").still(thing)
