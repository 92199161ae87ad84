from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from attlas.capture import load
from attlas.cli.app import app
from attlas.cli.evaluate import whole_numbers
from attlas.errors import ArgumentError, AttlasError, DocumentError, StoreError
from attlas.patterns import SlidingWindow
from attlas.planning.plan import Plan

TEXT = "the quick brown fox jumps over the lazy dog\n" * 4
QUICK = ("--generate", "0", "--timing", "0")


@pytest.fixture(scope="module")
def plan(long_reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planned") / "plan.json"
    Plan.of(load(long_reader), {(0, 0): SlidingWindow(4), (1, 2): SlidingWindow(8)}, texts=[TEXT]).save(path)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.txt"
    path.write_text("pack my box with five dozen liquor jugs\n" * 8, encoding="utf-8")
    return path


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def refused(*arguments: object) -> BaseException:
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert done.exception is not None
    return done.exception


def test_a_plan_is_told_from_exact(long_reader: Path, plan: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation.parquet"
    said = " ".join(run(long_reader, plan, other, "--generate", 4, "--timing", 1, "--flips", "--out", out).split())
    for words in ("held-out text", "Held-out texts", "Speed", "attention's share", "keys and values after"):
        assert words in said
    assert "6 of 8 heads are full; 2 ran by another pattern" in said
    assert "generated text:" in said
    assert "would get another pattern" in said
    [row] = parquet.read_table(out).to_pylist()
    assert row["tokens"] == 320


def test_machines_get_all_numbers(long_reader: Path, plan: Path, other: Path) -> None:
    told = json.loads(run(long_reader, plan, other, *QUICK, "--guard", 1, "--json"))
    assert told["needles"] is None
    assert told["speed"] is None
    assert told["heads"]["routed"] == 2
    assert told["ratio"]["low"] <= told["ratio"]["value"] <= told["ratio"]["high"]


def test_bad_input_is_refused(long_reader: Path, reader: Path, plan: Path, other: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen.txt"
    seen.write_text(TEXT, encoding="utf-8")
    short = tmp_path / "short.txt"
    short.write_text("the fox", encoding="utf-8")
    cases: list[tuple[tuple[object, ...], type[AttlasError], str]] = [
        ((long_reader, plan, seen, *QUICK), DocumentError, "plan was not made from"),
        ((long_reader, plan, short, *QUICK), DocumentError, "at least 32 tokens"),
        ((long_reader, plan, tmp_path / "none.txt", *QUICK), DocumentError, "no such file"),
        ((long_reader, tmp_path / "none.json", other, *QUICK), StoreError, "no such file"),
        ((long_reader, other, other, *QUICK), StoreError, "wanted a plan in JSON"),
        ((reader, plan, other, *QUICK), ArgumentError, "the one that the plan was made for"),
        ((long_reader, tmp_path, other, *QUICK), StoreError, "wanted a plan's file, which cannot be read"),
        ((long_reader, plan, other, *QUICK, "--out", tmp_path / "a.json"), ArgumentError, "wanted a .parquet file"),
        ((long_reader, plan, other, *QUICK, "--each", 3), ArgumentError, "--needles beside it"),
        ((long_reader, plan, other, *QUICK, "--needles", "--lengths", "a"), ArgumentError, "--lengths: wanted"),
        ((long_reader, plan, other, *QUICK, "--guard", 2), ArgumentError, "guard: wanted a number from 0 to 1"),
        ((long_reader, plan, other, *QUICK, "--needles"), ArgumentError, "words begin differently"),
    ]
    for arguments, kind, said in cases:
        error = refused(*arguments)
        assert isinstance(error, kind), (arguments, error)
        assert said in str(error)


def test_lists_of_numbers() -> None:
    assert whole_numbers("--lengths", "512, 1024") == (512, 1024)
    for wrong in ("", "1,,2", "-5", "1.5", "٣", "0"):
        with pytest.raises(ArgumentError, match="--lengths"):
            whole_numbers("--lengths", wrong)


def test_tables_fit_a_narrow_screen(
    long_reader: Path, plan: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attlas.cli.evaluate.PIPE", 80)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(other.parent)
    lines = run(long_reader, plan, other.name, "--generate", 4, "--timing", 1).splitlines()
    assert "…" not in "".join(lines)
    assert any(line.split()[:2] == ["times", "as"] and line.count("×") == 2 for line in lines)
    assert any(line.startswith(other.name) and line.endswith("%") for line in lines)
