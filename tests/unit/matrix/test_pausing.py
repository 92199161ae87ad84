"""Long work may be held up and stopped at each tile, and work that someone waits for goes beside it."""

import threading

import pytest
import torch

from attlas import AttentionMatrix
from attlas.matrix import Pause, Received, ask, streaming
from attlas.matrix.threads import ahead, each


@pytest.fixture
def matrix(monkeypatch):
    monkeypatch.setattr(streaming, "TILE", 16)
    return AttentionMatrix(torch.randn(1, 2, 40, 4), torch.randn(1, 2, 40, 4), causal=True)


def test_it_is_called_at_each_tile_and_changes_no_answer(matrix):
    calls = []
    received, nothing = ask(matrix, Received(), Pause(lambda: calls.append(1)))
    assert torch.equal(received, matrix.received())
    assert nothing is None
    assert len(calls) == 2 * (1 + 2 + 3)


def test_what_it_raises_ends_the_pass(matrix):
    class Enough(Exception):  # noqa: N818 - no error here
        pass

    def stop():
        raise Enough

    with pytest.raises(Enough):
        ask(matrix, Received(), Pause(stop))


def test_work_ahead_does_not_wait_for_work_under_way():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        leave, begun = threading.Event(), threading.Barrier(3)

        def waits(_):
            begun.wait(30)
            leave.wait(30)

        long = threading.Thread(target=each, args=(waits, range(2), torch.device("cpu")))
        long.start()
        begun.wait(30)  # both workers are taken now
        with ahead():
            assert each(lambda i: i * i, range(5), torch.device("cpu")) == [0, 1, 4, 9, 16]
        leave.set()
        long.join()
    finally:
        torch.set_num_threads(before)
