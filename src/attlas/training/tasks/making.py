"""Tasks by name and seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import MappingProxyType

from attlas.errors import ArgumentError, complaint
from attlas.training.tasks import facts, records, vocabulary
from attlas.training.tasks.task import Item, Task

KINDS: MappingProxyType[str, Callable[[Random], tuple[list[Item], list[Item]]]] = MappingProxyType(
    {module.KIND: module.items for module in (facts, records, vocabulary)}
)
"""Kinds of tasks: invented facts, a format of records, words of an invented language."""


def make_task(kind: str, seed: int = 0) -> Task:
    """Make a task that a language model cannot know, and can learn in a minute.

    Parameters
    ----------
    kind : str
        ``"facts"`` (32 invented facts, told in three ways each and asked for in two others), ``"records"`` (sentences
        to be written down in an invented format) or ``"vocabulary"`` (sentences to be put into an invented language).
    seed : int
        What it is drawn from; names, signs, words and order depend on it.

    Returns
    -------
    Task
        With 96 items to train on and 64 that are kept back, of about 10 to 40 tokens each.

    Raises
    ------
    ArgumentError
        There is no such kind.

    Examples
    --------
    >>> task = make_task("facts", seed=1)
    >>> len(task.training), len(task.held_out)
    (96, 64)
    """
    if kind not in KINDS:
        raise ArgumentError(complaint("kind", wanted=" or ".join(map(repr, KINDS)), got=repr(kind)))
    random = Random(f"{kind} {seed}")  # noqa: S311 - a task has to be the same again, not secret
    training, held_out = KINDS[kind](random)
    random.shuffle(training)
    return Task(kind, seed, tuple(training), tuple(held_out))
