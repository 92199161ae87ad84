"""Frozen records of what was found, each of which knows how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Provenance:
    """How a result was made: enough to make it again, and to notice when it was made otherwise.

    Parameters
    ----------
    attlas : str
        The version of attlas.
    model : str
        The model's name as it was asked for, or the class of a bare module.
    fingerprint : str
        A short hash of the model's weights and configuration; empty for a bare module.
    settings : mapping
        Every choice that can change the result.
    """

    attlas: str
    model: str = ""
    fingerprint: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain types that JSON can hold."""
        return {
            "attlas": self.attlas,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "settings": dict(self.settings),
        }


@dataclass(frozen=True)
class Comparison:
    """How far a matrix is from another of the same shape.

    Parameters
    ----------
    frobenius : Tensor, (batch, head)
        ``‖A − B‖`` in the Frobenius norm.
    relative : Tensor, (batch, head)
        The same, divided by ``‖A‖``.
    total_variation : Tensor, (batch, head, n_query)
        Half the sum of each row's absolute differences: 0 for equal rows, 1 for rows that share no key.
    """

    frobenius: Tensor
    relative: Tensor
    total_variation: Tensor
