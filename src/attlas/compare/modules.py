"""How each weight matrix changed, one row a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attlas.compare.changes import Change
from attlas.compare.columns import MODULE_COLUMNS
from attlas.compare.layers import ROLES, Pair
from attlas.compare.records import ModuleTable
from attlas.matrix.threads import each
from attlas.models.progress import Progress
from attlas.projections import factors
from attlas.results import Provenance

FULL = 8
"""Leading directions of a change of full rank."""


def module_table(
    changes: Mapping[str, Change],
    pairs: Sequence[Pair],
    *,
    directions: int | None,
    intruders: int,
    threshold: float,
    merge_dtype: torch.dtype,
    provenance: Provenance,
    progress: Progress | None,
) -> ModuleTable:
    """Measure every change; see `attlas.compare` for what the options mean."""
    places = _places(pairs)

    def work(change: Change) -> dict[str, Any]:
        row: dict[str, Any] = {"module": change.name, **dict.fromkeys(column.name for column in MODULE_COLUMNS)}
        row["layer"], row["role"] = places.get(change.name, (None, None))
        return row | module_row(change, directions, intruders, threshold, merge_dtype)

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total, "comparing weights")

    items = list(changes.values())
    rows = each(work, items, items[0].before.weight.device, tell) if items else []
    return ModuleTable(provenance, tuple(rows))


def _places(pairs: Sequence[Pair]) -> dict[str, tuple[int, str]]:
    """Return which layer each module belongs to, and what it makes there."""
    found: dict[str, tuple[int, str]] = {}
    for pair in pairs:
        for role in ROLES:
            name = pair.before.modules.get(role, "")
            layer, roles = found.get(name, (pair.before.layer, ""))
            if layer == pair.before.layer:
                found[name] = (layer, f"{roles}+{role}" if roles else role)
    return found


def module_row(
    change: Change, directions: int | None, intruders: int, threshold: float, merge_dtype: torch.dtype
) -> dict[str, Any]:
    """Measure one change; in float64."""
    before = change.before.weight.double()
    out, width = before.shape
    base = float(before.norm())
    row: dict[str, Any] = {"outputs": out, "inputs": width, "base": base, "bias_change": change.bias_change()}
    if change.part is not None:
        row |= {"trained_rank": change.part.rank, "scaling": change.part.scaling}
    delta = change.delta()
    size = float(delta.norm())
    if size == 0:
        return row | {
            "change": 0.0,
            "relative": 0.0,
            "rank": 0,
            "effective_rank": 0.0,
            "stable_rank": 0.0,
            "largest": 0.0,
        }
    u, s, vh = change.svd()
    rank = change.rank(s)
    s = s[:rank]
    row |= {
        "change": size,
        "relative": size / base if base else None,
        "rank": rank,
        "effective_rank": float(factors.effective_rank(s)),
        "stable_rank": float(factors.stable_rank(s)),
        "largest": float(s[0]),
    }
    wanted = directions or (len(s) if change.factored else FULL)
    row |= _against_base(before, delta, (u, s, vh), min(wanted, rank), intruders, threshold)
    return row | _merging(before, delta, merge_dtype)


def _against_base(
    before: Tensor, delta: Tensor, found: tuple[Tensor, Tensor, Tensor], k: int, intruders: int, threshold: float
) -> dict[str, Any]:
    u, s, vh = found
    left, right = u[:, :k], vh[:k].T
    within = float((left.T @ before @ right).norm())
    row: dict[str, Any] = {
        "directions": k,
        "amplification": float(s[:k].norm()) / within if within else None,
    }
    if not intruders:
        return row
    base_left, base_right = singular_vectors(before)
    count = min(k, base_left.shape[1])
    for name, ours, theirs in (("left", left, base_left), ("right", right, base_right)):
        row[name] = float((ours.T @ theirs[:, :count]).square().sum()) / count
        row[f"{name}_chance"] = k / ours.shape[0]
    tuned_left, _ = singular_vectors(before + delta)
    nearest = (tuned_left[:, :intruders].T @ base_left).abs().amax(1)
    row["intruders"] = int((nearest < threshold).sum())
    row["intruder_nearest"] = float(nearest.min())
    return row


def singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return all left and right singular vectors that stand above rounding, strongest first: (out, k) and (in, k).

    By the eigenvectors of the smaller Gram matrix in float64, which takes a quarter of the time of a decomposition of a
    tall matrix. Directions whose singular value is below 1e-7 of the largest are left out: they cannot be told apart by
    a Gram matrix, and mean nothing in weights kept in float32 or less.
    """
    out, width = matrix.shape
    small = matrix if out <= width else matrix.T
    values, vectors = torch.linalg.eigh(small @ small.T)
    values, vectors = values.flip(0), vectors.flip(1)
    real = values > values[0] * 1e-14
    first = vectors[:, real]
    second = small.T @ first
    second = second / second.norm(dim=0)
    return (first, second) if out <= width else (second, first)


def _merging(before: Tensor, delta: Tensor, dtype: torch.dtype) -> dict[str, float]:
    size = float(delta.norm())
    exact = before + delta
    rounded = before.to(dtype).double()
    kept = rounded + delta
    return {
        "merge_loss": float((exact.to(dtype).double() - exact).norm()) / size,
        "merge_loss_rounded": float((kept.to(dtype).double() - kept).norm()) / size,
    }
