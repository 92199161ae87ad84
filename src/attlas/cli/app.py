"""The command `attlas` and its verbs."""

from __future__ import annotations

from typing import Annotated

import typer

from attlas import __version__
from attlas.cli.bench import bench_app
from attlas.cli.common import guarded
from attlas.cli.compare import tell_comparison
from attlas.cli.evaluate import tell_evaluation
from attlas.cli.explain import tell_explanation
from attlas.cli.heads import tell_heads
from attlas.cli.lora import lora_app
from attlas.cli.map import draw_map
from attlas.cli.models import models_app
from attlas.cli.plan import make_plan
from attlas.cli.profile import make_profile
from attlas.cli.projections import tell_projections
from attlas.cli.view import open_view

app = typer.Typer(
    name="attlas",
    help="An atlas of attention: every attention matrix of a transformer on a real document, exact, on a laptop.",
    epilog="Start with: attlas models add smollm2-135m",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: it is instant, and reads the same in a pipe
    pretty_exceptions_enable=False,
)
app.add_typer(models_app, name="models")
app.command("map")(draw_map)
app.command("view")(open_view)
app.command("heads")(tell_heads)
app.command("explain")(tell_explanation)
app.command("projections")(tell_projections)
app.command("compare")(tell_comparison)
app.command("profile")(make_profile)
app.command("plan")(make_plan)
app.command("evaluate")(tell_evaluation)
app.add_typer(lora_app, name="lora")
app.add_typer(bench_app, name="bench")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"attlas {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Hold the options that come before a verb; the help above is the app's own."""


def main() -> None:
    """Run the command line; the exit code is 0, 2 after an error of the user's, 130 after an interrupt."""
    guarded(app)
