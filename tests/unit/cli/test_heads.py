from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from attlas.cli.app import app
from attlas.cli.rankings import RANKINGS, average, bar_of, number
from attlas.cli.roles import _fitting
from attlas.errors import ArgumentError, DocumentError, StoreError


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
    with pytest.raises(StoreError, match="wanted a file's name, got the folder"):
        run(document, "-m", reader, "-o", tmp_path)


def test_bars_have_eighths() -> None:
    assert [bar_of(share, 4) for share in (0, 1 / 32, 0.5, 1, 7)] == ["", "▏", "██", "████", "████"]


def test_numbers_are_readable() -> None:
    assert number("distance", 1234.56) == "1,234.6"
    assert number("near", 0.4567) == "45.7 %"


def refused(*arguments: object) -> BaseException:
    done = CliRunner().invoke(app, ["heads", *map(str, arguments)])
    assert done.exception is not None
    return done.exception


@pytest.fixture(scope="module")
def rows(long_reader: Path) -> list[dict[str, object]]:
    return json.loads(run(long_reader, "--json"))


def test_roles_are_measured_without_a_document(long_reader: Path, rows: list[dict[str, object]]) -> None:
    said = run(long_reader)
    assert "8 heads" in said.splitlines()[0]
    for role in ("previous token", "induction", "first token"):
        assert role in said
    assert "8 of 8 heads pass none" in said, "the model is untrained"
    assert [(row["layer"], row["head"]) for row in rows] == [(layer, head) for layer in (0, 1) for head in range(4)]
    assert {row["role"] for row in rows} == {"none"}
    assert all(
        {f"induction_{part}" for part in ("score", "low", "high", "baseline", "passes")} <= set(row) for row in rows
    )


def test_a_document_adds_its_statistics(long_reader: Path, document: Path, tmp_path: Path) -> None:
    document.write_text("the quick brown fox jumps over the lazy dog\n" * 12, encoding="utf-8")
    out = tmp_path / "heads.parquet"
    said = run(long_reader, document, "--out", out, "--top", 2)
    assert "previous token" in said
    assert len(table(said, "Most local")) == 2
    found = parquet.read_table(out)
    assert {"role", "previous_token_score", "entropy", "even_entropy"} <= set(found.column_names)
    assert {b"attlas", b"roles", b"columns"} <= set(found.schema.metadata)
    assert found.num_rows == 8


def test_the_heads_of_one_role(long_reader: Path) -> None:
    said = run(long_reader, "--role", "induction", "--top", 3)
    assert "Induction" in said
    assert len([line for line in said.splitlines() if line.rstrip().endswith(("yes", "no"))]) == 3
    with pytest.raises(ArgumentError, match="--role: wanted one of previous_token"):
        raise refused(long_reader, "--role", "poetry")


def test_a_role_that_nobody_has_is_refused_before_anything_is_measured(
    long_reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object, **__: object) -> None:
        pytest.fail("it was measured")

    monkeypatch.setattr("attlas.heads.heads", measured)
    with pytest.raises(ArgumentError, match=r"--role: wanted one of previous_token.*nsubj.*, got 'poetry'"):
        raise refused(long_reader, "--role", "poetry")


def test_layers_and_heads_narrow_the_rows(long_reader: Path) -> None:
    found = json.loads(run(long_reader, "--json", "--layers", "1", "--heads", "2-3"))
    assert [(row["layer"], row["head"]) for row in found] == [(1, 2), (1, 3)]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["FILE"], "MODEL: wanted a model's name or folder, got a file.*attlas heads MODEL"),
        (["MODEL", "FILE", "--model", "MODEL"], "--model: wanted one file and --model"),
        (["FILE", "--model", "MODEL", "--role", "induction"], "--role: wanted roles to be measured, got --model"),
        (["MODEL", "FILE", "--window", "32"], "--window: wanted --model beside it"),
        (["MODEL", "--layers", "7"], "--layers: wanted numbers from 0 to 2, got 7"),
    ],
)
def test_what_does_not_fit_is_named(options: list[str], wanted: str, reader: Path, document: Path) -> None:
    given = [{"FILE": str(document), "MODEL": str(reader)}.get(option, option) for option in options]
    with pytest.raises(ArgumentError, match=wanted):
        raise refused(*given)


def test_names_are_shown_as_far_as_they_fit() -> None:
    names = ["1.1", "22.3", "4.5"]
    assert [_fitting(names, room) for room in (0, 5, 10, 12)] == ["", "1.1 …", "1.1 22.3 …", "1.1 22.3 4.5"]


def test_help_teaches_by_example() -> None:
    said = CliRunner().invoke(app, ["heads", "--help"]).output
    assert "attlas heads smollm2-135m paper.txt --role induction" in said
    assert "attlas heads paper.txt --model smollm2-135m" in said
