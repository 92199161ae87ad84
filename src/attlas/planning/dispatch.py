"""Runs a model by a plan: every head's attention is computed by its own pattern, in the place of the model's kernel.

Heads with equal patterns run together, and all others exactly. Nothing of the model is changed, and no n × n mask is
made: what a mask says is read from its formula. Whatever cannot be routed stays exact, and is listed with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor, nn

from attlas.capture.asked import Asked, Replaced
from attlas.capture.hearing import Place
from attlas.capture.replacing import Replacement
from attlas.errors import ArgumentError, AttlasError, UnsupportedModelError, complaint
from attlas.matrix import AttentionMatrix
from attlas.matrix.visibility import take_shared
from attlas.patterns import Full, Pattern
from attlas.patterns.features import FeatureMap
from attlas.patterns.keep_set import KeepSet
from attlas.patterns.linear import Linear
from attlas.planning.guarding import Guard
from attlas.planning.stepping import Step, anchored

Layer = int | str
"""A layer's number, in the order of first calls, or its module's name."""

_FULL = Full()
_NO_POSITIONS = "its queries and keys are not those of one text in a row, so how far apart they are is not known"


@dataclass(frozen=True)
class Kept:
    """Heads that stayed exact although the plan has another pattern for them.

    Parameters
    ----------
    layer : str
        Their module.
    heads : tuple of int
    pattern : Pattern
        What the plan has for them.
    reason : str
    """

    layer: str
    heads: tuple[int, ...]
    pattern: Pattern
    reason: str


class Applied:
    """What became of a plan so far; it fills as the model runs.

    Attributes
    ----------
    calls : int
        Attention calls that were computed by the plan, the exact ones among them.
    routed : dict
        Layer -> pattern -> heads: what was computed by a pattern other than `Full`.
    exact : list of Kept
        Heads that stayed exact although the plan has another pattern for them, and why.
    left : dict
        Layer -> why its calls were left to the model's own kernel, which is exact too.
    strayed : dict
        (layer, head) -> in how many calls the guard made it exact.
    """

    def __init__(self, left: Mapping[str, str], cache: Callable[[], Any]) -> None:
        self._cache = cache
        self.calls = 0
        self.routed: dict[str, dict[Pattern, tuple[int, ...]]] = {}
        self.exact: list[Kept] = []
        self.left = left
        self.strayed: dict[tuple[str, int], int] = {}

    def cache(self) -> Any:
        """Return an empty key-value cache that holds only what the plan needs, for use inside of its block.

        A layer whose heads all have sliding windows holds its first tokens and the widest window; other layers hold
        all keys. Pass it as ``past_key_values``, to the model or to its `generate`.

        Raises
        ------
        ArgumentError
            The plan's layers are not known by name, or it is applied with a guard, which needs all keys.
        UnsupportedModelError
            The model is not a decoder of transformers.

        Notes
        -----
        For texts without padding, one text or several of one length.
        """
        return self._cache()

    def note(self, layer: str, groups: Mapping[Pattern, Sequence[int]]) -> None:
        """Count a call."""
        self.calls += 1
        for pattern, heads in groups.items():
            if not isinstance(pattern, Full):
                self.routed.setdefault(layer, {})[pattern] = tuple(heads)

    def keep(self, kept: Kept) -> None:
        """List heads that stay exact, once."""
        if kept not in self.exact:
            self.exact.append(kept)

    def stray(self, layer: str, heads: Sequence[int]) -> None:
        """Count heads that the guard made exact in a call."""
        for head in heads:
            self.strayed[layer, head] = self.strayed.get((layer, head), 0) + 1

    def __str__(self) -> str:
        routed = sum(len(heads) for groups in self.routed.values() for heads in groups.values())
        lines = [f"{self.calls:,} attention calls computed by the plan; {routed:,} heads by patterns other than full"]
        lines += [
            f"exact: {kept.layer}, heads {_listed(kept.heads)} ({kept.pattern}): {kept.reason}" for kept in self.exact
        ]
        if self.strayed:
            times = sum(self.strayed.values())
            lines.append(f"exact because the guard said so: {len(self.strayed):,} heads, {times:,} times in all")
        lines += [f"left to the model's own kernel: {layer}: {reason}" for layer, reason in self.left.items()]
        return "\n".join(lines)


class Dispatcher(Replacement):
    """Computes every attention call of a model by a table of patterns.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    patterns : mapping
        (layer, head) -> pattern; heads that are not in it stay exact.
    numbers : dict, optional
        The numbers of layers, where they are known: (module's name, turn) -> number. Otherwise layers are numbered in
        the order of their first calls.
    guard : float, optional
        By how much a pattern may change the rows of a call; see `Guard`.
    cache : callable
        Makes an empty cache that holds only what the patterns need.

    Attributes
    ----------
    applied : Applied
        What became of it so far.
    """

    def __init__(
        self,
        model: nn.Module,
        patterns: Mapping[tuple[Layer, int], Pattern],
        numbers: dict[tuple[str, int], int] | None = None,
        *,
        guard: float | None = None,
        cache: Callable[[], Any],
    ) -> None:
        super().__init__(model, numbers)
        self.applied = Applied(self.missed, cache)
        self._guard = None if guard is None else Guard(guard)
        self._rows: dict[Layer, dict[int, Pattern]] = {}
        for (layer, head), pattern in patterns.items():
            self._rows.setdefault(layer, {})[head] = pattern
        self._groups: dict[tuple[str, int], dict[Pattern, list[int]]] = {}
        self._joined: dict[tuple[Linear, ...], Linear] = {}

    def compute(self, place: Place, asked: Asked) -> Replaced | None:
        """Compute a call head by head.

        Raises
        ------
        ArgumentError
            The plan names a head that the layer does not have.
        """
        wanted = self._grouped(place, asked.query.shape[1])
        call = _Call(asked)
        try:
            groups = self._possible(place, call, wanted)
            outputs = [(heads, _run(pattern, call, heads)) for pattern, heads in self._together(groups)]
        except AttlasError as error:
            self.miss(place.label, str(error))
            return None
        self.applied.note(place.label, groups)
        return Replaced(_in_order(outputs), all(isinstance(pattern, Full) for pattern in groups))

    def _grouped(self, place: Place, heads: int) -> dict[Pattern, list[int]]:
        """Return which heads of a layer have which pattern."""
        known = self._groups.get((place.label, heads))
        if known is not None:
            return known
        row = self._rows.get(place.number, {}) | self._rows.get(place.label, {})
        if row and max(row) >= heads:
            wanted = f"head numbers from 0 to {heads - 1} in layer {place.number} ({place.label})"
            raise ArgumentError(complaint("plan", wanted=wanted, got=max(row)))
        groups: dict[Pattern, list[int]] = {}
        for head in range(heads):
            groups.setdefault(row.get(head, _FULL), []).append(head)
        self._groups[place.label, heads] = groups
        return groups

    def _possible(self, place: Place, call: _Call, wanted: Mapping[Pattern, list[int]]) -> dict[Pattern, list[int]]:
        """Let heads whose pattern cannot stand in for them be exact in this call."""
        exact = list(wanted.get(_FULL, ()))
        groups: dict[Pattern, list[int]] = {}
        for pattern, heads in wanted.items():
            if isinstance(pattern, Full):
                continue
            if _chooses_for_one(pattern, call.asked):
                exact += heads
                continue
            try:
                over = self._over(place, pattern, call, heads)
            except (ArgumentError, UnsupportedModelError) as error:
                self.applied.keep(Kept(place.label, tuple(heads), pattern, str(error)))
                exact += heads
                continue
            strayed = [head for head, out in zip(heads, over, strict=True) if out]
            self.applied.stray(place.label, strayed)
            exact += strayed
            if len(strayed) < len(heads):
                groups[pattern] = [head for head in heads if head not in strayed]
        return {_FULL: sorted(exact), **groups} if exact else groups

    def _together(self, groups: Mapping[Pattern, list[int]]) -> list[tuple[Pattern, list[int]]]:
        """Let heads run together that differ only in the feature maps that each has learned."""
        alike: dict[object, list[tuple[Linear, list[int]]]] = {}
        runs: list[tuple[Pattern, list[int]]] = []
        for pattern, heads in groups.items():
            maps = pattern.features if isinstance(pattern, Linear) else None
            if isinstance(pattern, Linear) and isinstance(maps, FeatureMap) and (maps.heads, len(heads)) == (1, 1):
                alike.setdefault((pattern.window, pattern.sinks, maps.query.shape), []).append((pattern, heads))
            else:
                runs.append((pattern, heads))
        for same in alike.values():
            same.sort(key=lambda one: one[1])
            patterns = tuple(pattern for pattern, _ in same)
            if patterns not in self._joined:
                maps = FeatureMap.joined([one.features for one in patterns if isinstance(one.features, FeatureMap)])
                self._joined[patterns] = dataclasses.replace(patterns[0], features=maps)
            runs.append((self._joined[patterns], [head for _, heads in same for head in heads]))
        return runs

    def _over(self, place: Place, pattern: Pattern, call: _Call, heads: Sequence[int]) -> list[bool]:
        """Check that a pattern can stand in for these heads, and tell which of them it changes too much."""
        if call.step is None or not call.step.covers(pattern):
            for part in call.parts(pattern, heads):
                part.pattern.check(part.matrix)
        if self._guard is None:
            return [False] * len(heads)

        def looked_at() -> Iterator[tuple[AttentionMatrix, Pattern]]:
            return ((part.matrix, part.pattern) for part in call.parts(pattern, heads))

        return self._guard.over(place.label, pattern, heads, looked_at, step=call.asked.n_query == 1)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some heads of those texts of a batch that begin at the same place."""

    pattern: Pattern
    matrix: AttentionMatrix
    value: Tensor
    elements: list[int]


class _Call:
    """A call in parts, each made once and checked for numbers that are not finite once.

    Attributes
    ----------
    step : Step or None
        What answers most patterns without making any, where each text has a single query.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.step = Step.of(asked)
        self._parts: dict[tuple[Pattern, tuple[int, ...]], list[_Part]] = {}

    @cached_property
    def _whole(self) -> AttentionMatrix:
        return self.asked.matrix

    def parts(self, pattern: Pattern, heads: Sequence[int]) -> list[_Part]:
        """Return some heads, cut into texts that begin at the same place; texts that have no query here are left out.

        Raises
        ------
        UnsupportedModelError
            Where keys are is not known well enough for this pattern.
        """
        place = pattern, tuple(heads)
        if place not in self._parts:
            self._parts[place] = list(self._cut(pattern, heads))
        return self._parts[place]

    def _cut(self, pattern: Pattern, heads: Sequence[int]) -> Iterator[_Part]:
        asked = self.asked
        everything = list(range(asked.query.shape[0]))
        full = isinstance(pattern, Full)
        if full and asked.gap:
            raise UnsupportedModelError("its cache does not hold all keys")
        if not (full or asked.aligned):
            raise UnsupportedModelError(_NO_POSITIONS)
        if full or not (asked.dropped or any(asked.starts)):
            batch, chosen = slice(0, len(everything)), _indices(heads)
            value = take_shared(asked.value, asked.query.shape[1], batch, chosen)
            yield _Part(pattern, self._whole.narrow(batch, chosen), value, everything)
            return
        texts: dict[tuple[int, int], list[int]] = {}
        for element, start in enumerate(asked.starts):
            texts.setdefault((start, asked.dropped[element] if asked.dropped else 0), []).append(element)
        for (start, dropped), elements in texts.items():
            part = asked.of_heads(heads).of_texts(elements, start)
            if part is not None:
                yield _Part(anchored(pattern, dropped), part.matrix, part.value, elements)


def _chooses_for_one(pattern: Pattern, asked: Asked) -> bool:
    """Tell whether a pattern would have to look at all keys to choose some for a single query.

    That is all that exact attention does: so it is as fast to attend to them, and nothing is lost.
    """
    if asked.n_query > 1 or asked.gap or not asked.rule.causal:
        return False
    return isinstance(pattern, KeepSet) and pattern.chooses


def _run(pattern: Pattern, call: _Call, heads: Sequence[int]) -> Tensor:
    """Run one pattern on the heads that have it."""
    row = None if call.step is None else call.step.attend(pattern, heads)
    if row is not None:
        return row
    value, (batch, _, n_query, _) = call.asked.value, call.asked.query.shape
    outputs = []
    for part in call.parts(pattern, heads):
        output = part.pattern.attend(part.matrix, part.value)
        # Rows that stand in the padding attend to nothing.
        missing = n_query - output.shape[2]
        outputs.append((part.elements, (F.pad(output, (0, 0, missing, 0)) if missing else output).transpose(0, 1)))
    rest = [element for element in range(batch) if all(element not in elements for elements, _ in outputs)]
    if rest:
        outputs.append((rest, value.new_zeros(len(heads), len(rest), n_query, value.shape[3])))
    return _in_order(outputs).transpose(0, 1)


def _indices(heads: Sequence[int]) -> slice | Tensor:
    """Return heads as a slice where they are consecutive, so that nothing is copied."""
    first, last = heads[0], heads[-1]
    return slice(first, last + 1) if list(heads) == list(range(first, last + 1)) else torch.tensor(list(heads))


def _in_order(parts: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor:
    """Join what was computed for some heads each, along their axis (the second), in the order of all heads."""
    if len(parts) == 1 and list(parts[0][0]) == sorted(parts[0][0]):
        return parts[0][1]
    alone = {number: output.narrow(1, place, 1) for numbers, output in parts for place, number in enumerate(numbers)}
    # Heads side by side in memory are what the projection after them wants.
    return torch.cat([alone[number].transpose(1, 2) for number in sorted(alone)], dim=2).transpose(1, 2)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
