from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from attlas.cli.app import app
from attlas.errors import ArgumentError, StoreError

SMALL = ("--lengths", "64,128", "--rounds", "1", "--heads", "2", "--kv-heads", "1", "--dim", "8")


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["bench", "patterns", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_every_pattern_is_counted_and_timed_at_every_length() -> None:
    rows = json.loads(run(*SMALL, "--pattern", "sliding_window:width=8,sinks=2", "--json"))
    assert [(row["pattern"], row["tokens"]) for row in rows] == [
        ("full", 64),
        ("sliding window: width 8, sinks 2", 64),
        ("full", 128),
        ("sliding window: width 8, sinks 2", 128),
    ]
    full, narrow = rows[2:]
    assert full["pairs"] == 128 * 129 // 2
    assert full["share"] == full["gain"] == 1
    assert narrow["share"] == narrow["pairs"] / full["pairs"] < 1
    assert narrow["ceiling"] == pytest.approx(1 / narrow["share"])
    assert all(row["seconds"] > 0 for row in rows)
    assert narrow["gain_low"] <= narrow["gain"] <= narrow["gain_high"]


def test_people_get_three_tables() -> None:
    said = run(*SMALL)
    assert "Measured" in said
    assert "Gained" in said
    assert "Counted" in said
    assert said.count("full") >= 2
    assert "2 causal heads sharing 1 sets of keys" in said


@pytest.mark.parametrize(("name", "begins"), [("wall.png", b"\x89PNG"), ("wall.svg", b"<?xml")])
def test_the_wall_is_drawn(tmp_path: Path, name: str, begins: bytes) -> None:
    said = run(*SMALL, "--plot", tmp_path / name, "--out", tmp_path / "patterns.parquet")
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert str(tmp_path / name) in said.replace("\n", "")
    rows = parquet.read_table(tmp_path / "patterns.parquet").to_pylist()
    assert {row["tokens"] for row in rows} == {64, 128}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--lengths", "many"), "--lengths: wanted whole numbers"),
        (("--lengths", "64,"), "--lengths: wanted whole numbers"),
        (("--lengths", "0"), "--lengths: wanted whole numbers"),
        (("--plot", "wall.txt"), "--plot: wanted a .png or .svg file"),
        (("--out", "rows.csv"), "--out: wanted a .parquet file, got rows.csv"),
        (("--heads", "3", "--kv-heads", "2"), "--kv-heads: wanted a number that divides 3 heads, got 2"),
        (("--pattern", "window"), "--pattern: wanted"),
    ],
)
def test_bad_input_is_refused(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, ["bench", "patterns", *arguments])
    assert isinstance(done.exception, ArgumentError)
    assert said in str(done.exception)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "patterns", "--plot", str(tmp_path)])
    assert isinstance(done.exception, StoreError)


def test_what_cannot_run_is_said_to() -> None:
    said = " ".join(run(*SMALL, "--pattern", "low_rank:rank=4").split())
    assert "cannot" in said
    assert "note: low rank: rank 4" in said
    assert "cannot stand in for causal heads" in said
