"""The page about the command line names every verb and every option, and none that does not exist."""

import re
from collections.abc import Iterator
from pathlib import Path

from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from attlas.cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
OF_EVERY_TYPER_APP = {"--help", "--install-completion", "--show-completion"}


def commands(command: TyperCommand | TyperGroup, path: str) -> Iterator[tuple[str, TyperCommand | TyperGroup]]:
    yield path, command
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            assert isinstance(child, TyperCommand | TyperGroup)
            yield from commands(child, f"{path} {name}")


def all_commands() -> dict[str, TyperCommand | TyperGroup]:
    root = get_command(app)
    assert isinstance(root, TyperCommand | TyperGroup)
    return dict(commands(root, "attlas"))


COMMANDS = all_commands()


def test_the_page_names_every_verb() -> None:
    missing = [path for path in COMMANDS if path not in PAGE]
    assert missing == []


def test_the_page_names_every_option_and_no_other() -> None:
    real = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}
    real = {option for option in real if option.startswith("--")}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE))
    assert named - real - OF_EVERY_TYPER_APP == set()
    assert real - named - OF_EVERY_TYPER_APP == set()
