"""What kind of model a configuration describes, and which class opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from attlas.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Kind = Literal["decoder", "encoder", "encoder-decoder"]


def kind_of(config: PreTrainedConfig) -> Kind:
    """Tell what kind of model a configuration describes.

    ===================================================  =================
    the configuration                                    kind
    ===================================================  =================
    names the encoder of its family alone                encoder
    has an encoder and a decoder                         encoder-decoder
    names an architecture that predicts the next token   decoder
    is marked as a decoder                               decoder
    is of a family that only predicts the next token     decoder
    anything else                                        encoder
    ===================================================  =================
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    )

    encoders: Any = MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    if encoders.get(config.model_type) in (config.architectures or []):
        return "encoder"
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if causal in (config.architectures or []) or getattr(config, "is_decoder", False):
        return "decoder"
    return "decoder" if causal and config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "encoder"


def model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Return the class that opens a model of this configuration.

    The one with a head that predicts tokens for decoders and encoder-decoders; the bare model for encoders, and
    wherever the weights were saved without a head, because a head without weights would be random.

    Raises
    ------
    UnsupportedModelError
        If transformers has no such class.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
        MODEL_FOR_TEXT_ENCODING_MAPPING,
        MODEL_MAPPING,
    )

    named = config.architectures or []
    without_head = [_class_in(mapping, config) for mapping in (MODEL_MAPPING, MODEL_FOR_TEXT_ENCODING_MAPPING)]
    for bare in without_head:
        if bare is not None and bare.__name__ in named:
            return bare
    with_head = {
        "decoder": [MODEL_FOR_CAUSAL_LM_MAPPING],
        "encoder-decoder": [MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING],
        "encoder": [],
    }[kind_of(config)]
    for found in (*(_class_in(mapping, config) for mapping in with_head), *without_head):
        if found is not None:
            return found
    raise UnsupportedModelError(f"model of kind {config.model_type!r}: transformers has no class that opens it")


def _class_in(mapping: Any, config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    if type(config) not in mapping:
        return None
    found = mapping[type(config)]
    return found[0] if isinstance(found, (list, tuple)) else found
