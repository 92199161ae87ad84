"""Free memory between tensors that stay goes back to the system."""

import sys

import pytest
import torch

from attlas.capture import freeing


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * 4096


def test_holes_are_given_back() -> None:
    if freeing._trim() is None:
        freeing.give_back()
        return
    # Too small for pages of their own; every twentieth stays.
    tensors = [torch.zeros(25_000) for _ in range(2_000)]
    kept = tensors[::20]
    del tensors
    before = resident()
    freeing.give_back()
    assert before - resident() > 100e6
    assert len(kept) == 100


def test_other_systems_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    freeing._trim.cache_clear()
    assert freeing._trim() is None
    freeing.give_back()
    freeing._trim.cache_clear()
