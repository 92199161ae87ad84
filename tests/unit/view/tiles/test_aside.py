"""Tensors put aside in a file: what comes back, and what does not fit."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
import torch

from attlas.view.tiles.aside import Aside


def test_what_is_put_aside_comes_back() -> None:
    aside = Aside()
    kept = {name: (torch.randn(3, 5), torch.randn(7)) for name in "abc"}
    for name, tensors in kept.items():
        assert aside.keep(name, *tensors)
    assert aside.keep("a", torch.zeros(2)), "it is there already"
    for name in "cab":
        found = aside.read(name)
        assert found is not None
        assert all(torch.equal(a, b) for a, b in zip(found, kept[name], strict=True))
    assert aside.read("d") is None
    aside.clear()
    assert aside.read("a") is None
    assert aside.keep("a", torch.ones(2))
    again = aside.read("a")
    assert again is not None
    assert torch.equal(again[0], torch.ones(2))
    aside.clear()


def test_what_has_no_room_is_not_kept() -> None:
    aside = Aside(most=100)
    assert aside.keep("a", torch.ones(20))
    assert not aside.keep("b", torch.ones(6))
    assert aside.keep("c", torch.ones(5))
    assert aside.read("b") is None
    aside.clear()


def test_a_disk_that_is_full_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    aside = Aside()
    assert not aside.keep("a", torch.ones(2))
    assert aside.read("a") is None
