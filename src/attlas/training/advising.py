"""`attlas.training.advise`: which modules and heads to adapt, and at which rank, within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attlas import __version__
from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, complaint
from attlas.models.progress import Progress
from attlas.projections import LayerProjections
from attlas.projections import projections as view_projections
from attlas.results import Provenance
from attlas.training.advice import Advice, Head, Module
from attlas.training.allotting import Candidate, allot
from attlas.training.batches import batch_of, chosen
from attlas.training.checking import check_causal, check_plain
from attlas.training.examples import Examples, Source, examples_of
from attlas.training.settings import ATTENTION, Targets
from attlas.training.sites import Site, find_sites
from attlas.training.trying import RATE, SCALE, Tried, trial

STEPS = 16
"""Batches of a trial at most; each example is read once."""

FEWEST = 4
"""Batches below which a trial says nothing of its own error."""

SPREAD = 2
"""How many times the even rank a module may have: a product of high rank takes longer steps, and soon too long ones."""

_CLEAR = 2.0  # standard errors from which a fall is told from none


def advise(
    lm: LanguageModel,
    data: Examples | Source,
    *,
    budget: int | None = None,
    rank: int | None = None,
    targets: Targets | None = None,
    batch: int = 8,
    length: int = 512,
    seed: int = 0,
    progress: Progress | None = None,
) -> Advice:
    """Say which modules to adapt at which rank, and which heads bring most, from one pass over some of the data.

    All candidates have a rank-1 adapter for a trial of up to 16 steps, each on a batch that was not seen before. Each
    is credited with its part of what the loss of the next batch fell by (`attlas.training.trying`), which shows the
    first part of training as it is: what all examples have in common is learnt in the first steps, and what comes
    after counts too. Then the budget is shared out: a rank at a time, to whichever module's loss is expected to fall
    most for each parameter, where rank r is taken to bring log2(1 + r) times what rank 1 does, and no rank is above
    twice an even one unless parameters would be left over. These two rules are assumptions; they were chosen on a task
    that the benchmark does not report.

    Parameters
    ----------
    lm : LanguageModel
        What `attlas.load` returned: a causal language model.
    data : Examples, str, path or sequence of mapping
        What `attlas.training.examples_of` reads; what is to be learnt later.
    budget : int, optional
        How many parameters the adapter may have.
    rank : int, optional
        In the place of `budget`: as many parameters as with this rank everywhere; 8 if neither is given.
    targets : Targets, optional
        The candidates; all linear modules of all blocks by default.
    batch : int
        Examples of each step of the trial.
    length : int
        Tokens of an example at most.
    seed : int
        Of which examples are taken, and of the trial's first values.
    progress : callable, optional
        Called as ``progress(done, total, what)`` after each step.

    Returns
    -------
    Advice

    Raises
    ------
    ArgumentError
        `budget` and `rank` are both given or too small, there are too few examples, or the loss does not fall in the
        trial, so that it says nothing.
    DocumentError
        The data cannot be read.
    UnsupportedModelError
        The model does not predict the next token, or a weight is not one that an adapter can go beside.

    Notes
    -----
    Cost: up to 31 forward and backward passes over a batch, without gradients of the weights. No gradient of a weight
    is ever held, only its sums over rows and columns.

    Examples
    --------
    >>> lm = attlas.load("smollm2-135m")  # doctest: +SKIP
    >>> advice = attlas.training.advise(lm, "facts.jsonl", rank=2)  # doctest: +SKIP
    >>> attlas.training.train(lm, "facts.jsonl", "adapter", targets=advice.targets, lora=advice.settings())
    ... # doctest: +SKIP
    """
    check_causal(lm)
    check_plain(lm.model)
    _check(budget, rank, batch)
    targets = targets or Targets(("all",))
    examples = data if isinstance(data, Examples) else examples_of(lm, data, length=length)
    steps = min(STEPS, len(examples) // batch)
    if steps < FEWEST:
        got = f"{len(examples)} examples"
        way_out = f"give more, or let a batch be at most {len(examples) // FEWEST}"
        raise ArgumentError(complaint("data", wanted=f"{FEWEST} batches of {batch}", got=got, way_out=way_out))
    sites = find_sites(lm, targets)
    costs = [_cost(site) for site in sites]
    limit = sum(costs) * (rank or 8) if budget is None else budget
    if limit < min(costs):
        cheapest = sites[costs.index(min(costs))].name
        wanted = f"at least {min(costs):,} parameters, those of rank 1 for {cheapest}"
        raise ArgumentError(complaint("budget", wanted=wanted, got=f"{limit:,}"))
    batches = [batch_of([examples.items[i] for i in chosen(len(examples), batch, seed, step)]) for step in range(steps)]
    found, losses = trial(lm.model, [site.name for site in sites], batches, seed=seed, progress=progress)
    falls = [_falls(site, found[site.name]) for site in sites]
    total = float(torch.stack(falls).sum())
    if total <= 0:
        got = f"a loss of {losses[0]:.3f} that did not fall through any of it ({losses[-1]:.3f} at the end)"
        way_out = "take an even rank, or other data"
        raise ArgumentError(
            complaint("data", wanted="examples that a short trial can learn from", got=got, way_out=way_out)
        )
    worths = [float(fall.sum()) for fall in falls]
    even = max(1, round(limit / sum(costs)))
    ranks = _ranks(sites, costs, worths, limit, even)
    modules = tuple(
        Module(site.name, site.layer, site.roles, cost, worth, _error(fall), given)
        for site, cost, worth, fall, given in zip(sites, costs, worths, falls, ranks, strict=True)
    )
    settings = {
        "budget": limit,
        "targets": targets.as_dict(),
        "batch": batch,
        "length": length,
        "steps": steps,
        "seed": seed,
        "rate": RATE,
        "scale": SCALE,
        "spread": SPREAD,
        "data": examples.digest,
        "torch": torch.__version__,
    }
    return Advice(
        modules=modules,
        heads=tuple(_heads(lm, sites, found)),
        budget=limit,
        even=even,
        losses=tuple(losses),
        targets=targets,
        notes=_notes(modules, losses, steps * batch),
        provenance=Provenance(__version__, lm.name, lm.facts.fingerprint, settings),
    )


def _check(budget: int | None, rank: int | None, batch: int) -> None:
    if budget is not None and rank is not None:
        raise ArgumentError(complaint("budget, rank", wanted="one of the two at most", got="both"))
    for name, value in (("budget", budget), ("rank", rank), ("batch", batch)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ArgumentError(complaint(name, wanted="a whole number from 1 on", got=repr(value)))


def _ranks(sites: Sequence[Site], costs: Sequence[int], worths: Sequence[float], budget: int, even: int) -> list[int]:
    """Share out the budget, with no rank above `SPREAD` times an even one unless some of it would be left over."""
    most = SPREAD * even
    while True:
        bounds = [min(most, _most(site)) for site in sites]
        candidates = [Candidate(*each) for each in zip(worths, costs, bounds, strict=True)]
        ranks = allot(candidates, budget)
        left = budget - sum(rank * cost for rank, cost in zip(ranks, costs, strict=True))
        held = [
            cost
            for cost, worth, bound, rank, site in zip(costs, worths, bounds, ranks, sites, strict=True)
            if worth > 0 and rank == bound < _most(site)
        ]
        if min(held, default=left + 1) > left:
            return ranks
        most *= 2


# ---- what a site is


def _sizes(site: Site) -> tuple[int, int]:
    """Return how many rows and columns of a weight are adapted."""
    out, into = site.shape
    rows = out if site.rows is None else int(site.rows.sum())
    return rows, into if site.columns is None else int(site.columns.sum())


def _cost(site: Site) -> int:
    """Return how many numbers each rank of it trains; slices have a matrix A each, and share the rows of B."""
    rows, columns = _sizes(site)
    return rows + columns * max(1, len(site.slices))


def _most(site: Site) -> int:
    rows, columns = _sizes(site)
    return min(columns, min((int(part.sum()) for part in site.slices), default=rows))


def _falls(site: Site, tried: Tried) -> Tensor:
    """Return by how much the loss fell through what of a weight is adapted, (step,)."""
    if site.columns is not None:
        return tried.columns[:, site.columns].sum(1)
    return tried.falls if site.rows is None else tried.rows[:, site.rows].sum(1)


def _error(falls: Tensor) -> float:
    """Return the standard error of the sum over steps, as far as steps are alike."""
    return float(falls.std() * len(falls) ** 0.5)


# ---- heads


def _heads(lm: LanguageModel, sites: Sequence[Site], found: Mapping[str, Tried]) -> list[Head]:
    """Return what each head brought: the sum over its rows of W_Q, W_K and W_V, and its columns of W_O."""
    meant = {site.name: site.layer for site in sites if set(site.roles) & {*ATTENTION, "module"}}
    if not meant:
        return []
    heads = []
    for view in view_projections(lm, unrouted="report"):
        if not any(view.modules.get(role) in meant for role in ATTENTION):
            continue
        parts = {role: _parts(view, role, found) for role in ATTENTION}
        heads += [
            Head(view.layer, head, **{role: float(parts[role][head]) for role in ATTENTION})
            for head in range(view.heads)
        ]
    return heads


def _parts(view: LayerProjections, role: str, found: Mapping[str, Tried]) -> Tensor:
    """Return what each query head brought through one projection; heads that share keys and values share the part."""
    tried: Any = found.get(view.modules.get(role, ""))
    if tried is None:
        return torch.zeros(view.heads)
    if role == "output":
        return tried.columns.sum(0).unflatten(0, (view.heads, view.value_dim)).sum(1)
    each = tried.rows.sum(0)[view.rows[role]].sum(1)
    return each if role == "query" else each.repeat_interleave(view.group) / view.group


def _notes(modules: Sequence[Module], losses: Sequence[float], examples: int) -> tuple[str, ...]:
    clear = sum(one.fall > _CLEAR * one.error for one in modules)
    out = sum(one.rank == 0 for one in modules)
    notes = [
        f"In {len(losses)} steps on {examples} examples the loss went from {losses[0]:.3f} to {losses[-1]:.3f} nats a "
        f"token; {clear} of {len(modules)} modules brought more than {_CLEAR:g} standard errors of it."
    ]
    if out:
        notes.append(f"{out} modules are left out.")
    return tuple(notes)
