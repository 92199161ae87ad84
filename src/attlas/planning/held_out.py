"""Texts that a plan was made from are no test of it: how they are known again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from attlas.errors import DocumentError
from attlas.models import Document

KEY = "read"
"""Under which a result's settings keep what `mark` gave for each text."""

_DIGITS = 32


def mark(ids: Sequence[int]) -> dict[str, Any]:
    """Return what tells some tokens from all others: how many, and their hash.

    Parameters
    ----------
    ids : sequence of int
        The tokens that were read, from a text's beginning.
    """
    return {"tokens": len(ids), "sha256": _hash(" ".join(map(str, ids)))[:_DIGITS]}


def check_held_out(settings: Mapping[str, Any], documents: Sequence[Document]) -> None:
    """Refuse texts that begin with one that a plan was made from.

    Parameters
    ----------
    settings : mapping
        Of the plan's provenance. `KEY` leads to what `mark` gave for each text that it was made from, or ``"texts"`` to
        their ``"characters"`` and hashes.
    documents : sequence of Document
        What it is to be tested on.

    Raises
    ------
    DocumentError
        One of them is such a text, or goes on after it.
    """
    for number, document in enumerate(documents):
        for one in _entries(settings, KEY):
            count = one.get("tokens")
            if isinstance(count, int) and len(document) >= count and mark(document.ids[:count]) == dict(one):
                raise _refusal(number, f"{count:,} tokens")
        for one in _entries(settings, "texts"):
            count = one.get("characters")
            if isinstance(count, int) and len(document.text) >= count and _hash(document.text[:count]) == one["sha256"]:
                raise _refusal(number, f"{count:,} characters")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _entries(settings: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    given = settings.get(name)
    entries = given if isinstance(given, list | tuple) else ()
    return [one for one in entries if isinstance(one, Mapping) and isinstance(one.get("sha256"), str)]


def _refusal(number: int, part: str) -> DocumentError:
    return DocumentError(
        f"texts: wanted texts that the plan was not made from, got one, text {number + 1}, whose first {part} it was "
        "made from; a plan can only be judged by others"
    )
