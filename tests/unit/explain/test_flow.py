"""Attention flow and its bounds against exact maximum flows through whole networks, by another library."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import networkx  # comes with PyTorch
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from attlas.errors import ArgumentError
from attlas.explain.attention_walks import Rollout
from attlas.explain.flow import Flow
from attlas.explain.max_flow import Network
from attlas.explain.walk import Found, Walker, walk
from attlas.testing import no_dense
from toy_transformer import BOTH, DECODERS, STACKS, Shape, Toy, toy

ALL: dict[str, Any] = {"topk": 99, "width": 99, "sources": 99}
EVERY = {**STACKS, **BOTH}
CRUMBS = 1e-9
"""What rounding may leave between two bounds that meet: some thousand edges of 1e-13."""


def found(walker: Walker, run: Toy) -> Found:
    return walk(run.reading, [walker], run.attended)[0]


def places(name: str) -> tuple[int | None, ...]:
    return (0, None) if EVERY[name].answer == 1 else (-1, 1, None)


@cache
def known(name: str) -> Toy:
    return toy(EVERY[name], places(name))


@cache
def exact(name: str, residual: float = 0.5) -> Tensor:
    """Return the maximum flow from the target to every token, through all edges of the dense matrices."""
    run, flows = known(name), []
    for row in run.reading.rows:
        graph = networkx.DiGraph()
        for i, weight in enumerate(row.tolist()):
            graph.add_edge("target", ("own", 0, i), capacity=weight)
        own, read = 0, 0
        for call in reversed(run.calls):
            mean = ((1 - residual) * call.attention.mean(0)).tolist()
            on_encoder = run.shape.answer > 0 and call.side == "encoder" and not call.cross
            stack, level = ("read", read) if on_encoder else ("own", own)
            into = ("read", 0) if call.cross else (stack, level + 1)
            for i, entries in enumerate(mean):
                for j, entry in enumerate(entries):
                    own_share = residual if i == j and not call.cross else 0.0
                    graph.add_edge((stack, level, i), (*into, j), capacity=entry + own_share)
                if call.cross:
                    graph.add_edge((stack, level, i), (stack, level + 1, i), capacity=residual)
            own, read = own + (not on_encoder), read + on_encoder
        last = ("read", read) if run.shape.answer else ("own", own)
        flows.append([networkx.maximum_flow_value(graph, "target", (*last, j)) for j in range(run.shape.n)])
    return torch.tensor(flows, dtype=torch.float64)


@pytest.mark.parametrize("name", EVERY)
def test_with_every_edge_both_bounds_are_the_flow(name: str) -> None:
    run = known(name)
    wanted = exact(name)
    answer = found(Flow(**ALL, normalised=False), run)
    assert answer.low is not None
    assert answer.high is not None
    assert_close(answer.scores, wanted)
    assert_close(answer.low, wanted)
    assert_close(answer.high, wanted)
    assert max(answer.notes["widest"]) < CRUMBS
    published = found(Flow(**ALL), run)
    assert_close(published.scores, wanted / wanted.sum(1, keepdim=True))
    assert_close(published.scores.sum(1), torch.ones(run.targets, dtype=torch.float64))


@pytest.mark.parametrize("residual", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("topk", "width", "sources"), [(1, 99, 99), (2, 3, 99), (3, 99, 2), (2, 2, 0), (99, 2, 99)])
@pytest.mark.parametrize("name", ["plain", "all of it", "encoder", "encoder and decoder"])
def test_the_flow_lies_between_its_bounds(name: str, topk: int, width: int, sources: int, residual: float) -> None:
    run = known(name)
    wanted = exact(name, residual)
    answer = found(Flow(topk, width, sources, residual, normalised=False), run)
    assert answer.low is not None
    assert answer.high is not None
    assert bool((answer.low <= wanted + CRUMBS).all())
    assert bool((wanted <= answer.high + CRUMBS).all())
    shares = wanted / wanted.sum(1, keepdim=True)
    answer = found(Flow(topk, width, sources, residual), run)
    assert answer.low is not None
    assert answer.high is not None
    assert bool((answer.low <= shares + CRUMBS).all())
    assert bool((shares <= answer.high + CRUMBS).all())
    assert bool((answer.low <= answer.scores).all())
    assert bool((answer.scores <= answer.high).all())


def test_the_flow_is_never_less_than_rollout() -> None:
    run = toy(STACKS["plain"], (-1, 3))
    rollout = found(Rollout(), run).scores
    for sources in (0, 4):
        assert bool((found(Flow(2, 3, sources, normalised=False), run).scores >= rollout - CRUMBS).all())


def test_a_maximum_flow_tightens_what_the_passes_alone_say() -> None:
    run = toy(STACKS["encoder"])
    without, having = (found(Flow(9, 9, sources, normalised=False), run) for sources in (0, 3))
    (solved,) = having.notes["solved"]
    assert len(solved) == 3
    assert without.notes["solved"] == [[]]
    assert bool((having.scores[0, solved] > without.scores[0, solved]).all())


def test_targets_that_go_together_get_what_each_gets_alone() -> None:
    run = toy(STACKS["plain"], (4, 7))
    together = found(Flow(**ALL), run).scores
    for target in range(2):
        alone = replace(run, reading=type(run.reading)(rows=run.reading.rows[[target]], n=run.shape.n))
        assert_close(found(Flow(**ALL), alone).scores[0], together[target])


@pytest.mark.parametrize("name", DECODERS)
def test_what_comes_after_a_decoders_target_scores_exactly_nothing(name: str) -> None:
    for position in range(DECODERS[name].n - 1):
        answer = found(Flow(), toy(DECODERS[name], (position,)))
        assert answer.high is not None
        assert bool((answer.scores[:, position + 1 :] == 0).all())
        assert bool((answer.high[:, position + 1 :] == 0).all())


def test_nothing_dense_is_made() -> None:
    run = toy(Shape(n=1100, layers=2, heads=2, kv_heads=1, dim=2, value_dim=2), (-1,))
    with no_dense(1100 * 1100):
        answer = found(Flow(width=16, sources=2), run)
    assert bool((answer.scores >= 0).all())


@pytest.mark.parametrize(
    ("setting", "value"),
    [("topk", 0), ("topk", 2.0), ("width", 0), ("sources", -1), ("sources", True), ("residual", 1)],
)
def test_settings_that_make_no_sense(setting: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=f"{setting}: wanted"):
        Flow(**{setting: value})  # pyright: ignore[reportArgumentType] - that is the point


# ---- the algorithm


@pytest.mark.parametrize("seed", range(30))
def test_a_maximum_flow_and_both_its_cuts(seed: int) -> None:
    random = np.random.default_rng(seed)
    nodes, edges = int(random.integers(2, 12)), int(random.integers(1, 40))
    start, end = random.integers(0, nodes, (2, edges))
    apart = start != end
    start, end, capacity = (
        start[apart],
        end[apart],
        random.random(int(apart.sum())) * random.integers(0, 2, apart.sum()),
    )
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(nodes))
    for a, b, c in zip(start.tolist(), end.tolist(), capacity.tolist(), strict=True):
        # Edges side by side carry what they carry together.
        graph.add_edge(a, b, capacity=c + graph.get_edge_data(a, b, {"capacity": 0})["capacity"])
    wanted = networkx.maximum_flow_value(graph, 0, nodes - 1)
    network = Network(start, end, capacity, nodes)
    for _ in range(2):  # a flow leaves no traces
        flow = network.flow(0, nodes - 1)
        assert flow.value == pytest.approx(wanted, abs=1e-12)
        for side in (flow.reached, ~flow.reaching):
            assert side[0]
            assert not side[nodes - 1]
            assert capacity[side[start] & ~side[end]].sum() == pytest.approx(wanted, abs=1e-11)


def test_a_flow_that_is_enough_ends_early() -> None:
    network = Network(np.array([0, 0, 1]), np.array([1, 2, 2]), np.array([1.0, 2.0, 1.0]), 3)
    assert network.flow(0, 2, enough=1.5).value == 2.0
    assert network.flow(0, 2).value == 3.0
