"""Linear attention: features in place of scores, so that what a row needs of all keys before it is one running sum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.visibility import Indices
from attlas.patterns import hybrid
from attlas.patterns.features import FeatureMap, Features, named
from attlas.patterns.given import check_exact, check_value
from attlas.patterns.hybrid import Hybrid, Near
from attlas.patterns.linear_matrix import LinearMatrix
from attlas.patterns.linear_state import LinearState
from attlas.patterns.pattern import Pattern, Work

if TYPE_CHECKING:
    from typing import Self

USUAL_DIM = 64
"""What a head's width is counted as where a pattern alone cannot know it."""


@dataclass(frozen=True)
class Linear(Pattern):
    """Attention by feature maps, with an exact window and exact first keys if asked for.

    Row i, column j is ``φ(q_i)·φ(k_j) / D_i`` where the key is far, ``exp(score_ij) / D_i`` where it is near, and 0
    where it is hidden; D_i is the sum of all of them, so a row has one common denominator. With no window and no sinks,
    every key is far.

    Parameters
    ----------
    features : {"elu", "favor"} or Features
        The feature maps: `Elu`, `Favor`, or a `FeatureMap` that `fit_features` has made for these heads. Also the
        `settings` of a map that is not learned.
    window : int
        Keys with ``0 <= position - key < window`` are near, or ``|position - key| < window`` where heads are not
        causal.
    sinks : int
        The first `sinks` keys are near too.

    Notes
    -----
    Queries and keys are mapped as they come, with rotary positions already applied. A learned sink takes part in the
    denominator; a soft cap bends near scores only, and what was fitted to capped ones. A bias or mask has to be the
    same for all queries, and a window of the heads' own is refused: see `check`.

    `attend` costs O(n · features · value_dim) and O(n · window · dim); with `read` a state is kept, and one more token
    costs the same whatever n. A plan keeps no such state: a model's cache holds keys and values, and may be cropped or
    reordered without notice, so under a plan each token that is decoded costs O(n · features · value_dim) a head.

    References
    ----------
    Katharopoulos et al. (2020), "Transformers are RNNs", arXiv 2006.16236. Zhang et al. (2024), "LoLCATs", arXiv
    2410.10254, section 3.2: a window of exact scores and features under one denominator.

    Examples
    --------
    >>> import torch, attlas
    >>> from attlas.patterns import Linear
    >>> query, key, value = (torch.randn(1, 2, 1000, 64) for _ in range(3))
    >>> A = attlas.AttentionMatrix(query, key, causal=True)
    >>> Linear("elu", window=64).attend(A, value).shape
    torch.Size([1, 2, 1000, 64])
    """

    kind: ClassVar[str] = "linear"

    features: Features | str | Mapping[str, Any] = "elu"
    window: int = 0
    sinks: int = 0

    def __post_init__(self) -> None:
        for name, value in (("window", self.window), ("sinks", self.sinks)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ArgumentError(complaint(name, wanted="a whole number of at least 0", got=value))
        object.__setattr__(self, "features", named(self.features))

    @property
    def maps(self) -> Features:
        """The feature maps, whether they were given or named."""
        return named(self.features)

    def matrix(self, exact: AttentionMatrix) -> LinearMatrix:
        check_exact(exact)
        return LinearMatrix(exact, self.maps, self.window, self.sinks)

    def attend(self, exact: AttentionMatrix, value: Tensor) -> Tensor:
        check_value(exact, value)
        return self._hybrid(exact).sums(value).mean().to(value.dtype)

    def read(self, exact: AttentionMatrix, value: Tensor) -> tuple[Tensor, LinearState]:
        """Do what `attend` does, and keep what the tokens to come need of these.

        Parameters
        ----------
        exact : AttentionMatrix, (batch, head, n, n)
            Causal heads, with as many queries as keys.
        value : Tensor, (batch, kv_head, n, value_dim)

        Returns
        -------
        Tensor, (batch, head, n, value_dim)
        LinearState
            Whose `step` reads the next tokens.
        """
        check_value(exact, value)
        return LinearState.reading(self._hybrid(exact), value)

    def work(self, n_query: int, n_key: int, *, causal: bool) -> Work:
        height = min(Near(self.window, self.sinks, causal).height, n_query)
        reach = height + self.window - 1 if self.window else 0
        triangle = min(hybrid.CHUNK, n_query) if causal or self.window else 0
        if self.window and not causal:
            reach, triangle = reach + self.window - 1, 2 * triangle
        pairs = n_query * (min(self.sinks + reach, n_key) + min(triangle, n_key))
        return Work(pairs, features=(n_query + n_key) * self.maps.count(USUAL_DIM))

    def _check(self, exact: AttentionMatrix) -> None:
        self._hybrid(exact)

    def held(self, n_key: int) -> int:
        # A feature's running sum is as long as a value and two numbers more: half of what a key and a value take.
        return min(n_key, self.window + self.sinks + math.ceil(self.maps.count(USUAL_DIM) * (USUAL_DIM + 2) / 128))

    def settings(self) -> dict[str, Any]:
        return {"features": self.maps.settings(), "window": self.window, "sinks": self.sinks}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], maps: Mapping[str, FeatureMap] | None = None) -> Self:
        """Make what `settings` described again.

        Parameters
        ----------
        settings : mapping
        maps : mapping, optional
            Learned maps by their digest, as they lie beside the plan; needed where the settings name one.
        """
        try:
            return cls(**{**settings, "features": named(settings["features"], maps)})
        except (KeyError, TypeError) as error:
            raise ArgumentError(complaint("settings", wanted="those of linear", got=dict(settings))) from error

    def narrow(self, head: Indices) -> Self:
        """Return the pattern of some heads, where each has a learned map of its own."""
        return replace(self, features=self.maps.narrow(head))

    @classmethod
    def joined(cls, patterns: Sequence[Linear]) -> Self:
        """Return one pattern for several heads in a row, so that they run together.

        Raises
        ------
        ArgumentError
            They differ in more than their learned maps.
        """
        if not patterns:
            raise ArgumentError(complaint("patterns", wanted="at least one", got="none"))
        first = patterns[0]
        if all(pattern == first for pattern in patterns) and not isinstance(first.maps, FeatureMap):
            return cls(first.maps, first.window, first.sinks)
        maps = [pattern.maps for pattern in patterns]
        learned = [one for one in maps if isinstance(one, FeatureMap)]
        alike = {(pattern.window, pattern.sinks, pattern.maps.count(USUAL_DIM)) for pattern in patterns}
        if len(learned) < len(maps) or len(alike) > 1:
            wanted = "patterns that differ in their learned maps alone"
            raise ArgumentError(complaint("patterns", wanted=wanted, got=", ".join(map(str, patterns))))
        return cls(FeatureMap.joined(learned), first.window, first.sinks)

    def _hybrid(self, exact: AttentionMatrix) -> Hybrid:
        return Hybrid.of(exact, self.maps, self.window, self.sinks, exact.accumulator)
