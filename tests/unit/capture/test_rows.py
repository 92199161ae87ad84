"""A row of some heads is given other weights, and everything else stays the model's own."""

from typing import Any

import pytest
import torch
from torch import Tensor

import attlas
from attlas.capture.intervention import editing
from attlas.capture.prefix import Prefix
from attlas.capture.rows import RowChange, Rows
from attlas.errors import ArgumentError, CaptureError, UnsupportedModelError
from attlas.testing.tiny_models import LENGTH, TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}
DECODERS = ["Llama", "Mistral", "Gemma 2", "Gemma 3", "GPT-2", "Phi-3", "OPT"]


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def llama(request: pytest.FixtureRequest) -> Any:
    model: Any = BY_FAMILY["Llama"].build().double()
    model.set_attn_implementation(request.param)
    return model


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    return BY_FAMILY["Llama"].inputs(batch=3)


def logits(model: Any, **inputs: Any) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def changed(model: Any, changes: list[RowChange], row: int, **inputs: Any) -> Tensor:
    rows = Rows(model, changes, row)
    with editing(model, rows):
        found = logits(model, **inputs)
    rows.check()
    return found


def test_a_row_becomes_the_values_summed_by_the_given_weights(llama: Any, inputs: dict[str, Tensor]) -> None:
    row, n = 11, inputs["input_ids"].shape[1]
    weights = torch.rand(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    changes = [RowChange(2, 1, torch.tensor([0, 3]), weights)]
    with attlas.capture(llama, values=True) as cap:
        logits(llama, **inputs)
    value, group = cap.values(1), cap[1].shape[1] // cap.values(1).shape[1]
    width = value.shape[3]

    def put(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given = args[0].clone()
        for head, own in zip((0, 3), weights, strict=True):
            given[2, row, head * width : (head + 1) * width] = own @ value[2, head // group].double()
        return (given,)

    handle = llama.model.layers[1].self_attn.o_proj.register_forward_pre_hook(put)
    try:
        wanted = logits(llama, **inputs)
    finally:
        handle.remove()
    found = changed(llama, changes, row, **inputs)
    torch.testing.assert_close(found, wanted)
    plain = logits(llama, **inputs)
    assert torch.equal(found[:2], plain[:2]), "other elements stay as they are"
    assert torch.equal(found[2, :row], plain[2, :row]), "and so does what comes before"
    assert not torch.allclose(found[2, row:], plain[2, row:], atol=1e-3)


@pytest.mark.parametrize("family", DECODERS)
def test_rows_in_their_own_place_change_nothing_whether_the_text_is_run_or_its_last_token(family: str) -> None:
    model: Any = BY_FAMILY[family].build()
    ids = BY_FAMILY[family].inputs(batch=1)["input_ids"]
    with attlas.capture(model) as cap:
        wanted = logits(model, input_ids=ids)[0, -1]
    changes = []
    for layer in cap.layers:
        own = cap[layer][:, :, LENGTH - 1 : LENGTH, :][0, :, 0]
        changes.append(RowChange(1, layer, torch.arange(len(own)), own))
    whole = changed(model, changes, -1, input_ids=ids.expand(2, -1))[1, -1]
    prefix = Prefix(model, ids[0])
    assert prefix.known
    rows = Rows(model, changes, -1)
    with editing(model, rows):
        last = prefix.run(2).logits[1, -1]
    rows.check()
    exact = copy_in_double(model, ids)
    error = (wanted - exact).abs().max()
    for found in (whole, last, prefix.run(1).logits[0, -1]):
        # Twice the plain model's own error, and a rounding of the largest logit where that happens to be exact.
        assert (found - exact).abs().max() <= 2 * error + 8 * torch.finfo(torch.float32).eps * exact.abs().max()


def copy_in_double(model: Any, ids: Tensor) -> Tensor:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exact = logits(model.double(), input_ids=ids)[0, -1]
    model.float().load_state_dict(state)
    return exact


def test_a_prefix_can_be_run_again_and_keeps_what_it_had(llama: Any, inputs: dict[str, Tensor]) -> None:
    prefix = Prefix(llama, inputs["input_ids"][0])
    once, twice = prefix.run(2).logits, prefix.run(3).logits
    torch.testing.assert_close(once[0, -1], twice[2, -1])
    cap_heads, width, layers = 2, 8, 2
    assert prefix.size == 2 * layers * cap_heads * width * (inputs["input_ids"].shape[1] - 1)


def test_a_model_without_a_cache_has_no_prefix() -> None:
    prefix = Prefix(torch.nn.Embedding(8, 4), torch.arange(5))
    assert (prefix.known, prefix.size) == (False, 0)
    with pytest.raises(RuntimeError, match="keeps nothing"):
        prefix.run(1)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (RowChange(0, 1, torch.tensor([4]), torch.ones(1, LENGTH)), "heads below 4 and elements below 3 in layer 1"),
        (RowChange(3, 1, torch.tensor([0]), torch.ones(1, LENGTH)), "got 0 and 3"),
        (RowChange(0, 1, torch.tensor([0]), torch.ones(1, 5)), rf"weights for {LENGTH} keys .* got weights for 5"),
        (RowChange(0, 1, torch.tensor([0]), torch.ones(1, 40)), "got weights for 40"),
    ],
)
def test_changes_that_do_not_fit_are_refused(
    llama: Any, inputs: dict[str, Tensor], change: RowChange, complaint: str
) -> None:
    with pytest.raises(ArgumentError, match=complaint):
        changed(llama, [change], 2, **inputs)


def test_a_layer_that_did_not_run_is_told(llama: Any, inputs: dict[str, Tensor]) -> None:
    with pytest.raises(CaptureError, match="wanted attention calls of layers 7 to change, and got none"):
        changed(llama, [RowChange(0, 7, torch.tensor([0]), torch.ones(1, LENGTH))], 2, **inputs)


def test_values_that_are_not_split_into_heads_are_refused() -> None:
    module = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    states = torch.rand(1, 5, 8)
    rows = Rows(module, [RowChange(0, 0, torch.tensor([0]), torch.ones(1, 5))], 0)
    with pytest.raises(UnsupportedModelError, match="not split into heads"), editing(module, rows), torch.no_grad():
        module(states, states, states, need_weights=False)
