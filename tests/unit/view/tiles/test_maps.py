from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from attlas.matrix import AttentionMatrix
from attlas.matrix.even import even_spread
from attlas.testing.guards import no_dense
from attlas.view.tiles import maps as small
from attlas.view.tiles.maps import SIDES, Maps
from attlas.view.tiles.matrices import Matrices, UnknownMatrix
from attlas.view.tiles.pyramid import REDUCERS, Pyramid, ask_while_wanted
from reducing import PROBLEMS, by_hand, nothing, random
from serving import capture_of


def maps_of(*layers: AttentionMatrix) -> Maps:
    return Maps(Matrices({"a": capture_of(*layers)}), Pyramid())


def smallest_cell(n: int, side: int) -> int:
    """Return the smallest power of two of which `side` cover n."""
    return next(cell for cell in (2**i for i in range(20)) if cell * side >= n)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("what", PROBLEMS)
def test_every_head_is_what_its_entries_say(what: str, side: int) -> None:
    exact = PROBLEMS[what]
    maps = maps_of(exact)
    cell = smallest_cell(max(exact.shape[2:]), side)
    spread = even_spread(exact).to_dense()[0].double()
    for reduce in REDUCERS:
        found = maps.of_layer("a", 0, reduce, nothing, side=side)
        assert max(found.shape[1:]) <= side
        for head, dense in enumerate(exact.to_dense()[0].double()):
            expected = by_hand(dense, spread[min(head, len(spread) - 1)], cell, reduce)
            told = f"{head} {reduce}"
            torch.testing.assert_close(found[head].double(), expected, rtol=1e-4, atol=1e-6, equal_nan=True, msg=told)


@pytest.mark.parametrize("n", [100, 128, 129, 256, 257, 512, 513])
def test_maps_are_as_fine_as_they_may_be(n: int) -> None:
    found = maps_of(random(n, n, causal=True)).of_layer("a", 0, "max", nothing)
    assert found.shape[1:] == (-(-n // smallest_cell(n, 128)),) * 2
    assert 64 < found.shape[1] <= 128


def test_they_are_made_of_what_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = random(600, 600, causal=True)
    maps = maps_of(exact)
    matrices, pyramid = Matrices({"a": capture_of(exact)}), Pyramid()
    heads = [matrices.named(f"a.0.{head}") for head in (0, 1)]
    peak, mass = (
        torch.stack([pyramid.tile(head, 0, 0, 0, reduce, nothing) for head in heads]) for reduce in ("max", "mass")
    )
    maps.keep("a", 0, heads[0].grid.cell(0), 3 * peak, 5 * mass)
    other = maps_of(exact)
    expected = {reduce: other.of_layer("a", 0, reduce, nothing) for reduce in REDUCERS}
    monkeypatch.setattr(small, "ask_while_wanted", lambda *_: pytest.fail("what is there is measured again"))
    for reduce, factor in (("max", 3), ("mean", 5), ("mass", 5), ("lift", 5)):
        found = maps.of_layer("a", 0, reduce, nothing)
        torch.testing.assert_close(found, factor * expected[reduce], equal_nan=True)


def test_a_layer_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    monkeypatch.setattr(small, "ask_while_wanted", _counting(passes, ask_while_wanted))
    maps = maps_of(random(300, 300, causal=True), random(310, 310))
    for layer in (0, 1):
        for reduce in REDUCERS:
            for side in SIDES:
                maps.of_layer("a", layer, reduce, nothing, side=side)
    assert len(passes) == 2
    assert maps.nbytes > 0
    maps.clear()
    assert maps.nbytes == 0


def test_nothing_is_as_large_as_the_matrix() -> None:
    n = 1600
    maps = maps_of(random(n, n, heads=3, causal=True))
    with no_dense(n * n):
        for reduce in REDUCERS:
            assert maps.of_layer("a", 0, reduce, nothing).shape == (3, 100, 100)


def test_maps_that_nobody_waits_for_are_not_made() -> None:
    class Left(Exception):  # noqa: N818 - no error here
        pass

    looks = iter([None, None])

    def left() -> None:
        if next(looks, Left) is Left:
            raise Left

    maps = maps_of(random(2000, 2000, causal=True))
    with pytest.raises(Left):
        maps.of_layer("a", 0, "max", left)
    assert maps.nbytes == 0


@pytest.mark.parametrize("place", [("b", 0), ("a", 1)])
def test_what_is_not_there_is_said(place: tuple[str, int]) -> None:
    with pytest.raises(UnknownMatrix):
        maps_of(random(30, 30)).of_layer(*place, "max", nothing)


def _counting(calls: list[int], function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: calls.append(1) or function(*given)
