"""As many prompts of a kind as are wanted, the same ones for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from types import MappingProxyType

from attlas.errors import ArgumentError, complaint
from attlas.explain.prompts import agreement, facts, indirect_objects, sentiment
from attlas.explain.prompts.prompt import Prompt

Maker = Callable[[Random], Prompt]

KINDS: MappingProxyType[str, Maker] = MappingProxyType(
    {module.KIND: module.asked for module in (facts, agreement, indirect_objects, sentiment)}
)
"""Kinds of prompts for models that predict the next token."""

LABELLED: MappingProxyType[str, Maker] = MappingProxyType(
    {module.KIND: module.labelled for module in (facts, agreement, sentiment)}
)
"""Kinds of texts for models that classify."""

_TRIES = 1000


def prompts(kind: str, count: int, seed: int = 0, *, labelled: bool = False) -> list[Prompt]:
    """Make prompts of a kind, no two with the same text.

    Parameters
    ----------
    kind : str
        One of `KINDS`: ``"facts"``, ``"agreement"``, ``"indirect objects"`` or ``"sentiment"``.
    count : int
        How many; from 1.
    seed : int
        What they are drawn from. Fewer prompts of the same seed are the first of more.
    labelled : bool
        Texts to be classified in the place of texts to be continued; there are none of indirect objects.

    Returns
    -------
    list of Prompt

    Raises
    ------
    ArgumentError
        There is no such kind, or not so many.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ArgumentError(complaint("count", wanted="a whole number from 1", got=repr(count)))
    made = list(islice(endless(kind, seed, labelled=labelled), count))
    if len(made) < count:
        raise ArgumentError(complaint("count", wanted=f"at most {len(made)}, as many as there are", got=count))
    return made


def endless(kind: str, seed: int = 0, *, labelled: bool = False) -> Iterator[Prompt]:
    """Yield prompts of a kind, no two with the same text, until there are no more; see `prompts`."""
    makers = LABELLED if labelled else KINDS
    if kind not in makers:
        raise ArgumentError(complaint("kind", wanted=" or ".join(map(repr, makers)), got=repr(kind)))
    random = Random(f"{kind} {seed}")  # noqa: S311 - prompts have to be the same again, not secret
    seen: set[str] = set()
    known = 0
    while known < _TRIES:
        prompt = makers[kind](random)
        if prompt.text in seen:
            known += 1
            continue
        known = 0
        seen.add(prompt.text)
        yield prompt
