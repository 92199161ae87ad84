"""Collects what was found out about a model's heads into the cards of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attlas.errors import ArgumentError, complaint
from attlas.heads.roles import WRITES
from attlas.projections import LowRank
from attlas.projections.table import COLUMNS
from attlas.view.cards import Cards, PredictionCard, RoleCard
from attlas.view.projections_page import ProjectionFacts, projections_page

if TYPE_CHECKING:
    from attlas.heads.role_table import HeadTable, RoleScores
    from attlas.projections import Projections
    from attlas.projections.table import ProjectionTable

EDGES = 400
"""How many compositions a page can show."""

DRAWS = 8
"""Random heads behind the outline of a spectrum."""

_FIRST = (
    "qk_effective_rank",
    "ov_effective_rank",
    "preferred_offset",
    "kernel_share",
    "kernel_measured",
    "previous_measured",
    "copy_effective",
    "copy_raw",
    "feeds",
    "feeds_score",
    "feeds_z",
)
_LEFT_OUT = (
    *("parameters", "shared_parameters", "feeds_head", "feeds_kind"),
    *(f"{kind}_from_head" for kind in "qkv"),
)
_BESIDE = {
    "kernel_share": "kernel_share_chance",
    "previous_share": "kernel_share_chance",
    "kernel_measured": "kernel_even",
}


def cards_of(table: ProjectionTable | None = None, roles: HeadTable | None = None) -> Cards:
    """Return the cards of the heads that a table, or a table of roles, has rows for.

    Parameters
    ----------
    table : ProjectionTable, optional
        What the heads' weights hold, and which heads feed which.
    roles : HeadTable, optional
        What the heads do.

    Raises
    ------
    ArgumentError
        Neither table is given.
    """
    if table is not None:
        heads = list(table.heads)
    elif roles is not None:
        heads = list(roles.heads)
    else:
        raise ArgumentError(complaint("table", wanted="a table of projections or of roles", got="neither"))
    learnt = {} if table is None else _learnt(table)
    done = {} if roles is None else _done(roles, heads)
    return Cards(heads=heads, **learnt, **done)


def projections_html(
    projections: Projections,
    table: ProjectionTable,
    roles: HeadTable | None = None,
    *,
    error: float | None = None,
) -> str:
    """Return the page of projections as one HTML document.

    Parameters
    ----------
    projections : Projections
        The views.
    table : ProjectionTable
        A row a head.
    roles : HeadTable, optional
        What the heads do.
    error : float, optional
        The worst relative error that `Projections.verify` found.
    """
    counts = projections.counts()
    first = projections.views[0]
    facts = ProjectionFacts(
        layers=len(projections),
        heads=max(view.heads for view in projections),
        kv_heads=max(view.kv_heads for view in projections),
        dim=first.dim,
        width=first.d_model,
        parameters={**counts.by_projection(), "other": max(counts.model - counts.total, 0)},
    )
    cards = cards_of(table, roles)
    names = {view.layer: view.name for view in projections}
    modules = [names.get(layer, "") for layer, _ in cards.heads]
    return projections_page(cards, facts, projections.provenance, error=error, modules=modules)


def _learnt(table: ProjectionTable) -> dict[str, Any]:
    """Return the numbers of a table of projections, and the spectra and compositions behind them."""
    rows = table.rows()
    edges = [edge for one in table.compositions for edge in one.strongest(EDGES)]
    level = table.compositions[0].chance if table.compositions else None
    columns, values = [], {}
    for column in COLUMNS:
        if column.name.endswith(("_from_layer", "feeds_layer")):
            prefix = column.name.removesuffix("_layer")
            column = replace(column, name=prefix, meaning=f"The head that {column.meaning.split(' that ', 1)[1]}")
            values[prefix] = [_headed(row, prefix) for row in rows]
        elif column.name in _LEFT_OUT or not column.label:
            continue
        else:
            values[column.name] = [row[column.name] for row in rows]
        if any(value is not None for value in values[column.name]):
            columns.append(column if column.unit != "deviations" else replace(column, unit="σ"))
    order = {name: i for i, name in enumerate(_FIRST)}
    columns.sort(key=lambda column: order.get(column.name, len(order)))
    return {
        "columns": columns,
        "values": values,
        "chance": {column.name: _chance(table, column.name, rows, level) for column in columns},
        "tracks": {**_spectra(table), **_kernels(table)},
        "edges": sorted(edges, key=lambda edge: -edge.z)[:EDGES],
        "level": level,
    }


def _headed(row: dict[str, Any], prefix: str) -> str | None:
    """Return the head that a row names, in a word."""
    if row[f"{prefix}_layer"] is None:
        return None
    kind = f" {row[f'{prefix}_kind'].upper()}" if f"{prefix}_kind" in row else ""
    return f"{row[f'{prefix}_layer']}.{row[f'{prefix}_head']}{kind}"


def _chance(
    table: ProjectionTable, name: str, rows: Sequence[dict[str, Any]], level: float | None
) -> list[float | str | None]:
    """Return what chance gives for a column, for each row."""
    if name in table.chance:
        return [f"0 ± {table.chance[name]:.2g}"] * len(rows)
    if name.endswith(("_from_score", "feeds_score")):
        return [level] * len(rows)
    beside = _BESIDE.get(name, f"{name}_chance")
    return [row.get(beside) for row in rows]


def _spectra(table: ProjectionTable) -> dict[str, Tensor]:
    """Return the singular values of every head, and those of random heads of the shape that most have."""
    layers = {layer.layer: layer for layer in table.spectra.layers}
    tracks = {}
    for name in ("qk", "ov"):
        found = [getattr(layers[layer], name).singular_values[head] for layer, head in table.heads]
        width = max(len(values) for values in found)
        tracks[name] = torch.stack([torch.nn.functional.pad(values, (0, width - len(values))) for values in found])
        if table.compositions:
            d_model = table.compositions[0].d_model
            tracks[f"{name}_chance"] = random_spectrum(d_model, width)[None]
    return tracks


@lru_cache(maxsize=8)
def random_spectrum(d_model: int, width: int) -> Tensor:
    """Return the mean shape of the spectrum of two Gaussian factors' product, (width,); always the same draws."""
    generator = torch.Generator().manual_seed(0)
    shapes = []
    for _ in range(DRAWS):
        left, right = (torch.randn(d_model, width, generator=generator, dtype=torch.float64) for _ in range(2))
        values = LowRank(left, right.mT).svdvals()
        shapes.append(values / values.max())
    return torch.stack(shapes).mean(0)


def _kernels(table: ProjectionTable) -> dict[str, Tensor]:
    """Return each head's kernel by offset and the attention that was measured there; zeros where there is none."""
    if table.kernel is None:
        return {}
    count = len(table.kernel.offsets)
    tracks = {name: torch.zeros(len(table.heads), count, dtype=torch.float64) for name in ("kernel", "measured")}
    at = {head: i for i, head in enumerate(table.heads)}
    for layer in table.kernel.layers:
        for i, head in enumerate(layer.heads):
            row = at.get((layer.layer, head))
            for name, values in (("kernel", layer.shares), ("measured", layer.measured)):
                if values is not None and row is not None:
                    tracks[name][row] = values[i].nan_to_num(0.0)
    return tracks


def _done(roles: HeadTable, heads: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Return what a table of roles says about these heads."""
    order = _order(roles, heads)
    labels = {role.name: role.label for role in roles.roles}
    names = roles.names
    shown = [None if i is None or names[i] == "none" else labels.get(names[i], names[i]) for i in order]
    predictions = [
        PredictionCard(
            one.predictor.replace("_", " "), labels.get(one.role, one.role), one.auc, one.low, one.high, one.heads
        )
        for one in roles.predictions
    ]
    return {"roles": role_cards(roles, heads), "role": shown, "predictions": predictions}


def role_cards(roles: HeadTable, heads: Sequence[tuple[int, int]]) -> list[RoleCard]:
    """Return what a table of roles says about these heads, role by role; None where it has no row for one."""
    order = _order(roles, heads)
    return [_role(scores, order) for scores in roles.scores.values()]


def _order(roles: HeadTable, heads: Sequence[tuple[int, int]]) -> list[int | None]:
    at = {head: i for i, head in enumerate(roles.heads)}
    return [at.get(head) for head in heads]


def _role(scores: RoleScores, order: Sequence[int | None]) -> RoleCard:
    def chosen(values: Any) -> list[float | None]:
        return [None if i is None else float(values[i]) for i in order]

    return RoleCard(
        name=scores.role.name,
        label=scores.role.label,
        meaning=f"{scores.role.meaning} Baseline: {scores.role.baselines}",
        score=chosen(scores.score),
        low=chosen(scores.low),
        high=chosen(scores.high),
        baseline=chosen(scores.baseline),
        passes=[i is not None and bool(scores.passes[i]) for i in order],
        notes=[None if i is None else _note(scores, i) for i in order],
        telling=scores.role.kind <= WRITES,
    )


def _note(scores: RoleScores, head: int) -> str | None:
    """Return what was chosen for a head: which offset, or which direction."""
    if scores.choice is None:
        return None
    chosen = int(scores.choice[head])
    return str(chosen) if scores.choices is None else scores.choices[chosen]
