"""Pictures of a capture and of a model's projections: pages for a browser, images, tables."""

from attlas.view.atlas import AtlasFiles, write_atlas
from attlas.view.cards import Cards
from attlas.view.collecting import cards_of, projections_html

__all__ = ["AtlasFiles", "Cards", "cards_of", "projections_html", "write_atlas"]
