"""Pictures of captures, projections, explanations and comparisons: pages for a browser, images, tables."""

from attlas.view.atlas import AtlasFiles, write_atlas
from attlas.view.cards import Cards
from attlas.view.collecting import cards_of, projections_html
from attlas.view.comparison_page import comparison_page, write_comparison
from attlas.view.explanation_page import explanation_page, write_explanation

__all__ = [
    "AtlasFiles",
    "Cards",
    "cards_of",
    "comparison_page",
    "explanation_page",
    "projections_html",
    "write_atlas",
    "write_comparison",
    "write_explanation",
]
