from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attlas.cli.app import app
from attlas.errors import ArgumentError, DocumentError, StoreError
from attlas.planning.profile_file import open_profile

PATTERN = ("--pattern", "sliding_window:width=8,sinks=1")


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    paths = []
    for number, line in enumerate(
        ("the quick brown fox jumps over the lazy dog\n", "pack my box with five dozen jugs\n")
    ):
        path = tmp_path / f"text{number}.txt"
        path.write_text(line * 3, encoding="utf-8")
        paths.append(path)
    return paths


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["profile", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def refused(*arguments: object) -> BaseException:
    done = CliRunner().invoke(app, ["profile", *map(str, arguments)])
    assert done.exception is not None
    return done.exception


def test_a_profile_is_written_and_tells_of_plans(long_reader: Path, texts: list[Path], tmp_path: Path) -> None:
    out, picture = tmp_path / "mine.parquet", tmp_path / "heads.svg"
    said = run(long_reader, *texts, "--out", out, "--picture", picture, *PATTERN)
    found = open_profile(out)
    assert len(found.effects.texts) == 2
    assert len(found.effects.heads) == 8
    assert [pattern.kind for pattern in found.effects.patterns] == ["sliding_window"]
    assert "8 heads × one pattern, on 2 texts" in said
    assert "perplexity may rise by" in said
    assert f"attlas plan {out}" in said.replace("\n", "")
    assert "<svg" in picture.read_text(encoding="utf-8")


def test_machines_get_the_plans(long_reader: Path, texts: list[Path], tmp_path: Path) -> None:
    told = json.loads(run(long_reader, texts[0], "--out", tmp_path / "a.parquet", *PATTERN, "--json"))
    assert [row["error"] for row in told["plans"]] == [0.005, 0.01, 0.02, 0.05]
    assert all(0 <= row["full"] <= 1 for row in told["plans"])
    shares = [row["full"] for row in told["plans"]]
    assert shares == sorted(shares, reverse=True)


def test_bad_input_is_refused_before_the_model_is_loaded(texts: list[Path], tmp_path: Path) -> None:
    assert isinstance(refused("nobody", tmp_path / "missing.txt"), DocumentError)
    assert isinstance(refused("nobody", texts[0], "--out", tmp_path), StoreError)
    assert isinstance(refused("nobody", texts[0], "--picture", tmp_path), StoreError)
    assert isinstance(refused("nobody", texts[0], "--pattern", "window"), ArgumentError)
    for arguments, said in (
        (("--out", tmp_path / "a.json"), "--out: wanted a .parquet file"),
        (("--picture", tmp_path / "a.png"), "--picture: wanted a .svg file"),
        (("--pattern", "full"), "--pattern: wanted at least one that is cheaper than exact, got full"),
        (("--aims", "0.1,much"), "--aims: wanted shares above 0 with commas between them, got '0.1,much'"),
        (("--aims", "0"), "--aims: wanted shares above 0"),
    ):
        assert said in str(refused("nobody", texts[0], *arguments))
    assert "once, got 2 times" in str(refused("nobody", "-", "-"))


def test_a_short_text_says_how_much_is_needed(long_reader: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("the fox", encoding="utf-8")
    error = refused(long_reader, short, "--out", tmp_path / "a.parquet", *PATTERN)
    assert isinstance(error, DocumentError)
    assert "at least" in str(error)
    assert not (tmp_path / "a.parquet").exists()


def test_plans_are_run_at_the_rises_that_were_asked_for(long_reader: Path, texts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "a.parquet"
    run(long_reader, texts[0], "--out", out, *PATTERN, "--aims", "0.5, 0.1", "--json")
    assert open_profile(out).provenance.settings["aims"] == pytest.approx([0.4054651, 0.0953102])


def test_patterns_that_no_head_can_have_are_named(long_reader: Path, texts: list[Path], tmp_path: Path) -> None:
    arguments = (long_reader, texts[0], "--out", tmp_path / "a.parquet", "--pattern", "low_rank:rank=4")
    assert "note: no head of this model can have low rank: rank 4" in run(*arguments)
    [none, nothing] = json.loads(run(*arguments, "--json"))["notes"]
    assert none.startswith("no head of this model can have low rank")
    assert "no pattern takes at most 60 % of exact attention" in nothing


def test_a_window_wider_than_the_text_is_refused(long_reader: Path, texts: list[Path], tmp_path: Path) -> None:
    error = refused(long_reader, texts[0], "--out", tmp_path / "b.parquet", "--pattern", "sliding_window:width=5000")
    assert "at least 10000 tokens, twice what the narrowest of the patterns sees" in str(error)
    assert "give a narrower pattern" in str(error)
