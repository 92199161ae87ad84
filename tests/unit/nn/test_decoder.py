"""The small decoder: causal, readable, and readable token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attlas
from attlas.nn import Decoder
from attlas.patterns import Full, SlidingWindow

VOCABULARY, N = 30, 17


def made(**choices: Any) -> Decoder:
    torch.manual_seed(0)
    return Decoder(VOCABULARY, 16, 4, 2, **choices).double().eval()


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCABULARY, (2, N), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("choices", [{}, {"hidden": 0, "kv_heads": 2}, {"patterns": SlidingWindow(4, sinks=1)}])
def test_a_token_changes_only_what_comes_after(choices: dict[str, Any]) -> None:
    model = made(position="rotary", **choices)
    before = model(tokens())
    changed = tokens()
    changed[:, 9] = (changed[:, 9] + 1) % VOCABULARY
    after = model(changed)
    assert before.shape == (2, N, VOCABULARY)
    torch.testing.assert_close(after[:, :9], before[:, :9])
    assert not torch.allclose(after[:, 9:], before[:, 9:])


def test_its_matrices_are_those_that_it_computes_with() -> None:
    model = made(patterns=[Full(), SlidingWindow(4)], position="rotary")
    first, second = model.attention(tokens())
    assert first.shape == second.shape == (2, 4, N, N)
    assert isinstance(first, attlas.AttentionMatrix)
    row = torch.arange(N)
    far = (row[:, None] - row) >= 4
    assert float(second.to_dense()[..., far].abs().max()) == 0
    assert float(first.to_dense()[..., far].max()) > 0
    # What the first layer adds to the stream, from its matrix.
    layer: Any = model.layers[0]
    states = model.embedding(tokens())
    value = layer.attention.v_proj(layer.norm(states)).unflatten(2, (4, -1)).transpose(1, 2)
    passed = layer.attention.o_proj((first.to_dense() @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(passed, layer.attention(layer.norm(states))[0])


def test_text_is_read_token_by_token() -> None:
    model = made(position="alibi", patterns=[Full(), SlidingWindow(4)])
    cache = model.new_cache()
    with torch.no_grad():
        parts = [model(tokens()[:, i : i + 1], cache=cache) for i in range(N)]
    torch.testing.assert_close(torch.cat(parts, 1), model(tokens()))


def test_it_learns_what_a_text_repeats() -> None:
    torch.manual_seed(0)
    model = Decoder(VOCABULARY, 32, 2, 1, hidden=64, position="rotary")
    ids = torch.arange(24).remainder(6).expand(4, -1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).mT, ids[:, 1:])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


def test_a_capture_hears_every_layer() -> None:
    model = made(position="rotary")
    with attlas.capture(model) as cap:
        model(tokens())
    assert len(cap) == 2
    assert max(cap.verify().values()) < 1e-9


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"layers": 0}, "layers: wanted a whole number from 1"),
        ({"vocabulary": 2.5}, "vocabulary: wanted a whole number from 1"),
        ({"hidden": -1}, "hidden: wanted a whole number from 0"),
        ({"patterns": [Full()]}, "patterns: wanted one, or one for each of 2 layers, got 1"),
        ({"heads": 3}, "heads: wanted a divisor of d_model = 16"),
    ],
)
def test_what_makes_no_sense(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(attlas.ArgumentError, match=message):
        Decoder(**{"vocabulary": VOCABULARY, "d_model": 16, "heads": 4, "layers": 2, **choices})
