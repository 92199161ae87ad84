from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch

from answering import decoder
from attlas.errors import ArgumentError, DocumentError, UnsupportedModelError
from attlas.planning.speed import Speed, Timed, speed, without_attention
from finding import finder


def test_ratios_and_ceilings_are_amdahls() -> None:
    timed = Timed(exact=(10.0, 12.0, 11.0), planned=(8.0, 9.0, 8.0), without=(6.0, 7.2, 6.6))
    assert timed.gains == pytest.approx((1.25, 12 / 9, 11 / 8))
    assert timed.gain == pytest.approx(12 / 9)
    assert timed.attention == pytest.approx(0.4)
    assert timed.ceiling == pytest.approx(1 / 0.6)
    assert timed.ceiling_with(0.5) == pytest.approx(1 / 0.8)
    assert timed.ceiling_with(1.0) == 1
    assert timed.attention_gain == pytest.approx(4.4 / 1.8)
    found = Speed(100, timed, timed, 0.25, 2)
    assert found.part_ceiling == 4
    assert Speed(100, timed, timed, 0.0, 2).part_ceiling == math.inf
    rows = found.rows()
    assert [row["work"] for row in rows] == ["prefill", "decode"]
    assert rows[0]["gain_low"] == pytest.approx(1.25)


def test_attention_too_short_to_be_measured_is_no_number() -> None:
    assert math.isnan(Timed((1.0,), (1.0,), (1.1,)).attention_gain)
    assert Timed((1.0,), (1.0,), (1.1,)).attention == 0
    assert Timed((1.0,), (1.0,), (1.1,)).ceiling == 1


def test_without_attention_all_else_runs() -> None:
    lm = decoder()
    ids = torch.arange(5, 35)[None]
    with torch.no_grad():
        before = lm.model(input_ids=ids).logits
        with without_attention(lm):
            inside = lm.model(input_ids=ids).logits
        after = lm.model(input_ids=ids).logits
    assert torch.equal(before, after)
    assert inside.shape == before.shape
    assert not torch.allclose(inside, before)
    # Each row attends to the first key alone, so a later token's change reaches no other row.
    other = ids.clone()
    other[0, 10] = 40
    with torch.no_grad(), without_attention(lm):
        changed = lm.model(input_ids=other).logits
    assert torch.equal(changed[0, 11:], inside[0, 11:])
    assert not torch.equal(changed[0, 10], inside[0, 10])


def test_every_way_has_as_many_turns() -> None:
    lm = decoder()
    applied: list[int] = []

    def plan() -> nullcontext[None]:
        applied.append(1)
        return nullcontext()

    told: list[tuple[int, int]] = []
    found = speed(
        lm,
        plan,
        [*range(5, 45)],
        full=0.5,
        rounds=2,
        steps=4,
        progress=lambda done, total, _: told.append((done, total)),
    )
    assert len(applied) == 3
    assert found.tokens == 36
    for timed in (found.prefill, found.decode):
        assert len(timed.exact) == len(timed.planned) == len(timed.without) == 2
        assert min(timed.exact + timed.planned + timed.without) > 0
        assert 0 <= timed.attention < 1
    assert told[-1] == (9, 9)


def test_bad_input_is_refused() -> None:
    lm = decoder()
    with pytest.raises(ArgumentError, match="rounds: wanted a whole number from 1"):
        speed(lm, nullcontext, [*range(5, 45)], full=0, rounds=0)
    with pytest.raises(DocumentError, match="more than 17 tokens"):
        speed(lm, nullcontext, [*range(5, 15)], full=0)
    with pytest.raises(UnsupportedModelError, match="leave the speed out"):
        speed(finder(), nullcontext, [*range(5, 45)], full=0, rounds=1)
