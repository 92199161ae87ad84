"""Which layers can feed which: earlier ones that write the stream which a later one reads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attlas.errors import UnsupportedModelError, complaint


def fed(layers: Sequence[Any], across: bool) -> Tensor:
    """Return which layer (row) can feed which (column), (layer, layer), bool.

    Parameters
    ----------
    layers : sequence of LayerProjections
        In the order in which they run.
    across : bool
        Whether it is about keys or values, which cross-attention takes from another stack than its own.
    """
    found = torch.zeros(len(layers), len(layers), dtype=torch.bool)
    for (i, source), (j, target) in itertools.combinations(enumerate(layers), 2):
        other_stack = _stack(source.name) != _stack(target.name)
        found[i, j] = other_stack is (across and target.kind == "cross")
    return found


def common_width(layers: Sequence[Any], pairs: Tensor, read: str) -> int:
    """Return the width of the stream that all layers share which feed each other.

    Parameters
    ----------
    layers : sequence of LayerProjections
        All of them.
    pairs : Tensor, (layer, layer), bool
        Which feed each other.
    read : str
        What reads: "query", "key" or "value".

    Raises
    ------
    UnsupportedModelError
        There are several widths.
    """
    width = layers[0].output.shape[-1]
    for i, j in pairs.nonzero().tolist():
        for layer, has in ((layers[i], layers[i].output.shape[-1]), (layers[j], getattr(layers[j], read).shape[1])):
            if has != width:
                wanted = f"one stream of width {width} for all layers"
                got = f"{has} at layer {layer.layer} ({layer.name})"
                way_out = "ask for the projections of layers of one width, with layers=[...]"
                raise UnsupportedModelError(complaint("composition", wanted=wanted, got=got, way_out=way_out))
    return width


def _stack(name: str) -> str:
    """Return where a module's stack of layers is: the part of its name before the first number, or nothing."""
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0]]) if numbers else ""
