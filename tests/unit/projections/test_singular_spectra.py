"""Spectra of every head's two products, against dense float64 decompositions."""

import pytest
import torch

from attlas.projections.low_rank import LowRank
from attlas.projections.singular_spectra import circuit_spectra, spectra
from random_heads import Norm, dense_ov, dense_qk, gathered, random_heads, random_layer


def reference(dense, k):
    values = torch.linalg.svdvals(dense)[:, :k]
    share = values / values.sum(-1, keepdim=True)
    energy = values.square().cumsum(-1) / values.square().sum(-1, keepdim=True)
    eigen = torch.linalg.eigvals(dense)
    return values, {
        "effective_rank": torch.exp(-(share * share.log()).sum(-1)),
        "stable_rank": (values / values[:, :1]).square().sum(-1),
        "rank_90": (energy < 0.9).sum(-1).double() + 1,
        "positivity": eigen.real.sum(-1) / eigen.abs().sum(-1),
    }


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_spectra_of_grouped_heads(kv_heads):
    heads = random_heads(2, kv_heads=kv_heads, value_dim=3)
    seen = []
    found = spectra(heads, progress=lambda *at: seen.append(at))
    assert seen[-1] == (2 * kv_heads, 2 * kv_heads, "spectra")
    assert found.provenance.settings == {"inputs": "none", "normed": False}
    for layer in found.layers:
        weights = heads[layer.layer]
        for circuit, dense, k in ((layer.qk, dense_qk(weights), 4), (layer.ov, dense_ov(weights), 3)):
            values, numbers = reference(dense, k)
            torch.testing.assert_close(circuit.singular_values, values)
            torch.testing.assert_close(circuit.norm, torch.linalg.matrix_norm(dense))
            assert set(circuit.numbers) == set(numbers)
            for name, number in numbers.items():
                torch.testing.assert_close(circuit.numbers[name], number, msg=name)


def test_rows_are_plain_and_hold_the_chance_level_of_the_same_shape():
    rows = spectra(random_heads(2)).rows()
    assert [(row["layer"], row["head"]) for row in rows] == [(i, h) for i in range(2) for h in range(4)]
    assert {type(value) for row in rows for value in row.values()} == {int, float}
    first = rows[0]
    # The weights are themselves Gaussian, so they lie near their chance level.
    for name in ("qk_effective_rank", "ov_effective_rank", "qk_stable_rank"):
        assert first[name] == pytest.approx(first[f"{name}_chance"], rel=0.4)


def test_layers_of_different_shapes_and_products_that_are_not_square():
    cross = random_layer(1, heads=6, kv_heads=3, dim=2, kind="cross")
    cross.key, cross.value = torch.randn(3, 10, 2), torch.randn(3, 10, 2)
    cross.query, cross.output = cross.query.float(), cross.output.float()
    found = spectra(gathered([random_layer(0), cross]))
    assert [len(layer.qk.norm) for layer in found.layers] == [4, 6]
    assert "positivity" not in found.layers[1].qk.numbers
    assert "qk_positivity" not in found.rows()[-1]


def test_the_norm_in_front_is_folded_in_on_request():
    norm = Norm(torch.linspace(0.5, 2, 24, dtype=torch.float64), centred=True)
    layer = random_layer(0, input_norm=norm)
    (found,) = spectra(gathered([layer]), normed=True).layers
    centring = (torch.eye(24) - 1 / 24).double()
    folding = centring @ norm.gain.diag()
    dense = folding @ dense_qk(layer) @ folding.T
    torch.testing.assert_close(found.qk.norm, torch.linalg.matrix_norm(dense))
    torch.testing.assert_close(found.ov.norm, torch.linalg.matrix_norm(folding @ dense_ov(layer)))


def test_across_attention_only_the_query_is_normed():
    norm = Norm(torch.linspace(0.5, 2, 24, dtype=torch.float64), centred=False)
    layer = random_layer(0, input_norm=norm, kind="cross")
    (found,) = spectra(gathered([layer]), normed=True).layers
    torch.testing.assert_close(found.qk.norm, torch.linalg.matrix_norm(norm.gain.diag() @ dense_qk(layer)))
    torch.testing.assert_close(found.ov.norm, torch.linalg.matrix_norm(dense_ov(layer)))


def test_copying_is_positive_and_its_opposite_negative():
    tall = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    product = LowRank(torch.stack([tall, -tall, 0 * tall]), tall.T.expand(3, 4, 20))
    assert circuit_spectra(product).numbers["positivity"].tolist() == pytest.approx([1.0, -1.0, 0.0])
