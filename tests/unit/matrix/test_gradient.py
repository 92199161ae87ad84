"""The lazy gradient is what automatic differentiation of a dense implementation says, and so are its sums."""

import pytest
import torch
from torch import Tensor

from attlas import ArgumentError, AttentionMatrix
from attlas.errors import NonFiniteError
from attlas.matrix import AttentionGradient, HeadMean, Positive, Product, Received, RowNormalised, ask, streaming

HEAD, KV_HEAD, N, DIM, VALUE_DIM = 6, 3, 40, 8, 5


def rule(name: str) -> dict[str, object]:
    rules: dict[str, dict[str, object]] = {
        "causal": {"causal": True},
        "encoder": {},
        "sinks": {"causal": True, "sinks": torch.linspace(-1, 1, HEAD, dtype=torch.float64)},
        "hollow rows": {"mask": (torch.arange(N) % 5 != 0).view(1, 1, N, 1).expand(1, 1, N, N)},
    }
    return rules[name]


class Toy:
    """One attention layer in float64 under a loss that is not linear, differentiated densely."""

    def __init__(self, name: str) -> None:
        generator = torch.Generator().manual_seed(5)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        query, key = normal(1, HEAD, N, DIM), normal(1, KV_HEAD, N, DIM).requires_grad_()
        value, out_projection = normal(1, KV_HEAD, N, VALUE_DIM).requires_grad_(), normal(HEAD * VALUE_DIM, 7)
        options = rule(name)
        self.matrix = AttentionMatrix(query, key.detach(), **options)  # pyright: ignore[reportArgumentType] - of many types
        groups = HEAD // KV_HEAD
        scores = query @ key.repeat_interleave(groups, 1).mT * DIM**-0.5
        seen = self.matrix.to_dense() > 0
        scores = scores.masked_fill(~seen, -1e30)
        sinks = options.get("sinks")
        wide = scores
        if isinstance(sinks, Tensor):
            wide = torch.cat([scores, sinks.view(1, -1, 1, 1).expand(1, HEAD, N, 1)], -1)
        attention = torch.softmax(wide, -1)[..., :N] * seen
        output = attention @ value.repeat_interleave(groups, 1)
        for tensor in (scores, attention, output):
            tensor.retain_grad()
        loss = torch.tanh(output.transpose(1, 2).flatten(2) @ out_projection).sum()
        loss.backward()
        self.scores, self.attention, self.output = scores, attention, output
        self.key, self.value = key, value
        self.d_attention, self.d_scores, self.d_output = grad(attention), grad(scores), grad(output)
        self.d_key, self.d_value = grad(key), grad(value)
        self.gradient = AttentionGradient(self.matrix, self.d_output, value)


def grad(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.fixture(params=["causal", "encoder", "sinks", "hollow rows"])
def toy(request, monkeypatch) -> Toy:
    monkeypatch.setattr(streaming, "TILE", 16)
    return Toy(request.param)


def by_group(per_head: Tensor) -> Tensor:
    """Sum over the heads that share keys and values."""
    return per_head.unflatten(1, (KV_HEAD, -1)).sum(2)


def test_it_is_the_derivative_with_respect_to_attention(toy):
    # The dense implementation multiplies hidden entries by 0 only after the derivative is taken.
    bare = AttentionGradient(toy.matrix, toy.d_output, toy.value, visible_only=False)
    close(bare.to_dense(), toy.d_attention)
    close(toy.gradient.to_dense(), toy.d_attention * (toy.attention > 0))


def test_row_sums_of_attention_times_gradient(toy):
    product = Product(toy.matrix, toy.gradient)
    close(product.T.received(), (toy.output * toy.d_output).sum(-1))


def test_column_sums_of_attention_times_gradient(toy):
    product = Product(toy.matrix, toy.gradient)
    close(by_group(product.received()), (toy.value * toy.d_value).sum(-1))


def test_weighted_column_sums_of_attention_times_gradient(toy):
    weights = torch.linspace(-1, 1, N, dtype=torch.float64)
    product = Product(toy.matrix, toy.gradient)
    spread = toy.matrix.T @ (weights.unsqueeze(-1) * toy.d_output)
    values = toy.value.repeat_interleave(HEAD // KV_HEAD, 1)
    close(product.received(weights), (values * spread).sum(-1))


def test_the_derivative_with_respect_to_scores_is_one_column_wider(toy):
    # ∂L/∂S = A ⊙ (dO Vᵀ − D 1ᵀ) with D_i = ⟨O_i, dO_i⟩: the same kind, with D beside dO and ones beside V.
    share = (toy.output * toy.d_output).sum(-1, keepdim=True)
    wider = AttentionGradient(
        toy.matrix,
        torch.cat([toy.d_output, -share], -1),
        torch.cat([toy.value, torch.ones(1, KV_HEAD, N, 1, dtype=torch.float64)], -1),
    )
    d_scores = Product(toy.matrix, wider)
    close(d_scores.to_dense(), toy.d_scores)
    spread = (toy.matrix.T @ share).squeeze(-1)
    close(by_group(d_scores.received()), (toy.value * toy.d_value).sum(-1) - by_group(spread))
    weighted = (toy.scores.masked_fill(toy.attention == 0, 0.0) * d_scores.to_dense()).sum(2)
    close(by_group(weighted), (toy.key * toy.d_key).sum(-1))


def test_a_row_of_gradient_weighted_attention(toy):
    row = torch.rand(1, 1, N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    dense = (toy.attention * toy.d_attention).clamp(min=0).mean(1, keepdim=True)
    lazy = Positive(Product(toy.matrix, toy.gradient))
    wanted = row + (row.unsqueeze(-2) @ dense).squeeze(-2)
    close(row + lazy.received(row).mean(1, keepdim=True), wanted)
    close(row + HeadMean(lazy).received(row), wanted)
    divided = dense / torch.where(dense.sum(-1, keepdim=True) == 0, 1.0, dense.sum(-1, keepdim=True))
    close(RowNormalised(HeadMean(lazy)).received(row), (row.unsqueeze(-2) @ divided).squeeze(-2))


def test_several_questions_share_the_pass(toy):
    product = Product(toy.matrix, toy.gradient)
    plain, again = ask(product, Received(), Received())
    assert torch.equal(plain, again)


MATRIX = AttentionMatrix(torch.randn(1, 6, 7, 8), torch.randn(1, 2, 9, 8))


@pytest.mark.parametrize(
    ("gradient", "value", "message"),
    [
        (torch.zeros(1, 6, 7), torch.zeros(1, 2, 9, 4), r"gradient: wanted shape .*\(1, 6, 7, value_dim\)"),
        (torch.zeros(1, 6, 9, 4), torch.zeros(1, 2, 9, 4), r"gradient: wanted shape .*got shape \(1, 6, 9, 4\)"),
        (torch.zeros(1, 2, 7, 4), torch.zeros(1, 2, 9, 4), "gradient: wanted the matrix' 6 heads, got 2"),
        (torch.zeros(1, 6, 7, 4), torch.zeros(1, 4, 9, 4), "value: wanted a number of heads that divides .* 6, got 4"),
        (torch.zeros(1, 6, 7, 4), torch.zeros(1, 2, 9, 5), "value: wanted the gradient's value_dim of 4, got 5"),
        (torch.zeros(1, 6, 7, 4), torch.zeros(1, 2, 9, 4).long(), "value: wanted a tensor of floats, got torch.int64"),
        (None, torch.zeros(1, 2, 9, 4), "gradient: wanted a tensor of floats, got NoneType"),
    ],
)
def test_what_does_not_fit_is_refused(gradient, value, message):
    with pytest.raises(ArgumentError, match=message):
        AttentionGradient(MATRIX, gradient, value)


def test_what_is_not_finite_is_refused():
    gradient = torch.zeros(1, 6, 7, 4)
    gradient[0, 3, 2, 1] = float("nan")
    with pytest.raises(NonFiniteError, match="gradient: wanted finite numbers, got nan at batch 0, head 3, position 2"):
        AttentionGradient(MATRIX, gradient, torch.zeros(1, 2, 9, 4))


def test_it_says_what_it_is():
    gradient = AttentionGradient(MATRIX, torch.zeros(1, 6, 7, 4), torch.zeros(1, 2, 9, 4))
    assert gradient.signed
    assert gradient.nbytes == 4 * (6 * 7 * 4 + 2 * 9 * 4)
    assert repr(gradient) == "AttentionGradient(batch=1, head=6, query=7, key=9, float32, cpu)"
    with pytest.raises(ArgumentError, match="matrix: wanted an AttentionMatrix, got AttentionGradient"):
        AttentionGradient(gradient, torch.zeros(1, 6, 7, 4), torch.zeros(1, 2, 9, 4))  # pyright: ignore[reportArgumentType] - on purpose
