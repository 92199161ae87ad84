"""A pattern's settings make it again, also after a way through JSON, and nothing else does."""

import json
from typing import Any

import pytest
import torch

from attlas import ArgumentError
from attlas.patterns import KINDS, GlobalTokens, Pattern, SlidingWindow, from_settings
from keeping import EVERY


@pytest.mark.parametrize("name", EVERY)
def test_round_trip(name):
    pattern = EVERY[name]
    settings = json.loads(json.dumps(pattern.settings()))
    assert settings == pattern.settings()
    again = from_settings(pattern.kind, settings)
    assert again == pattern
    assert hash(again) == hash(pattern)


@pytest.mark.parametrize("name", EVERY)
def test_a_dense_matrix_is_refused(name):
    dense: Any = torch.eye(8).expand(1, 2, 8, 8)
    for use in (EVERY[name].matrix, EVERY[name].check, lambda exact: EVERY[name].attend(exact, dense)):
        with pytest.raises(ArgumentError, match="exact: wanted an AttentionMatrix, got Tensor; make one"):
            use(dense)


def test_every_kind_has_its_own_name():
    assert all(kind.kind == name and issubclass(kind, Pattern) for name, kind in KINDS.items())
    assert {pattern.kind for pattern in EVERY.values()} <= set(KINDS)


def test_a_kind_that_is_not_known():
    with pytest.raises(ArgumentError, match=r"kind: wanted one of .*sliding_window.*, got 'windowed'"):
        from_settings("windowed", {})


@pytest.mark.parametrize("settings", [{"width": 3, "breadth": 1}, {}, {"width": None}, {"width": "3"}])
def test_settings_of_another_kind(settings):
    with pytest.raises(ArgumentError, match=r"settings|width"):
        from_settings("sliding_window", settings)


def test_equal_settings_are_equal_patterns():
    assert SlidingWindow(8) == SlidingWindow(8, sinks=0) != SlidingWindow(8, sinks=1)
    assert GlobalTokens((3, 1, 3), 4) == GlobalTokens((1, 3), 4)


def test_what_has_to_be_held():
    assert SlidingWindow(8, sinks=2).held(100) == 10
    assert SlidingWindow(8, sinks=2).held(5) == 5
    assert EVERY["dilated"].held(100) == 10
    assert EVERY["full"].held(100) == EVERY["top blocks"].held(100) == 100
