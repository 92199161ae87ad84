"""The page of a comparison: what training changed in every head's weights and attention, for a browser."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attlas import __version__
from attlas._writing import write_together
from attlas.compare import HEAD_COLUMNS, MODULE_COLUMNS, Comparison
from attlas.errors import ArgumentError, complaint
from attlas.explain.pieces import readable
from attlas.models.progress import Progress
from attlas.projections.table import Column
from attlas.view.cards import visible_words
from attlas.view.encoding import AGAINST, Codes, packed, rounded, signed_codes
from attlas.view.standalone import standalone, visible_title

MAPS = 24
"""Heads whose difference map is drawn without being told otherwise."""
SIZE = 128
"""Rows and columns of a map, at most."""

_STYLES = ("common.css", "sections.css", "comparison.css")
_SCRIPTS = (
    *("common.js", "figures.js", "comparison_heads.js", "comparison_map.js", "comparison_card.js"),
    *("comparison_text.js", "comparison_tables.js", "comparison.js"),
)
_INTRUDERS = Column(
    "intruders",
    "intruders in the layer",
    "",
    "Intruder dimensions in the weights of the head's attention layer, all heads together.",
    "Shuttleworth et al. 2024",
    "0",
)
_COLOURS = {
    "weights": ("qk_relative", "ov_relative", "qk_amplification", "ov_amplification", "intruders", "merge_loss"),
    "attention": ("moved", "own_share", "own", "upstream", "entropy_change", "distance_change"),
    "output": ("restore_estimate", "restored"),
}
"""What the grid of heads can be coloured by."""
_SIGNED = ("entropy_change", "distance_change", "restore_estimate", "restored", "gained_by", "lost_by")
_OF_WEIGHTS = ("qk_", "ov_", "query_", "key_", "value_", "output_", "bias_", "merge_", "intruders")
_OF_OUTPUT = ("restore",)


def comparison_page(
    found: Comparison, *, maps: int = MAPS, title: str | None = None, progress: Progress | None = None
) -> str:
    """Return the page as one HTML document.

    Parameters
    ----------
    found : Comparison
        What `attlas.compare` returned.
    maps : int
        For how many heads to draw what moved, those whose attention moved most and those that were put back; needs a
        comparison on a text, whose models are still there.
    title : str, optional
        The heading; the names of the two models by default.
    progress : callable, optional
        Called as ``progress(done, total, "drawing")``.

    Raises
    ------
    ArgumentError
        `maps` is no whole number from 0.

    Notes
    -----
    With maps, both models read the text once more, up to the last layer that is drawn; see `Comparison.differences`.
    A map of 128 × 128 cells and a number for each token take about 50 kB.
    """
    if isinstance(maps, bool) or not isinstance(maps, int) or maps < 0:
        raise ArgumentError(complaint("maps", wanted="a whole number from 0", got=repr(maps)))
    if progress is not None:
        progress(0, 1, "drawing")
    tuned = visible_title(Path(str(found.provenance.settings.get("tuned", ""))).name) or "a tuned model"
    base = visible_title(found.provenance.model) or "a model"
    values = _values(found)
    codes: list[Codes] = []
    content = {
        "title": visible_title(title or "") or f"What {tuned} changed in {base}",
        "base": base,
        "tuned": tuned,
        "kind": found.kind,
        "version": __version__,
        "against": AGAINST,
        "notes": [visible_words(note) for note in found.notes],
        "reasons": {name: visible_words(why) for name, why in found.reasons.items()},
        "facts": _facts(found),
        "heads": [list(head) for head in found.heads],
        "modulesOf": [visible_words(row["module"]) for row in found.rows()],
        "columns": [_column(column) for column in (*HEAD_COLUMNS, _INTRUDERS) if column.name in values],
        "colours": {
            group: [name for name in names if name in values]
            for group, names in _COLOURS.items()
            if any(name in values for name in names)
        },
        "values": values,
        "spectra": {name: _spectra(found, name) for name in ("qk", "ov")},
        "modules": _modules(found),
        "text": _text(found, maps, codes),
        "codes": packed(codes) if codes else None,
    }
    if progress is not None:
        progress(1, 1, "drawing")
    return standalone("comparison.html", _STYLES, _SCRIPTS, content, title=content["title"])


def write_comparison(
    found: Comparison,
    path: str | PathLike[str],
    *,
    maps: int = MAPS,
    title: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the page of a comparison, whole or not at all.

    Parameters
    ----------
    found : Comparison
        What `attlas.compare` returned.
    path : path
        The file; its folder is made if it is missing.
    maps, title, progress
        As for `comparison_page`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ArgumentError
        As `comparison_page`.
    StoreError
        The file cannot be written.
    """
    target = Path(path)
    write_together({target: comparison_page(found, maps=maps, title=title, progress=progress).encode("utf-8")})
    return target


def _facts(found: Comparison) -> dict[str, Any]:
    settings, moved, restored = found.provenance.settings, found.moved, found.restored
    return {
        "layers": len(found.layers),
        "heads": len(found),
        "modules": len(found.modules),
        "tokens": None if moved is None else moved.n,
        "rows": None if moved is None else len(moved.rows),
        "mergeDtype": str(settings.get("merge_dtype", "")),
        "divergence": None if restored is None else rounded(restored.divergence),
        "correlation": None if restored is None else rounded(restored.correlation),
        "window": None if restored is None else list(restored.window),
    }


def _column(column: Column) -> dict[str, Any]:
    name = column.name
    group = "weights" if name.startswith(_OF_WEIGHTS) else "output" if name.startswith(_OF_OUTPUT) else "attention"
    words = {part: visible_words(str(text)) for part, text in vars(column).items()}
    return {**words, "group": group, "signed": name in _SIGNED or name.startswith("to_")}


def _values(found: Comparison) -> dict[str, list[Any]]:
    """Return the values of each column that has any, a list a column."""
    rows, by_layer = found.rows(), _intruders(found)
    names = [column.name for column in HEAD_COLUMNS]
    values = {name: [_plain(row[name]) for row in rows] for name in names}
    values["intruders"] = [by_layer.get(row["layer"]) for row in rows]
    return {name: column for name, column in values.items() if any(value is not None for value in column)}


def _intruders(found: Comparison) -> dict[int, int]:
    """Count the intruder dimensions in each attention layer's own weights."""
    counts: dict[int, int] = {}
    for row in found.modules.rows():
        if row["role"] and row["layer"] is not None and row["intruders"] is not None:
            counts[row["layer"]] = counts.get(row["layer"], 0) + row["intruders"]
    return counts


def _spectra(found: Comparison, name: str) -> list[list[float | None]]:
    """Return the largest singular values of each head's change, as many as there are."""
    layers = {layer.layer: getattr(layer, name).singular for layer in found.layers}
    return [[rounded(float(value)) for value in layers[layer][head]] for layer, head in found.heads]


def _modules(found: Comparison) -> dict[str, Any]:
    rows = found.modules.rows()
    shown = [column for column in MODULE_COLUMNS if any(row[column.name] is not None for row in rows)]
    return {
        "columns": [
            {**{part: visible_words(str(text)) for part, text in vars(one).items()}, "label": _label(one)}
            for one in shown
        ],
        "names": [visible_words(row["module"]) for row in rows],
        "values": {column.name: [_plain(row[column.name]) for row in rows] for column in shown},
    }


def _label(column: Column) -> str:
    return column.label or ("chance" if column.name.endswith("_chance") else "nearest")


def _text(found: Comparison, maps: int, codes: list[Codes]) -> dict[str, Any] | None:
    """Return the tokens, what each gained, and maps of what moved; their numbers are added to the codes."""
    moved = found.moved
    if moved is None:
        return None
    chosen = _mapped(found, maps)
    size = min(SIZE, moved.n)
    drawn = found.differences(chosen, (size, size)) if chosen else {}
    layers = {layer.layer: layer for layer in moved.layers}
    everything = torch.cat([layer.received.double() for layer in moved.layers]).mean(0)
    received = torch.stack([everything, *(layers[layer].received[head].double() for layer, head in chosen)])
    tables: dict[str, Any] = {"received": [_coded(row, codes) for row in received]}
    tables["moved"] = [_coded(layers[layer].moved[head], codes) for layer, head in chosen]
    tables["maps"] = [_coded(drawn[head], codes) for head in chosen]
    return {
        "tokens": [readable(token) for token in moved.tokens],
        "rows": moved.rows.tolist(),
        "size": size,
        "chosen": [found.heads.index(head) for head in chosen],
        "tables": tables,
    }


def _mapped(found: Comparison, count: int) -> list[tuple[int, int]]:
    """Return the heads to draw: those that were put back come first, then those whose attention moved most."""
    put_back = [head for head in found.ranked("restored") if count] if found.restored is not None else []
    return list(dict.fromkeys([*put_back, *found.ranked("moved")]))[:count]


def _coded(table: Tensor, codes: list[Codes]) -> dict[str, Any]:
    coded, most = signed_codes(table)
    codes.append(coded)
    return {"most": most, "count": table.numel()}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return visible_words(value)
    return rounded(value) if isinstance(value, float) else value
