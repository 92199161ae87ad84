"""The patterns that are tried where nobody names any."""

from __future__ import annotations

from attlas.patterns import BlockSparse, Pattern, SlidingWindow

SINKS = 4
"""First tokens that every window keeps: many heads rest on them (Xiao et al. 2023, arXiv 2309.17453)."""

WIDTHS = (32, 64, 128, 256, 512)


def default_patterns() -> tuple[Pattern, ...]:
    """Return windows from narrow to wide, and blocks that are chosen by what they hold.

    What each token keeps depends on no token after its own block, so that a loss that is measured with them is that of
    a text read token by token.
    """
    windows = (SlidingWindow(width, sinks=SINKS) for width in WIDTHS)
    return (*windows, BlockSparse(32, top=4), BlockSparse(64, top=8), BlockSparse(64, top=16))
