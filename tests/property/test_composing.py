"""Composition scores equal the dense float64 reference for all shapes, groupings, dtypes, sizes and memory limits."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attlas.projections.composing import KINDS, composition
from random_heads import dense_ov, dense_qk, dense_scores, gathered, random_layer


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
            allowed = 8 * step * amplified(first, "v")[:, None] * amplified(second, kind)
            assert ((block - truth).abs() <= allowed).all()


def amplified(layer, kind):
    """Return ‖A‖‖B‖ / ‖AB‖ of each head: any computation in floats rounds in proportion to the factors of a product."""
    left, right = (layer.value, layer.output) if kind == "v" else (layer.query, layer.key)
    sizes = [
        torch.linalg.matrix_norm(factor.double()).repeat_interleave(len(layer.query) // len(factor))
        for factor in (left, right)
    ]
    product = torch.linalg.matrix_norm((dense_ov if kind == "v" else dense_qk)(layer))
    return torch.where(product > 0, sizes[0] * sizes[1] / product, 1.0)
