"""Sums of exponentials in parts: right whatever the parts are relative to."""

import pytest
import torch

from attlas.patterns.sums import HIDDEN, Partial, Running, join, merge, products, scored, triangular


def normal(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale


def valued(*shape, seed=9):
    value = normal(*shape, seed=seed)
    value[..., -1] = 1
    return value


def truth(log_query, log_key, value, seen):
    """Weighted means over the keys that are seen, and the logarithm of the sum of weights."""
    logs = torch.logsumexp(log_query.unsqueeze(3) + log_key.unsqueeze(2), -1).masked_fill(~seen, -torch.inf)
    weights = torch.where(logs.isfinite().any(-1, keepdim=True), logs, 0.0).softmax(-1)
    weights = weights * logs.isfinite().any(-1, keepdim=True)
    return weights @ value[..., :-1], torch.logsumexp(logs, -1)


# From the largest keys to the smallest, or the other way, over more than a float64 can span.
SLOPES = {"even": 0.0, "rising": 40.0, "falling": -40.0, "far apart": 400.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("slope", SLOPES)
def test_a_triangle_is_right_whatever_later_keys_are(slope, dtype):
    rows = 19
    log_query, log_key = normal(1, 2, rows, 5), normal(1, 2, rows, 5, seed=1)
    log_key = log_key + SLOPES[slope] * torch.arange(rows).view(-1, 1) * torch.tensor([1.0, 0, -1, 0.5, 2]).double()
    value = valued(1, 2, rows, 4)
    seen = torch.ones(rows, rows, dtype=torch.bool).tril()
    mean, log_total = truth(log_query, log_key, value, seen)
    partial = triangular(log_query.to(dtype), log_key.to(dtype), value.to(dtype))
    # A logarithm of thousands keeps three decimals in float32.
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5 + 4 * torch.finfo(dtype).eps * log_key.abs().max().item()
    torch.testing.assert_close(partial.mean().double(), mean, rtol=0, atol=tolerance * 4)
    torch.testing.assert_close(partial.log_total().double(), log_total, rtol=1e-5, atol=tolerance * 4)


def test_hidden_keys_weigh_nothing_and_rows_of_nothing_do_not_outweigh_others():
    rows = 6
    log_query, log_key, value = normal(1, 1, rows, 3), normal(1, 1, rows, 3, seed=1), valued(1, 1, rows, 3)
    log_key[:, :, :3] = -torch.inf
    log_key[:, :, 5] += 900
    partial = triangular(log_query, log_key, value)
    assert bool((partial.top[..., :3] == HIDDEN).all())
    mean, _ = truth(log_query, log_key, value, torch.ones(rows, rows, dtype=torch.bool).tril())
    torch.testing.assert_close(partial.mean(), mean)
    other = scored(normal(1, 1, rows, 2, seed=3), valued(1, 1, 2, 3, seed=4))
    both = merge([partial, other])
    torch.testing.assert_close(both.mean()[..., :3, :], other.mean()[..., :3, :])


def test_running_sums_are_those_over_all_keys():
    log_query, log_key, value = normal(2, 2, 7, 4), normal(2, 2, 30, 4, seed=1, scale=30.0), valued(2, 2, 30, 3)
    log_key[:, :, 4:9] = -torch.inf
    running = Running.nothing(log_query, 2, 2, 4, 3)
    for part in (slice(0, 4), slice(4, 9), slice(9, 10), slice(10, 30)):
        running = running.add(log_key[:, :, part], value[:, :, part])
    mean, log_total = truth(log_query, log_key, value, torch.ones(7, 30, dtype=torch.bool))
    partial = running.read(log_query)
    torch.testing.assert_close(partial.mean(), mean)
    torch.testing.assert_close(partial.log_total(), log_total)


def test_sums_over_no_key_are_nothing():
    partial = Running.nothing(normal(1), 1, 1, 4, 3).read(normal(1, 1, 5, 4))
    assert not bool(partial.mean().any())
    assert bool((partial.log_total() == -torch.inf).all())


def test_parts_are_merged_under_one_denominator():
    scores, value = normal(1, 2, 5, 9, scale=20.0), valued(1, 2, 9, 3)
    parts = [scored(scores[..., part], value[:, :, part]) for part in (slice(0, 2), slice(2, 8), slice(8, 9))]
    torch.testing.assert_close(merge(parts).mean(), scores.softmax(-1) @ value[..., :-1])
    halves = [Partial(parts[0].top[..., s], parts[0].out[:, :, s]) for s in (slice(0, 2), slice(2, 5))]
    torch.testing.assert_close(join(halves).out, parts[0].out)


def test_products_are_right_where_they_are_seen_and_finite_elsewhere():
    log_query, log_key = normal(1, 1, 8, 4), normal(1, 1, 8, 4, seed=1)
    log_key = log_key + 2000 * torch.arange(8).view(-1, 1)
    seen = torch.ones(8, 8, dtype=torch.bool).tril()
    exact = torch.logsumexp(log_query.unsqueeze(3) + log_key.unsqueeze(2), -1)
    shift = exact.masked_fill(~seen, -torch.inf).logsumexp(-1)
    found = products(log_query, log_key, shift, seen)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found[..., seen], (exact - shift.unsqueeze(-1)).exp()[..., seen])
