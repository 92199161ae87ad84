"""References from outside attention, each against its formula in float64."""

import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

import attlas
from attlas import Target
from attlas.errors import ArgumentError, UnsupportedModelError
from attlas.explain.reading import Reading, reading_of
from explained import TEXT, judge, speaker, translator

captum = pytest.mark.skipif(find_spec("captum") is None, reason="captum, an optional extra, is not installed here")


def explained(lm: attlas.LanguageModel, method: str, target: Any = -1, text: str = TEXT, **options: Any) -> Any:
    return attlas.explain(lm, text, method, target, budget=0, **options)


def value_of_embeddings(reading: Reading, embeddings: Tensor) -> Tensor:
    inputs = {name: value for name, value in reading.inputs.items() if name != "input_ids"}
    return reading.objective(reading.lm.model(inputs_embeds=embeddings, **inputs))


def settled(lm: attlas.LanguageModel, target: Any, text: str = TEXT) -> tuple[Reading, Tensor]:
    reading = reading_of(lm, text, target)
    with torch.no_grad():
        reading = reading.resolved(lm.model(**reading.inputs))
        model: Any = lm.model
        return reading, model.get_input_embeddings()(reading.ids[None])


# ---- gradient × input


@pytest.mark.parametrize("lm", [speaker(), translator()], ids=["decoder", "encoder-decoder"])
def test_gradient_times_input(lm: attlas.LanguageModel) -> None:
    targets = [-1, (0, " of"), (0, " of", "is")]
    reading, embeddings = settled(lm, targets)
    embeddings.requires_grad_()
    for i, found in enumerate(explained(lm, "gradient_input", targets)):
        (gradient,) = torch.autograd.grad(value_of_embeddings(reading, embeddings)[i], embeddings)
        expected = (gradient * embeddings).sum(-1)[0].detach()
        assert found.signed
        assert torch.allclose(found.scores, expected, rtol=1e-9, atol=1e-12)


def test_gradient_times_input_of_a_class() -> None:
    lm = judge()
    found = explained(lm, "gradient_input", Target.label(1), "the dog")
    reading, embeddings = settled(lm, Target.label(1), "the dog")
    embeddings.requires_grad_()
    (gradient,) = torch.autograd.grad(value_of_embeddings(reading, embeddings)[0], embeddings)
    assert torch.allclose(found.scores, (gradient * embeddings).sum(-1)[0].detach(), rtol=1e-9, atol=1e-12)


# ---- integrated gradients


@captum
def test_integrated_gradients_are_the_mean_gradient_on_the_way() -> None:
    lm = speaker()
    reading, embeddings = settled(lm, -1)
    expected, size = torch.zeros_like(embeddings), torch.zeros_like(embeddings)
    steps = 12
    # Riemann's middle rule, written out.
    for step in range(steps):
        point = ((step + 0.5) / steps * embeddings).requires_grad_()
        (gradient,) = torch.autograd.grad(value_of_embeddings(reading, point)[0], point)
        expected += gradient / steps
        size += gradient.abs() / steps
    found = explained(lm, "integrated_gradients", steps=steps, rule="riemann_middle", baseline="zero")
    # Captum rounds the weight of each point to float32, and a Llama its states, in each of its norms.
    rounding = torch.finfo(torch.float32).eps * (size * embeddings.abs()).sum(-1)[0]
    assert bool(((found.scores - (expected * embeddings).sum(-1)[0]).abs() <= rounding).all())


@captum
@pytest.mark.parametrize("lm", [judge(), translator()], ids=["encoder", "encoder-decoder"])
def test_integrated_gradients_are_complete_with_enough_steps(lm: attlas.LanguageModel) -> None:
    target = Target.label(1) if lm.facts.kind == "encoder" else -1
    text = "the dog" if lm.facts.kind == "encoder" else TEXT
    few, many = (explained(lm, "integrated_gradients", target, text, steps=steps) for steps in (2, 256))
    # Few points miss bends of the way; hundreds of them do not.
    assert abs(many.notes["completeness_gap"]) < abs(few.notes["completeness_gap"]) / 20
    # What they are complete to: the value on the text less that on the baseline.
    reading, embeddings = settled(lm, target, text)
    model: Any = lm.model
    pad = lm.tokenizer.pad_token_id
    baseline = model.get_input_embeddings()(torch.full((1, reading.n), pad)).detach()
    front, behind = reading.document.added
    for kept in (slice(front), slice(reading.n - behind, reading.n)):
        baseline[:, kept] = embeddings[:, kept]
        assert torch.equal(many.scores[kept], torch.zeros_like(many.scores[kept]))
    with torch.no_grad():
        change = float(value_of_embeddings(reading, embeddings) - value_of_embeddings(reading, baseline))
    for found in (few, many):
        assert float(found.scores.sum()) - change == pytest.approx(found.notes["completeness_gap"], abs=1e-6)


@captum
def test_integrated_gradients_of_several_targets_tell_how_far_they_are() -> None:
    told: list[tuple[int, int, str]] = []

    def tell(done: int, total: int, what: str) -> None:
        told.append((done, total, what))

    lm = speaker()
    both = explained(lm, "integrated_gradients", [-1, 3], steps=5, progress=tell)
    alone = explained(lm, "integrated_gradients", 3, steps=5)
    assert torch.equal(both[1].scores, alone.scores)
    assert told[-1] == (10, 10, "integrating gradients")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_integrated_gradients_without_captum_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UnsupportedModelError, match="the package captum, which is not installed; pip install captum"):
        explained(speaker(), "integrated_gradients")


@captum
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 1}, "steps: wanted a whole number from 2"),
        ({"rule": "simpson"}, "rule: wanted one of gausslegendre"),
        ({"baseline": "mean"}, 'baseline: wanted "padding", "zero" or a token id'),
        ({"baseline": 9999}, "baseline: wanted a token of the vocabulary"),
    ],
)
def test_settings_of_integrated_gradients_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        explained(speaker(), "integrated_gradients", **settings)


@captum
def test_integrated_gradients_need_a_neutral_token() -> None:
    lm = speaker()
    ids = lm.tokenize(TEXT).ids
    without = replace(lm, tokenizer=None)
    with pytest.raises(ArgumentError, match='"zero" or a token id for a model without a token for padding'):
        attlas.explain(without, ids, "integrated_gradients", budget=0)


# ---- occlusion


def test_occlusion_is_what_the_target_loses_without_a_span() -> None:
    lm = speaker()
    ids = torch.tensor(lm.tokenize(TEXT).ids)
    found = explained(lm, "occlusion", spans="word")
    for span, score in zip(found.spans, found.span_scores.tolist(), strict=True):
        kept = torch.tensor([i for i in range(len(ids)) if not span.start <= i < span.stop or i == len(ids) - 1])
        with torch.no_grad():
            logits = lm.model(input_ids=ids[kept][None]).logits[0, -1]
        without = float(logits.log_softmax(-1)[found.target.token])
        expected = 0.0 if len(kept) == len(ids) else found.value - without
        assert score == pytest.approx(expected, abs=1e-9)
        part = found.scores[span.start : span.stop]
        if span.stop < len(ids):
            assert torch.allclose(part, part[0].expand_as(part))


def test_occlusion_by_another_token_and_of_a_class() -> None:
    lm = judge()
    text = "the old dog sees a bird"
    document = lm.tokenize(text)
    neutral = document.ids[2]
    found = explained(lm, "occlusion", Target.label(2), text, removal="mask", neutral=neutral)
    for i in range(len(document)):
        ids = torch.tensor([document.ids])
        ids[0, i] = neutral
        with torch.no_grad():
            expected = found.value - float(lm.model(input_ids=ids).logits[0, 2])
        added = i in (0, len(document) - 1)
        assert float(found.scores[i]) == pytest.approx(0.0 if added else expected, abs=1e-9)


def test_occlusion_leaves_what_the_target_cannot_see() -> None:
    found = explained(speaker(), "occlusion", 6)
    assert bool((found.scores[:6] != 0).all())
    assert not bool(found.scores[6:].any())


def test_occlusion_never_leaves_a_model_with_nothing() -> None:
    with pytest.raises(ArgumentError, match="removal: wanted a text with tokens that stay"):
        explained(translator(), "occlusion", spans=[(0, len(TEXT))])


def test_occlusion_refuses_too_many_spans() -> None:
    with pytest.raises(ArgumentError, match=r"spans: wanted at most 5 for occlusion.* got \d+; take larger ones"):
        explained(speaker(), "occlusion", limit=5)
    assert explained(speaker(), "occlusion", limit=5, spans="sentence").notes["passes"] < 10
    with pytest.raises(ArgumentError, match="limit: wanted a whole number from 1"):
        explained(speaker(), "occlusion", limit=0)


# ---- what knows nothing of the model


def test_random_is_seeded() -> None:
    lm = speaker()
    one, same, other = (explained(lm, "random", seed=seed).scores for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert bool(((one >= 0) & (one < 1)).all())
    with pytest.raises(ArgumentError, match="seed: wanted a whole number"):
        explained(lm, "random", seed="x")


def test_recency_is_nearness_to_the_target() -> None:
    found = explained(speaker(), "recency", 4)
    assert found.scores[:6].tolist() == [1 / 5, 1 / 4, 1 / 3, 1 / 2, 1, 0]
    assert not bool(found.scores[5:].any())
    both_sides = explained(judge(), "recency", Target.label(0, position=1), "the dog").scores
    assert both_sides[:3].tolist() == [1 / 2, 1, 1 / 2]
    assert int(explained(judge(), "recency", Target.label(0, None), "the dog").scores.argmax()) == len(both_sides) - 1
    assert int(explained(translator(), "recency").scores.argmax()) == len(translator().tokenize(TEXT)) - 1


def test_first_token() -> None:
    scores = explained(speaker(), "first_token").scores
    assert float(scores[0]) == float(scores.sum()) == 1
