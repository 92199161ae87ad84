"""Vocabulary circuits, against the dense rows and the dense vocabulary × vocabulary matrices in float64."""

from __future__ import annotations

import math

import pytest
import torch

from attlas.errors import ArgumentError, UnsupportedModelError
from attlas.matrix.indexing import IndexOutOfRange
from attlas.projections import vocabulary_circuits as room
from attlas.projections.token_states import in_first_block, token_states, vocabulary_of
from attlas.projections.vocabulary_circuits import entry_moments, largest_entries, largest_of, top_pairs, vocabulary
from circuits import viewed

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def dense(P, layer, head, offset, with_mlp):
    """Return both vocabulary × vocabulary matrices."""
    ends, view = vocabulary_of(P), P[layer]
    x = token_states(P, ends, torch.arange(ends.size), with_mlp=with_mlp and not in_first_block(view))
    x = x if view.input_norm is None else view.input_norm(x)
    query, key = view.queries(x)[head], view.keys(x)[head // view.group]
    if view.rotation is not None:
        # A query that stands at `offset` and a key at 0, as the model turns them.
        places = torch.full((ends.size,), offset)
        query, key = view.rotation.rotate(query, places), view.rotation.rotate(key, 0 * places)
    written = view.values(x)[head // view.group] @ ends.writer(view)[head]
    return query @ key.T * view.scale, written @ ends.folded(ends.unembedding).T


@pytest.mark.parametrize("with_mlp", [False, True])
@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("family", ["Llama", "GPT-2", "Qwen3", "Gemma 2", "OLMo 2"])
def test_a_circuit_is_a_row_of_both_matrices(family: str, offset: int, with_mlp: bool) -> None:
    _, P = viewed(family)
    token = 17
    for layer, head in ((0, 0), (1, 3)):
        sought, written = (matrix[token] for matrix in dense(P, layer, head, offset, with_mlp))
        found = vocabulary(P, layer, head, token, top=7, offset=offset, with_mlp=with_mlp)
        for row, best, worst, own in (
            (sought, found.looks_for, found.looks_away, found.itself_sought),
            (written, found.writes, found.suppresses, found.itself_written),
        ):
            z = (row - row.mean()) / row.std(correction=0)
            for listed, largest in ((best, True), (worst, False)):
                values, ids = row.topk(7, largest=largest)
                assert listed.ids == tuple(ids.tolist())
                assert listed.tokens == tuple(map(str, ids.tolist()))
                # The encoding's angles are rounded to float32 in the model, and exact here.
                torch.testing.assert_close(torch.tensor(listed.scores).double(), values, rtol=1e-5, atol=1e-6)
                torch.testing.assert_close(torch.tensor(listed.z).double(), z[ids], rtol=1e-5, atol=1e-6)
            assert own.score == pytest.approx(float(row[token]), rel=1e-5, abs=1e-6)
            assert own.z == pytest.approx(float(z[token]), rel=1e-5, abs=1e-6)
            assert own.rank == int((row > row[token]).sum())
        assert found.with_mlp is (with_mlp and layer > 0)
        assert found.vocabulary == 96
        assert len(found.rows()) == 28


@pytest.mark.parametrize("kind", ["qk", "ov"])
@pytest.mark.parametrize("family", ["Llama", "GPT-2", "Gemma 2"])
def test_the_strongest_pairs_are_those_of_the_dense_matrix(family: str, kind: str, monkeypatch) -> None:
    monkeypatch.setattr(room, "BLOCK", 16)
    _, P = viewed(family)
    matrix = dense(P, 1, 2, 2, True)[kind == "ov"]
    found = top_pairs(P, 1, 2, kind, top=25, offset=2, with_mlp=True)
    values, places = matrix.flatten().topk(25)
    assert list(zip(found.first, found.second, strict=True)) == [divmod(int(place), 96) for place in places]
    torch.testing.assert_close(torch.tensor(found.scores).double(), values, rtol=1e-5, atol=1e-6)
    z = (values - matrix.mean()) / matrix.std(correction=0)
    torch.testing.assert_close(torch.tensor(found.z).double(), z, rtol=1e-5, atol=1e-6)
    assert found.tokens[0] == (str(found.first[0]), str(found.second[0]))
    assert found.chance == largest_of(96 * 96)


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_skipped_blocks_hold_nothing_that_counts(scale: float, monkeypatch) -> None:
    monkeypatch.setattr(room, "BLOCK", 32)
    generator = torch.Generator().manual_seed(0)
    # Lengths that differ much, so that most blocks are skipped; and then negative ones only.
    left = torch.randn(300, 4, generator=generator) * torch.randn(300, 1, generator=generator).mul(scale).exp()
    right = torch.randn(170, 4, generator=generator)
    for first in (left, -left.abs()):
        second = right if first is left else right.abs()
        values, rows, cols = largest_entries(first, second, 40)
        want = (first @ second.T).flatten().topk(40).values
        torch.testing.assert_close(values, want)
        torch.testing.assert_close((first[rows] * second[cols]).sum(-1), want, rtol=1e-5, atol=1e-6)
    assert len(largest_entries(left[:2], right[:3], 40)[0]) == 6


def test_moments_of_a_product_need_no_product() -> None:
    left, right = torch.randn(50, 6) + 0.5, torch.randn(70, 6) - 1
    mean, deviation = entry_moments(left, right)
    product = left.double() @ right.double().T
    assert mean == pytest.approx(float(product.mean()))
    assert deviation == pytest.approx(float(product.std(correction=0)))


def test_the_largest_of_many() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(4000, 500, generator=generator).amax(-1).median()
    assert largest_of(500) == pytest.approx(float(drawn), abs=0.03)
    assert largest_of(1) == pytest.approx(0, abs=1e-12)
    assert math.isfinite(largest_of(10**11))
    assert largest_of(10**11) > largest_of(10**5) > 4


def test_a_head_that_looks_for_itself_finds_itself() -> None:
    model, P = viewed("Llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.copy_(layer.self_attn.k_proj.weight.repeat_interleave(2, 0)[:32] * 0)
            key = layer.self_attn.k_proj.weight.view(2, 8, 32)
            layer.self_attn.q_proj.weight.copy_(key.repeat_interleave(2, 0).reshape(32, 32))
    found = vocabulary(P, 1, 1, 30, top=3)
    assert found.itself_sought.rank < 20
    assert found.itself_sought.z > 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"token": 96}, ArgumentError, "token: wanted a token id from 0 to 95, got 96"),
        ({"token": " word"}, ArgumentError, "came without a tokenizer"),
        ({"top": 0}, ArgumentError, "top: wanted a whole number from 1 to 96, got 0"),
        ({"top": 97}, ArgumentError, "top: wanted"),
        ({"offset": 0.5}, ArgumentError, "offset: wanted a whole number"),
        ({"layer": 5}, IndexOutOfRange, "layer: wanted"),
        ({"head": 9}, IndexOutOfRange, "head"),
    ],
)
def test_bad_input(options, error, words: str) -> None:
    _, P = viewed("Llama")
    with pytest.raises(error, match=words):
        vocabulary(P, **{"layer": 0, "head": 0, "token": 3, **options})


def test_models_without_a_vocabulary_say_what_is_missing() -> None:
    with pytest.raises(UnsupportedModelError, match="BertModel: has no output layer over the vocabulary"):
        vocabulary(viewed("BERT")[1], 0, 0, 3)
    with pytest.raises(ArgumentError, match='kind: wanted "qk" or "ov"'):
        top_pairs(viewed("Llama")[1], 0, 0, "vo")


def test_progress_reaches_its_end() -> None:
    _, P = viewed("Llama")
    seen = []
    vocabulary(P, 0, 0, 3, progress=lambda *at: seen.append(at))
    top_pairs(P, 0, 0, progress=lambda *at: seen.append(at))
    assert seen == [(96, 96, "tokens"), (96, 96, "pairs of tokens")]
