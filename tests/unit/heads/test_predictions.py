"""How far weights alone tell what heads do."""

from __future__ import annotations

import pytest
import torch

from attlas.heads.predictions import PREDICTED, auc_with_interval, predict_roles, read_weights
from attlas.heads.role_table import HeadTable, Sample, score_role
from attlas.heads.roles import BY_NAME
from attlas.projections import projections
from attlas.results import Provenance
from labelled import decoder, encoder


def test_the_auc_is_a_probability() -> None:
    values = torch.tensor([5.0, 3.0, 4.0, 1.0, 3.0])
    having = torch.tensor([True, True, False, False, False])
    # Of six pairs, 5 beats all three, 3 beats one and ties with one.
    auc, low, high = auc_with_interval(values.double(), having)
    assert auc == pytest.approx(4.5 / 6)
    assert 0 <= low <= auc <= high <= 1
    assert auc_with_interval(-values.double(), having)[0] == pytest.approx(1.5 / 6)
    assert auc_with_interval(torch.ones(5).double(), having) == (0.5, 0.5, 0.5)


def test_its_interval_holds_about_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    having = torch.arange(80) < 20
    held = 0
    for _ in range(100):
        values = torch.randn(80, generator=generator).double() + having
        _, low, high = auc_with_interval(values, having, resamples=400)
        held += low <= float(torch.special.ndtr(torch.tensor(0.5**0.5))) <= high
    assert held >= 88


def test_numbers_are_those_of_the_projections() -> None:
    viewed = projections(decoder())
    numbers = read_weights(viewed)
    assert set(numbers) == set(PREDICTED)
    heads = set(viewed.heads)
    for name, values in numbers.items():
        assert set(values) <= heads, name
        assert all(value == value for value in values.values()), name
    # Nothing feeds the first layer.
    assert not any(layer == 0 for layer, _ in numbers["K-composition with previous-token heads"])
    assert set(numbers["kernel at the previous token"]) == heads


def test_a_model_has_the_numbers_that_it_can_have() -> None:
    # An encoder without rotation and without an output layer.
    assert set(read_weights(projections(encoder()))) == {"query-key eigenvalues"}


def test_roles_are_predicted_where_enough_heads_have_them() -> None:
    viewed = projections(decoder())
    numbers = read_weights(viewed)["kernel at the previous token"]
    generator = torch.Generator().manual_seed(0)
    ordered = torch.tensor([numbers[head] for head in viewed.heads]).argsort(descending=True)
    means = torch.full((12,), 0.1)
    means[ordered[:4]] = 0.9
    score = means.double() + 0.01 * torch.randn(20, 12, generator=generator)
    found = score_role(BY_NAME["previous_token"], Sample(score, {"even": torch.full((20, 1), 0.05)}))
    none = score_role(BY_NAME["induction"], Sample(0.1 + 0 * score, {"even": torch.full((20, 1), 0.05)}))
    table = HeadTable(tuple(viewed.heads), {"previous_token": found, "induction": none}, Provenance("0"))
    (prediction,) = predict_roles(viewed, table)
    assert prediction.predictor == "kernel at the previous token"
    assert (prediction.role, prediction.heads) == ("previous_token", 4)
    assert prediction.auc == 1


def test_names_of_predicted_roles_are_roles() -> None:
    assert {role for roles in PREDICTED.values() for role in roles} <= set(BY_NAME)
