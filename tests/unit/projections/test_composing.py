"""Composition scores of all pairs of heads: which pairs there are, chance, the strongest, and bounded memory."""

import math

import pytest
import torch

from attlas.errors import ArgumentError, UnsupportedModelError
from attlas.projections.composing import KINDS, composition, composition_graph
from attlas.projections.subspaces import basis
from attlas.testing import no_dense
from random_heads import Norm, dense_ov, dense_qk, dense_scores, gathered, random_heads, random_layer


def pairs(found):
    return found.paired[:, None, :, None].expand_as(found.scores)


def test_only_earlier_heads_feed_later_ones():
    found = composition(random_heads(4), "q")
    earlier = torch.ones(4, 4, dtype=torch.bool).triu(1)
    assert torch.equal(found.paired, earlier)
    assert torch.equal(found.scores > 0, pairs(found))
    assert (found.z[~pairs(found)] == 0).all()


def test_layers_are_named_by_number_and_heads_counted_per_layer():
    heads = gathered([random_layer(3), random_layer(5, heads=6, kv_heads=3), random_layer(9)])
    found = composition(heads, "k")
    assert (found.layers, found.heads, found.scores.shape) == ((3, 5, 9), (4, 6, 4), (3, 6, 3, 6))
    torch.testing.assert_close(found[3, :4, 5, :], dense_scores(heads[3], heads[5], "k"))
    torch.testing.assert_close(found[5, :, 9, :4], dense_scores(heads[5], heads[9], "k"))
    assert (found[3, 4:] == 0).all()
    assert found[3].shape == (6, 3, 6)
    assert len(found.strongest(1000)) == 4 * 6 + 4 * 4 + 6 * 4
    with pytest.raises(IndexError, match=r"layer: wanted one of \[3, 5, 9\], got 4"):
        found[4]


@pytest.mark.parametrize("kind", KINDS)
def test_random_heads_lie_at_chance(kind):
    found = composition(random_heads(8, heads=6, kv_heads=3, d_model=48, dim=5), kind)
    assert found.chance == 1 / math.sqrt(48)
    there = found.scores[pairs(found)]
    assert float(there.square().mean()) == pytest.approx(1 / 48, rel=0.1)
    z = found.z[pairs(found)]
    # Pairs share heads, so they are not independent: some room beyond the standard error.
    assert float(z.mean()) == pytest.approx(0, abs=0.3)
    assert float(z.std()) == pytest.approx(1, abs=0.25)


def planted():
    """Let head 1 of layer 0 write just what head 2 of layer 2 looks for with its query."""
    heads = random_heads(3, kv_heads=4)
    heads[0].output = heads[0].output.clone()
    heads[0].output[1] = heads[2].query[2].mT
    return heads


@pytest.mark.parametrize("measure", ["product", "subspace"])
@pytest.mark.parametrize("by", ["z", "score"])
def test_a_planted_composition_is_the_strongest(measure, by):
    first, *rest = composition(planted(), "q", measure=measure).strongest(3, by=by)
    assert (first.source, first.target, first.kind) == ((0, 1), (2, 2), "q")
    assert len(rest) == 2
    assert first.z > 5
    assert all(getattr(first, by) >= getattr(edge, by) for edge in rest)


def test_the_graph_takes_the_strongest_of_all_kinds():
    heads = planted()
    found = composition_graph(heads, 12)
    assert len(found.edges) == 12
    assert [edge.z for edge in found.edges] == sorted((edge.z for edge in found.edges), reverse=True)
    assert (found.edges[0].source, found.edges[0].target, found.edges[0].kind) == ((0, 1), (2, 2), "q")
    everything = [edge for kind in KINDS for edge in composition(heads, kind).strongest(100)]
    assert set(found.edges) == set(sorted(everything, key=lambda edge: -edge.z)[:12])
    assert set(found.nodes) == {head for edge in found.edges for head in (edge.source, edge.target)}
    assert found.rows()[0] == {
        "source_layer": 0,
        "source_head": 1,
        "target_layer": 2,
        "target_head": 2,
        "kind": "q",
        "score": found.edges[0].score,
        "z": found.edges[0].z,
    }
    assert found.provenance.settings["kind"] == "qkv"
    assert {edge.kind for edge in composition_graph(heads, 5, kinds=["v"]).edges} == {"v"}


def test_subspaces_give_the_projection_kernel():
    heads = random_heads(3)
    for kind, weights in zip(KINDS, ("query", "key", "value"), strict=True):
        found = composition(heads, kind, measure="subspace")
        writes, reads = basis(heads[0].output.mT), basis(getattr(heads[2], weights))
        kernel = (writes[:, None].mT @ reads).square().sum((-2, -1)).repeat_interleave(4 // len(reads), 1)
        torch.testing.assert_close(found.overlap[0, :, 2], kernel)
    found = composition(heads, "q", measure="subspace")
    assert float(found.overlap[pairs(found)].mean()) == pytest.approx(4 * 4 / 24, rel=0.2)
    with pytest.raises(ArgumentError, match="measure: wanted 'subspace'"):
        _ = composition(heads, "q").overlap


def test_the_norm_in_front_is_folded_in_on_request():
    norms = [Norm(torch.linspace(0.5, 2 + i, 24, dtype=torch.float64), centred=i == 1) for i in range(2)]
    first, second = (random_layer(i, input_norm=norms[i]) for i in range(2))
    found = composition(gathered([first, second]), "v", normed=True)
    folding = (torch.eye(24) - 1 / 24).double() @ norms[1].gain.diag()
    writes, reads = norms[0].gain.diag() @ dense_ov(first), folding @ dense_ov(second)
    size = torch.linalg.matrix_norm
    torch.testing.assert_close(found[0, :, 1], size(writes[:, None] @ reads) / size(writes)[:, None] / size(reads))
    assert found.provenance.settings == {"inputs": "none", "kind": "v", "normed": True, "measure": "product"}


def encoder_decoder():
    names = [
        "encoder.block.0.layer.0.attention",
        "encoder.block.1.layer.0.attention",
        "decoder.block.0.layer.0.attention",
        "decoder.block.0.layer.1.attention",
        "decoder.block.1.layer.0.attention",
    ]
    kinds = ["self", "self", "self", "cross", "self"]
    return gathered(
        random_layer(i, heads=2, name=name, kind=kind) for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
    )


@pytest.mark.parametrize(
    ("kind", "edges"),
    [("q", [(0, 1), (2, 3), (2, 4), (3, 4)]), ("k", [(0, 1), (0, 3), (1, 3), (2, 4), (3, 4)])],
)
def test_an_encoder_feeds_a_decoder_through_the_keys_of_cross_attention(kind, edges):
    heads = encoder_decoder()
    found = composition(heads, kind)
    assert [tuple(edge) for edge in found.paired.nonzero().tolist()] == edges
    for i, j in edges:
        torch.testing.assert_close(found[i, :, j], dense_scores(heads[i], heads[j], kind))


def test_streams_of_different_widths_are_refused_by_name():
    heads = gathered([random_layer(0), random_layer(1, d_model=20, name="layers.1.attention")])
    with pytest.raises(
        UnsupportedModelError, match=r"one stream of width 24 .* got 20 at layer 1 \(layers.1.attention\)"
    ):
        composition(heads, "q")


def test_dead_heads_compose_with_nothing():
    heads = random_heads(3, kv_heads=4)
    heads[1].output = heads[1].output.clone()
    heads[1].output[2] = 0
    heads[2].query = torch.zeros_like(heads[2].query)
    for kind in KINDS:
        for measure in ("product", "subspace"):
            found = composition(heads, kind, measure=measure)
            assert found.scores.isfinite().all()
            assert found.z.isfinite().all()
            assert (found[1, 2] == 0).all()
        if kind == "q":
            assert (found[:, :, 2] == 0).all()


def test_no_product_of_the_width_of_the_stream_is_made_and_little_memory_is_enough():
    heads = random_heads(3, heads=8, kv_heads=2, d_model=256, dim=4)
    for kind in KINDS:
        plenty = composition(heads, kind)
        with no_dense(256 * 256):
            scarce = composition(heads, kind, memory=1)
        torch.testing.assert_close(scarce.scores, plenty.scores)


def test_neither_gradients_nor_mixed_precision_reach_the_scores():
    heads = random_heads(2, dtype=torch.float32)
    plain = composition(heads, "k").scores
    for layer in heads.of.values():
        layer.query, layer.key = (weight.clone().requires_grad_() for weight in (layer.query, layer.key))
    with torch.autocast("cpu", torch.bfloat16):
        found = composition(heads, "k").scores
    assert not found.requires_grad
    assert torch.equal(found, plain)


def test_progress_counts_pairs_of_layers():
    seen = []
    composition(random_heads(4), "v", memory=1, progress=lambda *at: seen.append(at))
    assert seen == [(i, 6, "v-composition") for i in range(1, 7)]


def test_one_layer_has_no_pairs():
    found = composition(random_heads(1), "q")
    assert found.strongest(5) == ()
    assert composition_graph(random_heads(1)).nodes == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "o"}, "kind: wanted 'q', 'k' or 'v', got 'o'"),
        ({"kind": "q", "measure": "angle"}, "measure: wanted 'product' or 'subspace'"),
        ({"kind": "q", "memory": 0}, "memory: wanted at least 1 byte, got 0"),
    ],
)
def test_wrong_choices_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        composition(random_heads(2), **options)


def test_wrong_ways_to_rank_are_refused():
    found = composition(random_heads(2), "q")
    with pytest.raises(ArgumentError, match="k: wanted at least 1, got 0"):
        found.strongest(0)
    with pytest.raises(ArgumentError, match="by: wanted 'z' or 'score'"):
        found.strongest(2, by="size")  # pyright: ignore[reportArgumentType]  the refusal is the test


def test_gaussian_heads_have_the_dense_reference_s_score():
    first, second = random_heads(2)[0], random_heads(2)[1]
    found = composition(random_heads(2), "q")
    dense = torch.linalg.matrix_norm(dense_ov(first)[3] @ dense_qk(second)[1])
    dense = dense / torch.linalg.matrix_norm(dense_ov(first)[3]) / torch.linalg.matrix_norm(dense_qk(second)[1])
    torch.testing.assert_close(found[0, 3, 1, 1], dense)


@pytest.mark.bundled
def test_the_bundled_models_previous_token_head_feeds_its_induction_heads():
    """(16, 0) attends to the previous token; (17, 3), (17, 4), (18, 6) and (18, 7) are induction heads, as measured."""
    import attlas
    from attlas.projections import projections

    # Layers 16 to 18 hold them; the scores of a pair do not depend on the other layers.
    heads = projections(attlas.load("smollm2-135m"), layers=[16, 17, 18])
    strongest = composition(heads, "k").strongest(6)
    assert {edge.source for edge in strongest} <= {(16, 0), (17, 8)}
    assert {(17, 3), (17, 4), (18, 6), (18, 7)} <= {edge.target for edge in strongest if edge.source == (16, 0)}
    assert all(edge.z > 100 for edge in strongest)
