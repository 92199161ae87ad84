"""Composition scores equal the dense float64 reference for all shapes, groupings, dtypes, sizes and memory limits."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attlas.projections.composition import KINDS, composition
from random_heads import dense_scores, gathered, random_layer


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_scores_of_all_pairs(data):
    d_model = data.draw(st.integers(1, 20))
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    layers = []
    for i in range(data.draw(st.integers(2, 4))):
        kv_heads, group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
        layer = random_layer(
            i,
            heads=kv_heads * group,
            kv_heads=kv_heads,
            d_model=d_model,
            dim=data.draw(st.integers(1, 6)),
            value_dim=data.draw(st.integers(1, 6)),
            dtype=dtype,
        )
        scale = 2.0 ** data.draw(st.sampled_from([0, 0, 40, -40]))
        layer.key, layer.value = layer.key * scale, layer.value * scale
        layer.query = layer.query / scale
        if data.draw(st.booleans()):
            layer.output[0] = 0
        layers.append(layer)
    heads = gathered(layers)
    kind = data.draw(st.sampled_from(KINDS))
    found = composition(heads, kind, memory=data.draw(st.sampled_from([1, 4000, 2**28])))
    step = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    for i, first in enumerate(layers):
        for j, second in enumerate(layers):
            block = found[i, : len(first.query), j, : len(second.query)].double()
            truth = dense_scores(first, second, kind) if i < j else torch.zeros_like(block)
            # A score is at most 1, and what it is made of has norm 1: rounding counts from there.
            assert (block - truth).abs().max() <= 8 * step * d_model**0.5
