"""Orders of parts: by score, at random, by position; each takes away as many tokens as any other."""

import pytest
import torch

from adding import adding, explained
from attlas.errors import ArgumentError, DocumentError
from attlas.explain.faithfulness.orders import (
    Parts,
    by_score,
    causal_null,
    in_reading_order,
    parts_of,
    positional,
    random_halves,
)
from attlas.explain.faithfulness.removing import passage_of
from attlas.explain.reading import Reading, reading_of
from attlas.explain.targets import Target
from explained import judge, speaker

TARGET = Target(11, 1)


def parts(spans: list[tuple[int, int]] | None = None, by: str = "span") -> Parts:
    lm = adding([1.0] * 12)
    attribution = explained(lm, list(range(12)), [0.0] * 12, TARGET, spans=spans)
    passage = passage_of(Reading(lm, reading_of(lm, list(range(12)), -1).document, (TARGET,)))
    return parts_of(passage, attribution, by)


def test_spans_without_protected_tokens_are_the_parts() -> None:
    found = parts([(0, 5), (5, 7), (7, 12)])
    assert [member.tolist() for member in found.members] == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9, 10]]
    assert len(parts([(0, 5), (5, 12)], by="token")) == 11


def test_tokens_outside_of_all_spans_stay() -> None:
    found = parts([(2, 4), (6, 8)])
    assert found.tokens == 4
    assert found.empty.nonzero().flatten().tolist() == [0, 1, 4, 5, 8, 9, 10, 11]


def test_shares_are_rounded_up_and_every_order_takes_as_many_tokens() -> None:
    found = parts([(0, 5), (5, 7), (7, 12)])
    assert found.counts((0.01, 0.1, 0.5, 0.9)) == [1, 2, 6, 10]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        tokens = found.tokens_in(torch.tensor(order))
        assert sorted(tokens.tolist()) == list(range(11))
        assert tokens[: len(found.members[order[0]])].tolist() == found.members[order[0]].tolist()


def test_highest_scores_go_first_and_equal_ones_at_random() -> None:
    scores = torch.tensor([0.0, 3.0, 1.0, 1.0, 1.0, -2.0])
    seen = set()
    for seed in range(40):
        order, tied = by_score(scores, torch.Generator().manual_seed(seed))
        assert tied == 3
        assert (order[0], order[4], order[5]) == (1, 0, 5)
        seen.add(tuple(order[1:4].tolist()))
    assert len(seen) == 6
    assert by_score(scores[:3], torch.Generator())[1] == 0


def test_causal_null_is_the_dense_rollout_of_even_attention() -> None:
    n, layers = 9, 5
    even = torch.ones(n, n, dtype=torch.float64).tril() / torch.arange(1, n + 1).unsqueeze(1)
    mixed = (even + torch.eye(n)) / 2
    expected = torch.linalg.matrix_power(mixed, layers)
    for position in (0, 4, 8):
        torch.testing.assert_close(causal_null(n, position, layers), expected[position])


def test_null_of_a_deep_model_is_nearly_all_on_the_first_token() -> None:
    shares = {layers: float(causal_null(1024, 1023, layers)[0]) for layers in (6, 12, 32)}
    assert shares == pytest.approx({6: 0.047, 12: 0.293, 32: 0.968}, abs=5e-4)


def test_positions() -> None:
    found = parts()
    near = positional("recency", found)
    assert in_reading_order(near) is not None
    assert near.argmax() == 10
    assert float(near[10]) == 0.5
    assert positional("first_token", found).tolist() == [1.0, *[0.0] * 10]
    order = in_reading_order(positional("first_token", found))
    assert order is not None
    assert order.tolist() == list(range(11))
    null = in_reading_order(positional("null_attention", found))
    assert null is not None
    assert null.tolist() == list(range(11))
    with pytest.raises(ArgumentError, match="baselines: wanted some of recency, first_token, null_attention"):
        positional("moon", found)


def test_even_attention_of_an_encoder_is_no_order() -> None:
    lm = judge()
    text = "the dog sees the cat"
    reading = reading_of(lm, text, Target.label(1))
    found = parts_of(passage_of(reading), explained(lm, text, [0.0] * reading.n, reading.targets[0]), "token")
    assert in_reading_order(positional("null_attention", found)) is None


def test_random_ablations_keep_half() -> None:
    halves = random_halves(50, 400, torch.Generator().manual_seed(0))
    # Three standard errors of 20,000 draws.
    assert float(halves.double().mean()) == pytest.approx(0.5, abs=3 * 0.5 / 20_000**0.5)


def test_one_part_is_refused() -> None:
    with pytest.raises(DocumentError, match="at least two parts"):
        parts([(0, 12)])
    with pytest.raises(ArgumentError, match='by: wanted "span" or "token"'):
        parts(by="page")
    lm = speaker()
    with pytest.raises(DocumentError, match="at least two tokens"):
        passage_of(reading_of(lm, "The capital of France", 0))
