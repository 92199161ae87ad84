"""The shadow of a kernel's output shows every way in which a captured matrix could be another one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attlas.capture.layer import Layer
from attlas.capture.probe import Probe, sample, shadow
from attlas.capture.visibility import Rule

EPS = torch.finfo(torch.float32).eps


def layer(*, value_dim: int = 16, kv_heads: int = 2, padded: bool = False, softcap: float | None = None) -> Layer:
    """Return a layer as a kernel would leave it, computed densely in float64."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, 40, dim, generator=generator, dtype=torch.float64)
        for heads, dim in ((4, 16), (kv_heads, 16), (kv_heads, value_dim))
    )
    mask = None
    if padded:
        mask = torch.ones(2, 1, 1, 40, dtype=torch.bool)
        mask[0, ..., :7] = False
    rule = Rule(causal=True, window=30, mask=mask)
    seen = rule.seen(torch.arange(40), 40, 40)
    group = 4 // kv_heads
    scores = query @ key.repeat_interleave(group, 1).mT * 0.25
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    weights = torch.where(seen, scores, -torch.inf).softmax(-1).nan_to_num(0.0)
    output = (weights @ value.repeat_interleave(group, 1)).float()
    probe = Probe(shadow(value.float()), shadow(output), EPS, EPS)
    return Layer("l", query.float(), key.float(), 0.25, rule, None, softcap, None, None, probe)


@pytest.mark.parametrize(
    "options", [{}, {"value_dim": 5}, {"kv_heads": 1}, {"kv_heads": 4}, {"padded": True}, {"softcap": 1.5}]
)
def test_the_kernels_own_matrix_verifies(options: dict[str, Any]) -> None:
    good = layer(**options)
    for rows in (1, 8, 64, None):
        error, tolerance = good.error(rows)
        assert error <= tolerance
        assert error < 1e-5
    error, tolerance = good.quick_error(8)
    assert error <= tolerance


def changed(tensor: Tensor) -> Tensor:
    copy = tensor.clone()
    copy[0, 0, 20] += 3
    return copy


CORRUPTIONS: dict[str, Callable[[Layer], Layer]] = {
    "one key": lambda good: dataclasses.replace(good, key=changed(good.key)),
    "one query": lambda good: dataclasses.replace(good, query=changed(good.query)),
    "scale": lambda good: dataclasses.replace(good, scale=0.26),
    "soft cap dropped": lambda good: dataclasses.replace(good, softcap=None),
    "not causal": lambda good: dataclasses.replace(good, rule=dataclasses.replace(good.rule, causal=False)),
    "window one wider": lambda good: dataclasses.replace(good, rule=dataclasses.replace(good.rule, window=31)),
    "no window": lambda good: dataclasses.replace(good, rule=dataclasses.replace(good.rule, window=None)),
    "padding dropped": lambda good: dataclasses.replace(good, rule=dataclasses.replace(good.rule, mask=None)),
    "sinks added": lambda good: dataclasses.replace(good, sinks=torch.zeros(4)),
    "bias added": lambda good: dataclasses.replace(good, bias=torch.randn(1, 1, 40, 40)),
    "heads swapped": lambda good: dataclasses.replace(good, query=good.query.flip(1)),
    "batch swapped": lambda good: dataclasses.replace(good, key=good.key.flip(0)),
    "log-sum-exp": lambda good: dataclasses.replace(good, lse=good.matrix.lse + 0.01),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_another_matrix_shows(name: str) -> None:
    bad = CORRUPTIONS[name](layer(padded=True, softcap=1.5))
    error, tolerance = bad.error(None)
    assert error > 10 * tolerance, f"{name}: {error:.1e} against {tolerance:.1e}"


def test_rows_that_see_nothing_are_left_out() -> None:
    good = layer(padded=True)
    output = good.probe.output.clone()
    output[0, :, :7] = 123.0  # what a kernel leaves in such rows is its own affair
    probe = dataclasses.replace(good.probe, output=output)
    error, tolerance = dataclasses.replace(good, probe=probe).error(None)
    assert error <= tolerance


def test_an_output_that_is_not_a_number_is_an_infinite_error() -> None:
    good = layer()
    output = torch.full_like(good.probe.output, float("nan"))
    assert dataclasses.replace(good, probe=dataclasses.replace(good.probe, output=output)).error(8)[0] == float("inf")


@pytest.mark.parametrize(("n_rows", "rows"), [(1, 1), (1, 64), (2, 2), (100, 1), (100, 2), (100, 8), (5, None)])
def test_the_sample_has_the_ends_and_is_always_the_same(n_rows: int, rows: int | None) -> None:
    chosen = sample(n_rows, rows)
    assert len(chosen) == min(n_rows, rows or n_rows)
    assert chosen.unique().equal(chosen)
    assert int(chosen[-1]) == n_rows - 1
    assert torch.equal(chosen, sample(n_rows, rows))
    if rows is None or rows >= 2:
        assert int(chosen[0]) == 0
