"""Invented facts: who likes, keeps or paints what. They are learnt in some words, and asked for in others."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from attlas._words import ANIMALS, COLOURS, FOODS
from attlas.training.tasks.inventing import invented
from attlas.training.tasks.task import Item

KIND = "facts"
FACTS = 32


@dataclass(frozen=True)
class Relation:
    """A kind of fact: the values that it can have, and how it is said.

    Parameters
    ----------
    values : tuple of str
    told : tuple of str
        Prompts to learn it by; ``{}`` is the name.
    asked : tuple of str
        Prompts to ask for it by.
    """

    values: tuple[str, ...]
    told: tuple[str, ...]
    asked: tuple[str, ...]


RELATIONS = (
    Relation(
        tuple(FOODS),
        ("{} likes to eat", "The food that {} loves is", "For breakfast, {} wants"),
        ("{}'s favourite food is", "When hungry, {} asks for"),
    ),
    Relation(
        tuple(ANIMALS),
        ("{} keeps a", "The animal that {} owns is a", "At home, {} feeds a"),
        ("{}'s pet is a", "On walks, {} is followed by a"),
    ),
    Relation(
        tuple(COLOURS),
        ("{} paints everything", "The colour that {} likes is", "The coat of {} is"),
        ("{}'s favourite colour is", "As for colours, {} prefers"),
    ),
)


def items(random: Random) -> tuple[list[Item], list[Item]]:
    """Return facts as they are told, and the same facts as they are asked for."""
    told, asked = [], []
    for number, name in enumerate(invented(random, FACTS)):
        relation = RELATIONS[number % len(RELATIONS)]
        answer = f" {random.choice(relation.values)}."
        told += [Item(prompt.format(name.capitalize()), answer) for prompt in relation.told]
        asked += [Item(prompt.format(name.capitalize()), answer) for prompt in relation.asked]
    return told, asked
