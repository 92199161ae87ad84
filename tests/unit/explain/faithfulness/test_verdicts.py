"""Verdicts: how often scores that know nothing are called faithful, and what is said of those that do."""

import math

import pytest
import torch

from adding import adding, explained, ids
from attlas.explain.faithfulness import faithfulness
from attlas.explain.faithfulness.measures import CURVE_MEASURES
from attlas.explain.faithfulness.verdicts import judge_curve, judge_lds, summary
from attlas.explain.targets import Target

AOPC = next(measure for measure in CURVE_MEASURES if measure.name == "aopc")
SUFFICIENCY = next(measure for measure in CURVE_MEASURES if measure.name == "sufficiency")
TARGET = Target(23, 1, measure="logit", name="'x'")


@pytest.mark.parametrize(("budget", "carrier"), [(64, "lds"), (330, "aopc")])
def test_random_scores_are_rarely_called_faithful(budget: int, carrier: str) -> None:
    """One token is worth nearly everything: the worst case for anything but ranks."""
    n, methods, texts = 24, 12, 16
    verdicts = []
    for seed in range(texts):
        generator = torch.Generator().manual_seed(100 + seed)
        worth = torch.rand(n, generator=generator, dtype=torch.float64)
        worth[seed % 20] = 40.0
        lm = adding(worth.tolist())
        scores = torch.rand(methods, n, generator=generator, dtype=torch.float64)
        several = [explained(lm, ids(n), one, TARGET, method=str(i)) for i, one in enumerate(scores)]
        found = faithfulness(lm, ids(n), several, budget=budget, seed=seed)
        assert {one.measures[0].name for one in found} == {carrier}
        verdicts += [one.verdict for one in found]
    # 2.5 % each way. What is random is shared within a text, so texts scatter by about 0.025 among them, and methods
    # within a text as tosses of a coin do; three standard errors.
    most = 0.025 + 3 * math.hypot(0.025 / texts**0.5, (0.025 / len(verdicts)) ** 0.5)
    assert verdicts.count("more faithful than chance") / len(verdicts) <= most
    assert verdicts.count("less faithful than chance") / len(verdicts) <= most


def test_a_method_within_the_random_orders_cannot_be_told_however_sure_their_mean_is() -> None:
    random = torch.linspace(0, 1, 400, dtype=torch.float64)
    judged = judge_curve(AOPC, 0.8, random, {}, "nats", 0)
    assert judged.measured.low > 0
    assert judged.measured.p == pytest.approx((1 + int((random >= 0.8).sum())) / 401)
    assert judged.verdict == "cannot tell"
    assert judge_curve(AOPC, 1.1, random, {}, "nats", 0).verdict == "more faithful than chance"
    assert judge_curve(AOPC, -0.1, random, {}, "nats", 0).verdict == "less faithful than chance"


def test_eight_orders_never_carry_a_verdict() -> None:
    random = torch.linspace(0, 1, 8, dtype=torch.float64)
    assert judge_curve(AOPC, 50.0, random, {}, "nats", 0).verdict == "cannot tell"


def test_less_sufficiency_is_better() -> None:
    random = torch.linspace(0.4, 0.6, 60, dtype=torch.float64)
    judged = judge_curve(SUFFICIENCY, 0.1, random, {}, "probability", 0)
    assert judged.measured.advantage == pytest.approx(0.4)
    assert judged.measured.low < 0.4 < judged.measured.high
    assert judged.verdict == "more faithful than chance"


def test_orders_that_differ_by_rounding_are_as_good() -> None:
    random = torch.full((60,), 2.0, dtype=torch.float64) + 1e-12
    judged = judge_curve(AOPC, 2.0 + 2e-12, random, {}, "nats", 0)
    assert judged.measured.p == 1
    assert judged.verdict == "cannot tell"


def test_what_is_said_of_curves() -> None:
    random = torch.linspace(0, 1, 39, dtype=torch.float64)
    judged = judge_curve(AOPC, 3.6, random, {"recency": 1.5, "first_token": 0.2}, "nats", 0)
    said = summary(judged, [], TARGET, 40)
    ends = f"[{judged.measured.low:.2f}, {judged.measured.high:.2f}]"
    assert said == (
        f"More faithful than chance: removing what it marks first costs 3.10 nats more than removing as much at random "
        f"{ends}, more than each of 39 random orders; position alone reaches 1.00 (recency)."
    )
    placed = judge_curve(AOPC, 3.6, random, {"recency": 4.5}, "nats", 0)
    assert summary(placed, [], TARGET, 40).endswith("reaches 4.00 (recency), so position alone explains as much.")
    less = summary(judge_curve(AOPC, 0.2, random, {}, "nats", 0), [], TARGET, 40)
    assert less.startswith("Cannot tell: removing what it marks first costs 0.30 nats less than removing as much")
    assert less.endswith("and 31 of 39 random orders cost as much.")


def test_what_is_said_of_ablations() -> None:
    generator = torch.Generator().manual_seed(0)
    keeps = torch.rand(60, 30, generator=generator) < 0.5
    scores = torch.randn(30, generator=generator, dtype=torch.float64)
    values = keeps.double() @ scores
    judged = judge_lds(keeps, scores, values, {"recency": scores.flip(0)}, 0)
    said = summary(judged, [], TARGET, 60)
    assert said.startswith(
        "More faithful than chance: its scores foretell what 60 random removals do to the logit of 'x' with a rank "
        "correlation of 1.00 [1.00, 1.00], which 0 % of shuffled scores reach; position alone reaches "
    )
    worse = judge_lds(keeps, -scores, values, {}, 0)
    assert worse.verdict == "less faithful than chance"
    assert "which 0 % of shuffled scores stay below" in summary(worse, [], TARGET, 60)
