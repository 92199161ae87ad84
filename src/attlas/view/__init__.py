"""Pictures of a capture, of a model's projections and of explanations: pages for a browser, images, tables."""

from attlas.view.atlas import AtlasFiles, write_atlas
from attlas.view.cards import Cards
from attlas.view.collecting import cards_of, projections_html
from attlas.view.explanation_page import explanation_page, write_explanation

__all__ = [
    "AtlasFiles",
    "Cards",
    "cards_of",
    "explanation_page",
    "projections_html",
    "write_atlas",
    "write_explanation",
]
