"""Definitions and sections: where each begins and ends, in several languages, and in texts that deceive."""

import argparse
import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attlas.errors import ArgumentError
from attlas.explain.definitions import definitions_of
from attlas.explain.spans import spans_of
from attlas.models import Document

PYTHON = '''"""About f(x): def not(): anything."""
import os

@wraps(
    os
)
async def first(a,
    b=")",
):
    """
def no():
    """
    def inner():
        return 1
    return inner


class Shape:
    sides = 3

    def area(self): return 0

    @property
    def name(self):
        # a comment: class Not:
        return "class Neither:"

    class Part:
        def turn(self):
            pass
    after = 1
print("done")
'''


def cut(text: str) -> list[tuple[str, str]]:
    found = definitions_of(text)
    assert "".join(text[one.start : one.stop] for one in found) == text
    return [(one.name, text[one.start : one.stop]) for one in found]


def names(text: str) -> list[str]:
    return [name for name, _ in cut(text)]


def test_python_by_indentation() -> None:
    found = cut(PYTHON)
    assert [name for name, _ in found] == [
        "", "first", "Shape", "Shape.area", "Shape.name", "Shape.Part", "Shape.Part.turn", "Shape", "",
    ]  # fmt: skip
    assert found[1][1].startswith("@wraps(")
    assert found[1][1].rstrip().endswith("return inner")
    assert found[4][1].startswith("    @property")
    assert found[7][1] == "    after = 1\n"
    assert found[8][1] == 'print("done")\n'


def test_python_as_its_own_parser_finds_it() -> None:
    text = Path(argparse.__file__).read_text(encoding="utf-8")
    expected: list[str] = []

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                expected.append(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    collect(node.body, f"{prefix}{node.name}.")

    collect(ast.parse(text).body, "")
    # What stands between methods is the class's again.
    assert [name for name in dict.fromkeys(names(text)) if name] == list(dict.fromkeys(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/* doc { */\nint add(int a)\n{ if (a) { return 1; } }\n\nint x;\n", ["add", ""]),
        ("struct foo *make(int n) { return 0; }\nstruct foo { int x; };\n", ["make", "foo"]),
        ("#define A {\n\nvoid f(void) { puts(\"{\"); }\nvoid g(void) { char c = '{'; }\n", ["", "f", "g"]),
        ("class A extends B(C) {\n  m(x) { f(() => { g(); }); }\n  n = 1;\n}\n", ["A", "A.m", "A"]),
        ("const f = async (a) => { return `{`; };\ng(() => { h(); });\n", ["f", ""]),
        ("function* g(a) { yield 1; }\nfor (const x of y) { z(); }\n", ["g", ""]),
        ("fn go<'a>(x: &'a str) { '{' }\nimpl<T> S for T where F: Fn(x) { fn m(&self) {} }\n", ["go", "S", "S.m", "S"]),
        ("package p\n\nfunc (r *T) Name() (int, error) { return }\ntype X struct { a int }\n", ["", "Name", "X"]),
        ("namespace n { class C { void m() {} }; }\n", ["n", "n.C", "n.C.m", "n.C", "n"]),
    ],
)
def test_languages_with_braces(text: str, expected: list[str]) -> None:
    # What is only space or a mark may stand between.
    assert [name for name, part in cut(text) if part.strip(" \n;")] == expected


def test_the_sections_of_a_document() -> None:
    text = "before\n\n# One\n```python\n# no\ndef no(): pass\n```\nTwo\n===\nx(y) {z}\n## Three ##\n"
    assert names(text) == ["", "One", "Two", "Three"]


def test_a_function_is_a_span_of_tokens() -> None:
    text = "a = 1\ndef f():\n    pass\n"
    document = Document(text, list(range(len(text))), list(text), [(i, i + 1) for i in range(len(text))])
    assert [span.text for span in spans_of("function", document)] == ["a = 1\n", "def f():\n    pass\n"]


def test_a_text_without_any_says_so() -> None:
    with pytest.raises(ArgumentError, match='with headings, for "function", got a text in which none is found'):
        definitions_of("Nobody defined anything; (here { or there }).")


@given(st.text(alphabet="def class(){};:\"'`#=\n /*@a\\<>", max_size=80))
def test_nothing_is_lost_whatever_the_text(text: str) -> None:
    for source in (text, f"def f():\n{text}", f"f() {{ {text}", f"# a\n{text}"):
        try:
            found = definitions_of(source)
        except ArgumentError:
            continue
        assert "".join(source[one.start : one.stop] for one in found) == source


@pytest.mark.parametrize(
    "text",
    ["class A {" * 3000, "{" * 30000, "f() {}\n" * 3000, "(" * 30000 + "{", '"""' * 9000 + "\ndef f(): pass\n"],
    ids=["classes", "braces", "functions", "brackets", "quotes"],
)
def test_a_text_that_was_made_to_be_slow_is_cut_too(text: str) -> None:
    try:
        found = definitions_of(text)
    except ArgumentError:
        return
    assert found[-1].stop == len(text)
    # Names of classes within classes do not grow with the text's square.
    assert max(len(one.name) for one in found) < 100
