"""What a budget of forward passes is spent on, decided before the first of them.

Random ablations come first: all explanations share them, and shuffling scores over the same ablations costs nothing, so
they say most for the least. Deletion by the explanation's own order follows, beside eight random orders, which is what
an interval needs; then orders by position; then insertion; then as many random orders as a verdict on curves needs, and
more ablations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas._intervals import FEWEST
from attlas.errors import ArgumentError, complaint
from attlas.explain.faithfulness.measures import Kind
from attlas.explain.faithfulness.orders import Parts, random_halves, random_orders
from attlas.explain.faithfulness.running import key

ABLATIONS = 24
"""Random ablations without which no rank correlation is told."""

MOST_ABLATIONS = 256

DECISIVE = 39
"""Random orders from which on being above all of them is rarer than 2.5 %, so that curves can carry a verdict."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is run; every subset is which tokens stay: bool, (n,).

    Parameters
    ----------
    keeps : Tensor, (ablation, part), bool
        Random ablations: which parts stay.
    random : tuple of Tensor
        Token orders drawn at random.
    deleted, inserted : int
        How many of the random orders have a deletion curve, and an insertion curve.
    positional : bool
        Whether orders by position have curves.
    kinds : tuple of str
        Which curves the explanation has: some of ``"deletion"`` and ``"insertion"``.
    shared : tuple of Tensor
        Which tokens stay in each text that is run for all explanations.
    needs : mapping
        How many sequences it takes to have each measure with an interval; of those that are left out.
    """

    keeps: Tensor
    random: tuple[Tensor, ...]
    deleted: int
    inserted: int
    positional: bool
    kinds: tuple[Kind, ...]
    shared: tuple[Tensor, ...]
    needs: Mapping[str, int]


@dataclass
class _Basket:
    """Subsets that are to be run, each once."""

    known: set[bytes]
    spent: int
    budget: int

    def fits(self, subsets: Iterable[Tensor], more: int = 0) -> bool:
        """Put all of them in, and `more` that are not known yet, if the budget allows it."""
        new = {key(subset) for subset in subsets} - self.known
        if self.spent + len(new) + more > self.budget:
            return False
        self.known |= new
        self.spent += len(new) + more
        return True


def curve_subsets(parts: Parts, order: Tensor, counts: Sequence[int], kind: Kind) -> list[Tensor]:
    """Return which tokens stay at each share, when tokens go (or come back) in `order`."""
    without = parts.passage.without
    return [without(order[:count] if kind == "deletion" else order[count:]) for count in counts]


def plan(
    parts: Parts, positional: Sequence[Tensor], counts: Sequence[int], *, budget: int, begun: int, seed: int
) -> Plan:
    """Decide what is run for any explanation of a text. It does not depend on which one, so all are measured alike.

    Parameters
    ----------
    parts : Parts
        Of the text.
    positional : sequence of Tensor
        Token orders by position.
    counts : sequence of int
        Tokens at each share.
    budget : int
        Sequences that may be run.
    begun : int
        Sequences that are run in any case.
    seed : int

    Raises
    ------
    ArgumentError
        The budget does not reach for any measure; the message says what each takes.
    """
    halves = random_halves(len(parts), MOST_ABLATIONS, torch.Generator().manual_seed(seed))
    drawn = random_orders(len(parts), DECISIVE, torch.Generator().manual_seed(seed + 1))
    random = [parts.tokens_in(order) for order in drawn]
    few, own = random[:FEWEST], len(set(counts))

    def curves(orders: Iterable[Tensor], kind: Kind) -> list[Tensor]:
        return [subset for order in orders for subset in curve_subsets(parts, order, counts, kind)]

    ends = {key(parts.full), key(parts.empty)}
    ablated = [parts.present(keeps) for keeps in halves]
    basket = _Basket(set(ends), begun, budget)
    every = [*few, *positional]
    needs = _needs(
        ends,
        begun,
        own,
        ablated[:ABLATIONS],
        curves(few, "deletion"),
        curves(every, "deletion"),
        curves(every, "insertion"),
    )
    if not basket.fits(ablated[:ABLATIONS]):
        told = ", ".join(f"{name} needs {count}" for name, count in needs.items())
        raise ArgumentError(complaint("budget", wanted=f"forward passes enough for an interval ({told})", got=budget))
    kinds: list[Kind] = []
    deleted, inserted, placed = 0, 0, []
    if basket.fits([], own):
        kinds.append("deletion")
        deleted = FEWEST if basket.fits(curves(few, "deletion")) else 0
        placed = positional if basket.fits(curves(positional, "deletion")) else []
    if deleted and basket.fits(curves([*few, *placed], "insertion"), own):
        kinds.append("insertion")
        inserted = FEWEST
    if deleted and basket.fits(curves(random, "deletion")):
        deleted = DECISIVE
    if inserted and deleted == DECISIVE and basket.fits(curves(random, "insertion")):
        inserted = DECISIVE
    ablations = ABLATIONS
    while ablations < MOST_ABLATIONS and basket.fits([ablated[ablations]]):
        ablations += 1
    done = {"lds": True, "aopc": deleted > 0, "sufficiency": inserted > 0}
    shared = ablated[:ablations] + curves(random[:deleted], "deletion") + curves(random[:inserted], "insertion")
    for kind in kinds:
        shared += curves(placed, kind)
    return Plan(
        keeps=halves[:ablations],
        random=tuple(random[: max(deleted, inserted)]),
        deleted=deleted,
        inserted=inserted,
        positional=bool(placed),
        kinds=tuple(kinds),
        shared=tuple(shared),
        needs={name: count for name, count in needs.items() if not done[name]},
    )


def _needs(
    ends: set[bytes],
    begun: int,
    own: int,
    ablated: list[Tensor],
    few: list[Tensor],
    deleting: list[Tensor],
    inserting: list[Tensor],
) -> dict[str, int]:
    def together(*subsets: list[Tensor]) -> int:
        return begun + len({key(one) for some in subsets for one in some} - ends)

    return {
        "lds": together(ablated),
        "aopc": own + together(ablated, few),
        "sufficiency": 2 * own + together(ablated, deleting, inserting),
    }
