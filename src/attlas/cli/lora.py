"""`attlas lora`: teach a model something by an adapter, merge the adapter into it, and take it out again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas.cli.common import JsonFlag, console, print_json, reporting
from attlas.cli.lora_advice import advise_adapter, advised, check_model
from attlas.cli.reading import check_folder, numbers
from attlas.errors import ArgumentError, StoreError, complaint
from attlas.training.settings import DECAYS, INITS, VARIANTS, LoraSettings, Targets, TrainingSettings

if TYPE_CHECKING:
    from attlas.training.merging import Merged, Unmerged
    from attlas.training.training import Trained

_DEFAULT_LORA, _DEFAULT_TRAINING = LoraSettings(), TrainingSettings()
_WORST = 5  # modules that a table shows
_LARGEST_RANKS = 2**24  # bytes of a file of ranks

lora_app = typer.Typer(
    help="Teach a model by small matrices beside its weights (LoRA), and merge them into it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelArgument = Annotated[
    str, typer.Argument(help="A bundled model, a Hugging Face id, or a local folder.", metavar="MODEL")
]
AdapterArgument = Annotated[Path, typer.Argument(help="An adapter's folder, as PEFT saves it.", metavar="ADAPTER")]
FolderOption = Annotated[Path, typer.Option("--out", "-o", help="A new folder to write to.", metavar="DIR")]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype", help="Of the weights: float32, bfloat16, float16 or float64.  [default: float32]", metavar="DTYPE"
    ),
]


@lora_app.command("train")
def train_adapter(
    model: ModelArgument,
    data: Annotated[
        str,
        typer.Argument(
            help="A .jsonl file, another UTF-8 text file, or - for text from standard input.", metavar="DATA"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The adapter's folder.", metavar="DIR")],
    projections: Annotated[
        str,
        typer.Option(
            "--projections",
            "-p",
            help="Which weights: query, key, value, output, gate, up, down; attention, mlp, all; or names of modules.",
            metavar="LIST",
        ),
    ] = "query,value",
    layers: Annotated[
        str | None, typer.Option("--layers", help="Only these layers, for example 0-5,7.", metavar="LIST")
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads", help="Only these heads of the attention, each as LAYER.HEAD: 16.0,17.3.", metavar="LIST"
        ),
    ] = None,
    separate: Annotated[
        bool,
        typer.Option("--separate", help="Give queries, keys and values that share a module a matrix A each."),
    ] = False,
    rank: Annotated[int, typer.Option("--rank", "-r", help="Rank of each product B·A.", min=1)] = _DEFAULT_LORA.rank,
    alpha: Annotated[
        float, typer.Option("--alpha", help="The product is multiplied with alpha / rank.")
    ] = _DEFAULT_LORA.alpha,
    ranks: Annotated[
        Path | None,
        typer.Option("--ranks", help="A JSON object: whole name of a module -> its rank, or 0.", metavar="FILE.json"),
    ] = None,
    advice: Annotated[
        Path | None,
        typer.Option(
            "--advice",
            help="What attlas lora advise wrote, in the place of --projections, --layers, --heads, --separate, --rank "
            "and --ranks.",
            metavar="FILE.json",
        ),
    ] = None,
    dropout: Annotated[
        float, typer.Option("--dropout", help="Share of its inputs that the adapter does not see in a step.")
    ] = _DEFAULT_LORA.dropout,
    variant: Annotated[
        str, typer.Option("--variant", help=f"One of {', '.join(VARIANTS)}.", metavar="NAME")
    ] = _DEFAULT_LORA.variant,
    init: Annotated[
        str,
        typer.Option("--init", help=f"How it begins: {', '.join(INITS)} or pissa_niter_N.", metavar="NAME"),
    ] = _DEFAULT_LORA.init,
    steps: Annotated[int, typer.Option("--steps", help="Steps of the optimiser.", min=1)] = _DEFAULT_TRAINING.steps,
    batch: Annotated[int, typer.Option("--batch", help="Examples a step.", min=1)] = _DEFAULT_TRAINING.batch,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="The highest.")
    ] = _DEFAULT_TRAINING.learning_rate,
    warmup: Annotated[
        float, typer.Option("--warmup", help="Share of the steps in which the learning rate grows.")
    ] = _DEFAULT_TRAINING.warmup,
    decay: Annotated[
        str, typer.Option("--decay", help=f"How it falls to 0 afterwards: {', '.join(DECAYS)}.", metavar="NAME")
    ] = _DEFAULT_TRAINING.decay,
    weight_decay: Annotated[float, typer.Option("--weight-decay", help="AdamW's.")] = _DEFAULT_TRAINING.weight_decay,
    clip: Annotated[
        float, typer.Option("--clip", help="The norm that all gradients together may have.")
    ] = _DEFAULT_TRAINING.clip,
    length: Annotated[
        int, typer.Option("--length", help="Tokens of an example at most.", min=2)
    ] = _DEFAULT_TRAINING.length,
    held_out: Annotated[
        str,
        typer.Option(
            "--held-out", help="Share of the examples kept for evaluation, or a file of them.", metavar="SHARE"
        ),
    ] = str(_DEFAULT_TRAINING.held_out),
    evaluate_every: Annotated[
        int, typer.Option("--evaluate-every", help="Steps between two evaluations; 0 for the end only.", min=0)
    ] = _DEFAULT_TRAINING.evaluate_every,
    save_every: Annotated[
        int, typer.Option("--save-every", help="Steps between two checkpoints; 0 for the end only.", min=0)
    ] = _DEFAULT_TRAINING.save_every,
    seed: Annotated[
        int, typer.Option("--seed", help="Of everything that is drawn at random.", min=0)
    ] = _DEFAULT_TRAINING.seed,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder, or begin.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Teach a model from examples by an adapter, which plain PEFT opens too. The model itself is not changed.

    The data is a .jsonl file with a JSON object a line: {"prompt": "Q: who keeps it? A:", "completion": " Anna."}, of
    which the completion is learnt; {"text": "..."}; or {"messages": [{"role": "user", "content": "..."}, ...]}, of
    which the assistant's turns are learnt. Any other file is read as one text. Some examples are held out, and the loss
    on them says whether what was learnt holds for others than those that were seen.

    Stopped with Ctrl-C, or killed, a run goes on with --resume as if nothing had happened.

    For example:

    attlas lora train smollm2-135m facts.jsonl --out facts --steps 300

    attlas lora train smollm2-135m facts.jsonl --out few --projections query,value --heads 16.0,17.3 --rank 4

    attlas lora train smollm2-135m facts.jsonl --out all --projections all --variant dora --learning-rate 0.0005

    Then: attlas lora merge smollm2-135m facts --out smollm2-facts
    """
    check_folder(out)
    targets = Targets(
        [name.strip() for name in projections.split(",")], numbers("--layers", layers), _pairs(heads), separate
    )
    lora = LoraSettings(rank, alpha, dropout, variant, init, _ranks(ranks))
    given = None
    if advice is not None:
        _check_alone(targets, lora)
        given, lora = advised(advice, alpha, {"dropout": dropout, "variant": variant, "init": init})
        targets = given.targets
    settings = TrainingSettings(
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        warmup=warmup,
        decay=decay,
        weight_decay=weight_decay,
        clip=clip,
        length=length,
        evaluate_every=evaluate_every,
        save_every=save_every,
        held_out=_held_out(held_out),
        seed=seed,
    )
    with reporting() as progress:
        from attlas.cli.reading import loaded_model
        from attlas.training.training import train

        lm = loaded_model(model, progress)
        if given is not None:
            check_model(given, lm)
        trained = train(lm, data, out, targets=targets, lora=lora, settings=settings, resume=resume, progress=progress)
    if as_json:
        print_json(trained.as_dict())
        return
    _print_trained(trained, model, out)


@lora_app.command("merge")
def merge_adapter(
    model: ModelArgument,
    adapter: AdapterArgument,
    out: FolderOption,
    dtype: DtypeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Add an adapter to its base model's weights, and write the model that comes of it.

    The folder is opened by every verb, and by transformers. What is added is small beside the weights, so rounding may
    lose some of it, in bfloat16 more than in float32: the table says how much.

    For example:

    attlas lora merge smollm2-135m facts --out smollm2-facts

    attlas lora merge smollm2-135m facts --out smollm2-facts-half --dtype bfloat16
    """
    check_folder(out)
    with reporting() as progress:
        from attlas.training.merging import merge

        merged = merge(model, adapter, out, dtype=dtype, progress=progress)
    if as_json:
        print_json(_merge_dict(merged))
        return
    _print_merged(merged)


@lora_app.command("unmerge")
def unmerge_adapter(
    merged: Annotated[str, typer.Argument(help="The merged model's folder.", metavar="MERGED")],
    adapter: AdapterArgument,
    out: FolderOption,
    base: Annotated[
        str | None,
        typer.Option("--base", help="The base model, to say how far the result is from it.", metavar="MODEL"),
    ] = None,
    dtype: DtypeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Take an adapter out of a model that it was merged into, and write the model that is left.

    What merging lost to rounding does not come back. An adapter of DoRA cannot be taken out.

    For example:

    attlas lora unmerge smollm2-facts facts --out smollm2-again --base smollm2-135m
    """
    check_folder(out)
    with reporting() as progress:
        from attlas.training.merging import unmerge

        left = unmerge(merged, adapter, out, base=base, dtype=dtype, progress=progress)
    if as_json:
        print_json(_merge_dict(left))
        return
    _print_unmerged(left)


lora_app.command("advise")(advise_adapter)


# ---- reading options


def _check_alone(targets: Targets, lora: LoraSettings) -> None:
    """Refuse an advice beside choices that it makes itself."""
    if targets != Targets() or lora.rank != _DEFAULT_LORA.rank or lora.ranks is not None:
        wanted = "it alone, without --projections, --layers, --heads, --separate, --rank and --ranks"
        raise ArgumentError(complaint("--advice", wanted=wanted, got="one of them too"))


def _pairs(text: str | None) -> list[tuple[int, int]] | None:
    """Return the heads of a list such as ``16.0,17.3``."""
    if text is None:
        return None
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,4})\.([0-9]{1,4})\s*", part)
        if match is None:
            wanted = "heads as LAYER.HEAD with commas between them, as in 16.0,17.3"
            raise ArgumentError(complaint("--heads", wanted=wanted, got=repr(text)))
        found.append((int(match[1]), int(match[2])))
    return found


def _ranks(path: Path | None) -> dict[str, int] | None:
    if path is None:
        return None
    try:
        if path.stat().st_size > _LARGEST_RANKS:
            raise StoreError(f"{path}: wanted at most {_LARGEST_RANKS:,} bytes of ranks, got more")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: wanted a JSON object of ranks, got a file that is not JSON") from error
    if not isinstance(found, dict):
        raise StoreError(f"{path}: wanted a JSON object, whole name of a module -> rank, got another kind of JSON")
    return found


def _held_out(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


# ---- showing results


def _print_trained(trained: Trained, model: str, out: Path) -> None:
    from attlas.cli.rankings import plain_table, print_table

    screen = console()
    if trained.evaluations:
        table = plain_table()
        table.add_column("after steps", justify="right")
        table.add_column("loss held out", justify="right")
        for step, loss in trained.evaluations:
            table.add_row(f"{step:,}", f"{loss:.4f}")
        print_table(screen, f"An adapter for {model}", "mean loss of a token that is learnt, in nats", table)
        screen.print()
    ranks = sorted(set(trained.ranks.values()))
    shown = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    screen.print(
        f"{trained.trainable:,} numbers trained beside {len(trained.ranks)} modules, rank {shown}; "
        f"{len(trained.losses):,} steps on {trained.examples:,} examples in {trained.seconds:,.0f} s",
        soft_wrap=True,
    )
    screen.print(
        f"loss of the first batch {trained.losses[0]:.4f}, of the last {trained.losses[-1]:.4f}", soft_wrap=True
    )
    if trained.resumed_at:
        screen.print(f"note: taken up again after step {trained.resumed_at:,}", soft_wrap=True)
    if trained.shortened:
        count = f"{trained.shortened:,} example{'s were' if trained.shortened > 1 else ' was'}"
        screen.print(f"note: {count} longer than --length, and lost the end", soft_wrap=True)
    screen.print(f"written: {out}", soft_wrap=True)
    screen.print(f"next: attlas lora merge {model} {out} --out {out}-merged", soft_wrap=True)


def _merge_dict(found: Merged | Unmerged) -> dict[str, Any]:
    return {
        "folder": found.folder,
        "dtype": found.dtype,
        "modules": found.rows(),
        "provenance": found.provenance.as_dict(),
    }


def _print_merged(merged: Merged) -> None:
    rows = sorted(merged.modules, key=lambda one: -one.loss)
    shown = [(one.name, one.rank, one.change, one.loss) for one in rows[:_WORST]]
    _print_modules(f"Merged in {merged.dtype}", "where rounding lost most of the change", "lost", shown)
    _print_end(len(rows), merged.folder)


def _print_unmerged(left: Unmerged) -> None:
    rows = sorted(left.modules, key=lambda one: -(one.off or 0))
    shown = [(one.name, one.rank, one.change, one.off) for one in rows[:_WORST]]
    meaning = "where it is farthest from the base, as a share of the change"
    _print_modules(f"Taken out, in {left.dtype}", meaning, "off", shown)
    if left.worst is None:
        console().print("\nnote: how far the result is from the base is not known; name it with --base", soft_wrap=True)
    _print_end(len(rows), left.folder)


def _print_modules(title: str, meaning: str, last: str, rows: Sequence[tuple[str, int, float, float | None]]) -> None:
    from attlas.cli.rankings import plain_table, print_table

    table = plain_table()
    table.add_column("module")
    for name in ("rank", "change of the weight", last):
        table.add_column(name, justify="right")
    for name, rank, change, value in rows:
        table.add_row(name, str(rank), f"{100 * change:.3g} %", "–" if value is None else f"{100 * value:.3g} %")
    print_table(console(), title, meaning, table)


def _print_end(count: int, folder: str) -> None:
    screen = console()
    screen.print(f"\n{count} modules in all", soft_wrap=True)
    screen.print(f"written: {folder}", soft_wrap=True)
