from __future__ import annotations

import threading

import pytest
import torch

from attlas.view.tiles.kept import Kept


def nothing() -> None:
    return


def test_what_was_used_longest_ago_goes_first() -> None:
    kept = Kept(3 * 40)
    for name in "abc":
        kept.keep(name, torch.zeros(10))
    assert kept.known("a") is not None
    kept.keep("d", torch.zeros(10))
    assert kept.known("b") is None
    assert kept.known("a") is not None
    assert kept.nbytes == 120


def test_a_part_of_something_large_does_not_keep_all_of_it() -> None:
    kept = Kept(1000)
    kept.keep("a", torch.zeros(100_000)[:10])
    found = kept.known("a")
    assert found is not None
    assert found[0].untyped_storage().nbytes() == 40


def test_it_is_made_once_however_many_ask() -> None:
    kept, made, begin = Kept(1000), [], threading.Event()

    def make() -> tuple[torch.Tensor, ...]:
        begin.wait(5)
        made.append(1)
        return (torch.ones(3),)

    threads = [threading.Thread(target=lambda: kept.get("a", make, nothing)) for _ in range(5)]
    for thread in threads:
        thread.start()
    begin.set()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_when_the_one_who_makes_it_gives_up_the_next_one_makes_it() -> None:
    kept, entered, leave = Kept(1000), threading.Event(), threading.Event()

    class GaveUp(Exception):  # noqa: N818 - no error here
        pass

    def give_up() -> tuple[torch.Tensor, ...]:
        entered.set()
        leave.wait(5)
        raise GaveUp

    def first() -> None:
        with pytest.raises(GaveUp):
            kept.get("a", give_up, nothing)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(5)
    found: list[torch.Tensor] = []
    second = threading.Thread(target=lambda: found.extend(kept.get("a", lambda: (torch.ones(2),), nothing)))
    second.start()
    leave.set()
    thread.join()
    second.join()
    assert torch.equal(found[0], torch.ones(2))


def test_one_who_waits_may_leave() -> None:
    kept, entered, leave = Kept(1000), threading.Event(), threading.Event()

    def slow() -> tuple[torch.Tensor, ...]:
        entered.set()
        leave.wait(5)
        return (torch.ones(1),)

    thread = threading.Thread(target=lambda: kept.get("a", slow, nothing))
    thread.start()
    entered.wait(5)

    class Left(Exception):  # noqa: N818 - no error here
        pass

    def left() -> None:
        raise Left

    with pytest.raises(Left):
        kept.get("a", slow, left)
    leave.set()
    thread.join()
