"""Pictures of a capture: one page for a browser, one image, one table."""

from attlas.view.atlas import AtlasFiles, write_atlas

__all__ = ["AtlasFiles", "write_atlas"]
