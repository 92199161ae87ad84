"""An advice keeps to its budget, credits heads with what their module brought, and is the adapter that it says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import attlas
from attlas.errors import ArgumentError, StoreError, UnsupportedModelError
from attlas.training import (
    Advice,
    LoraSettings,
    Targets,
    TrainingSettings,
    adapt,
    advise,
    examples_of,
    open_advice,
    train,
)
from explained import judge, speaker

TEXTS = ["The capital of France is Paris.", "It rains, and nobody knows why.", "The capital of Italy is Rome.", "Why?"]
DATA = [{"text": text} for text in TEXTS * 8]
PER_RANK = 3 * (4 * (24 + 24) - 2 * 12 + 3 * (24 + 32))
"""Parameters of rank 1 beside everything: three layers of q, k, v (two of half the width), o, gate, up and down."""


@pytest.fixture(scope="module")
def lm() -> attlas.LanguageModel:
    return speaker()


@pytest.fixture(scope="module")
def advice(lm: attlas.LanguageModel) -> Advice:
    return advise(lm, DATA, rank=2, batch=4)


def test_the_budget_holds_and_is_nearly_used(lm: attlas.LanguageModel, advice: Advice) -> None:
    assert advice.budget == 2 * PER_RANK
    assert advice.even == 2
    cheapest = min(one.cost for one in advice.modules)
    assert advice.budget - cheapest < advice.parameters <= advice.budget
    with adapt(lm, advice.targets, advice.settings()) as adapted:
        assert adapted.trainable == advice.parameters
        assert dict(adapted.ranks) == {name: rank for name, rank in advice.ranks.items() if rank}


def test_no_rank_is_far_above_an_even_one_while_the_others_can_use_the_budget(
    lm: attlas.LanguageModel, advice: Advice
) -> None:
    assert max(advice.ranks.values()) <= 4
    assert min(advice.ranks.values()) < 2
    # Beyond what the matrices hold, some of it is left over.
    full = advise(lm, DATA, budget=10**6, batch=4)
    for one in full.modules:
        module: Any = lm.model.get_submodule(one.name)
        assert one.rank == (min(module.weight.shape) if one.fall > 0 else 0)


@pytest.mark.parametrize("budget", [36, 100, 1234, 10**6])
def test_a_budget_in_parameters(lm: attlas.LanguageModel, budget: int) -> None:
    found = advise(lm, DATA, budget=budget, batch=4)
    assert found.parameters <= budget
    if budget < 2000:
        assert found.parameters > budget - 60
    for one in found.modules:
        module: Any = lm.model.get_submodule(one.name)
        assert one.rank <= min(module.weight.shape)


def test_heads_share_what_their_modules_brought(lm: attlas.LanguageModel, advice: Advice) -> None:
    assert [(one.layer, one.head) for one in advice.heads] == [(layer, head) for layer in range(3) for head in range(4)]
    for role in ("query", "key", "value", "output"):
        for layer in range(3):
            [module] = [one for one in advice.modules if one.layer == layer and role in one.roles]
            parts = [getattr(one, role) for one in advice.heads if one.layer == layer]
            assert sum(parts) == pytest.approx(module.fall, rel=1e-9, abs=1e-12)
    falls = {(one.layer, one.head): one.fall for one in advice.heads}
    best = advice.best_heads(5)
    assert len(set(best)) == 5
    assert min(falls[head] for head in best) >= max(fall for head, fall in falls.items() if head not in best)


def test_candidates_that_are_narrowed_count_only_what_is_meant(lm: attlas.LanguageModel) -> None:
    targets = Targets(("query", "output"), heads=[(0, 1), (2, 3)])
    found = advise(lm, DATA, rank=1, batch=4, targets=targets)
    assert {one.layer for one in found.modules} == {0, 2}
    assert {one.cost for one in found.modules} == {24 + 6}
    whole = {(one.layer, one.head): one for one in found.heads}
    for one in found.modules:
        head = whole[(0, 1) if one.layer == 0 else (2, 3)]
        assert one.fall == pytest.approx(getattr(head, one.roles[0]), rel=1e-9)


def test_the_same_seed_advises_the_same(lm: attlas.LanguageModel, advice: Advice) -> None:
    again = advise(lm, DATA, rank=2, batch=4)
    assert again.ranks == advice.ranks
    assert again.rows() == advice.rows()


def test_an_advice_is_a_file_and_a_table(advice: Advice, tmp_path: Path) -> None:
    found = open_advice(advice.save(tmp_path / "advice.json"))
    assert (found.modules, found.heads, found.targets) == (advice.modules, advice.heads, advice.targets)
    assert (found.budget, found.even, found.losses, found.notes) == (
        advice.budget,
        advice.even,
        advice.losses,
        advice.notes,
    )
    assert found.provenance.as_dict() == advice.provenance.as_dict()
    assert sum(row["share"] for row in found.rows()) == pytest.approx(1)
    assert sum(row["parameters"] for row in found.rows()) == advice.parameters
    assert len(found.head_rows()) == 12
    found.to_parquet(tmp_path / "advice.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "attlas plan"}, "JSON of another kind"),
        ({"version": 2}, "format version 1, got another"),
        ({"modules": []}, "modules: wanted at least one"),
        ({"even": "two"}, "even: wanted a whole number"),
        ({"losses": [1.0, None]}, "losses: wanted a number"),
        ({"targets": {"projections": []}}, "targets: "),
        ({"targets": {"module": "os"}}, "targets: "),
        ({"provenance": 3}, "provenance: wanted an object"),
    ],
)
def test_a_file_that_is_no_advice_is_refused(
    advice: Advice, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = advice.save(tmp_path / "advice.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StoreError, match=message):
        open_advice(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        open_advice(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"format": ')
    with pytest.raises(StoreError, match="no JSON"):
        open_advice(tmp_path / "half.json")


def test_it_is_trained_as_advised(lm: attlas.LanguageModel, advice: Advice) -> None:
    settings = TrainingSettings(steps=2, batch=2, held_out=0)
    trained = train(lm, DATA, targets=advice.targets, lora=advice.settings(variant="rslora"), settings=settings)
    assert trained.trainable == advice.parameters


def test_every_product_is_multiplied_with_the_same_number(lm: attlas.LanguageModel, advice: Advice) -> None:
    with adapt(lm, advice.targets, advice.settings(alpha=6.0)) as adapted:
        modules: list[Any] = [lm.model.get_submodule(site.name) for site in adapted.sites]
        scales = {module.scaling["default"] for module in modules}
    assert scales == {3.0}
    assert advice.settings() == LoraSettings(2, 4.0, ranks=advice.ranks)


def test_what_cannot_be_advised_is_refused(lm: attlas.LanguageModel) -> None:
    with pytest.raises(ArgumentError, match="budget, rank: wanted one of the two at most, got both"):
        advise(lm, DATA, budget=1000, rank=2)
    with pytest.raises(ArgumentError, match=r"budget: wanted at least 36 parameters, those of rank 1 for .*k_proj"):
        advise(lm, DATA, budget=35, batch=4)
    with pytest.raises(ArgumentError, match=r"data: wanted 4 batches of 8, got 12 examples; .* at most 3"):
        advise(lm, DATA[:12])
    with pytest.raises(ArgumentError, match="rank: wanted a whole number from 1 on, got 0"):
        advise(lm, DATA, rank=0)
    with pytest.raises(UnsupportedModelError, match="predicts the next token"):
        advise(judge(), DATA)


def test_a_trial_that_learns_nothing_advises_nothing() -> None:
    flat = speaker()
    with torch.no_grad():
        flat.model.get_output_embeddings().weight.zero_()  # pyright: ignore - a model of transformers
    with pytest.raises(ArgumentError, match="wanted examples that a short trial can learn from"):
        advise(flat, DATA, batch=2)


def test_examples_that_were_read_already_are_taken(lm: attlas.LanguageModel, advice: Advice) -> None:
    assert advise(lm, examples_of(lm, DATA), rank=2, batch=4).ranks == advice.ranks
