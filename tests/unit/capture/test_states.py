"""What passes by in a forward pass: the first tensor of numbers that a module is given or gives, once a run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attlas.capture.states import State, states
from attlas.errors import CaptureError


class Block(nn.Module):
    """Is given its state by name, behind flags and ids, and gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.unused = nn.Linear(4, 4)

    def forward(self, ids: Tensor, *, causal: bool, state: Tensor) -> tuple[None, tuple[Tensor, str]]:
        del ids, causal
        return None, (self.norm(state) * 2, "extra")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            _, (x, _) = self.block(torch.arange(3), causal=True, state=x)
        return x


def test_states_are_kept_of_every_run():
    model, x = Model(), torch.randn(1, 3, 4, requires_grad=True)
    given, gave, inside = State("block", "given"), State("block", "gave"), State("block.norm", "gave")
    told: list[int] = []
    kept = states(
        model, lambda: model(x), {given: Tensor.clone, gave: Tensor.clone, inside: lambda t: t.sum(-1)}, told.append
    )
    once = model.block.norm(x) * 2
    assert [len(tensors) for tensors in kept.values()] == [2, 2, 2]
    assert torch.equal(kept[given][0], x)
    assert torch.equal(kept[given][1], once)
    assert torch.equal(kept[gave][0], once)
    assert torch.equal(kept[gave][1], model.block.norm(once) * 2)
    assert kept[inside][0].shape == (1, 3)
    assert not any(tensor.requires_grad for tensors in kept.values() for tensor in tensors)
    assert told == [1, 2, 3, 4, 5, 6]


def test_the_model_is_left_as_it_was():
    model = Model()

    def fail(given: Tensor) -> Tensor:
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        states(model, lambda: model(torch.randn(1, 3, 4)), {State("block.norm", "given"): fail})
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_a_module_that_does_not_run_is_named():
    model = Model()
    with pytest.raises(CaptureError, match=r"block\.unused: did not run"):
        states(model, lambda: model(torch.randn(1, 3, 4)), {State("block.unused", "gave"): Tensor.clone})
