"""The loop does what its description says: the same as one written by hand, in a settled order, and stops in time."""

from __future__ import annotations

import math
from itertools import pairwise

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attlas.errors import ArgumentError, NonFiniteError
from attlas.testing.tiny_models import TINY_MODELS
from attlas.training import Examples, LoraSettings, Targets, TrainingSettings, adapt, examples_of, fit
from attlas.training.batches import batch_of, chosen, in_batches, split, step_batch
from attlas.training.examples import Example
from attlas.training.fitting import Course, learning_rate
from attlas.training.losses import IGNORED, mean_loss, mean_losses, summed_loss
from teaching import facts

FAMILIES = {model.family: model for model in TINY_MODELS}

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def some(count: int) -> Examples:
    return Examples(tuple(Example((number, number, number + 1), (True, True, True)) for number in range(count)))


# ---- batches


@given(count=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 2**40), turns=st.integers(1, 3))
def test_every_example_has_its_turn_before_any_has_its_next(count, batch, seed, turns):
    steps = math.ceil(turns * count / batch)
    order = [index for step in range(steps) for index in chosen(count, batch, seed, step)]
    for turn in range(turns):
        assert sorted(order[turn * count : (turn + 1) * count]) == list(range(count))
    assert chosen(count, batch, seed, steps) == chosen(count, batch, seed, steps)


def test_orders_differ_by_turn_and_seed():
    orders = {tuple(chosen(30, 30, seed, step)) for seed in range(3) for step in range(3)}
    assert len(orders) == 9


@given(count=st.integers(2, 60), share=st.floats(0.001, 0.999), seed=st.integers(0, 2**40))
def test_a_split_loses_and_repeats_nothing(count, share, seed):
    learnt, held = split(some(count), share, seed)
    assert len(learnt) >= 1
    assert len(held) >= 1
    assert abs(len(held) - share * count) <= 1
    assert sorted(item.ids for item in (*learnt.items, *held.items)) == [item.ids for item in some(count).items]
    assert split(some(count), share, seed) == (learnt, held)


def test_a_split_needs_two():
    assert split(some(1), 0, 0) == (some(1), Examples(()))
    with pytest.raises(ArgumentError, match="held_out: wanted two examples at least, got 1"):
        split(some(1), 0.1, 0)


def test_a_batch_is_padded_behind_and_padding_is_not_learnt():
    batch = batch_of([Example((5, 6, 7), (False, True, True)), Example((8, 9), (True, True))])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, 9, IGNORED]]


# ---- losses


@pytest.mark.parametrize("family", ["Llama", "GPT-2", "GPT-NeoX", "Gemma 2", "Falcon with ALiBi", "BLOOM", "Mistral"])
def test_the_loss_is_that_of_each_text_alone(family):
    model = FAMILIES[family].build().double()
    generator = torch.Generator().manual_seed(0)
    items = []
    for length in (3, 9, 14):
        ids = torch.randint(5, 90, (length,), generator=generator).tolist()
        learnt = (torch.rand(length, generator=generator) < 0.5).tolist()
        items.append(Example(tuple(ids), (*learnt[:-1], True)))
    total, count = 0.0, 0
    for item in items:
        logs = model(input_ids=torch.tensor([item.ids])).logits[0].log_softmax(-1)
        for at in range(1, len(item.ids)):
            if item.learnt[at]:
                total, count = total - float(logs[at - 1, item.ids[at]].detach()), count + 1
    batch = batch_of(items)
    loss, tokens = summed_loss(model, batch["input_ids"], batch["labels"])
    assert tokens == count
    assert float(loss.detach()) == pytest.approx(total, rel=1e-5)  # the logits are turned into float32
    assert float(mean_loss(model, batch["input_ids"], batch["labels"]).detach()) == pytest.approx(
        total / count, rel=1e-5
    )
    assert mean_losses(model, in_batches(Examples(tuple(items)), 2)) == pytest.approx(total / count, rel=1e-5)


# ---- the loop


def test_the_learning_rate_climbs_and_falls():
    settings = TrainingSettings(steps=100, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 1e-3
    linear = TrainingSettings(steps=100, learning_rate=1.0, warmup=0.0, decay="linear")
    assert [learning_rate(linear, step) for step in (0, 25, 75)] == [1.0, 0.75, 0.25]
    constant = TrainingSettings(steps=100, learning_rate=1.0, warmup=0.0, decay="constant")
    assert {learning_rate(constant, step) for step in range(100)} == {1.0}
    assert learning_rate(TrainingSettings(steps=2, warmup=1.0, learning_rate=1.0), 1) == 1.0


def test_the_losses_are_those_of_plain_peft_in_a_loop_by_hand(pupil, pupil_folder):
    examples = examples_of(pupil, facts())
    settings = TrainingSettings(steps=12, batch=5, learning_rate=0.02, warmup=0.25, weight_decay=0.1, clip=0.5, seed=3)
    with adapt(pupil, Targets(("query", "value", "down")), LoraSettings(4), seed=3) as adapted:
        first = adapted.tensors()
        found = fit(adapted, examples, settings)
        last = adapted.tensors()
    import transformers

    base = transformers.AutoModelForCausalLM.from_pretrained(pupil_folder)
    config = peft.LoraConfig(
        r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(base, config)
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, one in first.items():
            named[name].copy_(one)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=0.02, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (step + 1) / 3 if step < 3 else (1 + math.cos(math.pi * (step - 3) / 9)) / 2
    )
    model.train()
    losses = []
    for step in range(12):
        batch = step_batch(examples, 5, 3, step)
        mask = (
            torch.arange(batch["input_ids"].shape[1])
            <= (batch["labels"] != IGNORED).long().cumsum(1).argmax(1)[:, None]
        )
        loss = model(**batch, attention_mask=mask.long()).loss
        losses.append(float(loss.detach()))
        loss.backward()
        nn.utils.clip_grad_norm_([one for one in model.parameters() if one.requires_grad], 0.5)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    assert found.losses == pytest.approx(losses, rel=1e-4)
    assert losses[-1] < 0.8 * losses[0]
    for name, one in last.items():
        assert torch.allclose(named[name], one, atol=2e-3), name


def test_evaluations_and_checkpoints_come_when_they_are_due(pupil):
    examples = examples_of(pupil, facts())
    saved: list[int] = []
    told: list[tuple[int, int, str]] = []
    settings = TrainingSettings(steps=7, batch=2, evaluate_every=3, save_every=2)
    with adapt(pupil, lora=LoraSettings(2)) as adapted:
        before = mean_losses(pupil.model, in_batches(examples, 4))
        course = fit(
            adapted,
            examples,
            settings,
            held_out=examples,
            save=lambda course, _: saved.append(course.step),
            progress=lambda *one: told.append(one),
        )
        after = mean_losses(pupil.model, in_batches(examples, 4))
    assert [step for step, _ in course.evaluations] == [0, 3, 6, 7]
    assert course.evaluations[0][1] == pytest.approx(before, rel=1e-6)
    assert course.evaluations[-1][1] == pytest.approx(after, rel=1e-6)
    assert saved == [2, 4, 6, 7]
    assert [done for done, _, _ in told] == list(range(1, 8))
    assert told[-1] == (7, 7, f"training, loss {course.losses[-1]:.3f}")
    assert not pupil.model.training


def test_the_global_random_numbers_are_left_alone(pupil):
    drawn = torch.get_rng_state()
    with adapt(pupil, lora=LoraSettings(2, dropout=0.3)) as adapted:
        fit(adapted, examples_of(pupil, facts()), TrainingSettings(steps=2))
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_before_the_step(pupil, broken, monkeypatch):
    real, calls = nn.utils.clip_grad_norm_, []

    def poisoned(parameters, *rest):
        calls.append(1)
        if broken == "gradient" and len(calls) == 3:
            next(iter(parameters)).grad[0, 0] = float("nan")
        return real(parameters, *rest)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", poisoned)
    saved = {}
    with adapt(pupil, lora=LoraSettings(2)) as adapted:

        def save(course: Course, _: object) -> None:
            saved.update({"step": course.step, "tensors": adapted.tensors()})
            if broken == "loss" and course.step == 2:
                with torch.no_grad():
                    pupil.model.get_input_embeddings().weight.fill_(float("inf"))

        with pytest.raises(
            NonFiniteError, match=r"step 3: wanted a finite loss, got a loss of .*; take a smaller learning rate"
        ):
            fit(adapted, examples_of(pupil, facts()), TrainingSettings(steps=9, save_every=1), save=save)
        assert saved["step"] == 2
        assert all(torch.equal(one, saved["tensors"][name]) for name, one in adapted.tensors().items())
    assert not pupil.model.training


def test_nothing_to_learn_from_is_refused(pupil):
    with (
        adapt(pupil, lora=LoraSettings(2)) as adapted,
        pytest.raises(ArgumentError, match="examples: wanted one at least"),
    ):
        fit(adapted, Examples(()), TrainingSettings())
