"""What a task is: items to train on, and others of the same kind that are kept back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from attlas._writing import write_together


@dataclass(frozen=True)
class Item:
    """A prompt, and the only right way to go on.

    Parameters
    ----------
    prompt : str
        Ends without a space.
    answer : str
        Begins with a space, and ends with a sign, so that where to end can be learnt too.
    """

    prompt: str
    answer: str

    @property
    def text(self) -> str:
        """The item as one text."""
        return self.prompt + self.answer

    def example(self) -> dict[str, str]:
        """Return the item as `attlas.training.train` and its kin take it: the loss is the answer's alone."""
        return {"prompt": self.prompt, "completion": self.answer}


@dataclass(frozen=True)
class Task:
    """Something to learn, made from a seed.

    Parameters
    ----------
    kind : str
        What is learnt; one of `KINDS`.
    seed : int
        What it was drawn from: the same seed gives the same task, another one another.
    training : tuple of Item
        What may be trained on, in an order drawn from the seed.
    held_out : tuple of Item
        What it is tested by. No text of it is among the training items; everything that is needed to answer is.
    """

    kind: str
    seed: int
    training: tuple[Item, ...] = field(repr=False)
    held_out: tuple[Item, ...] = field(repr=False)

    def examples(self) -> list[dict[str, str]]:
        """Return the training items as ``{"prompt": …, "completion": …}``."""
        return [item.example() for item in self.training]

    def save(self, training: str | PathLike[str], held_out: str | PathLike[str]) -> None:
        """Write both sets as JSON lines, atomically.

        Raises
        ------
        StoreError
            A file cannot be written.
        """
        write_together({Path(training): _lines(self.training), Path(held_out): _lines(self.held_out)})


def _lines(items: tuple[Item, ...]) -> bytes:
    return "".join(json.dumps(item.example(), ensure_ascii=False) + "\n" for item in items).encode()
