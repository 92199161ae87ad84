"""A layer as a graph: PyTorch's own and ONNX's, which computes the same for any batch and length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import attlas
from attlas.nn import Decoder, MultiHeadAttention
from attlas.nn.exporting import dense_mask
from attlas.patterns import BigBird, BlockSparse, Dilated, Full, GlobalTokens, Linear, Pattern, SlidingWindow
from attlas.patterns import VerticalSlash as Slash

D, HEADS, N = 24, 4, 21
WINDOWS = (SlidingWindow(5), SlidingWindow(5, sinks=2), Dilated(3, step=2))
OTHERS = (GlobalTokens((0, 3), width=4), BlockSparse(4, local=2), BlockSparse(4, top=2), BigBird(4), Slash(4, 16))
ANY = {0: torch.export.Dim("batch"), 1: torch.export.Dim("n")}

# PyTorch's exporter copies what its own library calls old; nothing of ours is in it.
pytestmark = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")


def made(**choices: Any) -> MultiHeadAttention:
    torch.manual_seed(0)
    return MultiHeadAttention(D, HEADS, **choices).eval()


def states(batch: int = 2, n: int = N) -> Tensor:
    return torch.randn(batch, n, D, generator=torch.Generator().manual_seed(batch * n))


class Session:
    """A model as onnxruntime has it."""

    def __init__(self, model: nn.Module, given: Tensor, folder: Path, shapes: Any = (ANY,), **masks: Tensor) -> None:
        program = torch.onnx.export(model, (given,), kwargs=masks, dynamo=True, dynamic_shapes=shapes, verbose=False)
        assert program is not None
        program.save(str(folder / "model.onnx"))
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def __call__(self, *given: Tensor) -> Tensor:
        names = [one.name for one in self.session.get_inputs()]
        (output,) = self.session.run(None, {name: one.numpy() for name, one in zip(names, given, strict=True)})
        return torch.from_numpy(output)


@pytest.mark.parametrize("position", [None, "rotary", "alibi"])
@pytest.mark.parametrize(("causal", "kv_heads"), [(True, HEADS), (False, 2)])
@torch.no_grad()
def test_full_attention_is_the_same_in_onnx(position: Any, causal: bool, kv_heads: int, tmp_path: Path) -> None:
    layer = made(position=position, causal=causal, kv_heads=kv_heads)
    exported = Session(layer, states(), tmp_path)
    for x in (states(), states(3, 9), states(1, 40), states(2, 1)):
        torch.testing.assert_close(exported(x), layer(x)[0])


@pytest.mark.parametrize("pattern", WINDOWS, ids=str)
@torch.no_grad()
def test_a_window_is_the_same_in_onnx(pattern: Pattern, tmp_path: Path) -> None:
    layer = made(position="rotary", causal=True, kv_heads=2, pattern=pattern)
    exported = Session(layer, states(), tmp_path)
    for x in (states(), states(3, 4), states(1, 40)):
        torch.testing.assert_close(exported(x), layer(x)[0])


@pytest.mark.parametrize("position", [None, "alibi"])
@torch.no_grad()
def test_padding_is_the_same_in_onnx_and_a_row_that_sees_nothing_is_given_nothing(
    position: Any, tmp_path: Path
) -> None:
    layer = made(causal=True, position=position)
    some, first = torch.arange(N) >= torch.tensor([[15], [N]]), torch.arange(N) < torch.tensor([[4], [0]])
    exported = Session(layer, states(), tmp_path, None, key_padding_mask=some)
    for padding in (some, first):
        torch.testing.assert_close(exported(states(), padding), layer(states(), key_padding_mask=padding)[0])
    torch.testing.assert_close(exported(states(), first)[0, :4], layer.o_proj.bias.expand(4, -1))


@pytest.mark.parametrize("choices", [{"position": "rotary"}, {"position": "alibi", "patterns": SlidingWindow(4)}])
@torch.no_grad()
def test_a_decoder_is_the_same_in_onnx(choices: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Decoder(30, 16, 4, 2, **choices).eval()
    ids = torch.randint(30, (2, 17))
    exported = Session(model, ids, tmp_path)
    for given in (ids, ids[:1, :5]):
        torch.testing.assert_close(exported(given), model(given), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pattern", [*OTHERS, Linear("elu")], ids=str)
def test_a_pattern_that_no_graph_can_say_is_refused(pattern: Pattern) -> None:
    layer = made(causal=True, pattern=pattern)
    message = "pattern: wanted full attention or a window, to export, got .*; give a layer with full attention"
    with pytest.raises(attlas.ArgumentError, match=message):
        torch.export.export(layer, (states(),))
    # What was tried leaves nothing behind.
    assert bool(layer(states())[0].isfinite().all())


def test_matrices_are_no_part_of_a_graph() -> None:
    with pytest.raises(attlas.ArgumentError, match="need_weights: wanted false in an exported graph"):
        torch.export.export(made(causal=True), (states(),), {"need_weights": True})


def test_the_refusal_is_read_through_pytorchs_own() -> None:
    with pytest.raises(torch.onnx.OnnxExporterError, match="wanted full attention or a window, to export, got linear"):
        torch.onnx.export(made(pattern=Linear("elu")), (states(),), dynamo=True, verbose=False)


@pytest.mark.parametrize(
    ("pattern", "position", "strict"),
    [(Full(), "alibi", True), (Full(), "rotary", False), (WINDOWS[1], "rotary", True), (WINDOWS[2], "alibi", False)],
    ids=str,
)
def test_pytorchs_own_graph_is_the_same(pattern: Pattern, position: Any, strict: bool) -> None:
    layer = made(causal=True, position=position, kv_heads=2, pattern=pattern)
    shapes = ({1: torch.export.Dim("n", min=2)},)
    exported = torch.export.export(layer, (states(),), dynamic_shapes=shapes, strict=strict)
    for n in (N, 9):
        torch.testing.assert_close(exported.module()(states(n=n))[0], layer(states(n=n))[0])


@pytest.mark.parametrize("pattern", [Full(), *WINDOWS], ids=str)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("n_query", "n_key"), [(7, 7), (3, 9), (9, 3), (1, 5)])
def test_the_mask_is_where_the_patterns_matrix_is_not_zero(
    pattern: Pattern, causal: bool, n_query: int, n_key: int
) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, HEADS, n_query, 6), torch.randn(2, 2, n_key, 6)
    hidden = torch.arange(n_key) >= torch.tensor([n_key, 2]).view(2, 1, 1, 1)
    seen, added = dense_mask(pattern, q, k, ~hidden, None, causal=causal)
    assert added is None
    matrix = pattern.matrix(attlas.AttentionMatrix(q, k, causal=causal, mask=~hidden)).to_dense()
    assert torch.equal(seen.expand(matrix.shape), matrix > 0)
