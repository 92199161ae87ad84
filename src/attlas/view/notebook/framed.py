"""An explanation's page inside of a notebook: whole, in a frame of its own that can reach nothing outside."""

from __future__ import annotations

import html
from dataclasses import dataclass

from attlas.errors import ArgumentError, complaint
from attlas.explain.attribution import Attribution
from attlas.view.explanation_page import explanation_page

LOWEST, HIGHEST = 120, 4000


@dataclass(frozen=True, repr=False)
class Framed:
    """A page that a notebook displays.

    Parameters
    ----------
    page : str
        An HTML document that needs nothing from outside.
    height : int
        How high the frame is, in pixels.
    title : str
        What it is called for those who do not see it.
    """

    page: str
    height: int
    title: str

    @classmethod
    def of(cls, attribution: Attribution, *, height: int = 640, title: str = "an explanation") -> Framed:
        """Return the page of an explanation.

        Raises
        ------
        ArgumentError
            The height does not fit a screen.
        """
        check_height(height)
        return cls(explanation_page(attribution, title=title), height, f"{attribution.name}, {attribution.target.name}")

    def __repr__(self) -> str:
        return f"Framed({self.title}, {len(self.page) / 1000:,.0f} kB of HTML; display it in a notebook)"

    def _repr_html_(self) -> str:
        page, title = (html.escape(text, quote=True) for text in (self.page, self.title))
        # Scripts may run, but as those of a stranger: not with the notebook's own rights.
        return (
            f'<iframe title="{title}" sandbox="allow-scripts" srcdoc="{page}" loading="lazy" '
            f'style="width:100%;height:{self.height}px;border:1px solid rgba(128,128,128,.4)"></iframe>'
        )


def check_height(height: int) -> None:
    """Raise `ArgumentError` unless a height in pixels fits a screen."""
    if isinstance(height, bool) or not isinstance(height, int) or not LOWEST <= height <= HIGHEST:
        raise ArgumentError(complaint("height", wanted=f"pixels, {LOWEST} to {HIGHEST}", got=repr(height)))
