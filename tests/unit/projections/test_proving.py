"""Views are proved for every rotation and dtype; what no convention explains is refused, by name and reason."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import attlas
from attending import Attention
from attlas.projections import projections
from attlas.testing.tiny_models import TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize(
    ("rope", "amplitude"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 1.0),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, 1.138629),
        (
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
            1.0,
        ),
    ],
    ids=["linear", "yarn", "llama3"],
)
def test_scaled_rotations_are_exact(rope: dict[str, Any], amplitude: float) -> None:
    for family in ("Llama", "Cohere"):
        tiny = BY_FAMILY[family]
        config = {**tiny.options, "rope_parameters": {"rope_theta": 1e4, **rope}}
        model: Any = type(tiny)(tiny.family, tiny.model, tiny.config, config).build()
        P = projections(model)
        assert max(P.verify({"input_ids": torch.randint(5, 90, (2, 60))}).values()) <= 1e-6
        rotation = P[0].rotation
        assert rotation is not None
        assert torch.equal(rotation.frequencies, model.model.rotary_emb.inv_freq.double())
        assert rotation.amplitude == pytest.approx(amplitude, abs=1e-5)


def test_a_rotation_that_changes_with_the_length_is_noted() -> None:
    tiny = BY_FAMILY["Llama"]
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    model = type(tiny)("", tiny.model, tiny.config, {**tiny.options, "rope_parameters": rope}).build()
    assert "the rotation changes with the text's length (dynamic)" in projections(model)[0].notes[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    for family in ("Llama", "GPT-NeoX", "ESM", "gpt-oss" if dtype != torch.float64 else "BERT"):
        tiny = BY_FAMILY[family]
        P = projections(tiny.build().to(dtype), tiny.inputs())
        assert P[0].query.dtype == dtype
        assert max(P.verify().values()) <= 2 * max(torch.finfo(dtype).eps, 1e-7)
        assert P[0].factors == ((8**-0.5, 1.0) if family == "ESM" else (1.0, 1.0))


class LearntRotation(Attention):
    """Turns each position by an angle that no multiple of it is."""

    def __init__(self) -> None:
        super().__init__()
        self.angles = nn.Parameter(torch.randn(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.split(x)
        cos, sin = self.angles[: x.shape[1]].cos(), self.angles[: x.shape[1]].sin()
        turned = [
            torch.cat([t[..., :4] * cos - t[..., 4:] * sin, t[..., 4:] * cos + t[..., :4] * sin], -1)
            for t in (query, key)
        ]
        return self.attend(turned[0], turned[1], value)


class Latent(Attention):
    """Makes its queries, keys and values from an inner state."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm = nn.Linear(32, 32), nn.LayerNorm(32)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(self.down(x)))


class Bent(Attention):
    """Bends its queries, so that no matrix gives them."""

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.split(x)
        return self.attend(query.relu(), key, value)


class Mixed(Attention):
    """Mixes its heads before the output projection."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        gathered = scaled_dot_product_attention(query, key, value).softmax(1)
        return self.out(gathered.transpose(1, 2).flatten(2))


class Bare(Attention):
    """Has no projection of its own."""

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (4, 8)).transpose(1, 2)
        return scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(2)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (LearntRotation, "no known layout, normalisation and rotation of its projections .* reproduces its queries"),
        (Latent, "makes its queries in several steps .qkv take an inner state"),
        (Bent, "no known layout, normalisation and rotation of its projections .* reproduces its queries"),
        (Mixed, "no projection takes up just what its heads give"),
        (Bare, "runs no projection of its own, so it has no weights for queries"),
    ],
)
def test_what_no_convention_explains_is_refused(module: type[Attention], reason: str) -> None:
    with pytest.raises(attlas.UnsupportedModelError, match=f"^{module.__name__}: {reason}"):
        projections(module().eval(), {"x": torch.randn(2, 9, 32)})
