from __future__ import annotations

import pytest

from attlas.matrix import Difference, HeadMean
from attlas.view.tiles.preparing import prepare
from reducing import nothing, random


class Left(Exception):  # noqa: N818 - no error here
    pass


def left() -> None:
    raise Left


@pytest.mark.parametrize("kind", ["exact", "mean", "difference"])
def test_what_nobody_waits_for_ends_and_what_somebody_does_is_kept(kind: str) -> None:
    one, other = random(700, 700, causal=True), random(700, 700)
    made = {"exact": one, "mean": HeadMean(one), "difference": Difference(one, other)}[kind]
    with pytest.raises(Left):
        prepare(made, left)
    assert not one.sums_known
    prepare(made, nothing)
    assert one.sums_known
    assert other.sums_known == (kind == "difference")
    assert bool((one.lse == random(700, 700, causal=True).lse).all())
    prepare(made, left)  # nothing is left to do
