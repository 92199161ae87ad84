"""`attlas lora advise`: which modules and heads to adapt, and at which rank, within a budget of parameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas.cli.common import JsonFlag, check_suffix, console, print_json, reporting
from attlas.cli.reading import check_file, numbers
from attlas.errors import ArgumentError, complaint
from attlas.training.settings import LoraSettings, Targets

if TYPE_CHECKING:
    from attlas.capture import LanguageModel
    from attlas.training.advice import Advice, Module

NAME = "advice.json"
_HEADS = 10  # that the table shows
_DEFAULT = LoraSettings()


def advise_adapter(
    model: Annotated[
        str, typer.Argument(help="A bundled model, a Hugging Face id, or a local folder.", metavar="MODEL")
    ],
    data: Annotated[
        str,
        typer.Argument(
            help="A .jsonl file, another UTF-8 text file, or - for text from standard input.", metavar="DATA"
        ),
    ],
    budget: Annotated[
        int | None, typer.Option("--budget", help="How many parameters the adapter may have.", min=1)
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            "--rank",
            "-r",
            help="In the place of --budget: as many as with this rank everywhere.  [default: 8]",
            min=1,
        ),
    ] = None,
    projections: Annotated[
        str,
        typer.Option(
            "--projections",
            "-p",
            help="The candidates: query, key, value, output, gate, up, down; attention, mlp, all; or names of modules.",
            metavar="LIST",
        ),
    ] = "all",
    layers: Annotated[
        str | None, typer.Option("--layers", help="Only these layers, for example 0-5,7.", metavar="LIST")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="Examples of each step of the trial.", min=1)] = 8,
    length: Annotated[int, typer.Option("--length", help="Tokens of an example at most.", min=2)] = 512,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that is drawn at random.", min=0)] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the advice.", metavar="FILE.json")] = Path(
        NAME
    ),
    as_json: JsonFlag = False,
) -> None:
    """Say which weights an adapter should go beside, and at which rank, for what these examples teach.

    All candidates are tried at once, with rank 1, in a training of up to 16 steps, each on examples that were not seen
    before; and each is credited with its part of what the loss of the next ones fell by. The budget then goes, a rank
    at a time, where it is expected to lower the loss most. Whether that has been seen to be better than even ranks is
    said with the advice.

    For example:

    attlas lora advise smollm2-135m facts.jsonl --rank 4

    attlas lora advise smollm2-135m facts.jsonl --budget 500000 --projections attention --out small.json

    Then: attlas lora train smollm2-135m facts.jsonl --advice advice.json --out facts
    """
    check_file("--out", out, NAME)
    check_suffix("--out", out, ".json")
    targets = Targets([name.strip() for name in projections.split(",")], numbers("--layers", layers))
    with reporting() as progress:
        from attlas.cli.reading import loaded_model
        from attlas.training.advising import advise

        lm = loaded_model(model, progress)
        found = advise(
            lm,
            data,
            budget=budget,
            rank=rank,
            targets=targets,
            batch=batch,
            length=length,
            seed=seed,
            progress=progress,
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        found.save(out)
    if as_json:
        print_json({"advice": str(out), **found.about(), "modules": found.rows(), "heads": found.head_rows()})
        return
    _print(found, model, data, out)


def advised(path: Path, alpha: float, options: dict[str, Any]) -> tuple[Advice, LoraSettings]:
    """Return an advice from a file, and the adapter that it asks for.

    Parameters
    ----------
    path : Path
    alpha : float
        As on the command line.
    options : dict
        dropout, variant and init.
    """
    from attlas.training.advice_file import open_advice

    found = open_advice(path)
    return found, found.settings(alpha=None if alpha == _DEFAULT.alpha else alpha, **options)


def check_model(found: Advice, lm: LanguageModel) -> None:
    """Refuse an advice that was made for another model.

    Raises
    ------
    ArgumentError
    """
    made = found.provenance
    if made.fingerprint != lm.facts.fingerprint:
        raise ArgumentError(
            complaint(
                "--advice",
                wanted=f"an advice for {lm.name}",
                got=f"one that was made for {made.model}, with other weights",
                way_out=f"make one: attlas lora advise {lm.name} DATA",
            )
        )


# ---- showing it


def _kind(one: Module) -> str:
    """Return what a module is among its layer's: a projection of the attention, or the end of its name."""
    inner = {"mlp", "module"} & set(one.roles)
    return one.name.rsplit(".", 1)[-1] if inner else "+".join(one.roles)


def _print(found: Advice, model: str, data: str, out: Path) -> None:
    from attlas.cli.rankings import plain_table, print_table
    from attlas.training.advice import EVIDENCE

    screen = console()
    groups: dict[str, list[Module]] = {}
    for one in found.modules:
        groups.setdefault(_kind(one), []).append(one)
    total = sum(one.fall for one in found.modules)
    table = plain_table()
    table.add_column("projection")
    for name in ("adapted", "ranks", "parameters", "share of the fall", "fall for a million parameters"):
        table.add_column(name, justify="right")
    for role, some in groups.items():
        kept = sorted(one.rank for one in some if one.rank)
        fall = sum(one.fall for one in some)
        table.add_row(
            role,
            f"{len(kept)} of {len(some)}",
            f"{kept[0]} to {kept[-1]}" if kept else "–",
            f"{sum(one.parameters for one in some):,}",
            f"{100 * fall / total:.0f} %",
            f"{1e6 * fall / sum(one.cost for one in some):.2f} nats",
        )
    about = f"{found.parameters:,} parameters of {found.budget:,}, where the trial's loss fell most for each"
    print_table(screen, f"What to adapt in {found.provenance.model}", about, table)
    if found.heads:
        best = ", ".join(f"{layer}.{head}" for layer, head in found.best_heads(_HEADS))
        screen.print(f"\nheads that brought most, as LAYER.HEAD: {best}", soft_wrap=True)
    for note in (*found.notes, EVIDENCE):
        screen.print(f"note: {note}", soft_wrap=True)
    screen.print(f"written: {out}", soft_wrap=True)
    screen.print(f"next: attlas lora train {model} {data} --advice {out} --out ADAPTER", soft_wrap=True)
