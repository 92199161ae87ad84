from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from pyarrow import parquet
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

import attlas
from attlas.errors import ArgumentError, CaptureError
from attlas.heads import STATISTICS, AtOffset, HeadStatistics, head_statistics
from attlas.heads.table import effective_rank
from attlas.matrix import ALiBi, AttentionMatrix, RelativeBias, ask
from attlas.matrix.even import even_spread
from viewing import captured

LENGTH = 600  # longer than what counts as near, and than a tile


@pytest.fixture(scope="module")
def cap() -> attlas.Capture:
    return captured(LENGTH, layers=2)


@pytest.fixture(scope="module")
def found(cap: attlas.Capture) -> HeadStatistics:
    return head_statistics(cap, (20, 20))


def by_hand(A: Tensor) -> dict[str, Tensor]:
    """Compute every statistic of causal matrices (head, n, n) from their dense entries, in float64."""
    n = A.shape[-1]
    i, j = torch.arange(n).view(-1, 1), torch.arange(n).view(1, -1)
    entropy = -torch.special.xlogy(A, A).sum(-1)
    bins = 20
    pooled = torch.stack(
        [
            torch.stack(
                [
                    A[:, a * n // bins : (a + 1) * n // bins, b * n // bins : (b + 1) * n // bins].mean((1, 2))
                    for b in range(bins)
                ],
                -1,
            )
            for a in range(bins)
        ],
        1,
    )
    even = torch.tril(torch.ones(n, n, dtype=A.dtype)) / (torch.arange(n) + 1).view(-1, 1)
    even_pooled = even.view(bins, n // bins, bins, n // bins).mean((1, 3))
    spectrum = torch.linalg.svdvals(pooled)
    share = spectrum / spectrum.sum(-1, keepdim=True)
    return {
        "entropy": entropy.mean(-1),
        "evenness": (entropy[:, 1:] / (torch.arange(1, n) + 1.0).log()).mean(-1),
        "distance": (A * (i - j).abs()).sum(-1).mean(-1),
        "first_token": A[:, :, 0].mean(-1),
        "previous_token": A.diagonal(-1, 1, 2).sum(-1) / n,
        "near": (A * ((i - j).abs() < 256)).sum(-1).mean(-1),
        "far": (A * ((i - j >= 256) & (j > 0))).sum(-1).mean(-1),
        "top_key_share": A.sum(1).amax(-1) / n,
        "rank": torch.exp(-torch.special.xlogy(share, share).sum(-1)),
        "lift_peak": torch.where(even_pooled > 0, pooled / even_pooled.clamp(min=1e-30), 0.0).amax((1, 2)),
    }


@pytest.mark.parametrize("layer", [0, 1])
def test_every_statistic_is_what_the_dense_matrix_says(cap: attlas.Capture, found: HeadStatistics, layer: int) -> None:
    dense = cap[layer].to_dense()[0].double()
    for name, expected in by_hand(dense).items():
        torch.testing.assert_close(found.layers[layer].values[name].double(), expected, rtol=2e-4, atol=2e-6, msg=name)
    assert found.layers[layer].top_key.tolist() == dense.sum(1).argmax(-1).tolist()


def test_maps_and_tracks_are_those_of_the_matrix(cap: attlas.Capture, found: HeadStatistics) -> None:
    A, layer = cap[1], found.layers[1]
    torch.testing.assert_close(layer.mean, A.pool((20, 20))[0])
    torch.testing.assert_close(layer.peak, A.pool((20, 20), "max")[0])
    torch.testing.assert_close(layer.received, A.received()[0])
    torch.testing.assert_close(layer.entropy, A.entropy()[0])
    torch.testing.assert_close(layer.distance, A.distance()[0])


def test_the_baseline_is_the_even_spread(found: HeadStatistics) -> None:
    n = LENGTH
    even = torch.tril(torch.ones(n, n)).double() / (torch.arange(n) + 1).view(-1, 1)
    for name, expected in by_hand(even.unsqueeze(0)).items():
        torch.testing.assert_close(found.layers[0].even[name].double(), expected, rtol=2e-4, atol=2e-6, msg=name)
    assert found.layers[0].even_mean is found.layers[1].even_mean, "layers that hide alike share their baseline"


def test_mean_lift_is_one_over_rows_of_equal_weight(found: HeadStatistics) -> None:
    layer = found.layers[0]
    torch.testing.assert_close(layer.mean.sum((1, 2)), layer.even_mean.sum((1, 2)).expand(4))


def test_rows_are_plain_and_say_where_they_are_from(found: HeadStatistics) -> None:
    rows = found.rows()
    assert len(rows) == len(found) == 8
    assert [(row["layer"], row["head"]) for row in rows] == [(layer, head) for layer in range(2) for head in range(4)]
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0]["module"] == "model.layers.0.self_attn"
    assert {f"even_{s.name}" for s in STATISTICS} < set(rows[0])


def test_parquet_holds_the_table_and_its_origin(found: HeadStatistics, tmp_path: Path) -> None:
    path = found.to_parquet(tmp_path / "deep" / "heads.parquet")
    table = parquet.read_table(path)
    assert table.to_pylist() == found.rows()
    assert json.loads(table.schema.metadata[b"attlas"])["model"] == "LlamaForCausalLM"
    assert json.loads(table.schema.metadata[b"columns"])["entropy"]["unit"] == "nats"
    assert [entry.name for entry in path.parent.iterdir()] == ["heads.parquet"]


def test_chosen_heads_keep_their_numbers() -> None:
    model = LlamaForCausalLM(
        LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4, vocab_size=32)
    ).eval()
    with torch.no_grad(), attlas.capture(model, layers=[1], heads=[3, 1]) as cap:
        model(input_ids=torch.arange(10).unsqueeze(0))
    assert [(row["layer"], row["head"]) for row in head_statistics(cap).rows()] == [(1, 3), (1, 1)]


def test_another_element_of_the_batch() -> None:
    cap = captured(40, batch=2, layers=2)
    second = head_statistics(cap, batch=1).layers[0]
    torch.testing.assert_close(second.entropy, cap[0].entropy()[1])
    with pytest.raises(ArgumentError, match="batch: wanted a whole number from 0 to 1, got 2"):
        head_statistics(cap, batch=2)


def test_encoder_decoder_and_cross_attention() -> None:
    config = T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_decoder_layers=1, num_heads=2, vocab_size=32)
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad(), attlas.capture(model) as cap:
        model(input_ids=torch.arange(5, 17).unsqueeze(0), decoder_input_ids=torch.arange(5, 12).unsqueeze(0))
    shapes = [(layer.shape, tuple(layer.mean.shape)) for layer in head_statistics(cap).layers]
    assert shapes == [((12, 12), (2, 12, 12)), ((7, 7), (2, 7, 7)), ((7, 12), (2, 7, 12))]
    for layer in head_statistics(cap).layers:
        counts = layer.even_entropy.exp()
        causal = layer.shape == (7, 7)
        expected = torch.arange(1.0, 8) if causal else torch.full((layer.shape[0],), float(layer.shape[1]))
        torch.testing.assert_close(counts[0], expected)


def test_progress_ends_at_its_total(cap: attlas.Capture) -> None:
    seen: list[tuple[int, int]] = []
    head_statistics(cap, (8, 8), progress=lambda done, total, what: seen.append((done, total)))
    total = 2 * 4 * LENGTH * LENGTH
    assert seen[-1] == (total, total)
    assert sorted(seen) == seen


def test_an_empty_capture_is_refused() -> None:
    empty = attlas.Capture({}, provenance=attlas.results.Provenance("0"))
    with pytest.raises(CaptureError, match="empty"):
        head_statistics(empty)


# ---- its parts


@pytest.mark.parametrize("offset", [0, 1, 3, 700])
@pytest.mark.parametrize("shape", [(9, 9), (5, 12), (600, 600)])
def test_a_line_beside_the_diagonal(offset: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(offset)
    A = AttentionMatrix(torch.randn(1, 2, shape[0], 8), torch.randn(1, 1, shape[1], 8), causal=True)
    dense = A.to_dense()
    expected = torch.zeros(1, 2, shape[0])
    for row in range(shape[0]):
        key = row + shape[1] - shape[0] - offset
        if 0 <= key < shape[1]:
            expected[..., row] = dense[..., row, key]
    torch.testing.assert_close(ask(A, AtOffset(offset))[0], expected)


def masks() -> dict[str, dict[str, object]]:
    padding = torch.ones(1, 1, 1, 14, dtype=torch.bool)
    padding[..., 10:] = False
    hiding = torch.randn(1, 3, 9, 14)
    hiding[:, 1, :, 5] = -math.inf
    lowest = torch.zeros(1, 1, 9, 14)
    lowest[..., :4] = torch.finfo(torch.float32).min
    table = torch.randn(3, 40)
    table[:, 25:] = -math.inf
    return {
        "causal": {"causal": True},
        "window": {"causal": True, "window": 4},
        "padding": {"mask": padding},
        "predicate": {"mask": lambda batch, head, query, key: key <= query + head},
        "bias that hides by head": {"bias": hiding},
        "bias that hides by the lowest number": {"bias": lowest},
        "bias that hides nothing": {"bias": torch.randn(1, 3, 9, 14)},
        "alibi": {"bias": ALiBi(torch.tensor([0.1, 0.2, 0.3])), "causal": True},
        "relative": {"bias": RelativeBias(table, -20)},
        "soft cap and sinks": {"softcap": 5.0, "sinks": torch.randn(3), "causal": True},
    }


@pytest.mark.parametrize("name", masks())
def test_the_even_spread_sees_what_the_matrix_sees(name: str) -> None:
    torch.manual_seed(0)
    A = AttentionMatrix(torch.randn(1, 3, 9, 4), torch.randn(1, 3, 14, 4), **masks()[name])  # type: ignore[arg-type] - a table of options
    seen = (A.to_dense() > 0).float()
    expected = seen / seen.sum(-1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(even_spread(A).to_dense().expand_as(expected), expected)
    head = A[:, 1:2]
    assert isinstance(head, AttentionMatrix)
    torch.testing.assert_close(even_spread(head).to_dense(), expected[:, 1:2])


def test_effective_rank_counts_what_matters() -> None:
    maps = torch.stack([torch.eye(7), torch.ones(7, 7), torch.zeros(7, 7)])
    torch.testing.assert_close(effective_rank(maps), torch.tensor([7.0, 1.0, 0.0]))
