from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from attlas.cli.app import app
from attlas.cli.heads import RANKINGS, average, bar_of, number
from attlas.errors import DocumentError, StoreError


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["heads", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def table(said: str, title: str) -> list[tuple[int, int]]:
    """Read the layers and heads of one of the printed tables."""
    lines = said[said.index(title) :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.strip():
            break
        layer, head, *_ = line.split()
        rows.append((int(layer), int(head)))
    return rows


def test_tables_rank_as_the_numbers_do(reader: Path, document: Path) -> None:
    said = run(document, "--model", reader, "--top", 5)
    rows = json.loads(run(document, "--model", reader, "--json"))
    assert len(rows) == 12
    for ranking in RANKINGS:
        ordered = sorted(rows, key=lambda row: row[ranking.column], reverse=ranking.highest)
        assert table(said, ranking.title) == [(row["layer"], row["head"]) for row in ordered[:5]]


def test_the_numbers_go_to_a_file(reader: Path, document: Path, tmp_path: Path) -> None:
    said = run(document, "-m", reader, "-o", tmp_path / "heads.parquet", "--layers", "1")
    assert f"4 rows are in {tmp_path / 'heads.parquet'}" in " ".join(said.split())
    assert {row["layer"] for row in parquet.read_table(tmp_path / "heads.parquet").to_pylist()} == {1}


def test_parts_are_averaged_and_told_apart_for_machines(reader: Path, document: Path) -> None:
    document.write_text("abcdefghij" * 13, encoding="utf-8")
    rows = json.loads(run(document, "-m", reader, "--window", 64, "--json"))
    assert [row["part"] for row in rows] == [0] * 12 + [1] * 12 + [2] * 12
    assert "12 heads, on 130 tokens in 3 parts, averaged" in run(document, "-m", reader, "--window", 64)
    with pytest.raises(DocumentError, match="--window 64"):
        run(document, "-m", reader)


def test_each_query_of_a_part_counts_alike() -> None:
    rows = [
        {"layer": 0, "head": 0, "queries": 30, "near": 1.0, "part": 0},
        {"layer": 0, "head": 0, "queries": 10, "near": 0.0, "part": 1},
    ]
    assert average(rows) == [{"layer": 0, "head": 0, "queries": 40, "near": 0.75}]


def test_a_folder_is_no_file(reader: Path, document: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="wanted a file's name, got a folder"):
        run(document, "-m", reader, "-o", tmp_path)


def test_bars_have_eighths() -> None:
    assert [bar_of(share, 4) for share in (0, 1 / 32, 0.5, 1, 7)] == ["", "▏", "██", "████", "████"]


def test_numbers_are_readable() -> None:
    assert number("distance", 1234.56) == "1,234.6"
    assert number("near", 0.4567) == "45.7 %"
