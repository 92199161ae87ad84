"""Tolerances that are derived, not tuned: at most twice the error that a plain implementation makes."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_as_exact_as(
    answer: Tensor, plain: Tensor, exact: Tensor, *, slack: float = 2.0, magnitude: float = 1.0, what: str = "answer"
) -> None:
    """Assert that `answer` is no farther from `exact` than `slack` times what `plain` is.

    Parameters
    ----------
    answer : Tensor
        What is tested.
    plain : Tensor
        The same by a plain dense computation in the dtype that `answer` is allowed.
    exact : Tensor
        The same in float64.
    slack : float
        2 by default.
    magnitude : float
        Eight rounding steps of the largest number, or of this, are always allowed, because the plain way may happen to
        be exactly right: 1 for entries of rows that sum to 1; the largest score, where scores are so large that their
        own rounding shows.
    what : str
        Named in the failure.
    """
    if answer.shape != exact.shape:
        raise AssertionError(f"{what}: shape {tuple(answer.shape)}, wanted {tuple(exact.shape)}")
    if bool(answer.isnan().any()):
        raise AssertionError(f"{what}: NaN")
    error = (answer.double() - exact).abs().max().item()
    allowed = slack * (plain.double() - exact).abs().max().item()
    rounding = 8 * torch.finfo(plain.dtype).eps * max(magnitude, exact.abs().max().item())
    if error > allowed + rounding:
        raise AssertionError(f"{what}: error {error:.3g}, allowed {allowed:.3g} + {rounding:.3g}")
