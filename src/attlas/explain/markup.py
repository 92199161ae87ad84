"""A coloured text as a piece of HTML for notebooks: it holds no script, and text in it is nothing but text.

Its colours are mixed with whatever ground it stands on, so that it can be read on light and on dark notebooks.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from attlas.explain.pieces import Piece, pieces, readable
from attlas.explain.shading import ends, shade

if TYPE_CHECKING:
    from attlas.explain.attribution import Attribution

SHOWN = 1500
"""How many tokens are shown at most."""

_FOR, _AGAINST = "238,126,34", "56,128,214"
_FAINT = 0.04
_BOX = "font-family:system-ui,sans-serif;font-size:14px;line-height:1.45;max-width:72em"
_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;line-height:1.75;margin:.5em 0"


def markup(attribution: Attribution) -> str:
    """Return an explanation as an HTML fragment: what is explained, how far that can be trusted, and the text.

    Parameters
    ----------
    attribution : Attribution
        Any. A long text is shown where it is most relevant: `SHOWN` consecutive tokens.
    """
    title = f"<b>{_safe(attribution.name)}</b>: why {_safe(attribution.target.name)} (value {attribution.value:.4g})"
    first, last = _window(attribution)
    cut = "" if last - first == len(attribution.tokens) else _cut(attribution, first, last)
    return (
        f'<div style="{_BOX}"><div>{title}</div><div style="opacity:.75">{_verdict(attribution)}</div>'
        f'<div dir="auto" style="{_TEXT}">{_coloured(attribution, first, last)}</div>'
        f'<div style="opacity:.75;font-size:12px">{cut}{_key(attribution)}</div></div>'
    )


def _verdict(attribution: Attribution) -> str:
    found = attribution.faithfulness
    if found is None:
        return "faithfulness: not measured"
    return f"faithfulness: {_safe(found.summary)}"


def _window(attribution: Attribution) -> tuple[int, int]:
    """Return the consecutive tokens, from and up to, that hold the most relevance, the first token not counted."""
    n = len(attribution.tokens)
    if n <= SHOWN:
        return 0, n
    sizes = attribution.scores.abs().clone()
    sizes[0] = 0
    sums = sizes.unfold(0, SHOWN, 1).sum(-1)
    first = int(sums.argmax())
    return first, first + SHOWN


def _cut(attribution: Attribution, first: int, last: int) -> str:
    sizes = attribution.scores.abs()
    share = float(sizes[first:last].sum() / sizes.sum()) if float(sizes.sum()) > 0 else 0.0
    where = f"Tokens {first:,} to {last - 1:,} of {len(attribution.tokens):,}"
    return f"{where}; {100 * share:.0f} % of all relevance is in them. "


def _coloured(attribution: Attribution, first: int, last: int) -> str:
    end, _ = ends(attribution)
    shown = [piece for piece in pieces(attribution.tokens, attribution.text) if first <= piece.start < last]
    return "".join(_piece(piece, attribution, end) for piece in shown)


def _piece(piece: Piece, attribution: Attribution, end: float) -> str:
    text = _safe(piece.text)
    score = float(attribution.scores[piece.start : piece.stop].sum())
    strength = shade(score, end)
    if abs(strength) < _FAINT:
        return text
    colour = _FOR if strength > 0 else _AGAINST
    return f'<span title="{score:.3g}" style="background:rgba({colour},{0.75 * abs(strength):.2f})">{text}</span>'


def _key(attribution: Attribution) -> str:
    end, _ = ends(attribution)
    against = f' <span style="background:rgba({_AGAINST},.75)">&nbsp;against&nbsp;</span>' if attribution.signed else ""
    return f'<span style="background:rgba({_FOR},.75)">&nbsp;for&nbsp;</span>{against} full colour from {end:.3g}'


def _safe(text: str) -> str:
    return html.escape(readable(text))
