"""Still pictures for notebooks: a few facts and a few small maps, without any script, the same on every service.

A picture must not take long, whatever the length of the text: it is made of a few rows of a few heads, and each row is
exact. A cell shows the lift of a stretch of keys in one row: its attention over what an even spread would give.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attlas.capture import Capture
from attlas.matrix import AttentionMatrix
from attlas.matrix.scores import HIDDEN, LOG2E, Scores
from attlas.view.colours import colour_table
from attlas.view.glyphs import visible
from attlas.view.picture import REACH
from attlas.view.png import data_address

CELLS = 48
"""Rows and columns of a map, at most."""

LAYERS, HEADS = 4, 3
"""Of a capture, so many heads of so many layers are drawn."""

MATRIX_HEADS = 8
"""Heads of a single matrix that are drawn."""

ENTRIES = 2**23
"""Entries that a still may compute: of a long text it shows fewer heads, so that no text takes longer than a moment."""

_WORDS = 160  # characters of the text that are quoted
_WIDE = 96  # pixels of a map
_BOX = "font-family:system-ui,sans-serif;font-size:13px;line-height:1.45;max-width:72em"
_TABLE = "border-collapse:collapse;color:inherit;font-size:inherit"
_FIGURE = "display:inline-block;margin:0 10px 8px 0;text-align:center;font-size:11px;opacity:.85"
_PICTURE = (
    f"display:block;width:{_WIDE}px;height:{_WIDE}px;image-rendering:pixelated;border:1px solid rgba(128,128,128,.4)"
)


def capture_still(capture: Capture) -> str:
    """Return a capture as a fragment of HTML: what was read, how large it is, and some of its heads."""
    layers = capture.layers
    if not layers:
        return _box(f"<b>Capture</b>, empty: {_safe(capture.provenance.model)}", [], "")
    first = capture[layers[0]]
    shapes = {tuple(matrix.shape) for matrix in capture}
    sizes = _size(first.shape) if len(shapes) == 1 else f"{len(shapes)} shapes, the first {_size(first.shape)}"
    facts = [
        ("layers", f"{len(layers)}: {layers[0]} to {layers[-1]}" if len(layers) > 1 else str(layers[0])),
        ("each", sizes),
        ("tokens", "not known" if capture.tokens is None else f"{len(capture.tokens):,}"),
        ("held", f"{capture.nbytes / 1e6:,.1f} MB, {str(first.dtype).removeprefix('torch.')}"),
    ]
    if capture.unrouted:
        facts.append(("not captured", f"{len(capture.unrouted)} modules"))
    if capture.text is not None:
        more = "…" if len(capture.text) > _WORDS else ""
        facts.append(("text", f"{_safe(capture.text[:_WORDS])}{more}"))
    maps = [
        (f"layer {number}, head {capture.heads(number)[index]}", _map(capture[number], index))
        for number in _spread(layers, LAYERS)
        for index in _spread(range(capture[number].shape[1]), _affordable(first, HEADS, LAYERS))
    ]
    return _box(f"<b>Capture</b> of {_safe(capture.provenance.model)}", facts, _maps(maps, first))


def matrix_still(matrix: AttentionMatrix) -> str:
    """Return a matrix as a fragment of HTML: its size, its rules, and some of its heads."""
    rules = matrix.visibility
    on = {
        "causal": rules.causal,
        f"window of {rules.window}": rules.window is not None,
        "mask": rules.mask is not None,
        **{name: getattr(matrix, name) is not None for name in ("bias", "softcap", "sinks")},
    }
    facts = [
        ("size", _size(matrix.shape)),
        ("rules", ", ".join(name for name, here in on.items() if here) or "none: every query sees every key"),
        ("held", f"{matrix.nbytes / 1e6:,.1f} MB, {str(matrix.dtype).removeprefix('torch.')} on {matrix.device}"),
    ]
    drawn = range(matrix.shape[1]) if math.prod(matrix.shape) else ()
    maps = [(f"[0, {index}]", _map(matrix, index)) for index in _spread(drawn, _affordable(matrix, MATRIX_HEADS))]
    return _box("<b>AttentionMatrix</b>", facts, _maps(maps, matrix))


def lifts(matrix: AttentionMatrix, head: int, rows: Tensor, bins: int) -> Tensor:
    """Return the lift of stretches of keys in some rows of one head, of the first element of the batch.

    Parameters
    ----------
    matrix : AttentionMatrix
        Its rows' sums need not be known, and are not computed.
    head : int
        Which.
    rows : Tensor, (rows,), int64
    bins : int
        How many stretches; cut as `Pool` cuts.

    Returns
    -------
    Tensor, (rows, bins), float64
        NaN where a row sees nothing of a stretch.

    Notes
    -----
    O(rows · n_key · dim).
    """
    one = matrix.narrow(slice(0, 1), slice(head, head + 1)).detached()
    n_key = one.shape[3]
    scores = Scores(one, one.accumulator).tile(rows.to(one.device), slice(0, n_key))[0, 0] / LOG2E
    seen = scores > HIDDEN / 2
    sums = scores.logsumexp(-1, keepdim=True)
    if one.sinks is not None:
        sums = torch.logaddexp(sums, one.sinks.detach().to(sums).view(1, 1))
    weights = torch.where(seen, (scores - sums).exp(), 0.0)
    edges = torch.arange(bins + 1, device=one.device) * n_key // bins
    mass, count = (
        torch.nn.functional.pad(part.double().cumsum(-1), (1, 0))[:, edges].diff(dim=-1) for part in (weights, seen)
    )
    visible_keys = seen.sum(-1, keepdim=True)
    return torch.where(count > 0, mass * visible_keys / count, torch.nan).cpu()


def _map(matrix: AttentionMatrix, head: int) -> NDArray[np.uint8]:
    """Return the map of a head in colours; (rows, cols, 4). What is hidden is transparent."""
    n_query, n_key = matrix.shape[2:]
    height, width = min(CELLS, n_query), min(CELLS, n_key)
    # The last row of each stretch of rows: it sees all that the others see.
    rows = torch.arange(1, height + 1) * n_query // height - 1
    found = lifts(matrix, head, rows, width)
    table = colour_table("lift-light")
    place = (found.clamp(min=2.0**-REACH, max=2.0**REACH).log2() / REACH + 1) / 2 * (len(table) - 1)
    hidden = found.isnan()
    index = place.nan_to_num(0.0).round().to(torch.int64).numpy()
    opacity = torch.where(hidden, 0, 255).to(torch.uint8).numpy()
    return np.concatenate([table[index], opacity[..., None]], axis=-1)


def _maps(maps: Sequence[tuple[str, NDArray[np.uint8]]], like: AttentionMatrix) -> str:
    """Return the maps side by side, and a line on how they are to be read."""
    if not maps:
        return ""
    figures = "".join(
        f'<span style="{_FIGURE}"><img alt="{_safe(name)}" src="{data_address(pixels)}" style="{_PICTURE}">'
        f"{_safe(name)}</span>"
        for name, pixels in maps
    )
    n_query = like.shape[2]
    rows = "every row" if n_query <= CELLS else f"{CELLS} of {n_query:,} rows, each exact"
    read = (
        f"Rows are queries ({rows}), columns are keys. Red: more attention than an even spread over the visible keys "
        f"would give, up to {2**REACH} times; blue: less. show() opens all of it, to be zoomed."
    )
    return f'<div style="margin-top:6px">{figures}</div><div style="opacity:.7;font-size:11px">{read}</div>'


def _box(title: str, facts: Iterable[tuple[str, str]], pictures: str) -> str:
    rows = "".join(
        f'<tr><td style="text-align:left;opacity:.7;padding:0 1em 0 0">{name}</td>'
        f'<td style="text-align:left" dir="auto">{what}</td></tr>'
        for name, what in facts
    )
    table = f'<table style="{_TABLE}">{rows}</table>' if rows else ""
    return f'<div style="{_BOX}"><div>{title}</div>{table}{pictures}</div>'


def _affordable(matrix: AttentionMatrix, heads: int, times: int = 1) -> int:
    """Return how many heads can be drawn, so many times."""
    return max(1, min(heads, ENTRIES // (times * CELLS * max(1, matrix.shape[3]))))


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """Return some of several numbers, the first and the last among them, evenly."""
    if len(numbers) <= count:
        return list(numbers)
    if count == 1:
        return [numbers[0]]
    return [numbers[i * (len(numbers) - 1) // (count - 1)] for i in range(count)]


def _size(shape: Sequence[int]) -> str:
    batch, heads, n_query, n_key = shape
    several = "" if batch == 1 else f"{batch} × "
    return f"{several}{heads} heads of {n_query:,} queries × {n_key:,} keys"


def _safe(text: str) -> str:
    """Return text in which everything can be seen and nothing is markup; spaces stay spaces."""
    return html.escape(" ".join(visible(word) for word in text.split(" ")), quote=True)
