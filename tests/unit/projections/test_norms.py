"""What a normalisation computes is found from its own input and output."""

from typing import Any

import pytest
import torch
from torch import nn

from attlas.projections.norms import head_norm_of, is_norm, norm_of
from attlas.projections.tracing import Run


def run_of(module: Any, x: torch.Tensor) -> Run:
    run = Run("norm", module, {"x": x}, 0, None)
    with torch.no_grad():
        run.output = module(x)
    return run


class GemmaNorm(nn.Module):
    """Multiplies with one plus its weight."""

    eps = 1e-6

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * (1 + self.weight)


class OtherNorm(GemmaNorm):
    """Divides by the largest entry instead."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / x.abs().amax(-1, keepdim=True) * self.weight


def randomised(module: Any) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


@pytest.mark.parametrize(
    ("module", "centred", "plus"),
    [
        (lambda: nn.LayerNorm(12), True, 0),
        (lambda: nn.LayerNorm(12, bias=False), True, 0),
        (lambda: nn.LayerNorm(12, elementwise_affine=False), True, None),
        (lambda: nn.RMSNorm(12, eps=1e-6), False, 0),
        (lambda: nn.RMSNorm(12), False, 0),
        (lambda: GemmaNorm(12), False, 1),
    ],
    ids=["layer norm", "without bias", "without weights", "rms", "rms of the dtype's eps", "one plus"],
)
def test_a_convention_is_found(module: Any, centred: bool, plus: int | None) -> None:
    module = randomised(module())
    x = torch.randn(2, 5, 12) + 0.5
    run = run_of(module, x)
    norm = norm_of(run)
    assert is_norm(run)
    assert norm is not None
    assert norm.centred == centred
    expected = torch.ones(12) if plus is None else plus + module.weight
    assert torch.equal(norm.gain, expected.detach())
    assert (norm.bias is None) == (getattr(module, "bias", None) is None)
    torch.testing.assert_close(norm(x.double()).float(), run.output)


def test_an_unknown_one_is_not_guessed() -> None:
    assert norm_of(run_of(OtherNorm(12), torch.randn(2, 5, 12))) is None


def test_norms_of_heads() -> None:
    apart = head_norm_of(run_of(randomised(nn.RMSNorm(4, eps=1e-6)), torch.randn(2, 5, 3, 4)), 3, 4)
    together = head_norm_of(run_of(randomised(nn.RMSNorm(12, eps=1e-6)), torch.randn(2, 5, 12)), 3, 4)
    assert apart is not None
    assert together is not None
    assert (apart.together, apart.gain.shape) == (False, (4,))
    assert (together.together, together.gain.shape) == (True, (3, 4))
    assert head_norm_of(run_of(randomised(nn.RMSNorm(6, eps=1e-6)), torch.randn(2, 5, 6)), 3, 4) is None
