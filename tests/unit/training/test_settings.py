"""What cannot be meant is refused at once, by the name of the choice."""

from __future__ import annotations

import json

import pytest

from attlas.errors import ArgumentError
from attlas.training import LoraSettings, Targets, TrainingSettings


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"projections": ()}, "projections: wanted names"),
        ({"projections": ("query", 3)}, "projections: wanted names"),
        ({"layers": ()}, "layers: wanted numbers from 0 on"),
        ({"layers": (-1,)}, "layers: wanted numbers from 0 on"),
        ({"heads": [(0, 1, 2)]}, r"heads: wanted pairs \(layer, head\)"),
        ({"heads": []}, "heads: wanted at least one pair"),
        ({"layers": (1,), "heads": [(0, 1)]}, r"heads: wanted heads of the layers 1, got \(0, 1\)"),
    ],
)
def test_targets_that_cannot_be_meant_are_refused(choices, said):
    with pytest.raises(ArgumentError, match=said):
        Targets(**choices)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"rank": 0}, "rank: wanted a whole number from 1 on, got 0"),
        ({"rank": True}, "rank: wanted"),
        ({"alpha": float("nan")}, "alpha: wanted a number above 0"),
        ({"dropout": 1.0}, "dropout: wanted a share"),
        ({"variant": "adalora"}, "variant: wanted one of lora, rslora, dora, got 'adalora'"),
        ({"init": "zeros"}, "init: wanted one of default"),
        ({"init": "pissa_niter_x"}, "init: wanted one of default"),
        ({"init": "loftq"}, "init: wanted one of default.* got 'loftq', which makes up for a quantised model's error"),
        ({"init": "corda"}, "got 'corda', which needs covariances"),
        ({"ranks": {"a.b": -1}}, r"ranks\['a.b'\]: wanted a whole number from 0 on"),
    ],
)
def test_adapters_that_cannot_be_meant_are_refused(choices, said):
    with pytest.raises(ArgumentError, match=said):
        LoraSettings(**choices)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"steps": 0}, "steps: wanted a whole number from 1 on"),
        ({"batch": 1.5}, "batch: wanted a whole number from 1 on"),
        ({"save_every": -1}, "save_every: wanted"),
        ({"length": 1}, "length: wanted 2 tokens at least"),
        ({"learning_rate": 0.0}, "learning_rate: wanted a number above 0"),
        ({"warmup": 1.1}, "warmup: wanted a share"),
        ({"decay": "step"}, "decay: wanted one of cosine, linear, constant"),
        ({"weight_decay": -0.1}, "weight_decay: wanted"),
        ({"clip": 0.0}, "clip: wanted a number above 0"),
        ({"held_out": 1.0}, "held_out: wanted a share from 0 to below 1, or a file"),
        ({"held_out": ""}, "held_out: wanted a share"),
        ({"seed": -1}, "seed: wanted"),
    ],
)
def test_trainings_that_cannot_be_meant_are_refused(choices, said):
    with pytest.raises(ArgumentError, match=said):
        TrainingSettings(**choices)


def test_choices_are_plain_types_in_a_settled_order():
    targets = Targets("query", layers=[3, 1, 1, 2], heads=[(2, 1), (1, 0), (2, 1)])
    assert targets.as_dict() == {
        "projections": ["query"],
        "layers": [1, 2, 3],
        "heads": [[1, 0], [2, 1]],
        "separate": False,
    }
    for one in (targets, LoraSettings(ranks={"a": 1}), TrainingSettings()):
        assert json.loads(json.dumps(one.as_dict())) == one.as_dict()


def test_initialisations_know_what_they_need():
    assert LoraSettings(init="pissa_niter_4").changes_base
    assert LoraSettings(init="eva").needs_data
    assert not LoraSettings(init="eva").changes_base
    assert not LoraSettings().changes_base
