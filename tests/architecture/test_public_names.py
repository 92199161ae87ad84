"""The public surface is one page, and nothing leaks beside it."""

import ast
import inspect
import re
from functools import cached_property
from pathlib import Path

import pytest

import attlas

ROOT = Path(attlas.__file__).parent
NAMES = sorted(set(attlas.__all__) - {"__version__"})


def names_for_type_checkers() -> dict[str, str]:
    """Read what the `if TYPE_CHECKING` block of the page promises: name -> module."""
    page = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in page.body if isinstance(node, ast.If))
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name}: not re-exported without `as {alias.name}`"
            found[alias.name] = str(node.module)
    return found


def test_what_type_checkers_see_is_what_python_sees() -> None:
    assert sorted(names_for_type_checkers()) == NAMES
    assert dir(attlas) == sorted(attlas.__all__)
    assert len(set(attlas.__all__)) == len(attlas.__all__)


def is_code(member: object) -> bool:
    return callable(member) or isinstance(member, property | cached_property)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_resolves_and_explains_itself(name: str) -> None:
    value = getattr(attlas, name)
    assert callable(value) or inspect.ismodule(value)
    assert len(inspect.getdoc(value) or "") > 20, f"attlas.{name} has no docstring"
    if inspect.isclass(value):
        members = {member: getattr(value, member) for member in vars(value) if not member.startswith("_")}
        silent = [f"{name}.{key}" for key, member in members.items() if is_code(member) and not inspect.getdoc(member)]
        assert silent == []


def test_an_unknown_name_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'atention'"):
        attlas.atention  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]  the failing look-up is the test


def test_the_changelog_knows_this_version() -> None:
    changelog = (ROOT.parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## \[([^\]]+)\]", changelog, flags=re.MULTILINE)
    assert attlas.__version__ in entries[:2]
