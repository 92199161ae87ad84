"""Maps of what moved in chosen heads, from two more readings of the text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attlas.capture import capture
from attlas.capture.language_model import reader_of, run_on
from attlas.compare.sides import Sides


def difference_maps(
    sides: Sides, ids: Tensor, heads: Sequence[tuple[int, int]], size: tuple[int, int]
) -> dict[tuple[int, int], Tensor]:
    """Return ``A' − A`` of each head, pooled to `size` by the mean, (rows, cols), on the CPU."""
    with sides.as_base() as model:
        before = _maps(model, ids, heads, size)
    with sides.as_tuned() as model:
        after = _maps(model, ids, heads, size)
    return {head: after[head] - before[head] for head in heads}


def _maps(
    model: nn.Module, ids: Tensor, heads: Sequence[tuple[int, int]], size: tuple[int, int]
) -> dict[tuple[int, int], Tensor]:
    layers = sorted({layer for layer, _ in heads})
    with capture(model, layers=layers) as cap, torch.no_grad():
        run_on(reader_of(model), ids[None])
    found = {}
    for layer in layers:
        wanted = sorted({head for at, head in heads if at == layer})
        pooled = cap[layer][0, wanted].pool(size, "mean").cpu()
        found |= {(layer, head): pooled[0, i] for i, head in enumerate(wanted)}
    return found
