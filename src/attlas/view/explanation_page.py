"""The page of an explanation: a text coloured by what mattered to the model, by each method, and how far each holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attlas import __version__
from attlas._agreement import spearman
from attlas._writing import write_together
from attlas.errors import ArgumentError, complaint
from attlas.explain.answering import answering, place
from attlas.explain.attribution import Attribution, Span
from attlas.explain.cautions import cautions
from attlas.explain.faithfulness.record import Faithfulness
from attlas.explain.pieces import pieces, readable
from attlas.explain.shading import ends
from attlas.explain.targets import Target
from attlas.view.cards import visible_words
from attlas.view.encoding import AGAINST, Codes, binned, packed, rounded, signed_codes
from attlas.view.standalone import standalone, visible_title

BINS = 320
"""Columns of a strip of layers, at most."""

_STYLES = ("common.css", "sections.css", "explanation.css")
_SCRIPTS = ("common.js", "explanation_text.js", "explanation_layers.js", "explanation_trust.js", "explanation.js")
_INDENTED = 0.12
"""From this share of indented lines on, a text is set like code."""


def write_explanation(
    attributions: Attribution | Sequence[Attribution], path: str | PathLike[str], *, title: str = "an explanation"
) -> Path:
    """Write the page of one or more explanations of the same text, atomically.

    Parameters
    ----------
    attributions : Attribution or sequence of Attribution
        By one or more methods, for one or more targets.
    path : path
        The file.
    title : str
        The document's name.

    Raises
    ------
    ArgumentError
        There is none, or they are of different texts.
    StoreError
        The file cannot be written.
    """
    file = Path(path)
    write_together({file: explanation_page(attributions, title=title).encode("utf-8")})
    return file


def explanation_page(attributions: Attribution | Sequence[Attribution], *, title: str = "an explanation") -> str:
    """Return the page as one HTML document.

    Parameters
    ----------
    attributions : Attribution or sequence of Attribution
        Of one text, by one or more methods, for one or more targets; the page opens with the first target and the
        method that is most faithful there.
    title : str
        The document's name; anything may stand in it.

    Raises
    ------
    ArgumentError
        There is none, or they are of different texts.
    """
    found = [attributions] if isinstance(attributions, Attribution) else list(attributions)
    _check(found)
    first = found[0]
    by_target: dict[Any, list[Attribution]] = {}
    for one in found:
        by_target.setdefault(_target_key(one.target), []).append(one)
    numbers = {key: i for i, key in enumerate(by_target)}
    codes: list[Codes] = []
    content = {
        "title": visible_title(title),
        "model": visible_title(first.provenance.model),
        "fingerprint": first.provenance.fingerprint,
        "version": __version__,
        "against": AGAINST,
        "tokens": len(first.tokens),
        **_text(first),
        "spans": _spans(first.spans, len(first.tokens)),
        "targets": [_target(same[-1]) for same in by_target.values()],
        "views": [{"target": numbers[_target_key(one.target)], **_view(one, codes)} for one in found],
        "warnings": [cautions(same) for same in by_target.values()],
        "agreement": [_agreement(same) for same in by_target.values()],
        "codes": packed(codes),
    }
    return standalone("explanation.html", _STYLES, _SCRIPTS, content, title=f"Explanation of {content['title']}")


def _check(found: Sequence[Attribution]) -> None:
    wanted = "explanations of one text, in the same spans"
    if not found:
        raise ArgumentError(complaint("attributions", wanted=wanted, got="none"))
    first = found[0]
    for one in found[1:]:
        if one.tokens != first.tokens or one.spans != first.spans:
            raise ArgumentError(
                complaint("attributions", wanted=wanted, got="several texts or spans", way_out="make a page of each")
            )


def _target_key(target: Target) -> Target:
    """Return what two targets share when they are the same: all but how their position came to be known."""
    return replace(target, settled=True)


def _target(one: Attribution) -> dict[str, Any]:
    return {
        "name": visible_words(one.target.name),
        "at": answering(one),
        "place": place(one),
        "unit": one.target.quantity,
        "value": rounded(one.value),
    }


def _text(first: Attribution) -> dict[str, Any]:
    """Return the text's pieces, and for each how many tokens it has."""
    cut = pieces(first.tokens, first.text)
    lines = [line for line in first.text.split("\n") if line.strip()]
    indented = sum(line.startswith(("  ", "\t")) for line in lines)
    return {
        "pieces": [readable(piece.text) for piece in cut],
        "counts": [piece.stop - piece.start for piece in cut],
        "added": [i for i, piece in enumerate(cut) if piece.begin == piece.end],
        "code": indented > _INDENTED * max(len(lines), 1),
    }


def _spans(spans: Sequence[Span], n: int) -> dict[str, Any] | None:
    """Return where spans begin and end; None where each token is one."""
    if [(span.start, span.stop) for span in spans] == [(i, i + 1) for i in range(n)]:
        return None
    return {"starts": [span.start for span in spans], "stops": [span.stop for span in spans]}


def _view(one: Attribution, codes: list[Codes]) -> dict[str, Any]:
    """Add an explanation's numbers, and describe it."""
    end, end_of_spans = ends(one)
    bounds = one.low is not None and one.high is not None
    tables = {
        "scores": one.scores,
        "spans": one.span_scores,
        "layers": None if one.layers is None else _strip(one.layers),
        "low": one.low if bounds else None,
        "high": one.high if bounds else None,
    }
    return {
        "name": visible_words(one.name),
        "signed": one.signed,
        "full": end,
        "fullSpan": end_of_spans,
        "tables": {name: _coded(table, codes) for name, table in tables.items() if table is not None},
        "trust": None if one.faithfulness is None else _trust(one.faithfulness, one),
        "about": _about(one),
    }


def _strip(layers: Tensor) -> Tensor:
    """Return each layer's sums over at most `BINS` bins: relevance is an amount, and `binned` gives means."""
    length = layers.shape[-1]
    bins = min(BINS, length)
    counts = (torch.arange(bins + 1) * length // bins).diff()
    return binned(layers.double(), bins) * counts


def _coded(table: Tensor, codes: list[Codes]) -> dict[str, Any]:
    """Add signed numbers; return their largest size and their shape."""
    coded, most = signed_codes(table)
    codes.append(coded)
    return {"most": most, "shape": list(table.shape)}


def _trust(found: Faithfulness, one: Attribution) -> dict[str, Any]:
    """Return what was measured of an explanation's faithfulness as plain types."""
    return {
        "verdict": found.verdict,
        "summary": visible_words(found.summary),
        "measures": [
            {
                **{name: visible_words(getattr(measured, name)) for name in ("name", "unit")},
                **{name: rounded(getattr(measured, name)) for name in ("value", "advantage", "low", "high", "p")},
                "baselines": [[visible_words(name), rounded(value)] for name, value in measured.baselines.items()],
            }
            for measured in found.measures
        ],
        "curves": [
            {
                "kind": curve.kind,
                "order": visible_words(curve.order),
                "own": curve.order in (found.method, one.name, one.method),
                **{name: [*map(rounded, getattr(curve, name))] for name in ("fractions", "values", "low", "high")},
            }
            for curve in found.curves
        ],
    }


def _about(one: Attribution) -> list[list[Any]]:
    """Return how an explanation was made: pairs of a name and words."""
    about = [["method", one.method], ["preset", one.preset]] if one.preset else [["method", one.method]]
    about += [[name, _words(value)] for name, value in one.settings.items()]
    about += [[name, _words(value)] for name, value in one.notes.items()]
    if one.faithfulness is not None:
        about += [[f"faithfulness: {name}", _words(value)] for name, value in one.faithfulness.settings.items()]
        about += [[f"faithfulness: {name}", _words(value)] for name, value in one.faithfulness.notes.items()]
        about.append(["faithfulness: forward passes", f"{one.faithfulness.passes:,}"])
    known = {"method", "preset", "target", "position", *one.settings}
    about += [[name, _words(value)] for name, value in one.provenance.settings.items() if name not in known]
    return [[visible_words(str(name).replace("_", " ")), visible_words(value)] for name, value in about]


def _words(value: Any) -> str:
    """Return a setting as people read it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    return str(value)


def _agreement(found: Sequence[Attribution]) -> list[list[float | None]]:
    """Return how alike the methods rank the tokens, each with each."""
    return [[rounded(spearman(one.scores, other.scores)) for other in found] for one in found]
