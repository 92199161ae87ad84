"""Every matrix made of others keeps the contract of attention matrices, whatever the attention hides or bends."""

import pytest
import torch

from attlas.matrix import RelativeBias, streaming
from attlas.testing import check_operator
from derived import KINDS, Problem

N_QUERY, N_KEY = 29, 37
GENERATOR = torch.Generator().manual_seed(11)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR)


QUERY, KEY = normal(2, 6, N_QUERY, 16), normal(2, 2, N_KEY, 16)
GRADIENT, VALUE = normal(2, 6, N_QUERY, 5), normal(2, 3, N_KEY, 5)
HOLLOW = torch.rand(2, 6, N_QUERY, N_KEY, generator=GENERATOR) > 0.5
HOLLOW[0, 1, 5] = False
HOLLOW[1] = False
TABLE = RelativeBias.from_buckets(normal(32, 6), N_QUERY, N_KEY, bidirectional=True)

RULES = {
    "causal": {"causal": True},
    "rows that see nothing": {"mask": HOLLOW},
    "hidden by a bias": {"bias": torch.zeros(2, 1, N_QUERY, N_KEY).masked_fill(~HOLLOW[:, :1], float("-inf"))},
    "everything": {
        "sinks": normal(6),
        "softcap": 3.0,
        "bias": TABLE,
        "window": 20,
        "causal": True,
        "mask": torch.arange(N_KEY).view(1, 1, 1, -1) >= torch.tensor([0, 11]).view(2, 1, 1, 1),
        "scale": 0.5,
    },
}


@pytest.mark.parametrize(
    ("rule", "tile"), [*((rule, 16) for rule in RULES), ("everything", 512)], ids=[*RULES, "everything in one tile"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_the_contract(kind, rule, tile, monkeypatch, request):
    monkeypatch.setattr(streaming, "TILE", tile)
    if rule == "everything":
        request.getfixturevalue("_two_threads")
    problem = Problem(QUERY, KEY, GRADIENT, VALUE, RULES[rule])
    lazy, dense = KINDS[kind].lazy, KINDS[kind].dense
    check_operator(lazy(problem), dense(problem, torch.float64), dense(problem, torch.float32))
