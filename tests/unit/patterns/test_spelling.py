from __future__ import annotations

import pytest

from attlas.errors import ArgumentError
from attlas.patterns import BlockSparse, GlobalTokens, Linear, SlidingWindow
from attlas.patterns.spelling import FORM, spelt


def test_a_pattern_is_its_kind_and_its_settings() -> None:
    assert spelt(FORM) == SlidingWindow(256, sinks=4)
    assert spelt("global_tokens:tokens=0+7+9,width=32") == GlobalTokens((0, 7, 9), 32)
    assert spelt("block_sparse:block=64,local=4,stride=8") == BlockSparse(64, local=4, stride=8)
    assert isinstance(spelt("linear"), Linear)


def test_an_error_names_what_the_caller_calls_it() -> None:
    with pytest.raises(ArgumentError, match=r"^pattern: wanted one of"):
        spelt("nonsense")
    with pytest.raises(ArgumentError, match=r"^--pattern: wanted one of"):
        spelt("nonsense", argument="--pattern")


def test_deep_nesting_is_text() -> None:
    with pytest.raises(ArgumentError):
        spelt("sliding_window:width=" + "[" * 100_000)
