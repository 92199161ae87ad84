"""The rule behind a mask: found where there is one, proved on every entry, and never guessed."""

import pytest
import torch
from torch import Tensor

from attlas.capture.visibility import MaskFunction, MaskMemory, Rule, TopLeft, read_mask, relative_table


def dense(rule: Rule, n_query: int, n_key: int) -> Tensor:
    return rule.seen(torch.arange(n_query), n_query, n_key)


def padding(n_key: int, *, left: int = 0, right: int = 0) -> Tensor:
    seen = torch.ones(2, 1, 1, n_key, dtype=torch.bool)
    seen[0, ..., :left] = False
    seen[0, ..., n_key - right :] = False
    return seen


@pytest.mark.parametrize("additive", [False, True], ids=["boolean", "additive"])
@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("window", [None, 1, 4, 11])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shape", [(17, 17), (5, 17)])
def test_structure_is_found(
    shape: tuple[int, int], causal: bool, window: int | None, side: str, additive: bool
) -> None:
    n_key = shape[1]
    mask = None if side == "none" else padding(n_key, **{side: 4})
    rule = Rule(causal, window, mask)
    seen = dense(rule, *shape).expand(2, 1, *shape).contiguous()
    given = torch.where(seen, 0.0, torch.finfo(torch.float32).min) if additive else seen
    reading = read_mask(given, *shape, hint=window)
    assert reading.bias is None
    assert reading.n_key == n_key
    assert reading.rule.structured
    assert torch.equal(*torch.broadcast_tensors(dense(reading.rule, *shape), seen))


def test_one_entry_away_from_structure_is_not_structure() -> None:
    seen = dense(Rule(causal=True), 33, 33).clone()
    seen[..., 20, 3] = False
    reading = read_mask(seen, 33, 33)
    assert not reading.rule.structured
    assert torch.equal(dense(reading.rule, 33, 33), seen)


def test_a_mask_per_head_is_kept_as_it_is() -> None:
    seen = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)) > 0.4
    assert torch.equal(dense(read_mask(seen, 9, 9).rule, 9, 9), seen)


def test_numbers_that_do_more_than_hide_are_a_bias() -> None:
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., 2, 3] = -1.5
    reading = read_mask(mask, 6, 6)
    assert reading.bias is not None
    assert torch.equal(reading.bias, mask)
    assert reading.rule == reading.rule.__class__() or reading.rule.mask is None


def test_minus_ten_thousand_is_a_number_and_not_a_mask() -> None:
    """Older models hide with -10000, which is not minus infinity: two such keys still compare."""
    mask = torch.zeros(1, 1, 1, 6)
    mask[..., 4:] = -10000.0
    assert read_mask(mask, 6, 6).bias is not None


def test_an_expanded_mask_is_not_held_expanded() -> None:
    seen = padding(12, left=3).expand(2, 5, 12, 12)
    rule = read_mask(seen, 12, 12).rule
    assert rule.padding is not None
    assert rule.padding.shape == (2, 1, 1, 12)


def test_the_callers_mask_may_be_written_to_afterwards() -> None:
    seen = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.4
    before = seen.clone()
    rule = read_mask(seen, 8, 8).rule
    seen.zero_()
    assert torch.equal(dense(rule, 8, 8), before)


def test_unwritten_places_of_a_cache_are_left_out_only_when_they_are_empty() -> None:
    seen = torch.zeros(1, 1, 4, 16, dtype=torch.bool)
    seen[..., :4] = torch.ones(4, 4, dtype=torch.bool).tril()
    assert read_mask(seen, 4, 16, trim=lambda used: used == 4).n_key == 4
    assert read_mask(seen, 4, 16, trim=lambda used: used == 4).rule.causal
    assert read_mask(seen, 4, 16, trim=lambda used: False).n_key == 16


def test_a_predicate_is_kept_only_if_it_proves_equal() -> None:
    def chunks(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query // 5 == key // 5) & (key <= query)

    index = torch.arange(13)
    seen = chunks(index, index, index[:, None], index[None, :])[None, None]
    function = MaskFunction(chunks, None, 0, 0, 1, 13, 13, seen.device)
    assert read_mask(seen, 13, 13, function=function).rule.mask is function
    seen = seen.clone()
    seen[..., 12, 11] = False
    assert isinstance(read_mask(seen, 13, 13, function=function).rule.mask, Tensor)


def test_memory_of_masks_lasts_while_they_do_and_notices_changes() -> None:
    memory = MaskMemory()
    mask = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    assert memory.read(mask, 6, 6, None, lambda used: False).rule.causal
    mask[..., 0, 5] = True
    assert not memory.read(mask, 6, 6, None, lambda used: False).rule.causal
    del mask
    memory.forget_dead()
    assert not memory._proved


@pytest.mark.parametrize(
    "rule",
    [
        Rule(),
        Rule(causal=True),
        Rule(causal=True, window=3),
        Rule(window=3),
        Rule(causal=True, mask=padding(11, left=4)),
        Rule(causal=True, window=2, mask=padding(11, right=5)),
        Rule(window=2, mask=padding(11, right=5)),
        Rule(mask=torch.zeros(2, 1, 1, 11, dtype=torch.bool)),
        Rule(mask=TopLeft(0)),
        Rule(mask=torch.rand(2, 3, 7, 11, generator=torch.Generator().manual_seed(2)) > 0.9),
    ],
)
@pytest.mark.parametrize("n_query", [7, 11])
def test_rows_that_see_something(rule: Rule, n_query: int) -> None:
    if isinstance(rule.mask, Tensor) and rule.mask.shape[2] not in (1, n_query):
        rule = Rule(mask=rule.mask[:, :, :1].expand(-1, -1, n_query, -1))
    expected = dense(rule, n_query, 11).any(-1)
    found = rule.sees_something(n_query, 11, torch.device("cpu"))
    assert torch.equal(*torch.broadcast_tensors(found, expected))


@pytest.mark.parametrize("shape", [(9, 9), (4, 9), (1, 9)])
def test_a_bias_over_offsets_becomes_a_table(shape: tuple[int, int]) -> None:
    n_query, n_key = shape
    weights = torch.randn(3, 2 * n_key, generator=torch.Generator().manual_seed(3))
    position, key = torch.arange(n_query)[:, None] + n_key - n_query, torch.arange(n_key)[None]
    bias = weights[:, key - position + n_key][None]
    table = relative_table(bias)
    assert table is not None
    index = torch.arange(3).view(1, 3, 1, 1)
    assert torch.equal(table(index, index, position[None, None], key[None, None]), bias)
    assert table.table.numel() == 3 * (n_query + n_key - 1)
    broken = bias.clone()
    broken[0, 1, -1, 2] += 1
    if n_query > 1:
        assert relative_table(broken) is None
