"""A stand-in says what the mask says, and is the mask itself for whoever looks into it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import masking_utils
from transformers.masking_utils import eager_mask, sdpa_mask

from attlas.capture.asked import ask, shared_heads
from attlas.capture.formulas import FormulaMask, read_formula
from attlas.capture.masking import formula_of
from attlas.capture.visibility import MaskMemory, Rule
from attlas.testing import no_dense

FUNCTIONS = {
    "causal": masking_utils.causal_mask_function,
    "window": masking_utils.sliding_window_causal_mask_function(5),
    "both ways": masking_utils.bidirectional_mask_function,
    "window both ways": masking_utils.sliding_window_bidirectional_mask_function(5),
    "chunks": masking_utils.chunked_causal_mask_function(4, torch.zeros(2, dtype=torch.int64)),
    "packed": masking_utils.packed_sequence_compatibility_function(
        masking_utils.causal_mask_function,
        torch.arange(40).expand(2, -1),
        torch.arange(40).expand(2, -1) // 7,
    ),
}
PADDINGS = {"none": None, "left": slice(0, 4), "right": slice(-6, None)}
# queries, keys, the position of the first query and of the first key
SHAPES = {
    "whole": (23, 23, 0, 0),
    "one more": (1, 23, 22, 0),
    "some more": (6, 23, 17, 0),
    "free places behind": (9, 23, 5, 0),
    "a cache that lets go": (6, 10, 17, 13),
}


def made(function: str, padding: str, shape: str, maker: Any = sdpa_mask) -> dict[str, Any]:
    n_query, n_key, query_offset, key_offset = SHAPES[shape]
    tokens = None
    if PADDINGS[padding] is not None:
        tokens = torch.ones(2, query_offset + n_query, dtype=torch.bool)
        tokens[0, PADDINGS[padding]] = False
    return {
        "batch_size": 2,
        "q_length": n_query,
        "kv_length": n_key,
        "q_offset": query_offset,
        "kv_offset": key_offset,
        "mask_function": FUNCTIONS[function],
        "attention_mask": tokens,
        "dtype": torch.float32,
        "device": torch.device("cpu"),
    }


def formula(options: dict[str, Any], maker: Any = sdpa_mask) -> FormulaMask:
    found = formula_of(maker, (), options)
    assert found is not None
    return found


def real(options: dict[str, Any], maker: Any = sdpa_mask) -> Tensor:
    return maker(**options, allow_is_causal_skip=False, allow_is_bidirectional_skip=False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_is_read_is_what_the_mask_says(function: str, padding: str, shape: str) -> None:
    if function == "packed" and shape != "whole":
        return  # transformers packs texts only where nothing is cached
    options = made(function, padding, shape)
    truth = real(options)
    reading = read_formula(formula(options).function)
    n_query = options["q_length"]
    found = reading.rule.seen(torch.arange(n_query), n_query, reading.n_key)
    assert torch.equal(found.expand(2, 1, -1, -1), truth[..., : reading.n_key])
    assert not truth[..., reading.n_key :].any()
    own = function in ("chunks", "packed")
    assert callable(reading.rule.mask) == (own or (function == "window both ways" and shape == "free places behind"))
    assert not (own and reading.aligned)
    if not own and shape != "free places behind":
        assert reading.aligned


def test_free_places_behind_a_causal_mask_are_left_out() -> None:
    reading = read_formula(formula(made("window", "none", "free places behind")).function)
    assert (reading.n_key, reading.rule.causal, reading.rule.window, reading.aligned) == (14, True, 5, True)


def test_tokens_that_a_cache_has_let_go_of_are_counted_without_padding() -> None:
    assert read_formula(formula(made("window", "left", "a cache that lets go")).function).dropped == (9, 13)
    assert read_formula(formula(made("window", "left", "whole")).function).dropped == ()


def test_a_predicate_that_only_looks_like_a_known_one_is_kept_as_it_is() -> None:
    # One-sided, and so no window: it hides the past and shows the future.
    options = {**made("causal", "none", "whole"), "mask_function": masking_utils.sliding_window_overlay(5)}
    rule = read_formula(formula(options).function).rule
    assert callable(rule.mask)
    assert torch.equal(rule.seen(torch.arange(23), 23, 23).expand(2, 1, -1, -1), real(options))


@pytest.mark.parametrize("maker", [sdpa_mask, eager_mask])
class TestStandIn:
    def test_has_the_masks_shape_and_makes_nothing(self, maker: Any) -> None:
        options = made("window", "left", "whole")
        truth = real(options, maker)
        with no_dense(23 * 23):
            mask = formula(options, maker)
            assert (mask.shape, mask.dtype, mask.device, mask.dim()) == (truth.shape, truth.dtype, truth.device, 4)
            assert mask[:, :, :, :23] is mask
            assert mask[..., :23] is mask
            assert mask.to(truth.dtype) is mask
            assert mask.to(device=truth.device) is mask
            assert not mask.looked_into
            assert "FormulaMask" in repr(mask)

    @pytest.mark.parametrize(
        "look",
        [
            lambda mask: mask[:, :, 3:5],
            lambda mask: mask[:, 0],
            lambda mask: mask.float() + 1,
            lambda mask: torch.where(mask.bool(), 1, 2),
            lambda mask: mask.to(torch.float64),
            lambda mask: mask.expand(-1, 4, -1, -1).contiguous(),
            lambda mask: torch.cat([mask, mask], dim=-1),
            lambda mask: mask.any(),
        ],
    )
    def test_is_the_mask_for_whoever_looks(self, maker: Any, look: Any) -> None:
        options = made("window", "left", "whole")
        mask = formula(options, maker)
        assert torch.equal(look(mask), look(real(options, maker)))
        assert mask.looked_into

    def test_a_part_is_made_without_the_rest(self, maker: Any) -> None:
        options = made("window", "left", "some more")
        with no_dense(6 * 23):
            part = formula(options, maker).part(slice(2, 6), slice(11, 21))
        assert torch.equal(part, real(options, maker)[:, :, 2:6, 11:21])

    def test_what_someone_writes_into_it_counts(self, maker: Any) -> None:
        mask = formula(made("causal", "left", "whole"), maker)
        hidden = False if maker is sdpa_mask else torch.finfo(torch.float32).min
        mask[:, :, 8:, 5] = hidden
        heads = torch.randn(2, 2, 23, 4)
        asked = ask(query=heads, key=heads, value=heads, mask=mask, masks=MaskMemory())
        found = asked.rule.seen(torch.arange(23), 23, 23)
        assert not found[:, :, 8:, 5].any()
        assert bool(found[:, :, 7, 5].all())

    def test_a_kernel_is_given_the_mask(self, maker: Any) -> None:
        options = made("window", "left", "whole")
        heads = torch.randn(2, 2, 23, 4)
        attend = torch.nn.functional.scaled_dot_product_attention
        output = attend(heads, heads, heads, attn_mask=formula(options, maker))
        assert torch.equal(output, attend(heads, heads, heads, attn_mask=real(options, maker)))


def test_a_mask_that_transformers_leaves_out_is_left_out_of_kernels() -> None:
    mask = formula(made("causal", "none", "whole"))
    assert mask.given() is None
    assert torch.equal(mask.dense(), real(made("causal", "none", "whole")))
    kept = formula(made("causal", "left", "whole"))
    assert kept.given() is kept.dense()


def test_masks_of_other_makers_are_made() -> None:
    def maker(batch_size: int, q_length: int, kv_length: int, mask_function: Any, **options: Any) -> Tensor:
        return torch.ones(batch_size, 1, q_length, kv_length)

    options = {**made("causal", "none", "whole")}
    assert formula_of(maker, (), options) is None
    assert formula_of(sdpa_mask, (), {**options, "use_vmap": True}) is None


def test_heads_go_on_sharing_keys_where_that_stays_even() -> None:
    assert shared_heads([0, 1, 2, 3, 4, 5], 3) == [0, 1]
    assert shared_heads([0, 2, 3, 5], 3) == [0, 1]
    assert shared_heads([1, 4], 3) == [0, 1]
    assert shared_heads([0, 1, 3], 3) == [0, 0, 1]
    assert shared_heads([0, 3, 1, 4], 3) == [0, 1, 0, 1]


def test_texts_of_a_padded_batch_are_cut_where_they_begin() -> None:
    padding = torch.ones(3, 1, 1, 10, dtype=torch.bool)
    padding[1, ..., :4] = False
    query, key = torch.randn(3, 4, 7, 8), torch.randn(3, 2, 10, 8)
    whole = ask(query=query, key=key, value=key, mask=None, masks=MaskMemory())
    asked = type(whole)(
        query, key, key, 1.0, Rule(True, None, padding), torch.randn(3, 4, 7, 10), None, None, None, (), True
    )
    assert asked.starts == [0, 4, 0]
    part = asked.of_texts([1], 4)
    assert part is not None
    assert (part.query.shape, part.key.shape) == ((1, 4, 6, 8), (1, 2, 6, 8))
    assert torch.equal(part.query, query[1:2, :, 1:])
    assert torch.equal(part.key, key[1:2, :, 4:])
    assert part.rule.mask is None
    assert isinstance(part.bias, Tensor)
    assert isinstance(asked.bias, Tensor)
    assert torch.equal(part.bias, asked.bias[1:2, :, 1:, 4:])
    assert asked.of_texts([1], 10) is None
