from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attlas.capture import load
from attlas.cli.app import app
from attlas.errors import ArgumentError, StoreError
from attlas.patterns import SlidingWindow
from attlas.planning.plan import open_plan
from attlas.planning.profiling import profile


@pytest.fixture(scope="module")
def profiled(long_reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = "the quick brown fox jumps over the lazy dog\n" * 4
    path = tmp_path_factory.mktemp("profiled") / "profile.parquet"
    profile(load(long_reader), [text], [SlidingWindow(4), SlidingWindow(16, sinks=1)]).save(path)
    return path


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["plan", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def refused(*arguments: object) -> BaseException:
    done = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    assert done.exception is not None
    return done.exception


def test_a_plan_is_written_for_an_error(profiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    said = run(profiled, "--error", 0.05, "--out", out)
    plan = open_plan(out)
    assert sum(plan.kinds.values()) <= 8
    assert "full: exact" in said
    assert "attention costs" in said
    assert str(out) in said.replace("\n", "")


def test_a_plan_is_written_for_a_cost(profiled: Path, tmp_path: Path) -> None:
    told = json.loads(run(profiled, "--cost", 0.9, "--by", "kv-head", "--out", tmp_path / "plan.json", "--json"))
    assert 0 <= told["full"] <= 1
    assert told["plan"] == str(tmp_path / "plan.json")
    plan = open_plan(tmp_path / "plan.json")
    # Two heads share keys, and so a pattern.
    for layer in range(2):
        for head in (0, 2):
            assert plan.patterns.get((layer, head)) == plan.patterns.get((layer, head + 1))


def test_an_error_that_nothing_meets_gives_the_exact_plan_and_says_so(profiled: Path, tmp_path: Path) -> None:
    said = " ".join(run(profiled, "--error", 0, "--out", tmp_path / "plan.json").split())
    assert "note: " in said
    assert "stay exact" in said
    assert not open_plan(tmp_path / "plan.json").kinds


def test_bad_input_is_refused(profiled: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "plan.json")
    for arguments, said in (
        ((profiled, *out), "one of the two, got neither"),
        ((profiled, "--error", 0.1, "--cost", 0.5, *out), "one of the two, got both"),
        ((profiled, "--error", -1, *out), "--error: wanted a share from 0"),
        ((profiled, "--cost", "nan", *out), "--cost: wanted a share from 0"),
        ((profiled, "--error", 0.1, "--out", tmp_path / "plan.parquet"), "--out: wanted a .json file"),
        ((profiled, "--error", 0.1, "--worth", -1, *out), "--worth: wanted a share from 0"),
        ((profiled, "--error", 0.1, "--by", "layer", *out), "--by: wanted head or kv-head, got 'layer'"),
    ):
        error = refused(*arguments)
        assert isinstance(error, ArgumentError)
        assert said in str(error)
    for missing in (tmp_path / "none.parquet", Path(__file__)):
        assert isinstance(refused(missing, "--error", 0.1, *out), StoreError)
    assert not (tmp_path / "plan.json").exists()


def test_that_nothing_is_cheaper_is_said(profiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "plan.json"
    # A window of 16 keys costs no less than all of a text of one token.
    said = " ".join(run(profiled, "--error", 9, "--length", 1, "--out", out).split())
    assert "note: At 1 tokens no pattern takes at most 60 % of exact attention" in said
    plan = open_plan(out)
    assert not plan.kinds
    # What was chosen by is kept, what nobody gave too.
    settings = plan.provenance.settings
    assert (settings["error"], settings["length"], settings["worth"]) == (9, 1, 0.6)
    far = json.loads(run(profiled, "--cost", 0.9, "--length", 1_000_000, "--out", out, "--json"))
    assert not [note for note in far["notes"] if "of exact attention" in note]
    assert far["full"] < 1
    never = json.loads(run(profiled, "--cost", 0.9, "--length", 1_000_000, "--worth", 0, "--out", out, "--json"))
    assert never["full"] == 1


def test_what_is_not_known_is_not_said(profiled: Path, tmp_path: Path) -> None:
    said = " ".join(run(profiled, "--cost", 0, "--length", 1_000_000, "--out", tmp_path / "plan.json").split())
    assert "perplexity is expected to rise" in said or "what perplexity does is not known" in said
    assert "perplexity is not known" not in said
