"""How attention moved on a text: two forward passes, and beside them only projections of states that pass by.

In the base's pass each layer's keys are kept, and the queries of the chosen rows, made by the old weights and by the
new ones. In the tuned model's pass the same is made of the new states, the four matrices are compared on the spot, and
the layer is let go of. So memory holds the base's keys, and never two models' states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from attlas.capture.hearing import Place
from attlas.capture.language_model import reader_of, run_on
from attlas.capture.layer import Layer
from attlas.capture.overhearing import overhearing
from attlas.compare.layers import Pair
from attlas.compare.measuring_rows import Asked, Seen, measure_layer, strips_of
from attlas.compare.records import LayerMoved, Moved
from attlas.compare.sides import Sides
from attlas.compare.states import Passing, keys_of, passing, positions_of, queries_of
from attlas.errors import ArgumentError, complaint
from attlas.models.progress import Progress
from attlas.projections.views import LayerProjections

ROLES = ("query", "key")


def sampled_rows(n: int, count: int | None, seed: int) -> Tensor:
    """Return the rows to measure, ascending, int64: one drawn from each of `count` equal stretches; all without it."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ArgumentError(complaint("rows", wanted="a whole number from 1, or None for every row", got=repr(count)))
    if count is None or count >= n:
        return torch.arange(n)
    bounds = torch.arange(count + 1) * n // count
    drawn = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return bounds[:-1] + (drawn * (bounds[1:] - bounds[:-1])).long()


def attention_moved(
    sides: Sides,
    pairs: Sequence[Pair],
    ids: Tensor,
    tokens: Sequence[str],
    rows: Tensor,
    progress: Progress | None = None,
) -> Moved:
    """Measure how each head's attention moved between base and tuned.

    Parameters
    ----------
    sides : Sides
    pairs : sequence of Pair
        Every attention layer of both.
    ids : Tensor, (n,)
    tokens : sequence of str
    rows : Tensor, (row,), int64
        Which queries to measure, ascending.
    progress : callable, optional
    """
    layers = {pair.before.layer: pair for pair in pairs}
    total, done = 2 * len(layers), 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, f"comparing attention on {len(ids):,} tokens")

    kept: dict[int, tuple[Asked, Asked, Seen]] = {}
    found: dict[int, LayerMoved] = {}
    causal = all(pair.before.causal for pair in pairs)
    strips = strips_of(rows, ids.cpu(), causal)

    def on_old_states(place: Place, layer: Layer, states: Passing) -> None:
        pair = layers[place.number]
        old = _heard(layer, rows)
        new = _made(pair.after, pair.before, states, rows) if pair.asks_anew else old
        kept[place.number] = (old, new, _seen(layer))
        tell()

    def on_new_states(place: Place, layer: Layer, states: Passing) -> None:
        pair = layers[place.number]
        old, new, seen = kept.pop(place.number)
        last = _heard(layer, rows)
        before = _made(pair.before, pair.tuned or pair.before, states, rows) if pair.asks_anew else last
        matrices = (old, new, before, last)
        found[place.number] = measure_layer(place.number, pair.before.name, seen, matrices, strips)
        tell()

    views = [pair.before for pair in pairs]
    with sides.as_base() as model:
        _run(model, views, ids, on_old_states)
    with sides.as_tuned() as model:
        _run(model, [pair.tuned or pair.before for pair in pairs], ids, on_new_states)
    return Moved(tuple(tokens), rows, tuple(found[number] for number in sorted(found)))


def _run(
    model: nn.Module, views: Sequence[LayerProjections], ids: Tensor, take: Callable[[Place, Layer, Passing], None]
) -> None:
    with torch.no_grad(), passing(model, views, ROLES) as states:
        with overhearing(model, lambda place, layer: take(place, layer, states)):
            run_on(reader_of(model), ids[None])


def _heard(layer: Layer, rows: Tensor) -> Asked:
    """Return what the kernel was given; a copy of the chosen rows, so that the others can go."""
    return Asked(layer.query[:, :, rows.to(layer.query.device)], layer.key)


def _made(view: LayerProjections, running: LayerProjections, states: Passing, rows: Tensor) -> Asked:
    """Return what a view makes of the states that pass by in the model that is running."""
    given = states.of(running, "query")
    here = rows.to(given.device)
    query = queries_of(view, given[here], here)
    given = states.of(running, "key")
    return Asked(query, keys_of(view, given, positions_of(len(given), given.device)))


def _seen(layer: Layer) -> Seen:
    return Seen(layer.rule, layer.scale, layer.bias, layer.softcap, layer.sinks, layer.key.shape[2])
