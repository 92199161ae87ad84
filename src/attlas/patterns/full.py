"""Attention as it is, exact and without n × n memory whatever its rules: what every other pattern is measured by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from attlas.matrix import AttentionMatrix
from attlas.patterns import running
from attlas.patterns.band import Band
from attlas.patterns.fused import fused, fused_fits
from attlas.patterns.pattern import Pattern, Work


@dataclass(frozen=True)
class Full(Pattern):
    """Each row keeps all that it may see.

    Notes
    -----
    On a CPU, PyTorch's fused kernel runs wherever its arithmetic is the matrix's own: causal or not, with key padding,
    with learned sinks (whose share follows from the kernel's log-sum-exp), and with fewer queries than keys (two calls,
    joined by their log-sum-exps). A matrix's own window runs as `SlidingWindow` does. Soft caps, biases and masks of
    other forms stream.
    """

    kind = "full"

    def matrix(self, exact: AttentionMatrix) -> AttentionMatrix:
        self.check(exact)
        return exact

    def attend(self, exact: AttentionMatrix, value: Tensor) -> Tensor:
        self.check(exact)
        seen = exact.visibility
        if seen.window is not None:
            if seen.window < max(exact.shape[2:]):
                return running.attend(exact, value, Band(seen.window, seen.causal))
            exact = exact.with_visibility(replace(seen, window=None))
        if fused_fits(exact, value):
            out = fused(exact, value)
            # What the kernel's float32 cannot hold, the streaming product can, or it says what overflows.
            if not math.isnan(float(out.detach().sum())):
                return out
        return exact @ value

    def work(self, n_query: int, n_key: int, *, causal: bool) -> Work:
        if not causal:
            return Work(pairs=n_query * n_key)
        rows = min(n_query, n_key)
        return Work(pairs=rows * (n_key - rows) + rows * (rows + 1) // 2)

    def settings(self) -> dict[str, Any]:
        return {}
