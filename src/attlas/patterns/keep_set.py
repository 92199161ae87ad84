"""Patterns that keep some keys of each row and drop the rest: what all of them share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import fields
from typing import Any, final

from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.matrix import AttentionMatrix
from attlas.patterns import choosing, running
from attlas.patterns.choosing import ChosenKeep
from attlas.patterns.full import Full
from attlas.patterns.keep import FixedKeep, HeadKeep, Keep, restricted
from attlas.patterns.pattern import Pattern, Work


class KeepSet(Pattern):
    """A pattern whose rows are the softmax over those keys that are kept and may be seen.

    Every kind is a frozen dataclass of its settings.
    """

    @abstractmethod
    def keep(self, exact: AttentionMatrix) -> Keep:
        """Return which keys are kept of these heads."""

    def fixed(self, n_key: int, *, causal: bool) -> FixedKeep | None:
        """Return what is kept in a matrix of this width, where that is known from positions alone."""
        del n_key, causal
        return None

    @final
    @property
    def chooses(self) -> bool:
        """Whether heads choose their keys by what these hold, for all rows at once, and not by positions alone."""
        return self.fixed(1, causal=True) is None

    def keeps_all(self, length: int) -> bool:
        """Tell whether nothing is dropped from a matrix with so many positions, so that it runs as it is."""
        del length
        return False

    def matrix(self, exact: AttentionMatrix) -> AttentionMatrix:
        self.check(exact)
        return restricted(exact, self.keep(exact))

    def attend(self, exact: AttentionMatrix, value: Tensor) -> Tensor:
        self.check(exact)
        if self.keeps_all(max(exact.shape[2:])):
            return Full().attend(exact, value)
        keep = self.keep(exact)
        if isinstance(keep, ChosenKeep):
            return choosing.attend(exact, value, keep)
        if isinstance(keep, HeadKeep):
            return running.attend_by_head(exact, value, keep)
        if isinstance(keep, FixedKeep):
            return running.attend(exact, value, keep)
        return restricted(exact, keep) @ value

    def settings(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # pyright: ignore[reportArgumentType] - every kind is a dataclass
        return {name: plain(value) for name, value in values.items() if value is not None}


class ByPosition(KeepSet):
    """A pattern that keeps keys by their position alone, the same for every batch element and head."""

    @abstractmethod
    def at(self, n_key: int, *, causal: bool) -> FixedKeep:
        """Return which keys are kept in a matrix of this width."""

    def fixed(self, n_key: int, *, causal: bool) -> FixedKeep:
        return self.at(n_key, causal=causal)

    def keep(self, exact: AttentionMatrix) -> FixedKeep:
        return self.at(exact.shape[3], causal=exact.visibility.causal)

    def work(self, n_query: int, n_key: int, *, causal: bool) -> Work:
        if self.keeps_all(max(n_query, n_key)):
            return Full().work(n_query, n_key, causal=causal)
        return work_of(self.at(n_key, causal=causal), n_query, n_key, causal=causal)


def work_of(keep: FixedKeep, n_query: int, n_key: int, *, causal: bool) -> Work:
    """Count what running a keep costs one head."""
    first = keep.first_rows(n_query, n_key, causal=causal)
    runs = [run for run in keep.runs(n_query, n_key) if run.last >= first]
    exact = Full().work(first, first + n_key - n_query, causal=True).pairs
    return Work(pairs=exact + sum(run.pairs for run in runs), moved=sum(run.moved for run in runs))


def plain(value: Any) -> Any:
    """Return a setting as JSON has it: lists for tuples."""
    return [plain(part) for part in value] if isinstance(value, tuple) else value


def whole_number(name: str, value: object, least: int) -> None:
    """Raise `ArgumentError` unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(complaint(name, wanted=f"a whole number of at least {least}", got=value))
