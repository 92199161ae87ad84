"""Calls are handed over as a capture would keep them, and nothing of them stays."""

import pytest
import torch
from torch import nn

import attlas
from attlas.capture.hearing import Place
from attlas.capture.layer import Layer
from attlas.capture.overhearing import overhearing
from attlas.testing.tiny_models import TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}


@pytest.mark.parametrize("family", ["Llama", "Mistral", "GPT-2", "BERT", "gpt-oss", "T5"])
def test_what_is_overheard_is_what_a_capture_keeps(family: str) -> None:
    tiny = BY_FAMILY[family]
    model, inputs = tiny.build(), tiny.inputs()
    heard: dict[int, tuple[str, torch.Tensor]] = {}

    def take(place: Place, layer: Layer) -> None:
        assert layer.output is not None
        heard[place.number] = (place.label, layer.matrix.to_dense())

    with overhearing(model, take, output=True), attlas.capture(model) as cap, torch.no_grad():
        model(**inputs)
    assert [heard[number][0] for number in sorted(heard)] == cap.names
    for number in cap.layers:
        assert torch.equal(heard[number][1], cap[number].to_dense())
    assert all(len(module._forward_hooks) == 0 for module in model.modules())


class Secret(nn.Module):
    """Attends in code of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.matmul(torch.softmax(torch.matmul(x, x.mT), -1), x)


class SecretAttention(Secret):
    pass


def test_attention_that_is_not_heard_is_an_error() -> None:
    def run() -> None:
        model = SecretAttention()
        with overhearing(model, lambda place, layer: None):
            model(torch.randn(1, 2, 5, 4))

    with pytest.raises(attlas.UnsupportedModelError, match="code of its own"):
        run()
