from __future__ import annotations

import hashlib

import pytest

from attlas.errors import DocumentError
from attlas.models import Document
from attlas.planning.held_out import KEY, check_held_out, mark


def document(ids: list[int], text: str = "some text") -> Document:
    return Document(text, ids, [str(one) for one in ids], None)


def test_the_same_tokens_and_what_goes_on_after_them_are_refused() -> None:
    settings = {KEY: [mark([9, 9]), mark([1, 2, 3])]}
    check_held_out(settings, [document([1, 2, 4, 3]), document([0, 1, 2, 3]), document([1, 2])])
    for ids in ([1, 2, 3], [1, 2, 3, 4, 5]):
        with pytest.raises(DocumentError, match="text 2, whose first 3 tokens it was made from"):
            check_held_out(settings, [document([4, 4]), document(ids)])


def test_the_same_characters_are_refused() -> None:
    settings = {"texts": [{"sha256": hashlib.sha256(b"some").hexdigest(), "characters": 4}]}
    check_held_out(settings, [document([1], "same"), document([1], "som")])
    with pytest.raises(DocumentError, match="text 1, whose first 4 characters"):
        check_held_out(settings, [document([1], "some text")])


def test_tokens_that_only_look_alike_in_a_row_are_told_apart() -> None:
    assert mark([1, 23]) != mark([12, 3])


@pytest.mark.parametrize("settings", [{}, {KEY: 3, "texts": 2}, {KEY: ["x"], "texts": [{"characters": 4}]}])
def test_a_plan_that_knows_no_texts_refuses_none(settings: dict[str, object]) -> None:
    check_held_out(settings, [document([1, 2, 3])])
