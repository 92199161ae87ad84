"""Does it matter where attention looks? Each head's row at the target is shuffled and made uniform, and nothing else.

After Jain and Wallace 2019 ("Attention is not Explanation": permuted weights) and Wiegreffe and Pinter 2019 ("Attention
is not not Explanation": uniform weights). Where the model's answer stays the same, a picture of that row explains
nothing about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from attlas._intervals import FEWEST, RESAMPLES, Interval, check_resamples, simultaneous
from attlas._tables import Table
from attlas.capture import LanguageModel
from attlas.capture.asking import provenance_of
from attlas.errors import ArgumentError, complaint
from attlas.explain.faithfulness.variants import Variant, Variants
from attlas.explain.reading import reading_of
from attlas.explain.targets import Target
from attlas.models.progress import Progress
from attlas.results import Provenance

SHUFFLES = 16


@dataclass(frozen=True, eq=False)
class Effects:
    """What other attention does, in each of several heads or layers; tensors are float64 on the CPU.

    Parameters
    ----------
    uniform : Tensor, (place,)
        Change of the target's value with uniform attention.
    permuted : Tensor, (shuffle, place)
        The same with permuted attention; in one shuffle all places are permuted alike, as far as they see the same
        keys.
    uniform_distance, permuted_distance : Tensor
        Total variation between the distributions over tokens or classes, for each of these: 0 for the same one, 1 for
        nothing in common.
    noise : float
        The largest change that came from putting rows in their own place: what is below is rounding.
    resamples, seed : int
        Of the bootstrap.
    """

    uniform: Tensor
    permuted: Tensor
    uniform_distance: Tensor
    permuted_distance: Tensor
    noise: float
    resamples: int
    seed: int

    @property
    def median(self) -> Tensor:
        """The median change over shuffles, (place,)."""
        return self.permuted.quantile(0.5, dim=0)

    @property
    def median_distance(self) -> Tensor:
        """The median total variation over shuffles, (place,)."""
        return self.permuted_distance.quantile(0.5, dim=0)

    @cached_property
    def interval(self) -> Interval:
        """The mean change over all permutations, with intervals that hold for all places at once."""
        return simultaneous(self.permuted, seed=self.seed, resamples=self.resamples)

    @property
    def matters(self) -> Tensor:
        """In which places shuffling changes the target, by more than chance or rounding can; (place,), bool."""
        return (self.interval.low > self.noise) | (self.interval.high < -self.noise)

    def row(self, place: int) -> dict[str, Any]:
        """Return one place as plain types."""
        return {
            "uniform": float(self.uniform[place]),
            "permuted": float(self.median[place]),
            "permuted_mean": float(self.interval.mean[place]),
            "low": float(self.interval.low[place]),
            "high": float(self.interval.high[place]),
            "uniform_distance": float(self.uniform_distance[place]),
            "permuted_distance": float(self.median_distance[place]),
            "matters": bool(self.matters[place]),
        }


@dataclass(frozen=True, eq=False)
class PatternTests(Table):
    """Whether it matters for one target where the attention of each head looks.

    Parameters
    ----------
    target : Target
        What is looked at.
    value : float
        Its value on the text.
    heads : tuple of (layer, head)
        In the order of `of_heads`; layers are numbered as a capture numbers them.
    layers : tuple of int
        In the order of `of_layers`.
    names : mapping
        Layer -> its module.
    of_heads, of_layers : Effects
        One head at a time; all heads of one layer at once.
    uniform, uniform_distance : float
        Change of the target's value, and total variation, with uniform attention at the target's position in every head
        of the model.
    passes : int
        Forward passes that this took: of the text, or of its last token behind what was kept of the others.
    settings : mapping
        Every choice that can change the numbers.
    provenance : Provenance
        How it was made.
    """

    target: Target
    value: float
    heads: tuple[tuple[int, int], ...]
    layers: tuple[int, ...]
    names: Mapping[int, str]
    of_heads: Effects
    of_layers: Effects
    uniform: float
    uniform_distance: float
    passes: int
    settings: Mapping[str, Any]
    provenance: Provenance

    @property
    def summary(self) -> str:
        """What was found, in a sentence or two."""
        count, medians = int(self.of_heads.matters.sum()), self.of_heads.median
        unit = "nats" if self.target.quantity != "logit" else "units of the logit"
        whole = (
            f"Uniform attention at the target's position in every head changes {self._what} by {self.uniform:+.2g} "
            f"{unit}, and the output by a total variation of {self.uniform_distance:.2g}."
        )
        if not count:
            return f"Cannot tell that it matters where any of {len(self.heads)} heads looks. {whole}"
        changed = torch.where(self.of_heads.matters, medians.abs(), -1.0)
        most = int(changed.argmax())
        layer, head = self.heads[most]
        return (
            f"It matters where {count} of {len(self.heads)} heads look, most for head {head} of layer {layer}: its "
            f"attention shuffled changes {self._what} by {float(medians[most]):+.2g} {unit} (median). {whole}"
        )

    @property
    def _what(self) -> str:
        return f"the {self.target.quantity} of {self.target.name or 'the target'}"

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a head; one a layer, whose head is None; and one for the whole model, whose layer is None."""
        own = [
            {"layer": layer, "head": head, "module": self.names[layer], **self.of_heads.row(i)}
            for i, (layer, head) in enumerate(self.heads)
        ]
        together = [
            {"layer": layer, "head": None, "module": self.names[layer], **self.of_layers.row(i)}
            for i, layer in enumerate(self.layers)
        ]
        whole = dict.fromkeys(own[0])
        return [*own, *together, whole | {"uniform": self.uniform, "uniform_distance": self.uniform_distance}]

    def about(self) -> Mapping[str, Any]:
        """Return what was found, in words."""
        return {"target": self.target.name, "value": self.value, "summary": self.summary}

    def __repr__(self) -> str:
        return f"PatternTests({self.provenance.model}, {len(self.heads)} heads: {self.summary})"


def pattern_tests(
    lm: LanguageModel,
    text: str | Sequence[int],
    target: Any = -1,
    *,
    layers: Sequence[int] | None = None,
    shuffles: int = SHUFFLES,
    budget: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> PatternTests:
    """Test whether it matters for a target where attention looks.

    Parameters
    ----------
    lm : LanguageModel
        What `attlas.load` returned; a model of one stack.
    text : str or sequence of int
        The text, or its token ids.
    target : int, tuple or Target
        One target, a token or a class; as for `attlas.explain`.
    layers : sequence of int, optional
        Which layers' heads; all by default.
    shuffles : int
        Permutations of each row, from 8.
    budget : int, optional
        How many forward passes it may take: shuffles are left out until it suffices.
    resamples, seed : int
        Of the bootstrap; permutations are drawn from the seed too.
    progress : callable, optional
        Called as ``progress(variants run, all of them, "changing attention")``.

    Returns
    -------
    PatternTests

    Raises
    ------
    ArgumentError
        A layer does not exist, the target does not fit, or the budget is too small for an interval.
    DocumentError
        The text is too short or too long.
    UnsupportedModelError
        The model has two stacks, or the target is no token or class that is read at one position.
    CaptureError
        Rows that are put in their own place change the target.

    Notes
    -----
    Only the row of the target's position is changed: in one head, in all heads of a layer, or (uniform) in all heads of
    the model. Layers above attend as they do after the change. Each head and layer takes a forward pass for uniform
    attention and one for each shuffle; with a decoder, such a pass runs one token.
    """
    check_resamples(resamples)
    if isinstance(shuffles, bool) or not isinstance(shuffles, int) or shuffles < FEWEST:
        raise ArgumentError(
            complaint("shuffles", wanted=f"a whole number from {FEWEST}, for an interval", got=repr(shuffles))
        )
    reading = reading_of(lm, text, target)
    if len(reading.targets) != 1:
        raise ArgumentError(complaint("target", wanted="one target", got=f"{len(reading.targets)}"))
    runs = Variants(reading)
    chosen = [row for row in runs.rows if layers is None or row.layer in layers]
    if missing := set(layers or ()) - {row.layer for row in chosen}:
        known = f"layers from 0 to {len(runs.rows) - 1}"
        raise ArgumentError(complaint("layers", wanted=known, got=", ".join(map(str, sorted(missing)))))
    if not chosen:
        raise ArgumentError(complaint("layers", wanted="at least one", got="none"))
    heads = [(row.layer, head) for row in chosen for head in range(len(row.weights))]
    places: list[tuple[int, int | None]] = [*heads, *((row.layer, None) for row in chosen)]
    shuffles = _affordable(budget, len(places), shuffles, runs)
    generator = torch.Generator().manual_seed(seed)
    orders = torch.rand(shuffles, max(row.weights.shape[1] for row in chosen), generator=generator)
    variants = [Variant(*place, shuffle) for place in places for shuffle in (None, *range(shuffles))]
    change, distance = _run(runs, [*variants, Variant(None, None, None)], orders, progress)
    settings: dict[str, Any] = {
        "tokens": reading.n, "layers": "all" if layers is None else len(chosen), "shuffles": shuffles,
        "one token a pass": runs.cached, "resamples": resamples, "seed": seed,
    }  # fmt: skip

    def effects(part: slice) -> Effects:
        by_place = change[:-1].view(len(places), -1)[part].T, distance[:-1].view(len(places), -1)[part].T
        (uniform, *permuted), (away, *aways) = by_place
        return Effects(uniform, torch.stack(permuted), away, torch.stack(aways), runs.noise, resamples, seed)

    return PatternTests(
        target=runs.target,
        value=runs.value,
        heads=tuple(heads),
        layers=tuple(row.layer for row in chosen),
        names={row.layer: row.name for row in chosen},
        of_heads=effects(slice(len(heads))),
        of_layers=effects(slice(len(heads), None)),
        uniform=float(change[-1]),
        uniform_distance=float(distance[-1]),
        passes=runs.passes,
        settings=settings,
        provenance=provenance_of(lm, {**settings, "target": runs.target.name, "position": runs.target.position}),
    )


def _affordable(budget: int | None, places: int, shuffles: int, runs: Variants) -> int:
    """Return how many shuffles the budget is enough for."""

    def passes(count: int) -> int:
        variants = places * (1 + count) + 1
        return runs.passes + variants + -(-variants // runs.size)

    if budget is None:
        return shuffles
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < passes(FEWEST):
        raise ArgumentError(
            complaint(
                "budget",
                wanted=f"at least {passes(FEWEST):,} forward passes, {FEWEST} shuffles of every row for an interval",
                got=repr(budget),
                way_out="ask for fewer layers, or give more",
            )
        )
    return max(count for count in range(FEWEST, shuffles + 1) if passes(count) <= budget)


def _run(
    runs: Variants, variants: Sequence[Variant], orders: Tensor, progress: Progress | None
) -> tuple[Tensor, Tensor]:
    changes, distances = [], []
    done = 0
    while done < len(variants):
        change, distance = runs.run(variants[done : done + runs.size], orders)
        changes.append(change)
        distances.append(distance)
        done += len(change)
        if progress is not None:
            progress(done, len(variants), "changing attention")
    return torch.cat(changes), torch.cat(distances)
