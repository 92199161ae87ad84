"""Targets as people write them."""

from typing import Any

import pytest

from attlas.errors import ArgumentError
from attlas.explain.target_text import parsed_target
from attlas.explain.targets import Target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("-1", -1),
        (" 12 ", 12),
        ("-1: Paris", (-1, " Paris")),
        ("3:the", (3, "the")),
        ("-1: Paris/ Rome", (-1, " Paris", " Rome")),
        ("-1:/", (-1, "/")),
        ("-1:a:b", (-1, "a:b")),
        ("next@120", (120, "next")),
        ("next@-3", (-3, "next")),
        ("label:1", Target.label(1)),
    ],
)
def test_forms_of_a_target(text: str, target: Any) -> None:
    assert parsed_target(text) == target


@pytest.mark.parametrize(
    "text", ["", "Paris", "-1:", "next@", "next@x", "label:x", "label:-1", "1.5", "-1:next", "--1"]
)
def test_a_target_of_no_form(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"^target: wanted"):
        parsed_target(text)
    with pytest.raises(ArgumentError, match="--target: wanted"):
        parsed_target(text, "--target")
