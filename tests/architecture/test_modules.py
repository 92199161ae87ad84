"""Modules stay small enough to read in one sitting, and each one opens with its idea."""

import ast
from pathlib import Path

import pytest

import attlas

ROOT = Path(attlas.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
LIMIT = 500


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_is_short_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LIMIT, f"{path.name}: over {LIMIT} lines; split it by idea"
    assert ast.get_docstring(ast.parse(text)), f"{path.name}: opens without a docstring"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_users_mistake_is_an_error_and_never_an_assert(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    asserts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert asserts == [], "python -O removes an assert: raise one of attlas.errors"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_broad_except_lets_the_failure_go_on_its_way(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for handler in ast.walk(tree):
        if not isinstance(handler, ast.ExceptHandler):
            continue
        if handler.type is None or ast.unparse(handler.type) in {"Exception", "BaseException"}:
            reraised = any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))
            assert reraised, f"{path.name}:{handler.lineno}: catch what can happen, by name"
