"""The study of faithfulness runs, and its numbers are those of `attlas.faithfulness`, whatever they come to."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from answering import decoder
from attlas.explain import Target
from attlas.explain.faithfulness.measuring import faithfulness
from attlas.explain.prompts import Prompt, prompts

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a module of the benchmarks, which are not installed."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.faithfulness", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.bundled
def test_the_study_runs_and_prints_a_table() -> None:
    done = run("--tiny", "--models", "minilm-l6", "--kinds", "sentiment", "--jobs", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4 + 4, "the head, four methods, four baselines"
    for name in ("random", "recency", "first_token", "null_attention", "rollout"):
        assert sum(line.startswith(f"| `{name}` |") for line in table) == 1
    assert "### Sentiment, minilm-l6\n\n8 prompts, of " in done.stdout
    assert "By AOPC: Better than random orders: " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--tiny", "--write"], "--write: wanted all methods and at least 20 prompts of each kind"),
        (["--write", "--prompts", "19"], "--write: wanted all methods and at least 20 prompts of each kind"),
        (["--prompts", "7"], "--prompts: wanted at least 8, for an interval, got 7"),
        (["--jobs", "0"], "--jobs: wanted at least 1, got 0"),
    ],
)
def test_what_would_mislead_is_refused(
    study: Any,
    arguments: list[str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["faithfulness", *arguments])
    with pytest.raises(SystemExit) as ended:
        study("faithfulness").main()
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_refusal_is_the_exit_code_of_the_command() -> None:
    done = run("--tiny", "--write")
    assert done.returncode == 2
    assert "--write: wanted all methods" in done.stderr


def test_the_page_has_a_place_for_every_table(study: Any) -> None:
    page = (ROOT / study("faithfulness").PAGE).read_text(encoding="utf-8")
    places = [
        "settings",
        *(f"{kind}, {model}" for model, kinds in study("faithfulness").MODELS.items() for kind in kinds),
    ]
    for place in places:
        assert page.index(f"<!-- study:{place}:begin -->") < page.index(f"<!-- study:{place}:end -->")


def test_measures_of_a_prompt_are_those_of_the_library(study: Any) -> None:
    lm, prompting = decoder(), study("prompting")
    prompt = prompts("facts", 1)[0]
    target = Target(len(lm.tokenize(prompt.text)) - 1, 7)
    names = ["attention", "chefer", "occlusion"]
    found = prompting.measured(lm, prompt, target, names, 0)
    assert set(found) == {*names, "random", "recency", "first_token", "null_attention"}
    for one in prompting.explained(lm, prompt, target, names):
        wanted = faithfulness(lm, prompt.text, one, budget=600, fractions=prompting.FRACTIONS)
        own = found[one.name.replace(" (paper)", "")]
        assert wanted.notes["tied"] == 0, "an order that is not drawn"
        for measure in ("comprehensiveness", "sufficiency"):
            assert own[measure] == pytest.approx(wanted[measure].value, abs=1e-6)
    # Two methods are above random by different amounts, but by the same random.
    gaps = [found[name]["aopc"] - wanted_aopc for name, wanted_aopc in _aopc(lm, prompting, prompt, target, names)]
    assert gaps == pytest.approx([gaps[0]] * len(names), abs=1e-6)


def _aopc(lm: Any, prompting: Any, prompt: Prompt, target: Target, names: list[str]) -> list[tuple[str, float]]:
    made = prompting.explained(lm, prompt, target, names)
    found = faithfulness(lm, prompt.text, made, budget=600, fractions=prompting.FRACTIONS)
    return [(name, one["aopc"].value) for name, one in zip(names, found, strict=True)]


def test_answers_set_against_each_other_have_a_share_as_probability(study: Any) -> None:
    lm, prompting = decoder(), study("prompting")
    prompt = prompts("agreement", 1)[0]
    vocabulary = lm.tokenizer.get_vocab()
    target = Target(len(lm.tokenize(prompt.text)) - 1, vocabulary["is"], vocabulary["are"])
    found = prompting.measured(lm, prompt, target, ["attention"], 0)
    assert all(-1 <= row["comprehensiveness"] <= 1 for row in found.values())
    assert {name: set(row) for name, row in found.items()} == {name: set(prompting.MEASURES) for name in found}


@pytest.mark.parametrize(("kind", "unit"), [("facts", "sentence"), ("agreement", "word")])
def test_a_cue_is_found_by_who_marks_it(study: Any, kind: str, unit: str) -> None:
    lm, prompting = decoder(), study("prompting")
    prompt = prompts(kind, 1)[0]
    document = lm.tokenize(prompt.text)
    [one] = prompting.explained(lm, prompt, Target(len(document) - 1, 7), ["attention"])
    subject = prompting._subject(lm, prompt, one, 0)
    text = "".join(document.tokens[i] for i in subject.cue.nonzero().flatten().tolist())
    assert text.replace(" ", "") == prompt.cues[0].replace(" ", "")
    parts = subject.sentences if unit == "sentence" else subject.parts
    generator = torch.Generator().manual_seed(0)
    marked, elsewhere = subject.cue.double(), (~subject.cue).double()
    for scores, first, precision in ((marked, 1, 1), (elsewhere, 0, 0)):
        assert prompting._cue_first(parts, scores, subject.cue) == first
        assert prompting._cue_precision(subject.parts, scores, subject.cue, generator) == precision
    alike = torch.zeros_like(marked)
    assert prompting._cue_first(parts, alike, subject.cue) == pytest.approx(1 / len(parts))


def test_the_better_method_beats_the_others_and_equals_beat_nobody(study: Any) -> None:
    module = study("standings")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    rows = [
        {
            name: {measure: sign * lift + 0.5 * float(own) for measure, sign in module.BETTER.items()}
            for name, lift, own in zip(("plain", "good", "same"), (0.0, 2.0, 0.0), row, strict=True)
        }
        for row in noise
    ]
    found = module.standings(rows, 0)
    assert found.methods[0] == "good"
    for measure in module.JUDGED:
        assert found.beats[measure].tolist() == [[False, True, True], [False] * 3, [False] * 3]
    assert "Better than random orders: `good`." in found.verdict()
    assert "Beaten by none: `good`." in found.verdict()
    assert "Worse than random: none." in found.verdict()
    [line] = [line for line in found.table().splitlines() if line.startswith("| `good`")]
    assert line.endswith("| 2 / 0 | 2 / 0 |")
