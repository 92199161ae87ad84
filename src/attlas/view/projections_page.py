"""The page of projections: what each head's weights can do, and which heads feed which, for a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attlas import __version__
from attlas.results import Provenance
from attlas.view.cards import Cards, visible_words
from attlas.view.standalone import standalone, visible_title

_STYLES = ("common.css", "cards.css", "sections.css", "projections.css")
_SCRIPTS = ("common.js", "cards.js", "figures.js", "projections_graph.js", "projections_heads.js", "projections.js")


@dataclass(frozen=True)
class ProjectionFacts:
    """What stands above the figures.

    Parameters
    ----------
    layers, heads, kv_heads, dim, width : int
        How many; the width of a head and of the model.
    parameters : mapping
        ``query``, ``key``, ``value``, ``output`` and ``other`` -> how many parameters.
    """

    layers: int
    heads: int
    kv_heads: int
    dim: int
    width: int
    parameters: Mapping[str, int]


def projections_page(
    cards: Cards,
    facts: ProjectionFacts,
    provenance: Provenance,
    *,
    error: float | None = None,
    modules: Sequence[str] | None = None,
) -> str:
    """Return the page as one HTML document.

    Parameters
    ----------
    cards : Cards
        What is known of the heads.
    facts : ProjectionFacts
        What stands above the figures.
    provenance : Provenance
        Which model it is.
    error : float, optional
        The worst relative error that `Projections.verify` found; shown in the header.
    modules : sequence of str, optional
        Each head's attention module.
    """
    content = {
        "model": visible_title(provenance.model) or "a model",
        "fingerprint": provenance.fingerprint,
        "version": __version__,
        "error": error,
        "facts": {
            "layers": facts.layers,
            "heads": facts.heads,
            "kvHeads": facts.kv_heads,
            "dim": facts.dim,
            "width": facts.width,
        },
        "parameters": [[name, int(count)] for name, count in facts.parameters.items()],
        "modules": None if modules is None else [visible_words(name) for name in modules],
        "cards": cards.content(),
    }
    title = f"Projections of {content['model']}"
    return standalone("projections.html", _STYLES, _SCRIPTS, content, title=title)
