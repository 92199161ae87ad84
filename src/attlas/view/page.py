"""The page of an atlas: every head's map and numbers, for a browser."""

from __future__ import annotations

import base64
from typing import Any

from attlas import __version__
from attlas.heads import STATISTICS, HeadStatistics, LayerStatistics
from attlas.view.cards import Cards
from attlas.view.colours import NAMES, colour_table
from attlas.view.encoding import Codes, binned, map_codes, packed, share_codes, to_codes
from attlas.view.glyphs import visible
from attlas.view.standalone import standalone, visible_title

_STYLES = ("common.css", "cards.css", "atlas.css")
_SCRIPTS = ("common.js", "cards.js", "atlas_maps.js", "atlas_grid.js", "atlas_head.js", "atlas.js")


def page(statistics: HeadStatistics, *, title: str, error: float | None = None, cards: Cards | None = None) -> str:
    """Return the atlas as one HTML document.

    Parameters
    ----------
    statistics : HeadStatistics
        What to show.
    title : str
        The document's name.
    error : float, optional
        The worst relative error that `Capture.verify` found; shown in the header.
    cards : Cards, optional
        What else is known of the heads: their roles, their projections.
    """
    content = _content(statistics, title, error)
    if cards is not None:
        content["cards"] = cards.content()
    return standalone("atlas.html", _STYLES, _SCRIPTS, content, title=title)


def _content(statistics: HeadStatistics, title: str, error: float | None) -> dict[str, Any]:
    codes: list[Codes] = []
    evens: dict[int, int] = {}
    spreads: list[dict[str, Any]] = []
    for layer in statistics.layers:
        if id(layer.even_mean) not in evens:
            evens[id(layer.even_mean)] = len(spreads)
            spreads.append(_spread(layer, codes))
    layers = [{**_layer(statistics, layer, codes), "even": evens[id(layer.even_mean)]} for layer in statistics.layers]
    return {
        "title": visible_title(title),
        "model": visible_title(statistics.provenance.model),
        "fingerprint": statistics.provenance.fingerprint,
        "version": __version__,
        "error": error,
        "tokens": None if statistics.tokens is None else [visible(token) for token in statistics.tokens],
        "statistics": [vars(statistic) for statistic in STATISTICS],
        "colours": {name: base64.b64encode(colour_table(name).tobytes()).decode("ascii") for name in NAMES},
        "spreads": spreads,
        "layers": layers,
        "codes": packed(codes),
    }


def _spread(layer: LayerStatistics, codes: list[Codes]) -> dict[str, Any]:
    """Add an even spread's maps and tracks, and describe them."""
    codes += map_codes(layer.even_mean, layer.even_peak)
    heads, rows, cols = layer.even_mean.shape
    tracks = _tracks(layer.even_received, layer.even_entropy, layer.even_distance, (rows, cols), layer.shape, codes)
    return {"heads": heads, "rows": rows, "cols": cols, **tracks}


def _layer(statistics: HeadStatistics, layer: LayerStatistics, codes: list[Codes]) -> dict[str, Any]:
    """Add a layer's maps and tracks, and describe them."""
    codes += map_codes(layer.mean, layer.peak)
    _, rows, cols = layer.mean.shape
    tracks = _tracks(layer.received, layer.entropy, layer.distance, (rows, cols), layer.shape, codes)
    queries, keys = statistics.axes(layer)
    return {
        "layer": layer.layer,
        "name": visible(layer.name),
        "heads": list(layer.heads),
        "queries": layer.shape[0],
        "keys": layer.shape[1],
        "rows": rows,
        "cols": cols,
        **tracks,
        "namedQueries": queries is not None,
        "namedKeys": keys is not None,
        "topKey": layer.top_key.tolist(),
        "values": {name: _rounded(value.tolist()) for name, value in layer.values.items()},
        "evenValues": {name: _rounded(value.tolist()) for name, value in layer.even.items()},
    }


def _tracks(
    received: Any, entropy: Any, distance: Any, size: tuple[int, int], shape: tuple[int, int], codes: list[Codes]
) -> dict[str, Any]:
    """Add the tracks along both axes: at most two bins a cell of the map."""
    bins = [min(2 * s, n) for s, n in zip(size, shape, strict=True)]
    entropies, distances = binned(entropy, bins[0]), binned(distance, bins[0])
    most = [max(float(track.max()), 1e-9) for track in (entropies, distances)]
    codes += [
        to_codes(binned(received, bins[1]) / shape[0]),
        share_codes(entropies, most[0]),
        share_codes(distances, most[1]),
    ]
    return {"bins": bins, "largest": most}


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
