"""Which model a plan is for, and whether another one is the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attlas.capture.asked import Asked
from attlas.capture.hearing import Place
from attlas.capture.language_model import LanguageModel, reader_of, run_on
from attlas.capture.replacing import Replacement, replacing
from attlas.errors import ArgumentError, complaint

_TOKENS = 4


@dataclass(frozen=True)
class Subject:
    """Which model a plan is for.

    Parameters
    ----------
    name : str
        What it was asked for by, or the class of a bare module.
    fingerprint : str
        A short hash of its weights and configuration; empty for a bare module.
    family : str
        transformers' name for its kind; empty if it has none.
    parameters : int
        Numbers that were learnt; shared ones count once.
    """

    name: str
    fingerprint: str
    family: str
    parameters: int

    @classmethod
    def of(cls, model: LanguageModel | nn.Module) -> Subject:
        """Describe a model."""
        if isinstance(model, LanguageModel):
            facts = model.facts
            return cls(facts.name, facts.fingerprint, facts.family, facts.parameters)
        config: Any = getattr(model, "config", None)
        family = getattr(config, "model_type", "")
        return cls(
            type(model).__name__,
            "",
            family if isinstance(family, str) else "",
            sum(parameter.numel() for parameter in model.parameters()),
        )

    def check(self, model: LanguageModel | nn.Module) -> None:
        """Refuse another model.

        Raises
        ------
        ArgumentError
            Its fingerprint, family or number of parameters is another. A bare module has no fingerprint, so of it only
            the rest is compared.
        """
        other = Subject.of(model)
        same_weights = not (self.fingerprint and other.fingerprint) or self.fingerprint == other.fingerprint
        if same_weights and (self.family, self.parameters) == (other.family, other.parameters):
            return
        raise ArgumentError(
            complaint(
                "model",
                wanted=f"the one that the plan was made for, {self}",
                got=str(other),
                way_out="load that model, or make a plan for this one",
            )
        )

    def __str__(self) -> str:
        known = [self.family, f"{self.parameters:,} parameters"]
        known += [f"fingerprint {self.fingerprint}"] if self.fingerprint else []
        return f"{self.name} ({', '.join(part for part in known if part)})"


@dataclass(frozen=True)
class Site:
    """One attention layer of a model.

    Parameters
    ----------
    label : str
        Its module's name, and which of its turns.
    heads : int
        How many query heads it has; 0 if they cannot be told.
    reason : str
        Why it cannot be routed; empty if it can.
    """

    label: str
    heads: int
    reason: str = ""


def sites_of(model: LanguageModel) -> tuple[Site, ...]:
    """Return a model's attention layers in the order of their calls, by reading four tokens.

    Of an encoder-decoder model both stacks run, the encoder first.
    """
    module, config = model.model, model.model.config
    census = _Census(module)
    ids = torch.zeros(1, _TOKENS, dtype=torch.long)
    with replacing(module, census), torch.no_grad():
        if getattr(config, "is_encoder_decoder", False):
            ids = ids.to(next(module.parameters()).device)
            module(input_ids=ids, decoder_input_ids=ids, use_cache=False)
        else:
            run_on(reader_of(module), ids)
    return tuple(
        Site(label, census.heads.get(label, 0), census.missed.get(label, "")) for label in map(_label, census.numbers)
    )


class _Census(Replacement):
    """Counts heads, and leaves every call to its kernel."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.heads: dict[str, int] = {}

    def compute(self, place: Place, asked: Asked) -> None:
        """Count the heads of a call."""
        self.heads[place.label] = asked.query.shape[1]


def numbered(labels: Sequence[str]) -> dict[tuple[str, int], int]:
    """Return the numbers of layers by module name and turn, as a run gives them."""
    numbers = {}
    for number, label in enumerate(labels):
        found = _TURN.fullmatch(label)
        name, turn = (found["name"], int(found["turn"]) - 1) if found else (label, 0)
        numbers[name, turn] = number
    return numbers


_TURN = re.compile(r"(?P<name>.+) \(turn (?P<turn>[1-9]\d{0,5})\)")


def _label(key: tuple[str, int]) -> str:
    return Place(*key, 0).label
