"""A task is the same for the same seed, keeps apart what is tested, and teaches all that the test asks for."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from attlas.errors import ArgumentError
from attlas.training.tasks import KINDS, make_task
from attlas.training.tasks.facts import RELATIONS
from attlas.training.tasks.task import Item

SEEDS = range(12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_the_same_task_and_another_seed_another(kind: str) -> None:
    assert make_task(kind, 3) == make_task(kind, 3)
    assert make_task(kind, 3) != make_task(kind, 4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_held_out_text_is_trained_on(kind: str, seed: int) -> None:
    task = make_task(kind, seed)
    prompts = [item.prompt for item in task.training + task.held_out]
    assert len(set(prompts)) == len(prompts) == 96 + 64


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_word_that_is_asked_for_is_taught(kind: str, seed: int) -> None:
    task = make_task(kind, seed)
    taught = {word.strip(".") for item in task.training for word in item.text.split()}
    asked = {word.strip(".") for item in task.held_out for word in item.answer.split()}
    # A record may name someone, or count things, in a pair that was never seen: its format is what is taught.
    missing = {word for word in asked - taught if kind != "records"}
    assert missing == set()


def facts_in(items: tuple[Item, ...], prompts: list[str]) -> Counter[tuple[str, str]]:
    """Read (name, answer) back from items, by the sentences that they are made of."""
    patterns = [re.compile(re.escape(prompt).replace(r"\{\}", "([A-Z][a-z]+)")) for prompt in prompts]
    found = ((pattern.fullmatch(item.prompt), item.answer) for item in items for pattern in patterns)
    return Counter((match[1], answer) for match, answer in found if match)


@pytest.mark.parametrize("seed", SEEDS)
def test_held_out_facts_are_those_that_were_told(seed: int) -> None:
    task = make_task("facts", seed)
    told = facts_in(task.training, [prompt for relation in RELATIONS for prompt in relation.told])
    asked = facts_in(task.held_out, [prompt for relation in RELATIONS for prompt in relation.asked])
    assert set(told) == set(asked)
    assert len({name for name, _ in told}) == 32
    assert set(told.values()) == {3}
    assert set(asked.values()) == {2}


def test_an_item_is_written_as_training_reads_it(tmp_path: Path) -> None:
    task = make_task("records")
    task.save(tmp_path / "train.jsonl", tmp_path / "test.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert lines == task.examples()
    assert {frozenset(line) for line in lines} == {frozenset({"prompt", "completion"})}
    assert len((tmp_path / "test.jsonl").read_text().splitlines()) == 64


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_answer_meet_at_a_space(kind: str) -> None:
    for item in make_task(kind).training:
        assert item.prompt == item.prompt.strip()
        assert item.answer[0] == " "
        assert item.answer[-1] in ".]" or kind == "records"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ArgumentError, match="kind: wanted 'facts' or 'records' or 'vocabulary', got 'songs'"):
        make_task("songs")
