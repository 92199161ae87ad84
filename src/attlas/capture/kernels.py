"""Takes the log-sum-exp that PyTorch's fused kernels compute anyway, without changing what they compute."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Each returns (output, logsumexp, ...); some give the second only while gradients are recorded, and an empty one
# otherwise.
_FUSED = frozenset(
    str(name)
    for name in (
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "aten::_scaled_dot_product_fused_attention_overrideable",
    )
)


class _Dispatch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._schema.name in _FUSED:
            self.found.append(result[1])
        return result


class KernelWatch:
    """A context in which the log-sum-exp of a fused attention kernel is noticed.

    Parameters
    ----------
    enabled : bool
        False makes it do nothing.

    Attributes
    ----------
    lse : Tensor, optional
        What the one fused kernel that ran inside gave; None if there was none, or more than one.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._mode = _Dispatch() if enabled and not torch.compiler.is_compiling() else None
        self.lse: Tensor | None = None

    def __enter__(self) -> KernelWatch:
        if self._mode is not None:
            self._mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mode is None:
            return
        self._mode.__exit__(kind, error, trace)
        found = [lse for lse in self._mode.found if isinstance(lse, Tensor) and lse.numel()]
        self.lse = found[0] if len(found) == 1 else None
