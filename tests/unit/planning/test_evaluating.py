from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import attlas
from answering import decoder, encoder
from attlas.errors import ArgumentError, DocumentError, UnsupportedModelError
from attlas.explain.prompts.making import prompts
from attlas.patterns import BlockSparse, Full, SlidingWindow, VerticalSlash
from attlas.planning.evaluating import evaluate, held_by, patterns_of
from attlas.planning.evaluation import Estimate, Evaluation, percent
from attlas.planning.held_out import KEY, mark
from attlas.planning.plan import Plan

HEADS = [(layer, head) for layer in range(2) for head in range(4)]
CHEAP: dict[str, Any] = {"needles": False, "generate": 0, "timing": 0, "flips": False}


@pytest.fixture(scope="module")
def lm() -> attlas.LanguageModel:
    return decoder()


def text(seed: int, words: int = 105) -> str:
    """Sentences of which the tokenizer knows every word."""
    return " ".join(" ".join(one.text for one in prompts("facts", 40, seed)).split()[:words])


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text(1), text(2, 80)]


def narrow(lm: attlas.LanguageModel, width: int = 8) -> Plan:
    return Plan.of(lm, {(0, 1): SlidingWindow(width), (1, 0): SlidingWindow(width), (1, 1): SlidingWindow(width)})


def test_the_exact_plan_changes_nothing(lm: attlas.LanguageModel, texts: list[str]) -> None:
    found = evaluate(lm, Plan.exact(lm), texts, needles=False, generate=6, timing=0)
    assert found.ratio.value == pytest.approx(1, abs=1e-6)
    assert found.heads == found.full == 8
    assert found.routed == 0
    assert found.flips is None
    assert "leaves every head exact" in found.summary
    assert found.held.share == 1
    assert all(one.same == 1 and one.parted == 6 for one in found.continued)
    for judged in found.texts:
        assert judged.divergence_worst < 1e-9
        assert judged.same == 1


def test_losses_and_divergences_are_those_of_the_two_runs(lm: attlas.LanguageModel, texts: list[str]) -> None:
    plan = narrow(lm)
    found = evaluate(lm, plan, texts, **CHEAP)
    rises: list[float] = []
    for judged, one in zip(found.texts, texts, strict=True):
        ids = torch.tensor([lm.tokenize(one).ids])
        with torch.no_grad():
            p = lm.model(input_ids=ids).logits[0].double().log_softmax(-1)
            with plan.applied(lm):
                q = lm.model(input_ids=ids).logits[0].double().log_softmax(-1)
        following = ids[0, 1:]
        steps = torch.arange(len(following))
        assert judged.tokens == ids.shape[1]
        assert judged.exact == pytest.approx(float(-p[steps, following].mean()), abs=1e-5)
        assert judged.planned == pytest.approx(float(-q[steps, following].mean()), abs=1e-5)
        assert judged.ratio.value == pytest.approx(math.exp(judged.planned - judged.exact), rel=1e-5)
        divergence = (p.exp() * (p - q)).sum(-1)
        assert judged.divergence == pytest.approx(float(divergence.mean()), rel=1e-3)
        assert judged.divergence_p95 == pytest.approx(float(divergence.quantile(0.95)), rel=1e-3)
        assert judged.worst_at == int(divergence.argmax())
        assert judged.same == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()))
        rises += (p[steps, following] - q[steps, following]).tolist()
    assert found.ratio.value == pytest.approx(math.exp(sum(rises) / len(rises)), rel=1e-5)
    assert found.worst.ratio.value == max(one.ratio.value for one in found.texts)
    assert (found.heads, found.full, found.routed) == (8, 5, 3)


def test_what_has_to_be_held_is_counted_by_shared_keys(lm: attlas.LanguageModel) -> None:
    table = patterns_of(lm, narrow(lm))
    assert sorted(table) == HEADS
    assert table[0, 0] == Full()
    assert table[1, 1] == SlidingWindow(8)
    # Four heads share two sets of keys in each of two layers; only both heads of (1, 0) and (1, 1) can forget.
    held = held_by(table, lm, 100)
    each = 2 * 8 * 4
    assert held.exact == 4 * 100 * each
    assert held.planned == (3 * 100 + 8) * each


def test_intervals_draw_texts_where_there_are_many(lm: attlas.LanguageModel) -> None:
    plan = narrow(lm)
    few = evaluate(lm, plan, [text(seed, 105) for seed in range(3)], **CHEAP)
    many = evaluate(lm, plan, [text(seed, 60) for seed in range(8)], **CHEAP)
    assert few.units == "stretches"
    assert many.units == "texts"
    for found in (few, many):
        assert found.ratio.low < found.ratio.value < found.ratio.high
    one = evaluate(lm, plan, [text(9, 40)], **CHEAP)
    assert math.isnan(one.ratio.low)
    assert "too few tokens to tell" in one.summary


def test_everything_at_once(lm: attlas.LanguageModel, texts: list[str], tmp_path: Path) -> None:
    told: list[str] = []
    found = evaluate(
        lm, narrow(lm), texts, needles=False, generate=5, timing=1, progress=lambda _, __, what: told.append(what)
    )
    assert {"reading held-out texts", "generating text", "timing"} <= set(told)
    assert found.speed is not None
    assert found.speed.full == 5 / 8
    assert found.flips is not None
    assert 0 <= found.flips.dearer <= found.flips.share <= 1
    for one in found.continued:
        assert 0 <= one.parted <= one.tokens == 5
        assert one.exact
    about = found.about()
    assert about["heads"] == {"all": 8, "full": 5, "routed": 3, "stayed": {}, "strayed": 0, "ahead": 0}
    assert len(found.rows()) == 2
    assert found.to_parquet(tmp_path / "evaluation.parquet").exists()
    assert found.summary in repr(found)


def test_texts_that_the_plan_was_made_from_are_refused(lm: attlas.LanguageModel, texts: list[str]) -> None:
    ids = lm.tokenize(texts[1]).ids
    by_tokens = Plan.of(lm, {}, settings={KEY: [mark(ids[:50])]})
    by_text = Plan.of(lm, {}, texts=[texts[1]])
    for plan in (by_tokens, by_text):
        with pytest.raises(DocumentError, match="plan was not made from, got one, text 2"):
            evaluate(lm, plan, texts, **CHEAP)
        assert len(evaluate(lm, plan, texts[:1], **CHEAP).texts) == 1


def test_texts_are_read_from_their_beginning(lm: attlas.LanguageModel, texts: list[str]) -> None:
    ids = lm.tokenize(texts[1]).ids
    plan = narrow(lm)
    found = evaluate(lm, plan, texts[1], length=40, **CHEAP)
    assert found.texts[0].tokens == 40
    assert found.texts[0].exact == evaluate(lm, plan, [ids[:40]], **CHEAP).texts[0].exact
    # What a plan was made from is known by its whole beginning, however little of it is read.
    with pytest.raises(DocumentError, match="not made from"):
        evaluate(lm, Plan.of(lm, {}, settings={KEY: [mark(ids[:60])]}), texts[1], length=40, **CHEAP)
    with pytest.raises(ArgumentError, match="length: wanted a whole number of tokens from 32, got 8"):
        evaluate(lm, plan, texts[1], length=8, **CHEAP)


def test_bad_input_is_refused(lm: attlas.LanguageModel, texts: list[str]) -> None:
    plan = Plan.exact(lm)
    for wrong, said in (([], "at least one held-out text"), (["the red door"], "at least 32 tokens in each, got 3")):
        with pytest.raises(DocumentError, match=said):
            evaluate(lm, plan, wrong, **CHEAP)
    with pytest.raises(ArgumentError, match="put them in a list"):
        evaluate(lm, plan, [1, 2, 3], **CHEAP)  # pyright: ignore[reportArgumentType] - what is wrong is the point
    with pytest.raises(ArgumentError, match="needles: wanted True, False or a Grid"):
        evaluate(lm, plan, texts, **{**CHEAP, "needles": 3})
    with pytest.raises(ArgumentError, match="generate: wanted a whole number from 0"):
        evaluate(lm, plan, texts, **{**CHEAP, "generate": -1})
    with pytest.raises(ArgumentError, match="the one that the plan was made for"):
        evaluate(replace(lm, facts=replace(lm.facts, fingerprint="beef")), plan, texts, **CHEAP)
    with pytest.raises(UnsupportedModelError, match="predicts no next token"):
        evaluate(encoder(), plan, texts, **CHEAP)


def made(ratio: Estimate, **options: Any) -> Evaluation:
    lm = decoder()
    found = evaluate(lm, Plan.exact(lm), [text(1)], **CHEAP)
    return replace(found, ratio=ratio, full=3, **options)


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (Estimate(1.01, 0.99, 1.03), "cannot tell whether the plan changes perplexity: +1.00 % (-1.00 to +3.00)"),
        (Estimate(1.02, 1.01, 1.03), "the plan raises perplexity: +2.00 % (+1.00 to +3.00)"),
        (Estimate(0.98, 0.97, 0.99), "the plan lowers perplexity: -2.00 %"),
    ],
)
def test_the_summary_says_only_what_the_interval_allows(ratio: Estimate, said: str) -> None:
    assert said in made(ratio).summary


def test_patterns_that_choose_by_later_tokens_are_pointed_out(lm: attlas.LanguageModel) -> None:
    plan = Plan.of(lm, {(0, 0): VerticalSlash(4, 16), (0, 1): BlockSparse(8, top=2), (1, 2): BlockSparse(8, local=2)})
    found = evaluate(lm, plan, [text(1)], **CHEAP)
    assert found.ahead == 2
    assert "2 heads choose keys by later tokens too" in found.summary


def test_what_is_no_model_or_no_plan_is_refused(lm: attlas.LanguageModel) -> None:
    path: Any = "plan.json"
    with pytest.raises(ArgumentError, match=r"plan: wanted a Plan, got a str; attlas\.open_plan opens a file"):
        evaluate(lm, path, [text(1)])
    module: Any = lm.model
    with pytest.raises(ArgumentError, match=r"lm: wanted what attlas\.load returned, got a Llama"):
        evaluate(module, narrow(lm), [text(1)])


def test_a_wrong_guard_is_found_before_the_long_work(lm: attlas.LanguageModel) -> None:
    told: list[tuple[int, int, str]] = []
    with pytest.raises(ArgumentError, match="guard: wanted a number from 0 to 1, got 3"):
        evaluate(lm, narrow(lm), [text(1)], guard=3, progress=lambda *seen: told.append(seen))
    assert told == []


def test_the_guard_lets_heads_run_exactly(lm: attlas.LanguageModel) -> None:
    plan = narrow(lm, 1)
    plain = evaluate(lm, plan, [text(1)], **CHEAP)
    guarded = evaluate(lm, plan, [text(1)], **CHEAP, guard=0)
    assert plain.strayed == 0
    assert plain.texts[0].divergence > 1e-4
    assert guarded.strayed == 3
    assert guarded.texts[0].divergence < 1e-9
    assert (guarded.full, guarded.routed) == (5, 0)


def test_texts_too_short_for_a_pattern_to_forget_tell_no_flips(lm: attlas.LanguageModel) -> None:
    found = evaluate(lm, narrow(lm, 60), [text(1, 60)], needles=False, generate=0, timing=0)
    assert found.flips is None


def test_a_change_is_written_with_its_interval() -> None:
    assert percent(Estimate(1.005, 1.0, 1.01)) == "+0.50 % (+0.00 to +1.00)"
    assert percent(Estimate(1.5, math.nan, math.nan)) == "+50.00 %"
