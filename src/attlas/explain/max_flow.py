"""Maximum flow through a network of directed edges, with the cut that proves it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-13
"""Capacity below which an edge counts as full: rounding leaves crumbs that would otherwise be pushed around."""


@dataclass(frozen=True, eq=False)
class Flow:
    """A maximum flow, and its two outermost minimum cuts.

    Parameters
    ----------
    value : float
        How much flows; a flow of this size exists.
    reached : array of bool, (node,)
        Which nodes could still be sent more from the source: the smallest source side of a minimum cut.
    reaching : array of bool, (node,)
        Which nodes could still send more to the sink: the smallest sink side of a minimum cut.
    """

    value: float
    reached: NDArray[np.bool_]
    reaching: NDArray[np.bool_]


class Network:
    """Nodes and edges with capacities, through which flow can be asked for between any two nodes.

    Parameters
    ----------
    start, end : array of int, (edge,)
        Between which nodes each edge goes.
    capacity : array of float, (edge,)
        How much it carries.
    nodes : int
        How many nodes there are, numbered from 0.
    """

    def __init__(
        self, start: NDArray[np.int64], end: NDArray[np.int64], capacity: NDArray[np.float64], nodes: int
    ) -> None:
        # Every edge has its way back beside it: edge e and edge e ^ 1.
        ends = np.stack([end, start], axis=1).ravel()
        begins = np.stack([start, end], axis=1).ravel()
        self._ends: list[int] = ends.tolist()
        self._capacity: list[float] = np.stack([capacity, np.zeros_like(capacity)], axis=1).ravel().tolist()
        order = np.argsort(begins, kind="stable")
        places = np.searchsorted(begins[order], np.arange(nodes + 1))
        by_node: list[int] = order.tolist()
        self._edges = [by_node[a:b] for a, b in zip(places[:-1].tolist(), places[1:].tolist(), strict=True)]

    def flow(self, source: int, sink: int, *, enough: float = float("inf")) -> Flow:
        """Return a maximum flow from `source` to `sink`.

        Parameters
        ----------
        source, sink : int
            Two different nodes.
        enough : float
            Stop as soon as this much flows, because there is known to be no more.

        Notes
        -----
        Dinic's algorithm: as long as the sink can be reached, push along shortest paths until each has a full edge.
        """
        left = self._capacity.copy()
        value = 0.0
        while True:
            distance = self._distances(sink, left)
            if distance[source] < 0 or value >= enough:
                break
            value += self._push(source, sink, left, distance)
        reached = self._reached(source, left)
        return Flow(value, reached, np.array(distance) >= 0)

    def _distances(self, sink: int, left: list[float]) -> list[int]:
        """Return each node's distance to the sink along edges that are not full; -1 where there is no way."""
        ends, edges = self._ends, self._edges
        distance = [-1] * len(edges)
        distance[sink] = 0
        waiting = deque([sink])
        while waiting:
            node = waiting.popleft()
            for edge in edges[node]:
                other = ends[edge]
                if distance[other] < 0 and left[edge ^ 1] > SMALLEST:
                    distance[other] = distance[node] + 1
                    waiting.append(other)
        return distance

    def _push(self, source: int, sink: int, left: list[float], distance: list[int]) -> float:
        """Push along shortest paths until none is left; return how much that was."""
        ends, edges = self._ends, self._edges
        untried = [0] * len(edges)
        path: list[int] = []
        node, value = source, 0.0
        while True:
            if node == sink:
                amount = min([left[edge] for edge in path])
                value += amount
                for edge in path:
                    left[edge] -= amount
                    left[edge ^ 1] += amount
                # Go on from before the first edge that is full now.
                full = next(i for i, edge in enumerate(path) if left[edge] <= SMALLEST)
                node = ends[path[full] ^ 1]
                del path[full:]
                continue
            for place in range(untried[node], len(edges[node])):
                edge = edges[node][place]
                if left[edge] > SMALLEST and distance[ends[edge]] == distance[node] - 1:
                    untried[node] = place
                    path.append(edge)
                    node = ends[edge]
                    break
            else:
                if not path:
                    return value
                distance[node] = -1  # a dead end, for the rest of this round
                node = ends[path.pop() ^ 1]

    def _reached(self, source: int, left: list[float]) -> NDArray[np.bool_]:
        found = np.zeros(len(self._edges), dtype=np.bool_)
        found[source] = True
        waiting = [source]
        while waiting:
            for edge in self._edges[waiting.pop()]:
                other = self._ends[edge]
                if left[edge] > SMALLEST and not found[other]:
                    found[other] = True
                    waiting.append(other)
        return found
