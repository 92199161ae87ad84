"""What a pattern is: a cheaper stand-in for attention matrices, which can be seen like them and run in their place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from torch.overrides import handle_torch_function, has_torch_function

from attlas.errors import ArgumentError
from attlas.patterns.given import check_exact

if TYPE_CHECKING:
    from torch import Tensor

    from attlas.matrix.operator import AttentionOperator
    from attlas.matrix.softmax import AttentionMatrix


@dataclass(frozen=True)
class Work:
    """What running one head costs, counted rather than timed.

    Parameters
    ----------
    pairs : int
        Query–key pairs whose score is computed, the ones among them that are masked afterwards included.
    moved : int
        Keys that are copied together before they are used.
    features : int
        Tokens times features, of what goes through a feature map; 0 where there is none.
    """

    pairs: int
    moved: int = 0
    features: int = 0


class Pattern(ABC):
    """A cheaper stand-in for an attention matrix.

    Patterns are frozen records: two that are equal do the same, so heads with equal patterns run together. What a
    matrix itself hides (causal order, its own window, padding) stays hidden under every pattern.
    """

    kind: ClassVar[str]
    """Its name in a plan's file."""

    @final
    def __str__(self) -> str:
        """Return what people call it: its kind and its settings, on one line."""
        settings = ", ".join(f"{name.strip('_').replace('_', ' ')} {value}" for name, value in self.settings().items())
        kind = self.kind.replace("_", " ")
        return f"{kind}: {settings}" if settings else kind

    @abstractmethod
    def matrix(self, exact: AttentionMatrix) -> AttentionOperator:
        """Return the lazy matrix that stands in for `exact`.

        Parameters
        ----------
        exact : AttentionMatrix, (batch, head, n_query, n_key)

        Returns
        -------
        AttentionOperator
            Of the same shape, with all questions; in O((n_query + n_key) · dim) memory.
        """

    @abstractmethod
    def attend(self, exact: AttentionMatrix, value: Tensor) -> Tensor:
        """Run: return what ``self.matrix(exact) @ value`` is, the fast way.

        Parameters
        ----------
        exact : AttentionMatrix, (batch, head, n_query, n_key)
            Queries, keys and rules of some heads. With fewer queries than keys (cached decoding) the queries are the
            last rows. Its log-sum-exp need not be known, and is not computed.
        value : Tensor, (batch, kv_head, n_key, value_dim)
            Values, shared by groups of heads as keys are.

        Returns
        -------
        Tensor, (batch, head, n_query, value_dim)
            In the dtype of `value`; differentiable with respect to query, key and value. A row that sees nothing is 0.
        """

    @abstractmethod
    def work(self, n_query: int, n_key: int, *, causal: bool) -> Work:
        """Count what `attend` costs one head."""

    @final
    def check(self, exact: AttentionMatrix) -> None:
        """Raise `ArgumentError` if the pattern cannot stand in for these heads, because of their rules or size."""
        check_exact(exact)
        self._check(exact)

    def _check(self, exact: AttentionMatrix) -> None:
        """Raise `ArgumentError` for rules and sizes that the pattern cannot stand in for; by default there are none."""
        del exact

    @final
    def fits(self, exact: AttentionMatrix) -> bool:
        """Tell whether `check` lets these heads pass."""
        try:
            self.check(exact)
        except ArgumentError:
            return False
        return True

    def held(self, n_key: int) -> int:
        """Return how many keys and values have to be held to go on reading after `n_key` tokens."""
        return n_key

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what makes it again, as plain JSON values, without its kind."""


def attend(pattern: Pattern, exact: AttentionMatrix, value: Tensor) -> Tensor:
    """Run a pattern as ``pattern.attend(exact, value)``, and let PyTorch's function modes hear it.

    So a capture hears the attention of a layer whose pattern or bias PyTorch's own functions do not know.
    """
    tensors = (exact.query, exact.key, value)
    if has_torch_function(tensors):
        return handle_torch_function(attend, tensors, pattern, exact, value)
    return pattern.attend(exact, value)
