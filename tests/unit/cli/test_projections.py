from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from attlas.cli.app import app
from attlas.cli.projections import PAGE_NAME, millions
from attlas.cli.reading import page_file
from attlas.errors import ArgumentError, AttlasError, DocumentError, ModelNotFound, StoreError


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["projections", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: object) -> BaseException:
    done = CliRunner().invoke(app, ["projections", *map(str, arguments)])
    assert done.exception is not None
    return done.exception


def test_tables_for_people(reader: Path) -> None:
    said = run(reader, "--top", 3)
    assert "3 layers of 4 heads, 2 of keys and values, width 4 of 16" in said
    assert "768 parameters" not in said
    assert "query 768, key 384, value 384, output 768: 2,304 parameters" in said
    for title in (
        "Which heads feed which",
        "Fewest directions looked for",
        "Fewest directions passed on",
        "Most copying",
    ):
        assert title in said
    assert "no kernel:" in said, "its 64 positions hold none of our sentences"


def test_for_machines(reader: Path) -> None:
    found = json.loads(run(reader, "--json", "--top", 4))
    assert found["parameters"]["projections"] == 2304
    assert found["worst_relative_error"] < 1e-5
    assert [(row["layer"], row["head"]) for row in found["heads"]] == [(i, h) for i in range(3) for h in range(4)]
    assert len(found["compositions"]) == 4
    zs = [edge["z"] for edge in found["compositions"]]
    assert zs == sorted(zs, reverse=True)
    assert all(edge["source_layer"] < edge["target_layer"] for edge in found["compositions"])


def test_the_page_and_the_table_are_written(reader: Path, tmp_path: Path) -> None:
    said = run(reader, "--page", tmp_path / "pages", "--out", tmp_path / "p.parquet")
    page = tmp_path / "pages" / "projections.html"
    assert str(page) in said
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    table = parquet.read_table(tmp_path / "p.parquet")
    assert table.num_rows == 12
    assert {"qk_effective_rank", "ov_effective_rank", "q_from_score"} <= set(table.column_names)
    assert b"columns" in table.schema.metadata


def test_offsets_are_measured_on_a_text_of_the_users(reader: Path, document: Path) -> None:
    said = run(reader, "--text", document)
    assert "Firmest preferred offset" in said
    assert "no kernel" not in said
    document.write_text("abc " * 40, encoding="utf-8")
    with pytest.raises(DocumentError, match="64 tokens"):
        raise refused(reader, "--text", document)


def test_roles_reach_the_page(long_reader: Path, tmp_path: Path) -> None:
    run(long_reader, "--roles", "--page", tmp_path / "with.html")
    text = (tmp_path / "with.html").read_text(encoding="utf-8")
    assert '"label":"induction"' in text


def test_one_token_and_one_head(reader: Path) -> None:
    said = run(reader, "--token", "a", "--layer", 1, "--head", 2, "--top", 3)
    assert "layer 1, head 2, token a" in said
    assert "looks for" in said
    assert "would reach" in said
    found = json.loads(run(reader, "--token", "a", "--layer", 1, "--head", 2, "--top", 3, "--json"))
    assert found["token"] == "a"  # noqa: S105 - a token of text, no secret
    assert len(found["tokens"]) == 12
    turned = json.loads(run(reader, "--token", "a", "--layer", 1, "--head", 2, "--top", 3, "--offset", 5, "--json"))
    assert turned["offset"] == 5
    assert turned["tokens"] != found["tokens"]


def test_the_proof_alone(reader: Path) -> None:
    assert "worst relative error" in run(reader, "--verify")
    rows = json.loads(run(reader, "--verify", "--json"))
    assert [row["layer"] for row in rows] == [0, 1, 2]
    assert max(row["worst_relative_error"] for row in rows) < 1e-5


@pytest.mark.parametrize(
    ("options", "kind", "wanted"),
    [
        (["--layer", "1"], ArgumentError, "--layer: wanted --token beside it"),
        (["--with-mlp"], ArgumentError, "--with-mlp: wanted --token beside it"),
        (["--token", "a"], ArgumentError, "--layer: wanted the head"),
        (["--token", "a", "--layer", "1"], ArgumentError, "--head: wanted the head"),
        (["--token", "a", "--layer", "9", "--head", "0"], AttlasError, "layer: wanted one of 0, 1, 2, got 9"),
        (["--token", "ab", "--layer", "1", "--head", "0"], ArgumentError, "token: wanted the text of one token"),
        (["--token", "a", "--layer", "1", "--head", "0", "--verify"], ArgumentError, "--token: wanted it alone"),
        (["--verify", "--page", "x"], ArgumentError, "--verify: wanted it alone, got --page beside it"),
        (["--out", "FOLDER"], StoreError, "--out: wanted a file's name, got the folder"),
        (["--page", "FILE/x"], StoreError, "wanted a folder to write to, got a file"),
        (["--text", "no-such-file"], DocumentError, "no-such-file"),
    ],
)
def test_what_does_not_fit_is_named(
    options: list[str], kind: type[AttlasError], wanted: str, reader: Path, document: Path, tmp_path: Path
) -> None:
    given = [option.replace("FOLDER", str(tmp_path)).replace("FILE", str(document)) for option in options]
    with pytest.raises(kind, match=wanted):
        raise refused(reader, *given)
    assert not (tmp_path / "x").exists()


def test_a_model_that_there_is_not() -> None:
    with pytest.raises(ModelNotFound, match="no-such-model"):
        raise refused("no-such-model")


@pytest.mark.parametrize(
    ("given", "file"),
    [("a", "a/projections.html"), ("a/b.html", "a/b.html"), ("c.HTM", "c.HTM"), ("d.x", "d.x/projections.html")],
)
def test_where_the_page_goes(given: str, file: str) -> None:
    assert page_file(Path(given), PAGE_NAME) == Path(file)


def test_help_teaches_by_example() -> None:
    said = CliRunner().invoke(app, ["projections", "--help"]).output
    assert 'attlas projections smollm2-135m --token " cat" --layer 18 --head 6' in said


def test_parameters_are_readable() -> None:
    assert [millions(count) for count in (999, 2304, 26_542_080)] == ["999", "2,304", "26.5 M"]
