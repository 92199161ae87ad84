"""The last row of a head gives what its pattern's definition says, and no key that it drops is read."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from attlas.patterns import Full, Linear, SlidingWindow
from attlas.patterns.chunk import Bend
from attlas.patterns.last_row import attend_last, keys_of
from attlas.testing import assert_as_exact_as
from keeping import CHOOSING, STATIC, truth

FIXED = {"full": Full(), **STATIC}
LENGTHS = (1, 2, 5, 17, 37, 64)
SINKS = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0, -2.0])


def problem(n_key: int, *, kv_head: int = 2, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(n_key)
    shapes = ((2, 6, 1, 8), (2, kv_head, n_key, 8), (2, kv_head, n_key, 5))
    return tuple(torch.randn(*shape, generator=random).to(dtype) for shape in shapes)


@pytest.mark.parametrize("window", [None, 3, 20])
@pytest.mark.parametrize("n_key", LENGTHS)
@pytest.mark.parametrize("name", FIXED)
def test_the_keys_are_those_that_the_definition_keeps(name: str, n_key: int, window: int | None) -> None:
    query, key, _ = problem(n_key)
    rules: dict[str, Any] = {"causal": True, "window": window}
    (kept,) = truth(FIXED[name], query[:1, :1], key[:1, :1], rules)[0, 0].nonzero(as_tuple=True)[1:]
    spans = keys_of(FIXED[name], n_key, window)
    found = [] if spans is None else [one for span in spans for one in span]
    assert sorted(found) == kept.tolist()
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("pattern", [*CHOOSING.values(), Linear("elu")], ids=str)
def test_what_depends_on_more_than_positions_is_not_known(pattern: Any) -> None:
    assert keys_of(pattern, 40) is None


@pytest.mark.parametrize("rules", [{}, {"softcap": 2.0}, {"sinks": SINKS}, {"softcap": 2.0, "sinks": SINKS}], ids=str)
@pytest.mark.parametrize("kv_head", [1, 2, 3, 6])
@pytest.mark.parametrize("heads", [range(6), [0], [5], [1, 3, 5], [0, 1, 4], [2, 3], [0, 5]], ids=str)
def test_any_heads_are_answered_as_they_are_defined(heads: Any, kv_head: int, rules: dict[str, Any]) -> None:
    query, key, value = problem(37, kv_head=kv_head)
    wide = value.repeat_interleave(6 // kv_head, dim=1)[:, list(heads)]
    for name in ("full", "window and sinks", "dilated and sinks", "global tokens"):
        pattern = FIXED[name]
        exact, plain = (
            truth(pattern, query, key, {"causal": True, **rules}, dtype)[:, list(heads)]
            for dtype in (torch.float64, torch.float32)
        )
        spans = keys_of(pattern, 37)
        assert spans is not None
        bend = Bend(8**-0.5, rules.get("softcap"), rules.get("sinks"))
        found = attend_last(query, key, value, list(heads), spans, bend)
        assert found.shape == (2, len(heads), 1, 5)
        assert_as_exact_as(found, plain @ wide, exact @ wide.double(), what=name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sinks", [None, SINKS])
def test_answers_have_the_values_dtype(dtype: torch.dtype, sinks: torch.Tensor | None) -> None:
    query, key, value = problem(37, dtype=dtype)
    wide = value.repeat_interleave(3, dim=1)
    rules = {"causal": True, "sinks": sinks}
    plain_dtype = torch.promote_types(dtype, torch.float32)
    exact, plain = (truth(Full(), query, key, rules, one) for one in (torch.float64, plain_dtype))
    found = attend_last(query, key, value, range(6), (range(37),), Bend(8**-0.5, sinks=sinks))
    assert found.dtype == dtype
    truly = exact @ wide.double()
    assert_as_exact_as(found, (plain @ wide.to(plain_dtype)).to(dtype), truly, what=str(dtype))


def test_keys_that_are_dropped_are_not_read() -> None:
    query, key, value = problem(37)
    spans = keys_of(SlidingWindow(5, sinks=2), 37)
    assert spans is not None
    wanted = attend_last(query, key, value, range(6), spans, Bend(0.3))
    for tensor in (key, value):
        tensor[:, :, 2:32] = math.nan
    assert torch.equal(attend_last(query, key, value, range(6), spans, Bend(0.3)), wanted)
    key[0, 0, 33] = math.nan
    assert attend_last(query, key, value, range(6), spans, Bend(0.3))[0, :3].isnan().all()


def test_one_span_and_many_are_the_same() -> None:
    query, key, value = problem(64)
    many = tuple(range(place, place + 1) for place in range(0, 60, 4))
    found = attend_last(query, key, value, range(6), many, Bend(0.3))
    torch.testing.assert_close(found, attend_last(query, key, value, range(6), (range(0, 60, 4),), Bend(0.3)))


def test_what_is_made_in_inference_mode_serves_outside_of_it() -> None:
    query, key, value = problem(53)
    spans = tuple(range(place, place + 1) for place in range(0, 50, 3))
    with torch.inference_mode():
        inside = attend_last(query, key, value, [0, 4], spans, Bend(0.3))
    assert torch.equal(attend_last(query, key, value, [0, 4], spans, Bend(0.3)), inside)
