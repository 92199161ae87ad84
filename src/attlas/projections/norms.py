"""What a normalisation module computes, found by trying the usual conventions on its own input and output."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from attlas.projections.fitting import error_of, tolerance_of
from attlas.projections.tracing import Run
from attlas.projections.views import HeadNorm, Norm

_EPS = ("eps", "variance_epsilon", "epsilon", "norm_eps", "layer_norm_eps")
_GAINS = ("weight", "gamma", "scale", "gain")
_BIASES = ("bias", "beta")


def is_norm(run: Run) -> bool:
    """Tell whether a run is that of a normalisation: by its class's name, and because it keeps the shape."""
    named = "norm" in type(run.module).__name__.lower()
    return named and run.first is not None and run.output is not None and run.first.shape == run.output.shape


def norm_of(run: Run) -> Norm | None:
    """Return the normalisation that a run computed; None where no convention reproduces its output."""
    given, made = run.first, run.output
    if given is None or made is None:
        return None
    x, y = given.double(), made.double()
    for gain, bias, eps in _conventions(run.module, x.shape[-1], x.device):
        for centred in (isinstance(run.module, nn.LayerNorm), not isinstance(run.module, nn.LayerNorm)):
            norm = Norm(gain, bias, centred, eps, run.name)
            if error_of(norm(x), y) <= tolerance_of(made.dtype):
                return norm
    return None


def head_norm_of(run: Run, heads: int, dim: int) -> HeadNorm | None:
    """Return a normalisation of queries or keys as one of heads; None where it is something else."""
    found = norm_of(run)
    if found is None or run.first is None:
        return None
    together = run.first.shape[-1] == heads * dim and heads > 1
    if together:
        gain, bias = (None if t is None else t.expand(heads * dim).view(heads, dim) for t in (found.gain, found.bias))
    else:
        gain, bias = found.gain, found.bias
    if gain is None or gain.dim() > 2 or gain.shape[-1] != dim:
        return None
    return HeadNorm(gain, bias, found.centred, found.eps, together, run.name)


def _conventions(module: nn.Module, width: int, device: torch.device) -> Any:
    """Every gain, bias and eps that the module's parameters can mean."""
    weight = _first(module, _GAINS)
    bias = _first(module, _BIASES)
    plain = torch.ones(width, device=device, dtype=torch.float32 if weight is None else weight.dtype)
    gains = [plain] if weight is None else [weight, 1 + weight]
    eps = [float(value) for name in _EPS if isinstance(value := getattr(module, name, None), float)]
    # torch's RMSNorm without an eps takes the dtype's.
    return itertools.product(gains, [bias], eps or [torch.finfo(plain.dtype).eps, 1e-6, 1e-5])


def _first(module: nn.Module, names: tuple[str, ...]) -> Tensor | None:
    for name in names:
        value = getattr(module, name, None)
        if isinstance(value, Tensor):
            return value.detach()
    return None
