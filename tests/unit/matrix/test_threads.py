"""Work runs on threads that use one core each, leaves the caller's settings alone, and stops on the first error."""

import os
import threading

import pytest
import torch

from attlas import AttentionMatrix
from attlas.matrix import streaming
from attlas.matrix.threads import each, inline

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("_two_threads")


def test_workers_use_one_core_and_the_caller_keeps_its_own():
    seen = each(lambda _: (threading.current_thread().name, torch.get_num_threads()), range(8), CPU)
    assert {threads for _, threads in seen} == {1}
    assert all(name.startswith("attlas") for name, _ in seen)
    assert torch.get_num_threads() == 2


def test_threads_made_later_are_not_limited():
    each(lambda i: i, range(4), CPU)
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


def test_results_come_in_order_and_progress_reaches_the_end():
    seen = []
    results = each(lambda i: i * i, range(20), CPU, progress=lambda done, total: seen.append((done, total)))
    assert results == [i * i for i in range(20)]
    assert seen[-1] == (20, 20)
    assert seen == sorted(seen)


def test_the_first_error_is_raised_and_the_rest_is_dropped():
    done = []

    def work(i):
        if i == 1:
            raise ValueError("item 1")
        done.append(i)

    with pytest.raises(ValueError, match="item 1"):
        each(work, range(1000), CPU)
    assert len(done) < 1000


def test_inline_stays_on_the_calling_thread():
    with inline():
        names = each(lambda _: threading.current_thread().name, range(4), CPU)
    assert set(names) == {threading.current_thread().name}


def test_gradients_are_off_in_workers():
    assert not any(each(lambda _: torch.is_grad_enabled(), range(4), CPU))


def test_the_answer_does_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(streaming, "TILE", 32)
    matrix = AttentionMatrix(torch.randn(1, 3, 300, 8), torch.randn(1, 1, 300, 8), causal=True)
    matrix.prepare()
    with_two = matrix.received()
    torch.set_num_threads(1)
    assert torch.equal(matrix.received(), with_two)


def test_a_forked_child_makes_threads_of_its_own():
    each(lambda i: i, range(4), CPU)
    child = os.fork()
    if child == 0:
        os._exit(0 if each(lambda i: i + 1, range(4), CPU) == [1, 2, 3, 4] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_mixed_precision_of_the_caller_changes_nothing():
    matrix = AttentionMatrix(torch.randn(1, 1, 60, 8), torch.randn(1, 1, 60, 8))
    v = torch.randn(1, 1, 60, 8)
    wanted = matrix.received(), matrix.T @ v
    with torch.autocast("cpu", dtype=torch.bfloat16), inline():
        got = matrix.received(), matrix.T @ v
    assert torch.equal(wanted[0], got[0])
    torch.testing.assert_close(wanted[1], got[1])


def test_two_callers_at_once_do_not_disturb_one_another():
    matrices = [AttentionMatrix(torch.randn(1, 2, 400, 8), torch.randn(1, 2, 400, 8), causal=True) for _ in range(4)]
    wanted = [matrix.to_dense().sum(2) for matrix in matrices]
    got = {}
    threads = [
        threading.Thread(target=lambda i=i, m=m: got.__setitem__(i, m.received())) for i, m in enumerate(matrices)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, answer in enumerate(wanted):
        torch.testing.assert_close(got[i], answer)
