"""A layer's and a head's views: products, biases, indices."""

import pytest
import torch
from torch import Tensor

import attlas
from attlas.matrix.indexing import IndexOutOfRange
from attlas.projections.rotation import Rotation, pairings
from attlas.projections.views import HeadNorm, LayerProjections, Norm


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def layer() -> LayerProjections:
    frequencies = torch.tensor([1.0, 0.1, 0.01, 0.001], dtype=torch.float64)
    return LayerProjections(
        layer=3,
        name="self_attn",
        kind="self",
        causal=True,
        query=randn(4, 12, 8),
        key=randn(2, 12, 8, seed=1),
        value=randn(2, 12, 6, seed=2),
        output=randn(4, 6, 12, seed=3),
        query_bias=randn(4, 8, seed=4),
        value_bias=randn(2, 6, seed=5),
        output_bias=randn(12, seed=6),
        scale=8**-0.5,
        rotation=Rotation(frequencies, *pairings(8, 8)[0], 1.0, 8),
    )


def test_sizes(layer: LayerProjections) -> None:
    assert (layer.heads, layer.kv_heads, layer.group) == (4, 2, 2)
    assert (layer.d_model, layer.dim, layer.value_dim) == (12, 8, 6)
    assert repr(layer) == "LayerProjections(3, self_attn, 4 heads on 2 key heads of 12×8, rotary)"


def test_states_are_projected_for_each_head(layer: LayerProjections) -> None:
    states = randn(2, 5, 12, seed=7)
    queries, keys, values = layer.queries(states), layer.keys(states), layer.values(states)
    assert (queries.shape, keys.shape, values.shape) == ((2, 4, 5, 8), (2, 2, 5, 8), (2, 2, 5, 6))
    assert layer.query_bias is not None
    torch.testing.assert_close(queries[1, 2], states[1] @ layer.query[2] + layer.query_bias[2])
    gathered = randn(2, 4, 5, 6, seed=8)
    assert layer.output_bias is not None
    by_head = torch.stack([gathered[:, h] @ layer.output[h] for h in range(4)]).sum(0) + layer.output_bias
    torch.testing.assert_close(layer.outputs(gathered), by_head)
    assert layer.queries(states[0].float()).dtype == torch.float32


def test_positions_rotate(layer: LayerProjections) -> None:
    states, positions = randn(2, 5, 12, seed=7), torch.tensor([[0, 1, 2, 3, 4], [9, 8, 7, 6, 5]])
    assert layer.rotation is not None
    for b in range(2):
        expected = layer.rotation.rotate(layer.queries(states[b]), positions[b])
        torch.testing.assert_close(layer.queries(states, positions)[b], expected)
    torch.testing.assert_close(layer.keys(states, torch.zeros(5, dtype=torch.int64)), layer.keys(states))


def test_a_heads_products_are_those_of_its_matrices(layer: LayerProjections) -> None:
    head = layer.head(3)
    assert (head.layer, head.head, head.kv_head) == (3, 3, 1)
    torch.testing.assert_close(head.qk.to_dense(), layer.query[3] @ layer.key[1].T)
    torch.testing.assert_close(head.ov.to_dense(), layer.value[1] @ layer.output[3])
    assert head.query_bias is not None
    assert (head.key_bias, head.scale) == (None, layer.scale)
    torch.testing.assert_close(head.qk_at(0).to_dense(), head.qk.to_dense())


def test_qk_at_an_offset_gives_the_rotated_score(layer: LayerProjections) -> None:
    head = layer.head(0)
    states = randn(2, 12, seed=9)
    assert layer.rotation is not None
    query = layer.rotation.rotate(states[:1] @ head.query, torch.tensor([7]))
    key = layer.rotation.rotate(states[1:] @ head.key, torch.tensor([4]))
    score = states[0] @ head.qk_at(3).to_dense() @ states[1]
    torch.testing.assert_close(score, (query @ key.T).squeeze(), rtol=1e-5, atol=1e-5)


def test_an_index_outside_is_refused(layer: LayerProjections) -> None:
    assert layer.head(-1).head == 3
    for wrong in (4, -5, True, 1.0):
        with pytest.raises(IndexOutOfRange, match=r"head: wanted 0 to 3 \(layer 3\)"):
            layer.head(wrong)  # pyright: ignore[reportArgumentType]  # what a user may pass
    with pytest.raises(attlas.ArgumentError, match='wanted "query"'):
        layer["q"]
    assert layer["key"] is layer.key


def test_norms_are_those_of_torch() -> None:
    x, gain, bias = randn(2, 5, 12), randn(12, seed=1), randn(12, seed=2)
    torch.testing.assert_close(
        Norm(gain, bias, True, 1e-5)(x), torch.nn.functional.layer_norm(x, (12,), gain, bias, 1e-5)
    )
    torch.testing.assert_close(Norm(gain, None, False, 1e-6)(x), torch.nn.functional.rms_norm(x, (12,), gain, 1e-6))


def test_heads_are_normalised_apart_or_together() -> None:
    x = randn(2, 3, 5, 4)
    gain = randn(3, 4, seed=1)
    apart = HeadNorm(gain, None, False, 1e-6)(x)
    torch.testing.assert_close(apart[:, 1], torch.nn.functional.rms_norm(x[:, 1], (4,), gain[1], 1e-6))
    together = HeadNorm(gain, None, False, 1e-6, together=True)(x)
    flat = torch.nn.functional.rms_norm(x.transpose(1, 2).flatten(2), (12,), gain.flatten(), 1e-6)
    torch.testing.assert_close(together, flat.unflatten(2, (3, 4)).transpose(1, 2))
