"""What becomes of the target while a text is taken away, or put back, part by part, in different orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attlas.explain.faithfulness.measures import VALUE, Kind
from attlas.explain.faithfulness.orders import Parts
from attlas.explain.faithfulness.planning import Plan, curve_subsets
from attlas.explain.faithfulness.record import Curve
from attlas.explain.faithfulness.running import Runner


class Curves:
    """Curves of everything that was run; each is (share, 2): the target's value, and its probability.

    Parameters
    ----------
    parts : Parts
    runner : Runner
        It has run what was planned.
    fractions, counts : sequence
        Shares of the text, and how many tokens each is.
    plan : Plan
    placed : mapping
        Token orders by position.
    """

    def __init__(
        self,
        parts: Parts,
        runner: Runner,
        fractions: Sequence[float],
        counts: Sequence[int],
        plan: Plan,
        placed: Mapping[str, Tensor],
    ) -> None:
        self._parts, self._runner, self._plan = parts, runner, plan
        self._fractions, self._counts = fractions, counts
        placed = placed if plan.positional else {}
        drawn = {"deletion": plan.random[: plan.deleted], "insertion": plan.random[: plan.inserted]}
        nothing = torch.empty(0, len(counts), 2, dtype=torch.float64)
        self.placed: Mapping[Kind, Mapping[str, Tensor]] = {
            kind: {name: self.of(order, kind) for name, order in placed.items()} for kind in plan.kinds
        }
        """Those of orders by position."""
        self.random: Mapping[Kind, Tensor] = {
            kind: torch.stack([self.of(order, kind) for order in drawn[kind]]) if drawn[kind] else nothing
            for kind in plan.kinds
        }
        """Those of random orders, (order, share, 2)."""

    def of(self, order: Tensor, kind: Kind) -> Tensor:
        """Return the curve of a token order that was run."""
        subsets = curve_subsets(self._parts, order, self._counts, kind)
        return torch.tensor([self._runner[subset] for subset in subsets], dtype=torch.float64)

    def records(self, method: str, order: Tensor) -> tuple[Curve, ...]:
        """Return an explanation's curves and all others as records, with both ends."""
        found = []
        for kind in self._plan.kinds:
            found.append(self._record(kind, method, self.of(order, kind)[:, VALUE]))
            found += [self._record(kind, name, curve[:, VALUE]) for name, curve in self.placed[kind].items()]
            random = self.random[kind][..., VALUE]
            if len(random):
                low, high = random.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
                found.append(self._record(kind, "random", random.mean(0), low, high))
        return tuple(found)

    def _record(self, kind: Kind, name: str, *series: Tensor) -> Curve:
        ends = [self._runner[self._parts.full].value, self._runner[self._parts.empty].value]
        first, last = ends if kind == "deletion" else ends[::-1]
        return Curve(kind, name, (0.0, *self._fractions, 1.0), *((first, *one.tolist(), last) for one in series))
