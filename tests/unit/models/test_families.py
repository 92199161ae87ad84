from __future__ import annotations

from typing import Any

import pytest
import transformers

from attlas.errors import UnsupportedModelError
from attlas.models.families import kind_of, model_class

CASES = [
    (transformers.LlamaConfig, ["LlamaForCausalLM"], "decoder", "LlamaForCausalLM"),
    (transformers.LlamaConfig, ["LlamaModel"], "decoder", "LlamaModel"),
    (transformers.LlamaConfig, None, "decoder", "LlamaForCausalLM"),
    (transformers.BertConfig, ["BertForMaskedLM"], "encoder", "BertModel"),
    (transformers.BertConfig, ["BertLMHeadModel"], "decoder", "BertLMHeadModel"),
    (transformers.BertConfig, None, "encoder", "BertModel"),
    (transformers.T5Config, ["T5ForConditionalGeneration"], "encoder-decoder", "T5ForConditionalGeneration"),
    (transformers.T5Config, ["T5EncoderModel"], "encoder", "T5EncoderModel"),
    (transformers.WhisperConfig, None, "encoder-decoder", "WhisperForConditionalGeneration"),
    (transformers.ViTConfig, ["ViTForImageClassification"], "encoder", "ViTModel"),
    (transformers.CLIPConfig, None, "encoder", "CLIPModel"),
]


@pytest.mark.parametrize(("config_class", "architectures", "kind", "opened_by"), CASES)
def test_a_configuration_says_its_kind_and_its_class(
    config_class: Any, architectures: list[str] | None, kind: str, opened_by: str
) -> None:
    config = config_class()
    config.architectures = architectures
    assert kind_of(config) == kind
    assert model_class(config).__name__ == opened_by


def test_an_encoder_that_is_marked_as_a_decoder_is_one() -> None:
    assert kind_of(transformers.BertConfig(is_decoder=True)) == "decoder"


def test_a_configuration_that_no_class_opens_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="no class that opens it"):
        model_class(transformers.PreTrainedConfig())
