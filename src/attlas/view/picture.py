"""The atlas as one image: the grid of all layers and heads, coloured by lift."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attlas.heads import HeadStatistics, LayerStatistics
from attlas.view.colours import colour_table
from attlas.view.glyphs import visible

REACH = 7
"""Lift is shown from 2 ** -REACH to 2 ** REACH."""

_PAPER, _INK, _FAINT = "#fbfaf7", "#1f2328", "#6a6f76"
_GAP = 0.08  # of a cell's width, between cells
_DPI = 160


def picture(statistics: HeadStatistics, *, title: str) -> bytes:
    """Return a PNG image: layers from left to right and heads from top to bottom, or the other way if that fits better.

    Parameters
    ----------
    statistics : HeadStatistics
        What to show.
    title : str
        The document's name.
    """
    layers = statistics.layers
    heads = sorted({head for layer in layers for head in layer.heads})
    across = len(layers) >= len(heads)
    n_cols, n_rows = (len(layers), len(heads)) if across else (len(heads), len(layers))
    cell = min(0.75, max(0.22, 13.5 / n_cols))  # inches
    width, height = n_cols * cell, n_rows * cell
    left, right, top, bottom = 0.62, 0.22, 0.95, 0.72
    figure = Figure(figsize=(max(width, 5.2) + left + right, height + top + bottom), facecolor=_PAPER)
    FigureCanvasAgg(figure)
    full_width, full_height = figure.get_size_inches()
    axes = figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))
    axes.imshow(_grid(layers, heads, across, cell), extent=(0, n_cols, n_rows, 0), aspect="auto", interpolation="none")
    numbers = [layer.layer for layer in layers]
    _label(
        axes,
        numbers if across else heads,
        heads if across else numbers,
        ("layer", "head") if across else ("head", "layer"),
    )

    def inches(y: float) -> float:
        return 1 - y / full_height

    x = left / full_width
    tokens = "" if statistics.tokens is None else f" · {len(statistics.tokens):,} tokens"
    figure.text(
        x,
        inches(0.27),
        visible(title).replace("·", " "),
        color=_INK,
        size=13,
        weight="bold",
        va="center",
        parse_math=False,
    )
    line = f"{visible(statistics.provenance.model)} · {len(layers)} layers × {len(heads)} heads{tokens}"
    figure.text(x, inches(0.5), line, color=_FAINT, size=8.5, va="center", parse_math=False)
    _legend(figure, left, full_width, full_height)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor=_PAPER, metadata={"Software": "attlas"})
    return buffer.getvalue()


def _grid(layers: tuple[LayerStatistics, ...], heads: list[int], across: bool, cell: float) -> NDArray[np.uint8]:
    """Paint all maps into one image."""
    inner = max(16, round(cell * _DPI * (1 - _GAP)))
    pitch = max(inner + 1, round(cell * _DPI))
    shape = (len(heads), len(layers)) if across else (len(layers), len(heads))
    paper = np.array([int(_PAPER[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)
    image = np.tile(paper, (shape[0] * pitch, shape[1] * pitch, 1))
    colours = colour_table("lift-light")
    for i, layer in enumerate(layers):
        painted = _painted(layer, inner, colours, paper)
        for head, tile in zip(layer.heads, painted, strict=True):
            row, col = (heads.index(head), i) if across else (i, heads.index(head))
            y, x = row * pitch + (pitch - inner) // 2, col * pitch + (pitch - inner) // 2
            image[y : y + inner, x : x + inner] = tile
    return image


def _painted(
    layer: LayerStatistics, size: int, colours: NDArray[np.uint8], paper: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return each head's map in colours; (head, size, size, 3)."""
    mean, even = (_resized(maps, size) for maps in (layer.mean, layer.even_mean))
    seen = (even > 0).expand_as(mean).numpy()
    lift = (mean.clamp(min=1e-30) / even.clamp(min=1e-30)).log2().clamp(-REACH, REACH).numpy()
    index = np.round((lift / REACH + 1) / 2 * (len(colours) - 1)).astype(np.int64)
    return np.where(seen[..., None], colours[index], paper)


def _resized(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Shrink by averaging; enlarge by repeating."""
    if max(maps.shape[-2:]) > size:
        target = (min(size, maps.shape[-2]), min(size, maps.shape[-1]))
        maps = torch.nn.functional.adaptive_avg_pool2d(maps.unsqueeze(0), target)[0]
    rows, cols = (torch.arange(size) * s // size for s in maps.shape[-2:])
    return maps[:, rows][:, :, cols]


def _label(axes: Axes, across: list[int], down: list[int], names: tuple[str, str]) -> None:
    step_x, step_y = (max(1, math.ceil(len(numbers) / 40)) for numbers in (across, down))
    axes.set_xticks([i + 0.5 for i in range(0, len(across), step_x)], [str(n) for n in across[::step_x]])
    axes.set_yticks([i + 0.5 for i in range(0, len(down), step_y)], [str(n) for n in down[::step_y]])
    axes.tick_params(length=0, labelsize=7, labelcolor=_FAINT, labeltop=True, labelbottom=False, pad=2)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(f"{names[0]} →", loc="left", size=7.5, color=_FAINT, labelpad=3)
    axes.set_ylabel(f"← {names[1]}", loc="top", size=7.5, color=_FAINT, labelpad=4)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _legend(figure: Figure, left: float, width: float, height: float) -> None:
    bar = figure.add_axes((left / width, 0.4 / height, 1.9 / width, 0.11 / height))
    table = colour_table("lift-light")
    bar.imshow(table[None], extent=(-REACH, REACH, 0, 1), aspect="auto")
    ticks = [-REACH, -3, 0, 3, REACH]
    bar.set_xticks(ticks, [f"1/{2**-t}" if t < 0 else f"{2**t}×" for t in ticks])
    bar.set_yticks([])
    bar.tick_params(length=0, labelsize=7, labelcolor=_FAINT, pad=2)
    for spine in bar.spines.values():
        spine.set_visible(False)
    meaning = (
        "lift: attention over what an even spread over the visible keys would give\nrows are queries, columns are keys"
    )
    figure.text((left + 2.15) / width, 0.44 / height, meaning, size=7, color=_FAINT, va="center", linespacing=1.35)
