from __future__ import annotations

import pytest

from attlas.cli.pattern_names import parsed_pattern, parsed_patterns
from attlas.errors import ArgumentError
from attlas.patterns import GlobalTokens, SlidingWindow


def test_a_pattern_is_its_kind_and_its_settings() -> None:
    assert parsed_pattern("sliding_window:width=256,sinks=4") == SlidingWindow(256, sinks=4)
    assert parsed_pattern(" sliding_window : width = 64 ") == SlidingWindow(64)
    assert parsed_patterns(["sliding_window:width=3", "sliding_window:width=5"]) == [SlidingWindow(3), SlidingWindow(5)]
    assert parsed_patterns(None) is None


def test_several_numbers_are_joined_by_a_plus() -> None:
    assert parsed_pattern("global_tokens:tokens=0+7+9,width=32") == GlobalTokens((0, 7, 9), 32)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("window:width=4", "wanted one of bigbird, block_sparse, dilated, full, global_tokens, linear"),
        ("sliding_window:size=4", "wanted sliding_window with width, if wanted with sinks, got"),
        ("sliding_window:sinks=4", "wanted sliding_window with width, if wanted with sinks, got"),
        ("full:width=4", "wanted full without settings"),
        ("sliding_window:width=0", "width: wanted a whole number of at least 1, got 0"),
    ],
)
def test_the_way_out_is_named(text: str, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        parsed_pattern(text)


@pytest.mark.parametrize(
    "text",
    ["", "window", "sliding_window", "sliding_window:", "sliding_window:width", "sliding_window:width=",
     "sliding_window:width=0", "sliding_window:width=many", "sliding_window:size=4", "sliding_window:width=4,,sinks=1"],
)  # fmt: skip
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="--pattern: wanted"):
        parsed_pattern(text)
