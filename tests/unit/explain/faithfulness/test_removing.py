"""Tokens taken away: which may go, what the model then reads, and that shortcuts equal what they stand for."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from adding import adding
from attlas.capture.knocking import knocked_out
from attlas.errors import ArgumentError, DocumentError, UnsupportedModelError
from attlas.explain.faithfulness.removing import Passage, passage_of, remover
from attlas.explain.faithfulness.running import Runner, most_to_begin, runner_of
from attlas.explain.reading import Reading, reading_of
from attlas.explain.targets import Target
from attlas.models.facts import gather_facts
from attlas.testing.tiny_models import TINY_MODELS
from explained import judge, speaker, translator

TEXT = "The capital of France is Paris. The capital of Italy is Rome"
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def passage(lm: Any, target: Any = -1, text: Any = TEXT) -> Passage:
    reading = reading_of(lm, text, target)
    with torch.no_grad():
        return passage_of(reading.resolved(lm.model(**reading.inputs)))


def subsets(found: Passage, count: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [found.without(found.free[torch.rand(len(found.free), generator=generator) < 0.5]) for _ in range(count)]


def log_prob(lm: Any, inputs: dict[str, Tensor], row: int, token: int | None) -> float:
    assert token is not None
    with torch.no_grad():
        return float(lm.model(**inputs).logits[0, row].log_softmax(-1)[token])


def test_a_decoder_s_text_ends_at_the_target_and_its_token_stays() -> None:
    lm = speaker()
    found = passage(lm, 7)
    assert found.n == 8
    assert found.row == 7
    assert found.free.tolist() == list(range(7))


def test_an_encoder_s_added_tokens_stay_and_what_is_behind_the_target_may_go() -> None:
    lm = judge()
    found = passage(lm, Target.label(1), "the dog sees the cat")
    assert found.row == 0
    assert found.free.tolist() == list(range(1, found.n - 1))


def test_of_an_encoder_with_a_decoder_all_that_was_read_may_go() -> None:
    lm = translator()
    found = passage(lm, -1)
    assert found.row is None
    assert len(found.free) == len(lm.tokenize(TEXT)) - sum(lm.tokenize(TEXT).added)


def test_fewer_than_two_tokens_that_can_go_are_refused() -> None:
    with pytest.raises(DocumentError, match="at least two tokens that can be taken away before the target, got 1"):
        passage(speaker(), 1)


def test_deleting_equals_the_shorter_text_read_alone() -> None:
    lm = speaker()
    found = passage(lm)
    runner = runner_of(remover("delete", found), None, 0)
    runner.begin(found.without(found.free[:0]), found.without(found.free))
    chosen = subsets(found)
    runner.run(chosen)
    for present in chosen:
        ids = found.ids[present][None]
        expected = log_prob(lm, {"input_ids": ids}, ids.shape[1] - 1, found.reading.targets[0].token)
        assert runner[present].value == pytest.approx(expected, rel=1e-9)
        assert runner[present].probability == pytest.approx(torch.tensor(expected).exp().item(), rel=1e-6)


def test_a_masked_token_stands_in_the_place_of_others() -> None:
    lm = speaker()
    found = passage(lm)
    neutral = lm.tokenizer(" is")["input_ids"][0]
    runner = Runner(remover("mask", found, neutral=neutral))
    [present, *_] = subsets(found)
    runner.run([present])
    ids = torch.where(present, found.ids, neutral)[None]
    expected = log_prob(lm, {"input_ids": ids}, found.n - 1, found.reading.targets[0].token)
    assert runner[present].value == pytest.approx(expected, rel=1e-9)


def test_the_mean_embedding_stands_in_the_place_of_others() -> None:
    lm = speaker()
    found = passage(lm)
    runner = Runner(remover("mean", found))
    [present, *_] = subsets(found)
    runner.run([present])
    model: Any = lm.model
    own = model.get_input_embeddings()(found.ids).detach()
    rows = torch.stack([row if stays else own.mean(0) for row, stays in zip(own, present, strict=True)])
    expected = log_prob(lm, {"inputs_embeds": rows[None]}, found.n - 1, found.reading.targets[0].token)
    assert runner[present].value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("layers", [None, [1]])
def test_a_knockout_hides_keys_and_moves_nothing(layers: Any) -> None:
    lm = speaker()
    found = passage(lm)
    runner = runner_of(remover("knockout", found, layers=layers), None, 0)
    chosen = subsets(found)
    runner.begin(found.without(found.free[:0]), found.without(found.free))
    runner.run(chosen)
    for present in chosen:
        with knocked_out(lm.model, ~present[None], layers):
            expected = log_prob(lm, {"input_ids": found.ids[None]}, found.n - 1, found.reading.targets[0].token)
        assert runner[present].value == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("family", ["Llama", "Mistral", "GPT-2", "RoBERTa"])
def test_the_shorter_knockout_is_taken_only_where_it_is_exact(family: str) -> None:
    tiny = next(one for one in TINY_MODELS if one.family == family)
    model: Any = tiny.build().double()
    lm = replace(speaker(), model=model, tokenizer=None, facts=gather_facts("tiny", model, "f00d"))
    ids = tiny.inputs()["input_ids"][0].tolist()
    target = Target.of(lambda output: output[0][0, -1].square().sum(), -1)
    found = passage_of(reading_of(lm, ids, target))
    runner = runner_of(remover("knockout", found), None, 0)
    assert type(runner._remover).__name__ == ("Hiding" if family in ("Llama", "GPT-2") else "KnockingOut")
    [present, *_] = subsets(found)
    runner.run([present])
    with torch.no_grad(), knocked_out(model, ~present[None]):
        expected = float(target.value(model(found.ids[None]), 0))
    assert runner[present].value == pytest.approx(expected, rel=1e-8)


def test_padding_is_given_up_where_the_model_sees_it() -> None:
    lm = adding([0.5, 1.0, 2.0, 4.0, 8.0, 0.0])
    forward = lm.model.forward

    def leaking(input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        output = forward(input_ids, attention_mask)
        if attention_mask is not None:
            output.logits = output.logits + (1 - attention_mask).sum(1)[:, None, None] * torch.tensor([0.0, 1.0, 0.0])
        return output

    lm.model.forward = leaking
    found = passage_of(Reading(lm, reading_of(lm, list(range(6)), -1).document, (Target(5, 1, measure="logit"),)))
    way = remover("delete", found)
    runner = Runner(way)
    runner.begin(found.without(found.free[:0]), found.without(found.free))
    assert runner.passes == most_to_begin(way) == 3
    chosen = subsets(found)
    runner.run(chosen)
    for present in chosen:
        assert runner[present].value == float(lm.model.worth[present].sum())  # pyright: ignore[reportIndexIssue]


def test_each_text_is_run_once_and_counted() -> None:
    lm = adding([1.0] * 8)
    found = passage_of(Reading(lm, reading_of(lm, list(range(8)), -1).document, (Target(7, 1, measure="logit"),)))
    told: list[int] = []
    runner = Runner(remover("delete", found), told.append)
    runner.begin(found.without(found.free[:0]), found.without(found.free))
    chosen = subsets(found)
    runner.run(chosen)
    runner.run(chosen)
    assert runner.passes == sum(told) == lm.model.read


def test_errors() -> None:
    lm = speaker()
    found = passage(lm)
    with pytest.raises(
        ArgumentError, match=r"removal: wanted .delete., .mean. or .knockout. for a model whose tokenizer"
    ):
        remover("mask", found)
    with pytest.raises(ArgumentError, match="neutral: wanted a token of the vocabulary, got 100000"):
        remover("mask", found, neutral=100_000)
    with pytest.raises(ArgumentError, match='neutral: wanted none unless removal="mask"'):
        remover("delete", found, neutral=3)
    with pytest.raises(ArgumentError, match='layers: wanted none unless removal="knockout"'):
        remover("delete", found, layers=[1])
    with pytest.raises(ArgumentError, match=r"removal: wanted .*, got 'burn'"):
        remover("burn", found)
    bare = adding([1.0] * 5)
    short = passage_of(Reading(bare, reading_of(bare, list(range(5)), -1).document, (Target(4, 1),)))
    with pytest.raises(UnsupportedModelError, match="removal: wanted a model that takes inputs_embeds"):
        remover("mean", short)
