"""Feature maps: positive, what their papers say, and equal where their numbers are."""

import dataclasses

import pytest
import torch
from torch.nn.functional import elu

from attlas import ArgumentError, AttentionMatrix
from attlas.errors import NonFiniteError
from attlas.patterns.features import Elu, Favor, FeatureMap, named
from linear_truth import random_map


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_elu_is_elu_plus_one_and_stays_positive_far_below():
    x = normal(1, 2, 50, 8).double() * 5
    torch.testing.assert_close(Elu().log_query(x, 0.3).exp(), elu(x) + 1)
    far = torch.full((1, 1, 1, 4), -300.0)
    assert torch.equal(Elu().log_key(far, 1, 1.0), far)


def test_elu_has_the_gradient_of_elu():
    x = torch.linspace(-3, 3, 13, dtype=torch.float64).view(1, 1, 13, 1).requires_grad_()
    (ours,) = torch.autograd.grad(Elu().log_query(x, 1.0).exp().sum(), x)
    (theirs,) = torch.autograd.grad(elu(x).sum(), x)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dim", [1, 8, 33])
def test_directions_are_orthogonal_within_a_block_and_as_long_as_normal_ones(dim):
    directions = Favor(features=6 * dim, seed=3).directions(dim)
    assert directions.shape == (dim, 6 * dim)
    block = directions[:, :dim]
    products = block.T @ block
    torch.testing.assert_close(products, torch.diag(products.diagonal()))
    lengths = Favor(features=400 * dim).directions(dim).square().sum(0)
    torch.testing.assert_close(lengths.mean().item(), float(dim), rtol=0.15, atol=0)


def test_favor_estimates_the_exponential_of_the_score():
    query, key = normal(1, 1, 40, 16).double() * 0.7, normal(1, 1, 40, 16, seed=1).double() * 0.7
    exact = torch.exp(0.25 * query @ key.mT)
    # The variance of independent features, relative to the square; orthogonal ones have less.
    variance = torch.exp(0.25 * (query.unsqueeze(3) + key.unsqueeze(2)).square().sum(-1)) - 1
    for features in (64, 4096):
        favor = Favor(features=features)
        estimate = favor.log_query(query, 0.25).exp() @ favor.log_key(key, 1, 0.25).exp().mT
        error = ((estimate - exact) / exact).square().mean().sqrt()
        assert error < 1.5 * (variance.mean() / features).sqrt()


def test_favor_is_the_same_for_the_same_seed_alone():
    assert torch.equal(Favor(40, 2).directions(8), Favor(40, 2).directions(8))
    assert not torch.equal(Favor(40, 2).directions(8), Favor(40, 3).directions(8))
    assert Favor(40, 2) == Favor(40, 2) != Favor(40, 3)


def test_keys_that_heads_share_get_features_for_each_head():
    key = normal(2, 2, 5, 4)
    learned = random_map(6, 4, 7, torch.Generator().manual_seed(1))
    for features in (Elu(), Favor(7), learned, random_map(1, 4, 7, torch.Generator())):
        logs = features.log_key(key, 6, 0.5)
        assert logs.shape == (2, 6, 5, features.count(4))
        for head in range(6):
            alone = features.narrow(slice(head, head + 1)).log_key(key[:, head // 3 : head // 3 + 1], 1, 0.5)
            torch.testing.assert_close(logs[:, head : head + 1], alone)


def test_each_query_shares_a_weight_of_one_under_a_learned_map():
    learned = random_map(3, 4, 7, torch.Generator().manual_seed(1))
    torch.testing.assert_close(learned.log_query(normal(1, 3, 5, 4), 1.0).exp().sum(-1), torch.ones(1, 3, 5))


def test_learned_maps_are_equal_where_all_numbers_are():
    one = random_map(3, 4, 7, torch.Generator().manual_seed(1))
    same = FeatureMap(one.query.clone(), one.key.clone())
    other = FeatureMap(one.query, one.key + 1e-6)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != FeatureMap(one.key, one.query)
    assert one.settings() == {"learned": one.digest}
    assert len({one, same, other}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.query = other.query  # pyright: ignore[reportAttributeAccessIssue] - what is wrong is the point


def test_learned_maps_survive_their_tensors():
    one = random_map(3, 4, 7, torch.Generator().manual_seed(1))
    again = FeatureMap.from_tensors(one.tensors())
    assert again == one
    assert named(again.settings(), {one.digest: again}) is again
    in_double = FeatureMap(one.query.double(), one.key.double())
    assert in_double == one


def test_learned_maps_are_narrowed_and_joined():
    one = random_map(3, 4, 7, torch.Generator().manual_seed(1))
    heads = [one.narrow(slice(h, h + 1)) for h in range(3)]
    assert FeatureMap.joined(heads) == one
    assert one.narrow(torch.tensor([2, 0])) == FeatureMap.joined([heads[2], heads[0]])
    assert heads[0].narrow(slice(0, 1)) == heads[0]
    assert repr(heads[0]).startswith("FeatureMap(heads=1, dim=4, features=7, ")


@pytest.mark.parametrize("features", [Elu(), Favor(12, 5), random_map(2, 4, 6, torch.Generator())])
def test_maps_are_made_again_from_their_settings(features):
    maps = {features.digest: features} if isinstance(features, FeatureMap) else {}
    assert named(features.settings(), maps) == features


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("cosine", 'features: wanted "elu", "favor" or feature maps, got \'cosine\''),
        ({"cosine": 1}, "features: wanted the settings of elu, favor or learned maps, got cosine"),
        ({"learned": "abc"}, "maps: wanted the learned feature map abc, got 1 others; keep the file of learned maps"),
    ],
)
def test_settings_that_name_nothing_known_are_refused(settings, message):
    maps = {"def": random_map(1, 4, 6, torch.Generator())}
    with pytest.raises(ArgumentError, match=message):
        named(settings, maps)


def test_weights_under_another_hash_are_refused():
    one = random_map(1, 4, 6, torch.Generator())
    with pytest.raises(ArgumentError, match="maps: wanted weights with the hash abc"):
        named({"learned": "abc"}, {"abc": one})


@pytest.mark.parametrize(
    ("query", "key", "error", "message"),
    [
        (normal(2, 5, 6), normal(2, 5, 7), ArgumentError, "key: wanted the query's shape"),
        (normal(2, 5), normal(2, 5), ArgumentError, r"query: wanted shape \(head, dim \+ 1, features\)"),
        (torch.ones(2, 5, 6, dtype=torch.int64), normal(2, 5, 6), ArgumentError, "query: wanted a tensor of floats"),
        (normal(2, 5, 6), normal(2, 5, 6) / 0, NonFiniteError, "key: wanted finite numbers"),
    ],
)
def test_weights_are_checked(query, key, error, message):
    with pytest.raises(error, match=message):
        FeatureMap(query, key)


def test_tensors_that_are_missing_are_named():
    with pytest.raises(ArgumentError, match="tensors: wanted query and key, got no key"):
        FeatureMap.from_tensors({"query": normal(1, 3, 4)})


def test_heads_that_a_map_does_not_fit_are_refused():
    query = normal(1, 4, 6, 8)
    exact = AttentionMatrix(query, query)
    with pytest.raises(ArgumentError, match="maps for the matrix' 4 heads, got maps for 3; narrow the maps"):
        random_map(3, 8, 6, torch.Generator()).check(exact)
    with pytest.raises(ArgumentError, match="maps for a dim of 8, got for 7"):
        random_map(4, 7, 6, torch.Generator()).check(exact)
    with pytest.raises(ArgumentError, match="softcap: wanted none, for random features"):
        Favor().check(AttentionMatrix(query, query, softcap=5.0))
    with pytest.raises(ArgumentError, match="scale: wanted at least 0"):
        Favor().check(AttentionMatrix(query, query, scale=-1.0))


@pytest.mark.parametrize("arguments", [{"features": 0}, {"features": 2.5}, {"seed": -1}, {"features": True}])
def test_random_features_arguments_are_checked(arguments):
    with pytest.raises(ArgumentError, match="wanted a whole number"):
        Favor(**arguments)


def test_names():
    assert named("elu") == Elu()
    assert named("favor") == Favor()
    with pytest.raises(ArgumentError, match="features: wanted"):
        named(["elu"])  # pyright: ignore[reportArgumentType] - what is wrong is the point
