"""Where a model answers: at a token of the text, over all of them, or at a token of what its decoder has said."""

from __future__ import annotations

from attlas.explain.attribution import Attribution


def answering(attribution: Attribution) -> int | None:
    """Return the token of the text at which the model answers; None if it is not one of them."""
    return None if attribution.answer else attribution.target.position


def place(attribution: Attribution) -> str:
    """Return in words where the model answers."""
    position = attribution.target.position
    if position is None:
        return "over all tokens"
    return f"at token {position:,}{' of what the decoder said' if attribution.answer else ''}"
