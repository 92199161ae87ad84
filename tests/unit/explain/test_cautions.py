from __future__ import annotations

from dataclasses import replace

from attlas.explain.attribution import Attribution
from attlas.explain.cautions import cautions, most_faithful
from explaining import explained, several


def with_baseline(one: Attribution, name: str, value: float, measure: str = "aopc") -> Attribution:
    assert one.faithfulness is not None
    main = one.faithfulness.measures[0]
    main = replace(main, name=measure, baselines={**main.baselines, name: value})
    return one.with_faithfulness(replace(one.faithfulness, measures=(main, *one.faithfulness.measures[1:])))


def test_the_most_faithful_beats_random_by_most() -> None:
    assert most_faithful(several()).name == "chefer (paper)"
    assert most_faithful([explained("rollout", verdict=None), explained("alti", verdict=None)]).name == "rollout"


def test_nothing_needs_to_be_said() -> None:
    assert cautions(several()) == []
    assert cautions([explained(verdict=None)]) == []


def test_none_is_more_faithful_than_chance() -> None:
    doubtful = explained(verdict="cannot tell", advantage=0.1)
    worse = explained("alti", verdict="less faithful than chance", advantage=-1)
    (said,) = cautions([doubtful, worse])
    assert said.startswith("None of these 2 methods is more faithful than chance")
    (said,) = cautions([doubtful])
    assert said.startswith("This method is not more faithful than chance")


def test_relevance_that_rests_on_the_first_token() -> None:
    one = explained(verdict=None)
    scores = one.scores * 0
    scores[0], scores[3] = 0.9, 0.1
    (said,) = cautions([replace(one, scores=scores)])
    assert said.startswith("90 % of the relevance by rollout lies on the first token")


def test_positions_alone_do_as_well() -> None:
    (said,) = cautions([with_baseline(explained(), "recency", 1.9)])
    assert said == "Positions alone do as well: nearness to the end reaches 1.9, rollout 1.8 nats."
    assert cautions([with_baseline(explained(), "recency", 1.7)]) == []
    assert cautions([with_baseline(explained(), "random", 9.0)]) == [], "chance is what the verdict is about"


def test_of_sufficiency_less_is_better() -> None:
    assert cautions([with_baseline(explained(), "recency", 1.9, "sufficiency")]) != []
    low = explained(advantage=-0.9)  # a value of 0.1, below the baselines' 1
    assert cautions([with_baseline(low, "recency", 0.2, "sufficiency")]) == []
