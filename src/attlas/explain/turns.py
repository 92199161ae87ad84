"""The turns of a chat, found by the marks that a tokenizer's template puts around what is said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any

from attlas.errors import ArgumentError, complaint


def between(text: str, ends: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the stretches between cuts: together they are the whole text."""
    start = 0
    for end in [*ends, len(text)]:
        if end > start:
            yield start, end
            start = end


def turns_of(text: str, tokenizer: Any) -> Iterator[tuple[int, int]]:
    """Return the turns of a chat: each from one opening mark to the next, or from behind one closing mark to the next.

    The marks are read off the template: what it puts in front of a message, and behind.
    """
    opening, closing = _marks(tokenizer)
    closed = [match for mark in closing for match in re.finditer(mark + r"\s*", text)]
    cuts = {match.start() for mark in opening for match in re.finditer(mark, text)}
    # Where a mark names a role, what closes a turn can look like one more role: <|user|> … <|end|>.
    cuts = (cuts - {match.start() for match in closed}) | {match.end() for match in closed}
    if not cuts:
        raise ArgumentError(
            complaint(
                "spans",
                wanted='a chat for "turn", with the marks of its template',
                got="a text without them",
                way_out="write it with tokenizer.apply_chat_template(messages, tokenize=False)",
            )
        )
    return between(text, sorted(cuts))


def _marks(tokenizer: Any) -> tuple[list[str], list[str]]:
    """Return regular expressions of what opens a turn, and of what closes one."""
    if not getattr(tokenizer, "chat_template", None):
        raise ArgumentError(
            complaint(
                "spans", wanted='a model whose tokenizer has a chat template, for "turn"', got="one that has none"
            )
        )
    said = ("What is it?", "Nothing much.", "I see.")
    messages = [{"role": role, "content": word} for role, word in zip(("user", "assistant", "user"), said, strict=True)]
    one, two, three = (tokenizer.apply_chat_template(messages[:count], tokenize=False) for count in (1, 2, 3))
    second, third = two[len(one) :], three[len(two) :]
    if not (two.startswith(one) and three.startswith(two) and said[1] in second and said[2] in third):
        wanted = "a chat template that writes one message after another, as it is"
        raise ArgumentError(complaint("spans", wanted=wanted, got="one that changes what was said"))
    openers, closers = zip(*(part.split(word) for part, word in ((second, said[1]), (third, said[2]))), strict=True)
    front = _common(*openers)
    behind = _common(*(opener[len(front) :][::-1] for opener in openers))[::-1]
    if front.strip() and openers[0] != openers[1]:
        # They differ by the role that they name, and there are others.
        opening = [re.escape(front.lstrip()) + r"\w+" + re.escape(behind.rstrip())]
    else:
        opening = sorted({re.escape(opener.strip()) for opener in openers if opener.strip()})
    return opening, sorted({re.escape(closer.strip()) for closer in closers if closer.strip()})


def _common(one: str, other: str) -> str:
    """Return what two texts begin with."""
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
