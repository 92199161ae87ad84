from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from pyarrow import parquet
from rich.console import Console
from typer.testing import CliRunner

from attlas.cli.app import app
from attlas.cli.explain import CHEAP, FEWEST, MOST, budget_for, chosen_methods
from attlas.cli.explained import as_plain, in_line, print_explanations
from attlas.errors import ArgumentError, AttlasError, DocumentError, ModelNotFound, StoreError
from attlas.explain.attribution import Attribution
from attlas.explain.methods import METHODS
from attlas.explain.targets import Target
from explaining import explained, several

QUICK = ("--method", "rollout,recency", "--budget", 0)


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["explain", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: object) -> BaseException:
    done = CliRunner().invoke(app, ["explain", *map(str, arguments)])
    assert done.exception is not None
    return done.exception


def printed(found: list[Attribution], *, width: int = 130) -> str:
    out = io.StringIO()
    print_explanations(Console(file=out, width=width, markup=False, highlight=False, emoji=False), found, 3)
    return out.getvalue()


# ---- what is asked for ----


def test_methods_that_are_chosen() -> None:
    assert chosen_methods(None, None) == (list(CHEAP), {})
    assert chosen_methods("rollout, alti", None) == (["rollout", "alti"], {})
    everything, missing = chosen_methods("all", None)
    assert {*everything, *missing} == set(METHODS)


def test_a_preset_goes_to_the_methods_that_have_it() -> None:
    having = next(method for method in METHODS.values() if method.presets)
    names, _ = chosen_methods(f"{having.name},recency", [*having.presets][-1])
    assert names == [f"{having.name}:{[*having.presets][-1]}", "recency"]


@pytest.mark.parametrize(
    ("method", "preset", "wanted"),
    [
        ("rolout", None, "did you mean rollout"),
        ("rollout,rollout", None, "each method once"),
        ("recency", "paper", "--preset: wanted none: these methods have no presets"),
        ("rollout", "nobody's", "--preset: wanted one of"),
    ],
)
def test_methods_that_there_are_not(method: str, preset: str | None, wanted: str) -> None:
    with pytest.raises(ArgumentError, match=wanted):
        chosen_methods(method, preset)


def test_a_long_text_is_given_fewer_passes() -> None:
    assert [budget_for(n) for n in (10, 1000, 100_000)] == [MOST, 65, FEWEST]


# ---- what is printed ----


def test_a_line_for_each_method() -> None:
    said = printed(several())
    lines = said.splitlines()
    assert "Why ' Paris'? 49.7 % (log-probability -0.7), at token 14" in lines
    (best,) = (line for line in lines if line.startswith("chefer (paper)  "))
    assert re.search(r"more faithful than chance +\+0.80 +\+0.50 to \+1.10 +2.5 % +1.80 +1.00", best)
    order = [said.index(f"\n{name}  ") for name in ("chefer (paper)", "attention_gradient", "rollout", "random")]
    assert order == sorted(order), "the most faithful comes first"
    assert "not measured" in said
    assert "chefer (paper): More faithful than chance: removing what it marks" in said
    assert "!" not in said
    assert "[[" in said


def test_a_narrow_screen_shows_no_baselines() -> None:
    assert "first token" in printed(several())
    said = printed(several(), width=90)
    assert "first token" not in said
    assert "more faithful than chance  +0.80  +0.50 to +1.10   2.5 %" in said, "the rest is whole"


def test_doubt_is_said() -> None:
    said = printed([explained(verdict="cannot tell", advantage=0.1)])
    assert "! This method is not more faithful than chance on this text" in said
    assert "Faithfulness was not measured" in printed([explained(verdict=None)])


def test_each_target_has_its_part() -> None:
    said = printed([explained(), explained(target=Target(3, 9, name="' Ro\nme\x1b'"), seed=2)])
    assert said.count("How far each method holds") == 2
    assert "Why ' Ro⏎me⟨U+001B⟩'?" in said


def test_parts_stay_on_their_line() -> None:
    assert in_line(" a\r\n\tb ") == "a⏎⇥b"
    assert in_line("  \n") == "··⏎"
    assert in_line("\x1b]0;x") == "⟨U+001B⟩]0;x"


def test_plain_types_hold_everything() -> None:
    found = json.loads(json.dumps(as_plain(several(by=2), 2)))
    (target,) = found["targets"]
    assert target["most_faithful"] == "chefer (paper)"
    assert [method["verdict"] for method in target["methods"]][-1] is None
    assert len(found["tokens"]) == len(target["methods"][0]["scores"]) == 15
    assert len(found["spans"]) == len(target["methods"][0]["span_scores"]) == 8
    assert len(target["methods"][0]["top"]) == 2


# ---- the whole way ----


def test_for_people(reader: Path, document: Path) -> None:
    said = run(document, "--model", reader, "--by", "word", *QUICK)
    assert f"{reader}: 44 tokens" in said
    assert "Why '" in said
    assert "Faithfulness was not measured" in said
    assert "Most relevant" in said


def test_faithfulness_is_measured(reader: Path, document: Path) -> None:
    found = json.loads(
        run(document, "--model", reader, "--method", "rollout,attention_gradient", "--budget", 40, "--json")
    )
    (target,) = found["targets"]
    for method in target["methods"]:
        assert method["verdict"] in ("more faithful than chance", "less faithful than chance", "cannot tell")
        assert method["measures"][0]["low"] <= method["measures"][0]["advantage"] <= method["measures"][0]["high"]
        assert 0 < method["passes"] <= 40


def test_several_targets_and_files(reader: Path, document: Path, tmp_path: Path) -> None:
    targets = ("--target", "-1:a/b", "--target", "next@5", "-t", "3")
    place, table = tmp_path / "pages", tmp_path / "scores.parquet"
    said = run(document, "--model", reader, *QUICK, *targets, "--page", place, "--out", table)
    assert "Why 'a' − 'b'?" in said
    assert f"written: {place / 'explanation.html'}" in said
    assert (place / "explanation.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    rows = parquet.read_table(table)
    assert rows.num_rows == 3 * 2 * 44
    assert set(rows.column("method").to_pylist()) == {"rollout", "recency"}
    assert rows.schema.metadata is not None
    about = json.loads(rows.schema.metadata[b"explanations"])
    assert [one["name"].split(" ")[0] for one in about] == ["rollout", "recency"] * 3


def test_the_list_needs_no_file() -> None:
    said = run("--list")
    for method in METHODS.values():
        assert method.name in said
        assert method.summary in said
        assert all(preset in said for preset in method.presets)


@pytest.mark.parametrize(
    ("options", "kind", "wanted"),
    [
        (["--target", "99"], ArgumentError, "target: wanted a position"),
        (["--target", "-1:zzz"], ArgumentError, "target: wanted one token"),
        (["--target", "label:0"], AttlasError, "target"),
        (
            ["--by", "page"],
            ArgumentError,
            "--by: wanted one of token, .*, turn, function, got 'page'",
        ),
        (["--by", "turn"], ArgumentError, "chat template"),
        (["--removal", "burn"], ArgumentError, "--removal: wanted one of delete"),
        (["--method", "magic"], ArgumentError, "method: wanted one of"),
        (["--budget", "3"], ArgumentError, "budget: wanted"),
        (["--out", "FOLDER"], StoreError, "--out: wanted a file's name, got the folder"),
        (["--page", "FILE/x"], StoreError, "wanted a folder to write to, got a file"),
    ],
)
def test_what_does_not_fit_is_named(
    options: list[str], kind: type[AttlasError], wanted: str, reader: Path, document: Path, tmp_path: Path
) -> None:
    given = [option.replace("FOLDER", str(tmp_path)).replace("FILE", str(document)) for option in options]
    method = [] if "--method" in options else ["--method", "recency"]
    with pytest.raises(kind, match=wanted):
        raise refused(document, "--model", reader, *method, *given)
    assert not (tmp_path / "x").exists()


def test_what_is_not_there(reader: Path) -> None:
    with pytest.raises(DocumentError, match="no-such-file"):
        raise refused("no-such-file", "--model", reader)
    with pytest.raises(ModelNotFound, match="no-such-model"):
        raise refused(__file__, "--model", "no-such-model")


def test_help_teaches_by_example() -> None:
    said = " ".join(CliRunner().invoke(app, ["explain", "--help"]).output.split())
    assert 'attlas explain question.txt --model smollm2-135m --target "-1: Paris/ Rome"' in said
