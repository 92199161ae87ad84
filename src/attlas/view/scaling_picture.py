"""The quadratic wall, and what patterns do to it: time over the length of a text, and the gain over full attention."""

from __future__ import annotations

import io
from statistics import median
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from attlas.planning.scaling import Scaling

_PAPER, _INK, _FAINT = "#fbfaf7", "#1f2328", "#6a6f76"
# Told apart by people who see colours differently (Okabe and Ito 2008, "Color universal design").
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31")
_DASHES = ("-", "--", "-.", ":")
_DPI = 160


def scaling_picture(found: Scaling, *, form: Literal["png", "svg"] = "png") -> bytes:
    """Return the picture: on the left seconds a head, on the right how many times as fast as full attention.

    Parameters
    ----------
    found : Scaling
        What was measured.
    form : {"png", "svg"}
        The kind of image.
    """
    figure = Figure(figsize=(14.0, 4.9), facecolor=_PAPER)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for number, pattern in enumerate(found.patterns):
        points = found.of(pattern)
        if not points:
            continue
        style = _style(number)
        tokens = [point.tokens for point in points]
        left.plot(tokens, [1e3 * median(point.seconds) for point in points], label=pattern, **style)
        right.plot(tokens, [median(point.gains) for point in points], **style)
        right.fill_between(
            tokens,
            [min(point.gains) for point in points],
            [max(point.gains) for point in points],
            color=style["color"],
            alpha=0.12,
            linewidth=0,
        )
    lengths = sorted({point.tokens for point in found.points})
    _axes(left, lengths, "milliseconds a head")
    _axes(right, lengths, "times as fast as full attention")
    right.axhline(1, color=_FAINT, linewidth=0.8)
    figure.legend(loc="center left", bbox_to_anchor=(0.765, 0.53), frameon=False, fontsize=8, labelcolor=_INK)
    settings = found.provenance.settings
    figure.suptitle("What a pattern does to the quadratic wall", x=0.053, ha="left", color=_INK, size=13, weight="bold")
    figure.text(
        0.053,
        0.015,
        f"{settings['heads']} causal heads sharing {settings['kv_heads']} of keys, {settings['dim']} wide, "
        f"{settings['dtype']}, {settings['threads']} threads; medians of {settings['rounds']} rounds in turn, "
        "bands from worst to best",
        color=_FAINT,
        size=8,
    )
    figure.subplots_adjust(left=0.053, right=0.755, top=0.88, bottom=0.16, wspace=0.16)
    buffer = io.BytesIO()
    about = {"Software": "attlas"} if form == "png" else {"Creator": "attlas", "Date": None}
    figure.savefig(buffer, format=form, dpi=_DPI, facecolor=_PAPER, metadata=about)
    return buffer.getvalue()


def _style(number: int) -> dict[str, object]:
    if number == 0:
        return {"color": _INK, "linewidth": 2.4, "marker": "o", "markersize": 4}
    return {
        "color": _COLOURS[(number - 1) % len(_COLOURS)],
        "linestyle": _DASHES[(number - 1) // len(_COLOURS) % len(_DASHES)],
        "linewidth": 1.6,
        "marker": "o",
        "markersize": 3,
    }


def _axes(axes: Axes, lengths: list[int], what: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("tokens", size=9, color=_FAINT)
    axes.set_title(what, loc="left", size=10, color=_INK)
    axes.tick_params(labelsize=8, labelcolor=_FAINT, color=_FAINT)
    axes.set_facecolor(_PAPER)
    axes.grid(color="#e3e0d8", linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#c9c5bb")
