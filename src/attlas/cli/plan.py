"""`attlas plan`: the cheapest pattern for every head within an error, or the least error within a cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas.cli.common import JsonFlag, check_suffix, console, print_json
from attlas.cli.reading import check_file
from attlas.errors import ArgumentError, complaint

if TYPE_CHECKING:
    from attlas.planning.plan import Plan
    from attlas.planning.profile import Chosen, Profile

NAME = "plan.json"
UNITS = {"head": "head", "kv-head": "kv_head"}


def make_plan(
    profile: Annotated[Path, typer.Argument(help="What attlas profile wrote.", metavar="PROFILE")],
    error: Annotated[
        float | None,
        typer.Option("--error", help="By what share perplexity may rise over exact: 0.02 is 2 %.", metavar="SHARE"),
    ] = None,
    cost: Annotated[
        float | None,
        typer.Option("--cost", help="What share of exact attention's time it may cost: 0.5 is half.", metavar="SHARE"),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="Choose for each head, or for each kv-head (all heads that share keys), which saves memory too.",
            metavar="UNIT",
        ),
    ] = "head",
    length: Annotated[
        int | None,
        typer.Option(
            "--length", help="Reckon costs for texts of so many tokens; those of the profile by default.", min=1
        ),
    ] = None,
    worth: Annotated[
        float | None,
        typer.Option(
            "--worth",
            help="Leave a head exact unless a pattern takes no more than this share of its time.",
            metavar="SHARE",
            show_default="0.6",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the plan.", metavar="FILE.json")] = Path(
        NAME
    ),
    as_json: JsonFlag = False,
) -> None:
    """Choose a pattern for every head from what a profile measured, and write the plan to a file.

    Give the error that you accept, and the plan is the cheapest within it; or the cost, and it loses the least. An
    error that no pattern can meet gives the plan that leaves every head exact, and says so. The plan is for the
    profiled model alone, and a short JSON file that you can read.

    For example:

    attlas plan profile.parquet --error 0.01

    attlas plan profile.parquet --cost 0.5 --by kv-head --out half.json

    attlas plan profile.parquet --error 0.02 --length 16384

    Then: attlas evaluate smollm2-135m plan.json other.txt
    """
    check_file("--out", out, NAME)
    check_suffix("--out", out, ".json")
    if (error is None) == (cost is None):
        got = "neither" if error is None else "both"
        raise ArgumentError(complaint("--error, --cost", wanted="one of the two", got=got))
    if by not in UNITS:
        raise ArgumentError(complaint("--by", wanted=" or ".join(UNITS), got=repr(by)))
    for option, share in (("--error", error), ("--cost", cost), ("--worth", worth)):
        if share is not None and not 0 <= share < math.inf:
            raise ArgumentError(complaint(option, wanted="a share from 0, such as 0.01 for 1 %", got=share))
    from attlas.planning.profile_file import open_profile

    found = open_profile(profile)
    options: dict[str, Any] = {"cost": cost, "by": UNITS[by], "length": length}
    options |= {} if worth is None else {"worth": worth}
    chosen = found.choose(error, **options)
    plan = found.plan_of(chosen)
    out.parent.mkdir(parents=True, exist_ok=True)
    plan.save(out)
    notes = list(chosen.notes)
    if as_json:
        print_json(
            {
                "plan": str(out),
                "full": chosen.full,
                "cost": chosen.cost,
                "expected": chosen.error,
                "notes": notes,
                "patterns": [
                    {"kind": pattern.kind, **pattern.settings(), "heads": heads}
                    for pattern, heads in plan.kinds.items()
                ],
            }
        )
        return
    _print(found, chosen, plan, notes, out)


def _print(found: Profile, chosen: Chosen, plan: Plan, notes: list[str], out: Path) -> None:
    from attlas.cli.rankings import plain_table, print_table

    screen = console()
    heads = len(found.effects.heads)
    table = plain_table()
    table.add_column("heads", justify="right")
    table.add_column("share", justify="right")
    table.add_column("pattern")
    full = heads - sum(plan.kinds.values())
    for name, count in [("full: exact", full), *((str(pattern), count) for pattern, count in plan.kinds.items())]:
        table.add_row(f"{count:,}", f"{100 * count / heads:.0f} %", name)
    print_table(screen, f"A plan for {found.provenance.model}", "a pattern for every head", table)
    expected = "what perplexity does is not known"
    if chosen.error is not None:
        expected = f"perplexity is expected to rise by {100 * chosen.error:.2f} % on texts like the profile's"
    screen.print(f"\nattention costs {100 * chosen.cost:.0f} % of exact; {expected}", soft_wrap=True)
    for note in notes:
        screen.print(f"note: {note}", soft_wrap=True)
    screen.print(f"written: {out}", soft_wrap=True)
    screen.print(f"next: attlas evaluate {found.provenance.model} {out} OTHER_TEXT", soft_wrap=True)
