"""The matrices of linear and low-rank attention keep the contract of attention matrices."""

import pytest
import torch

from attlas import AttentionMatrix
from attlas.matrix import streaming
from attlas.patterns import hybrid
from attlas.patterns.features import Elu, Favor
from attlas.patterns.low_rank import LowRank
from attlas.testing import check_operator
from linear_truth import Heads, random_map
from low_rank_truth import dense_low_rank

N_QUERY, N_KEY = 37, 45
GENERATOR = torch.Generator().manual_seed(7)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR)


QUERY, KEY, VALUE = normal(2, 6, N_QUERY, 16), normal(2, 2, N_KEY, 16), normal(2, 2, N_KEY, 5)
PADDING = torch.arange(N_KEY).view(1, 1, 1, -1) >= torch.tensor([0, 11]).view(2, 1, 1, 1)
HOLLOW = PADDING & torch.tensor([True, False]).view(2, 1, 1, 1)
FEATURES = {"elu": Elu(), "favor": Favor(24), "learned": random_map(6, 16, 12, GENERATOR)}
RULES = {
    "causal": {"causal": True},
    "not causal": {},
    "padding": {"causal": True, "mask": PADDING},
    "rows that see nothing": {"mask": HOLLOW},
    "everything": {"causal": True, "mask": PADDING, "sinks": normal(6), "bias": normal(2, 6, 1, N_KEY), "scale": 0.5},
}
NEAR = {"features alone": (0, 0), "a window": (9, 0), "a window and sinks": (5, 3), "all near": (60, 0)}


CASES = [
    *(("learned", rules, "a window and sinks", 16) for rules in RULES),
    *(("learned", "causal", near, 16) for near in NEAR if near != "a window and sinks"),
    ("learned", "not causal", "features alone", 16),
    ("elu", "causal", "features alone", 16),
    ("elu", "rows that see nothing", "a window", 16),
    ("favor", "everything", "a window and sinks", 16),
    ("favor", "padding", "features alone", 16),
    ("learned", "everything", "a window and sinks", 512),
]


@pytest.mark.parametrize(
    ("features", "rules", "near", "tile"), CASES, ids=[", ".join(map(str, case)) for case in CASES]
)
def test_linear(features, rules, near, tile, monkeypatch):
    monkeypatch.setattr(streaming, "TILE", tile)
    monkeypatch.setattr(hybrid, "CHUNK", tile)
    window, sinks = NEAR[near]
    heads = Heads(QUERY, KEY, VALUE, FEATURES[features], window, sinks, RULES[rules])
    check_operator(heads.pattern.matrix(heads.exact), heads.dense(), heads.dense(torch.float32))


@pytest.mark.parametrize("rules", [{}, {"mask": PADDING}, {"mask": HOLLOW}, {"scale": 0.7, "softcap": 2.0}])
@pytest.mark.parametrize(
    "pattern",
    [
        LowRank(8),
        LowRank(8, method="linformer"),
        LowRank(8, method="linformer", projection="random", seed=3),
    ],
    ids=["nystrom", "segment means", "random projection"],
)
def test_low_rank(pattern, rules, monkeypatch):
    monkeypatch.setattr(streaming, "TILE", 16)
    exact = AttentionMatrix(QUERY, KEY, **rules)
    dense, plain = (dense_low_rank(pattern, QUERY, KEY, **rules, dtype=d) for d in (torch.float64, torch.float32))
    check_operator(pattern.matrix(exact), dense, plain)
