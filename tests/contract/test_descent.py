"""In every family, a descent gives the gradients of one ordinary backward pass, block by block or whole, or refuses."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attlas
from attlas.capture.attended import Attended
from attlas.capture.descent import Descent, descend
from attlas.capture.outputs import probed_outputs
from attlas.capture.walking import walk_capture
from attlas.testing.tiny_models import TINY_MODELS
from contract import families

ALL = [tiny.family for tiny in TINY_MODELS]
NAMED = [tiny.family for tiny in TINY_MODELS if tiny.named]
# Torch's own module projects inside of the call; the rest is refused by a capture too.
PROJECTS_INSIDE = {"SigLIP"}
# Some families compute their softmax and their norms in float32 whatever the model's dtype.
TOLERANCE = 64 * torch.finfo(torch.float32).eps

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def objective(output: Any) -> Tensor:
    """Make two numbers of whatever a model returns."""
    first = families.numbers(output)[0] if not hasattr(output, "text_embeds") else output.text_embeds
    flat = first.flatten(1)
    other = flat if not hasattr(output, "image_embeds") else output.image_embeds
    return torch.stack([flat[0, -3], flat[0, -1] * other[-1, -2]])


def built(family: str) -> tuple[nn.Module, dict[str, Any]]:
    tiny = families.BY_FAMILY[family]
    inputs = {name: one.double() if one.is_floating_point() else one for name, one in tiny.inputs(batch=2).items()}
    model: Any = tiny.build().double()
    if hasattr(model, "set_experts_implementation"):
        # The grouped product of experts knows no float64.
        model.set_experts_implementation("eager")
    return model, inputs


@cache
def gone_down(family: str, *, blocks: bool) -> tuple[Descent, list[Attended]]:
    model, inputs = built(family)
    descent = descend(model, inputs, objective, blocks=blocks)
    return descent, list(descent)


@cache
def supported(family: str) -> bool:
    refusal = families.examine(family).refusal
    if not refusal and family not in PROJECTS_INSIDE:
        return True
    tiny = families.BY_FAMILY[family]
    with pytest.raises((attlas.UnsupportedModelError, attlas.CaptureError)):
        descend(tiny.build(), tiny.inputs(batch=2), objective)
    return False


def close(one: Tensor, other: Tensor) -> None:
    assert one.shape == other.shape
    assert float((one - other).abs().max()) <= TOLERANCE * float(other.abs().max())


@pytest.mark.parametrize("family", ALL)
def test_gradients_are_those_of_one_ordinary_backward_pass(family: str) -> None:
    if not supported(family):
        assert family not in NAMED
        return
    descent, attended = gone_down(family, blocks=True)
    assert descent.blocks > 1
    model, inputs = built(family)
    with probed_outputs(model) as calls:
        values = objective(model(**inputs))
    close(descent.values, values.detach())
    assert [one.layer for one in attended] == [call.place.number for call in reversed(calls)]
    for target, value in enumerate(values):
        probes = [call.probe for call in calls]
        found = torch.autograd.grad(value, probes, retain_graph=True, allow_unused=True)
        for one, gradient in zip(attended, reversed(found), strict=True):
            d_output = one.gradients[target].output
            close(d_output, torch.zeros_like(d_output) if gradient is None else gradient)


@pytest.mark.parametrize("family", ALL)
def test_what_is_passed_on_gets_what_is_given_back(family: str) -> None:
    """The output is A·V, so dV is Aᵀ·dO: the matrix, the values and the gradients are of one and the same call."""
    if not supported(family):
        return
    for one in gone_down(family, blocks=True)[1]:
        assert one.value is not None
        for gradients in one.gradients:
            back = (one.matrix.T @ gradients.output).unflatten(1, (one.value.shape[1], -1)).sum(2)
            close(gradients.value, back)


@pytest.mark.parametrize("family", ALL)
def test_block_by_block_is_the_whole_graph(family: str) -> None:
    if not supported(family):
        return
    (by_block, attended), (whole, all_attended) = gone_down(family, blocks=True), gone_down(family, blocks=False)
    assert whole.blocks == 1
    for one, other in zip(attended, all_attended, strict=True):
        assert (one.layer, one.name, one.side, one.cross) == (other.layer, other.name, other.side, other.cross)
        assert torch.equal(one.matrix.query, other.matrix.query)
        for mine, theirs in zip(one.gradients, other.gradients, strict=True):
            for part in ("output", "key", "value"):
                close(getattr(mine, part), getattr(theirs, part))
    close(by_block.embedding_gradients, whole.embedding_gradients)


@pytest.mark.parametrize("family", NAMED)
def test_a_capture_is_walked_alike(family: str) -> None:
    model, inputs = built(family)
    with torch.no_grad(), attlas.capture(model, values=True) as cap:
        model(**inputs)
    attended = gone_down(family, blocks=True)[1]
    for one, other in zip(walk_capture(cap), attended, strict=True):
        assert (one.layer, one.name, one.side, one.cross) == (other.layer, other.name, other.side, other.cross)
        assert torch.equal(one.matrix.query, other.matrix.query)
        assert one.value is not None
        assert other.value is not None
        assert torch.equal(one.value, other.value)
        assert one.output is None
        assert one.gradients == ()
