"""Every family either verifies, however it runs, or is refused by name: never a hole, never a wrong number."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import attlas
from attlas.testing.tiny_models import TINY_MODELS
from contract import families

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "families.md"
NAMED = [tiny.family for tiny in TINY_MODELS if tiny.named]
# Mamba continues from a state, not from keys.
DECODING = [
    tiny.family
    for tiny in TINY_MODELS
    if tiny.kind in ("decoder", "encoder-decoder", "sound to text") and tiny.family != "Mamba"
]
PADDINGS = [(family, side) for family in DECODING for side in ("none", "left")]

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize("family", NAMED)
def test_promised_families_verify(family: str) -> None:
    assert families.examine(family).refusal == ""


@pytest.mark.parametrize("family", [tiny.family for tiny in TINY_MODELS if not tiny.named])
def test_other_families_verify_or_are_refused_by_name(family: str) -> None:
    refusal = families.examine(family).refusal
    if refusal and "got none" not in refusal:
        modules = dict(families.BY_FAMILY[family].build().named_modules())
        assert refusal.split(":")[0].split(" and ")[0].split(", ")[0] in modules


def decoded(family: str, padding: str, steps: list[int]) -> attlas.Capture:
    tiny = families.BY_FAMILY[family]
    model, inputs = tiny.build(), tiny.inputs(batch=2)
    if tiny.kind != "decoder":
        inputs["decoder_input_ids"] = torch.randint(5, 90, (2, 19), generator=torch.Generator().manual_seed(2))
    if padding == "left":
        inputs = families.padded(inputs, "left")
    return families.decoded(model, tiny, inputs, steps)


@cache
def decoded_at_once(family: str, padding: str) -> attlas.Capture:
    return decoded(family, padding, [19])


@pytest.mark.parametrize("steps", [[10, *[1] * 9], [6, 7, 6], [19]], ids=["token by token", "in pieces", "at once"])
@pytest.mark.parametrize(
    ("family", "padding"),
    [(family, side) for family, side in PADDINGS if side == "none" or families.BY_FAMILY[family].reads_text],
)
def test_a_run_through_a_cache_is_the_same_matrix(family: str, steps: list[int], padding: str) -> None:
    if families.examine(family).refusal:
        with pytest.raises(attlas.UnsupportedModelError, match="code of its own"):
            decoded(family, padding, steps)
        return
    capture = decoded(family, padding, steps)
    families.prove(capture)
    tiny, whole = families.BY_FAMILY[family], decoded_at_once(family, padding)
    # An encoder runs once; its layers come first in the one run and in the other.
    assert capture.names == whole.names
    for number in capture.layers:
        rule, bias = capture[number].visibility, capture[number].bias
        if isinstance(bias, torch.Tensor) or (tiny.family == "Llama 4" and number == 0):
            # Numbers added to each score, or chunks: no rule over positions holds for the whole, so each call stays a
            # matrix of its own.
            assert sum(call.shape[2] for call in capture.calls(number)) == 19
            continue
        assert len(capture.calls(number)) == 1, f"{capture.names[number]} was not stitched: {rule}"
        allowed = families.tolerance(whole, number) * 50  # the states that went in differ by rounding too
        torch.testing.assert_close(
            capture[number].to_dense(), whole[number].to_dense(), rtol=0, atol=max(allowed, 1e-5)
        )


def test_the_page_of_families_is_up_to_date() -> None:
    text = families.table()
    committed = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if committed != text:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
    assert committed == text, f"{PAGE.name} was out of date and has been written anew: commit it"


def test_an_eager_and_a_fused_run_give_the_same_matrix() -> None:
    tiny = families.BY_FAMILY["Mistral"]
    model: Any = tiny.build()
    inputs = families.padded(tiny.inputs(batch=2), "left")
    dense = {}
    for kernel in ("sdpa", "eager"):
        model.set_attn_implementation(kernel)
        with torch.no_grad(), attlas.capture(model) as capture:
            model(**inputs)
        dense[kernel] = capture[1].to_dense()
    torch.testing.assert_close(dense["sdpa"], dense["eager"])
