"""`attlas.faithfulness` as a whole: against a slow one that runs the model on one text at a time, and known truths."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from adding import adding, explained, ids
from attlas.errors import ArgumentError, DocumentError
from attlas.explain.attribution import Attribution
from attlas.explain.faithfulness import faithfulness
from attlas.explain.faithfulness.questions import Choices
from attlas.explain.reading import reading_of
from attlas.explain.targets import Target
from explained import judge, speaker, translator

TEXT = "The capital of France is Paris. The capital of Italy is Rome"
FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)
WORTH = [0.5, 8.0, 1.0, 3.0, -2.0, 0.25, 5.0, -0.75, 2.0, 13.0, 0.125, 0.0]
SUM = Target(11, 1, measure="logit")


def about(lm: Any, text: Any, target: Any, **options: Any) -> Attribution:
    """Return an explanation with random scores, whose target is settled."""
    reading = reading_of(lm, text, target)
    with torch.no_grad():
        reading = reading.resolved(lm.model(**reading.inputs))
    scores = torch.randn(reading.n, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    return explained(lm, text, scores, reading.targets[0], answer=reading.answer, **options)


# ---- a slow one


def slow_value(lm: Any, attribution: Attribution, kept: list[int], row: int) -> float:
    """Return the log-probability of the target's token when only some positions of the text are read."""
    every = torch.tensor(lm.tokenize(attribution.text).ids)
    with torch.no_grad():
        logits = lm.model(every[kept][None]).logits[0, row]
    return float(logits.log_softmax(-1)[attribution.target.token])


def slow_curve(lm: Any, attribution: Attribution, order: list[int], kind: str) -> list[float]:
    n = len(attribution.scores)
    values = []
    for fraction in FRACTIONS:
        count = math.ceil(fraction * len(order) - 1e-9)
        gone = order[:count] if kind == "deletion" else order[count:]
        kept = [i for i in range(n) if i not in gone]
        values.append(slow_value(lm, attribution, kept, len(kept) - 1))
    return values


@pytest.fixture(scope="module")
def measured() -> tuple[Any, Attribution, Any]:
    lm = speaker()
    attribution = about(lm, TEXT, -1)
    return lm, attribution, faithfulness(lm, TEXT, attribution, budget=700, seed=4)


def orders_of(lm: Any, attribution: Attribution) -> dict[str, list[list[int]]]:
    n = len(attribution.scores) - 1
    generator = torch.Generator().manual_seed(5)
    return {
        attribution.name: [sorted(range(n), key=lambda i: -float(attribution.scores[i]))],
        "recency": [list(range(n))[::-1]],
        "first_token": [list(range(n))],
        "random": [torch.randperm(n, generator=generator).tolist() for _ in range(39)],
    }


@pytest.mark.parametrize("kind", ["deletion", "insertion"])
def test_curves_equal_those_of_one_text_at_a_time(measured: Any, kind: str) -> None:
    lm, attribution, found = measured
    full = slow_value(lm, attribution, list(range(len(attribution.scores))), -1)
    empty = slow_value(lm, attribution, [len(attribution.scores) - 1], -1)
    assert (found.value, found.empty) == (pytest.approx(full), pytest.approx(empty))
    for name, orders in orders_of(lm, attribution).items():
        every = torch.tensor([slow_curve(lm, attribution, order, kind) for order in orders], dtype=torch.float64)
        [curve] = [curve for curve in found.curves if (curve.kind, curve.order) == (kind, name)]
        ends = [full, empty] if kind == "deletion" else [empty, full]
        expected = [ends[0], *every.mean(0).tolist(), ends[1]]
        assert curve.fractions == (0.0, *FRACTIONS, 1.0)
        assert list(curve.values) == pytest.approx(expected, rel=1e-8)
        if name == "random":
            edges = every.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
            assert list(curve.low[1:-1]) == pytest.approx(edges[0].tolist())
            assert list(curve.high[1:-1]) == pytest.approx(edges[1].tolist())


def test_measures_equal_those_of_the_slow_curves(measured: Any) -> None:
    lm, attribution, found = measured
    orders = orders_of(lm, attribution)
    for name, kind in (("aopc", "deletion"), ("comprehensiveness", "deletion"), ("sufficiency", "insertion")):
        if name == "aopc":
            slow = {
                order: [found.value - sum(slow_curve(lm, attribution, one, kind)) / 5 for one in every]
                for order, every in orders.items()
            }
        else:
            slow = {
                order: [
                    math.exp(found.value) - sum(map(math.exp, slow_curve(lm, attribution, one, kind))) / 5
                    for one in every
                ]
                for order, every in orders.items()
            }
        measure, own = found[name], slow[attribution.name][0]
        assert measure.value == pytest.approx(own, rel=1e-8)
        assert measure.baselines["recency"] == pytest.approx(slow["recency"][0], rel=1e-8)
        assert measure.baselines["random"] == pytest.approx(sum(slow["random"]) / 39, rel=1e-8)
        sign = -1 if name == "sufficiency" else 1
        assert measure.advantage == pytest.approx(sign * (own - sum(slow["random"]) / 39), abs=1e-10)
        assert measure.low < measure.advantage < measure.high
        as_good = sum(sign * one >= sign * own for one in slow["random"])
        assert (measure.p, measure.chances) == ((1 + as_good) / 40, 39)


def test_verdicts_of_rich_budgets_are_about_aopc_and_of_poor_ones_about_lds(measured: Any) -> None:
    lm, attribution, found = measured
    assert found.measures[0].name == "aopc"
    assert "left_out" not in found.notes
    poor = faithfulness(lm, TEXT, attribution, budget=40)
    assert [one.name for one in poor.measures] == ["lds"]
    assert poor.notes["left_out"].keys() == {"aopc", "sufficiency"}
    needed = poor.notes["left_out"]["sufficiency"]
    assert "sufficiency" in [one.name for one in faithfulness(lm, TEXT, attribution, budget=needed).measures]
    less = faithfulness(lm, TEXT, attribution, budget=needed - 1)
    assert "sufficiency" not in [one.name for one in less.measures]


# ---- the model that adds


def toy(scores: Any, **options: Any) -> Any:
    lm = adding(WORTH)
    return faithfulness(lm, ids(12), explained(lm, ids(12), scores, SUM), budget=900, **options)


def test_the_right_explanation_has_the_best_order_and_a_correlation_of_one() -> None:
    found = toy(WORTH)
    assert found["lds"].value == pytest.approx(1)
    best = sorted(WORTH[:11], reverse=True)
    expected = [sum(best[: math.ceil(fraction * 11)]) for fraction in FRACTIONS]
    assert found["aopc"].value == pytest.approx(sum(expected) / 5)
    assert (found.value, found.empty) == (pytest.approx(sum(WORTH)), pytest.approx(0))
    assert found.verdict == "more faithful than chance"
    assert found["aopc"].unit == "logits"
    # Of a linear model, the mean over random orders is the share of the sum.
    shares = [math.ceil(fraction * 11) / 11 for fraction in FRACTIONS]
    mean = sum(WORTH) * sum(shares) / 5
    low, high = (found["aopc"].value - end for end in (found["aopc"].high, found["aopc"].low))
    assert low < mean < high


def test_its_opposite_is_less_faithful_than_chance() -> None:
    found = toy([-worth for worth in WORTH])
    assert found["lds"].value == pytest.approx(-1)
    assert found.verdict == "less faithful than chance"
    assert found["aopc"].advantage < 0


def test_scores_that_are_all_alike_tell_nothing() -> None:
    found = toy([1.0] * 12)
    assert found.notes["tied"] == 11
    assert found.verdict == "cannot tell"


@pytest.mark.parametrize("removal", ["delete", "mask"])
def test_other_ways_to_remove_take_the_worth_away(removal: Any) -> None:
    # The last token is worth nothing, so putting it in the place of others takes theirs away.
    options = {"neutral": 11} if removal == "mask" else {}
    assert toy(WORTH, removal=removal, **options)["lds"].value == pytest.approx(1)


def test_spans_go_as_wholes() -> None:
    lm = adding(WORTH)
    spans = [(0, 3), (3, 5), (5, 9), (9, 12)]
    attribution = explained(lm, ids(12), WORTH, SUM, spans=spans)
    found = faithfulness(lm, ids(12), attribution, budget=900)
    assert found.settings["parts"] == 4
    assert found["lds"].value == pytest.approx(1)
    # Half of eleven tokens: the last two that can go, the first three, and one of the third part.
    [curve] = [one for one in found.curves if (one.kind, one.order) == ("deletion", "made up")]
    assert curve.values[0] - curve.values[-2] == pytest.approx(sum(WORTH[i] for i in (9, 10, 0, 1, 2, 5)))
    assert faithfulness(lm, ids(12), attribution, by="token").settings["parts"] == 11


def test_what_is_random_is_shared_and_what_one_costs_depends_on_no_other() -> None:
    lm: Any = adding(WORTH)
    several = [
        explained(lm, ids(12), scores, SUM, method=str(i)) for i, scores in enumerate((WORTH, WORTH[::-1], [1.0] * 12))
    ]
    lm.model.read = 0
    together = faithfulness(lm, ids(12), several, budget=200)
    run = lm.model.read
    alone = [faithfulness(lm, ids(12), one, budget=200) for one in several]
    for one, other in zip(together, alone, strict=True):
        assert (one.measures, one.curves, one.passes) == (other.measures, other.curves, other.passes)
        assert one.passes <= 200
    assert max(one.passes for one in together) <= run < sum(one.passes for one in together)


@pytest.mark.parametrize("budget", [27, 64, 128, 256, 900])
def test_passes_are_counted_to_the_last_and_never_more_than_allowed(budget: int) -> None:
    lm: Any = adding(WORTH)
    told: list[tuple[int, int, str]] = []
    found = faithfulness(
        lm, ids(12), explained(lm, ids(12), WORTH, SUM), budget=budget, progress=lambda *step: told.append(step)
    )
    assert found.passes == lm.model.read <= budget
    assert told[-1] == (found.passes, found.passes, "taking parts away")


# ---- other models


def test_a_classifier_s_label() -> None:
    lm = judge()
    text = "the dog sees the cat and the old man sees the dog"
    attribution = about(lm, text, Target.label(2))
    found = faithfulness(lm, text, attribution, budget=400)
    every = torch.tensor(lm.tokenize(text).ids)
    with torch.no_grad():
        logits = lm.model(every[None]).logits[0]
        bare = lm.model(every[[0, -1]][None]).logits[0]
    assert found.value == pytest.approx(float(logits[2]))
    assert found.empty == pytest.approx(float(bare[2]))
    assert found["comprehensiveness"].unit == "probability"
    assert found["aopc"].unit == "logits"
    order = sorted(range(1, len(every) - 1), key=lambda i: -float(attribution.scores[i]))
    drops = []
    for fraction in FRACTIONS:
        gone = order[: math.ceil(fraction * len(order))]
        kept = [i for i in range(len(every)) if i not in gone]
        with torch.no_grad():
            drops.append(float(logits.softmax(-1)[2] - lm.model(every[kept][None]).logits[0].softmax(-1)[2]))
    assert found["comprehensiveness"].value == pytest.approx(sum(drops) / 5)
    # Even attention of an encoder tells no part from another: as an order it is a random one.
    assert found["aopc"].baselines["null_attention"] == found["aopc"].baselines["random"]


def test_an_encoder_with_a_decoder() -> None:
    lm = translator()
    attribution = about(lm, TEXT, -1)
    with pytest.raises(
        ArgumentError, match=r'removal: wanted a text with tokens that stay.*use removal="mask" or "mean"'
    ):
        faithfulness(lm, TEXT, attribution)
    found = faithfulness(lm, TEXT, attribution, budget=100, removal="mean")
    every = torch.tensor([lm.tokenize(TEXT).ids])
    with torch.no_grad():
        logits = lm.model(input_ids=every, decoder_input_ids=torch.tensor([attribution.answer])).logits[0, -1]
    assert found.value == pytest.approx(float(logits.log_softmax(-1)[attribution.target.token]))
    assert found.empty != found.value


def test_differences_and_functions_have_no_probability() -> None:
    lm = speaker()
    for target in ((-1, " is", " of"), Target.of(lambda output: output.logits[0, -1, 7], -1)):
        found = faithfulness(lm, TEXT, about(lm, TEXT, target), budget=200)
        names = [one.name for one in found.measures]
        assert "comprehensiveness" not in names
        assert {"lds", "aopc"} <= set(names)


@pytest.mark.parametrize("removal", ["mean", "knockout"])
def test_removals_that_keep_the_length(removal: Any) -> None:
    lm = speaker()
    found = faithfulness(lm, TEXT, about(lm, TEXT, -1), budget=80, removal=removal)
    assert found.settings["removal"] == removal
    assert math.isfinite(found["lds"].value)


def test_an_open_target_is_settled_by_the_model() -> None:
    lm = speaker()
    settled = about(lm, TEXT, -1)
    left_open = explained(lm, TEXT, settled.scores, Target(settled.target.position))
    one, other = (faithfulness(lm, TEXT, each, budget=80) for each in (settled, left_open))
    assert other.value == pytest.approx(one.value)


def test_the_table_holds_a_row_a_measure(measured: Any) -> None:
    *_, found = measured
    rows = found.rows()
    assert [row["measure"] for row in rows] == [one.name for one in found.measures]
    assert rows[0]["baseline_random"] == found.measures[0].baselines["random"]
    assert found.about()["summary"] == found.summary
    assert found.parquet()
    with pytest.raises(KeyError, match="moon: not measured"):
        found["moon"]


# ---- errors


def test_a_budget_too_small_says_what_each_measure_needs() -> None:
    lm = adding(WORTH)
    attribution = explained(lm, ids(12), WORTH, SUM)
    with pytest.raises(
        ArgumentError, match=r"budget: .*\(lds needs 27, aopc needs \d+, sufficiency needs \d+\), got 26"
    ):
        faithfulness(lm, ids(12), attribution, budget=26)
    assert lm.model.read == 0
    with pytest.raises(ArgumentError, match="budget: wanted a whole number"):
        faithfulness(lm, ids(12), attribution, budget=0)


def test_explanations_of_something_else_are_refused() -> None:
    lm = speaker()
    attribution = about(lm, TEXT, -1)
    with pytest.raises(ArgumentError, match="attribution: wanted one of this text, of"):
        faithfulness(lm, TEXT + ".", attribution)
    with pytest.raises(ArgumentError, match="attribution: wanted an Attribution"):
        faithfulness(lm, TEXT, [attribution.scores])  # pyright: ignore[reportArgumentType, reportCallIssue]
    wrong = explained(lm, TEXT, attribution.scores, attribution.target, value=123.0)
    with pytest.raises(ArgumentError, match=r"whose value is .*, got made up, made where it was 123"):
        faithfulness(lm, TEXT, wrong)
    spoilt = explained(lm, TEXT, attribution.scores * math.nan, attribution.target)
    with pytest.raises(ArgumentError, match="wanted finite scores"):
        faithfulness(lm, TEXT, spoilt)


def test_texts_too_short_to_have_orders_are_refused() -> None:
    lm = adding(WORTH)
    with pytest.raises(DocumentError, match="at least two tokens, got 1"):
        faithfulness(lm, [3], explained(lm, ids(12), WORTH, SUM))
    with pytest.raises(DocumentError, match="at least two tokens that can be taken away"):
        faithfulness(lm, [3, 4], explained(lm, [3, 4], [1.0, 2.0], Target(1, 1)))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"fractions": (0.5, 0.1)}, "fractions: wanted rising shares"),
        ({"fractions": ()}, "fractions: wanted rising shares"),
        ({"fractions": (0.5, 1.0)}, "fractions: wanted rising shares"),
        ({"baselines": ("moon",)}, "baselines: wanted some of"),
        ({"by": "page"}, 'by: wanted "span" or "token"'),
        ({"removal": "burn"}, "removal: wanted"),
    ],
)
def test_choices_that_make_no_sense(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        toy(WORTH, **choice)


def test_choices_are_plain() -> None:
    assert Choices(64, "delete", FRACTIONS, "span", (), None, None, 0).check() is None


def test_two_tokens_that_can_go_are_enough() -> None:
    lm = adding(WORTH)
    found = faithfulness(lm, [3, 4, 11], explained(lm, [3, 4, 11], [3.0, -2.0, 0.0], Target(2, 1, measure="logit")))
    assert found["lds"].value == pytest.approx(1)
    assert found.verdict == "cannot tell"
    assert isinstance(torch.tensor(found["lds"].p), Tensor)
