"""What holds for every test."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A machine that is busy is slow, and that is no bug; a failure prints what reproduces it anywhere.
settings.register_profile("attlas", deadline=None, print_blob=True)
settings.load_profile("attlas")

# Tests that run side by side share the cores. Threads that wait for one that has no core spin by default, and take the
# cores from those that work: each worker has its share of threads, and waiting is sleeping. It is set before torch is
# imported, so that it holds, and holds for the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def _two_threads() -> Iterator[None]:
    """Work as a machine with two cores does, heads on threads, however many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
