"""The tables of `attlas heads` that say which heads have which role, and how far weights alone would have told it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attlas.cli.rankings import bar_of, plain_table, print_table

if TYPE_CHECKING:
    from attlas.heads.role_table import HeadTable

BAR = 10
TAKEN = 73
"""Characters of a line before the names of other heads begin."""


def print_roles(out: Any, roles: HeadTable, rows: Sequence[dict[str, Any]]) -> None:
    """Print a line for each role: how many heads have it, and how well the best plays it."""
    from rich.text import Text

    table = plain_table()
    table.add_column("role", no_wrap=True)
    table.add_column("pass", justify="right", no_wrap=True)
    table.add_column("best", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("interval", no_wrap=True, style="dim")
    table.add_column("baseline", justify="right", no_wrap=True, style="dim")
    table.add_column("", width=BAR, no_wrap=True)
    table.add_column("others", style="dim", no_wrap=True, overflow="ellipsis")
    for name, scores in roles.scores.items():
        (best,) = roles.best(name)
        passing = sorted((row for row in rows if row[f"{name}_passes"]), key=lambda row: -row[f"{name}_score"])
        others = [
            f"{row['layer']}.{row['head']}" for row in passing if (row["layer"], row["head"]) != (best.layer, best.head)
        ]
        style = "green" if best.passes else "dim"
        table.add_row(
            Text(scores.role.label, style="" if best.passes else "dim"),
            str(len(passing)) if passing else "–",
            f"{best.layer}.{best.head}",
            Text(f"{best.score:.2f}", style=style),
            f"{best.low:.2f}–{best.high:.2f}",
            f"{best.baseline:.2f}",
            Text(bar_of(best.score, BAR), style=style),
            _fitting(others, out.width - TAKEN),
        )
    meaning = "the best head is chosen on one half of the examples and scored on the other"
    print_table(out, "Roles", meaning, table)
    out.print("A head passes if its whole interval lies above every baseline by a margin.", style="dim", soft_wrap=True)
    none = sum(row["role"] == "none" for row in rows)
    out.print(f"{none} of {len(rows)} heads pass none", style="dim", soft_wrap=True)
    for name, why in roles.missing.items():
        out.print(f"not measured: {name.replace('_', ' ')}: {why}", style="dim", soft_wrap=True)


def _fitting(names: Sequence[str], room: int) -> str:
    """Return as many names as fit."""
    shown = ""
    for i, name in enumerate(names):
        longer = f"{shown} {name}".strip()
        if len(longer) + (2 if i + 1 < len(names) else 0) > room:
            return f"{shown} …".strip() if room > 0 else ""
        shown = longer
    return shown


def print_best(out: Any, roles: HeadTable, name: str, top: int) -> None:
    """Print the best heads of one role."""
    from rich.text import Text

    role = roles.scores[name].role
    table = plain_table()
    for column in ("layer", "head", "score", "interval", "baseline"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", width=BAR, no_wrap=True)
    table.add_column("passes")
    for best in roles.best(name, min(top, len(roles))):
        table.add_row(
            str(best.layer),
            str(best.head),
            f"{best.score:.2f}",
            f"{best.low:.2f}–{best.high:.2f}",
            f"{best.baseline:.2f}",
            Text(bar_of(best.score, BAR), style="green" if best.passes else "dim"),
            "yes" if best.passes else "no",
        )
    print_table(out, role.label.capitalize(), role.meaning, table)
    out.print(f"Baseline: {role.baselines}", style="dim")
    out.print(
        "Chosen on one half of the examples, scored on the other; the intervals hold for all of them at once.",
        style="dim",
    )


def print_predictions(out: Any, roles: HeadTable) -> None:
    """Print how well numbers that are read off the weights tell the heads that have a role."""
    if not roles.predictions:
        return
    table = plain_table()
    table.add_column("role", no_wrap=True)
    table.add_column("number of the weights", no_wrap=True)
    table.add_column("AUC", justify="right", no_wrap=True)
    table.add_column("interval", no_wrap=True, style="dim")
    table.add_column("heads", justify="right", no_wrap=True, style="dim")
    for one in sorted(roles.predictions, key=lambda one: (one.role, -one.auc)):
        label = roles.scores[one.role].role.label if one.role in roles.scores else one.role
        table.add_row(
            label, one.predictor.replace("_", " "), f"{one.auc:.2f}", f"{one.low:.2f}–{one.high:.2f}", str(one.heads)
        )
    meaning = "chance that a head with the role has the larger number than one without; 0.5 is a coin"
    print_table(out, "How far weights alone tell it", meaning, table)
