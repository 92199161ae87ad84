"""Tiny models with random weights, one per family: seconds to build, enough to prove that a mechanism is exact.

They mean nothing as language models. Their parts are those of the real ones: grouped-query heads, sliding windows
shorter than the text, soft caps, sinks, relative biases, cross-attention.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn

VOCABULARY = 96
LENGTH = 19

Kind = Literal["decoder", "encoder", "encoder-decoder", "images", "images and text", "sound", "sound to text"]


@dataclass(frozen=True)
class TinyModel:
    """How to build and run one family.

    Parameters
    ----------
    family : str
        What people call it.
    model : str
        The transformers model class.
    config : str
        The transformers configuration class.
    options : dict
        What makes it tiny.
    kind : str
        What it reads and writes.
    named : bool
        Whether attlas promises this family by name; the others show how far the mechanism reaches.
    """

    family: str
    model: str
    config: str
    options: dict[str, Any] = field(default_factory=dict)
    kind: Kind = "decoder"
    named: bool = False

    def build(self, seed: int = 0) -> nn.Module:
        """Return the model in evaluation mode, float32, with weights large enough that attention is far from even."""
        torch.manual_seed(seed)
        # A configuration may write into the dictionaries that it is given.
        config = getattr(transformers, self.config)(**copy.deepcopy(self.options))
        model = getattr(transformers, self.model)(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.25)
                elif parameter.abs().sum() == 0:
                    parameter.normal_(0, 0.05)
        return model

    def inputs(self, batch: int = 1, length: int = LENGTH, seed: int = 1) -> dict[str, Tensor]:
        """Return inputs of this kind."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(5, VOCABULARY - 5, (batch, length), generator=generator)
        make: dict[str, Callable[[], dict[str, Tensor]]] = {
            "decoder": lambda: {"input_ids": ids},
            "encoder": lambda: {"input_ids": ids},
            "encoder-decoder": lambda: {"input_ids": ids, "decoder_input_ids": ids[:, : length // 2].flip(1)},
            "images": lambda: {"pixel_values": torch.randn(batch, 3, 16, 16, generator=generator)},
            "images and text": lambda: {
                "pixel_values": torch.randn(batch, 3, 16, 16, generator=generator),
                "input_ids": ids,
            },
            "sound": lambda: {"input_values": torch.randn(batch, 400, generator=generator)},
            "sound to text": lambda: {
                "input_features": torch.randn(batch, 8, 40, generator=generator),
                "decoder_input_ids": ids[:, : length // 2],
            },
        }
        return make[self.kind]()

    @property
    def reads_text(self) -> bool:
        """Whether its inputs are token ids, which can be padded."""
        return self.kind in ("decoder", "encoder", "encoder-decoder")


_WIDE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_GROUPED = {**_WIDE, "num_key_value_heads": 2}
_SEQ2SEQ: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_IMAGE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
_GPT2: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LAYER_TYPES = ["sliding_attention", "full_attention"]


def _named(family: str, model: str, config: str, options: dict[str, Any], kind: Kind = "decoder") -> TinyModel:
    return TinyModel(family, model, config, options, kind, named=True)


TINY_MODELS: tuple[TinyModel, ...] = (
    _named("Llama", "LlamaForCausalLM", "LlamaConfig", _GROUPED),
    _named("Mistral", "MistralForCausalLM", "MistralConfig", {**_GROUPED, "sliding_window": 7}),
    _named("Qwen2", "Qwen2ForCausalLM", "Qwen2Config", _GROUPED),
    _named("Qwen3", "Qwen3ForCausalLM", "Qwen3Config", {**_GROUPED, "head_dim": 16}),
    _named(
        "Gemma 2",
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**_GROUPED, "head_dim": 16, "sliding_window": 7, "attn_logit_softcapping": 2.0},
    ),
    _named(
        "Gemma 3",
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**_GROUPED, "head_dim": 16, "sliding_window": 7, "layer_types": _LAYER_TYPES},
    ),
    _named(
        "gpt-oss",
        "GptOssForCausalLM",
        "GptOssConfig",
        {
            **_GROUPED,
            "head_dim": 16,
            "sliding_window": 7,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "layer_types": _LAYER_TYPES,
        },
    ),
    _named("GPT-2", "GPT2LMHeadModel", "GPT2Config", _GPT2),
    _named("GPT-NeoX", "GPTNeoXForCausalLM", "GPTNeoXConfig", _WIDE),
    _named("Phi-3", "Phi3ForCausalLM", "Phi3Config", _GROUPED),
    _named("BERT", "BertModel", "BertConfig", _WIDE, "encoder"),
    _named("RoBERTa", "RobertaModel", "RobertaConfig", _WIDE, "encoder"),
    _named(
        "DistilBERT",
        "DistilBertModel",
        "DistilBertConfig",
        {"vocab_size": VOCABULARY, "dim": 32, "hidden_dim": 40, "n_layers": 2, "n_heads": 4},
        "encoder",
    ),
    _named(
        "ModernBERT",
        "ModernBertModel",
        "ModernBertConfig",
        {**_WIDE, "num_hidden_layers": 3, "local_attention": 8, "global_attn_every_n_layers": 2},
        "encoder",
    ),
    _named("T5", "T5ForConditionalGeneration", "T5Config", _T5, "encoder-decoder"),
    _named("BART", "BartForConditionalGeneration", "BartConfig", _SEQ2SEQ, "encoder-decoder"),
    _named(
        "Whisper",
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {
            **_SEQ2SEQ,
            "num_mel_bins": 8,
            "max_source_positions": 20,
            "max_target_positions": 64,
            "decoder_start_token_id": 1,
            "eos_token_id": 2,
            "begin_suppress_tokens": None,
            "suppress_tokens": None,
        },
        "sound to text",
    ),
    _named("ViT", "ViTModel", "ViTConfig", _IMAGE, "images"),
    _named(
        "CLIP",
        "CLIPModel",
        "CLIPConfig",
        {"text_config": {**_WIDE, "bos_token_id": 1, "eos_token_id": 2}, "vision_config": _IMAGE, "projection_dim": 16},
        "images and text",
    ),
    # --- not promised by name
    TinyModel(
        "Falcon", "FalconForCausalLM", "FalconConfig", {**_WIDE, "new_decoder_architecture": False, "multi_query": True}
    ),
    TinyModel("Falcon with ALiBi", "FalconForCausalLM", "FalconConfig", {**_WIDE, "alibi": True}),
    TinyModel("GPT-J", "GPTJForCausalLM", "GPTJConfig", {**_GPT2, "rotary_dim": 4}),
    TinyModel(
        "GPT-Neo",
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 7,
        },
    ),
    TinyModel(
        "BLOOM",
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    ),
    TinyModel(
        "MPT",
        "MptForCausalLM",
        "MptConfig",
        {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    ),
    TinyModel("DeBERTa-v2", "DebertaV2Model", "DebertaV2Config", _WIDE, "encoder"),
    TinyModel("OPT", "OPTForCausalLM", "OPTConfig", {**_WIDE, "ffn_dim": 40, "word_embed_proj_dim": 32}),
    TinyModel("Phi", "PhiForCausalLM", "PhiConfig", _WIDE),
    TinyModel("StableLM", "StableLmForCausalLM", "StableLmConfig", _GROUPED),
    TinyModel("Cohere", "CohereForCausalLM", "CohereConfig", _GROUPED),
    TinyModel(
        "Cohere 2",
        "Cohere2ForCausalLM",
        "Cohere2Config",
        {**_GROUPED, "sliding_window": 7, "layer_types": _LAYER_TYPES},
    ),
    TinyModel("OLMo 2", "Olmo2ForCausalLM", "Olmo2Config", _GROUPED),
    TinyModel(
        "OLMo 3", "Olmo3ForCausalLM", "Olmo3Config", {**_GROUPED, "sliding_window": 7, "layer_types": _LAYER_TYPES}
    ),
    TinyModel("Granite", "GraniteForCausalLM", "GraniteConfig", {**_GROUPED, "attention_multiplier": 0.3}),
    TinyModel(
        "SmolLM3", "SmolLM3ForCausalLM", "SmolLM3Config", {**_GROUPED, "no_rope_layers": [1, 0], "sliding_window": None}
    ),
    TinyModel("Gemma", "GemmaForCausalLM", "GemmaConfig", {**_GROUPED, "head_dim": 16}),
    TinyModel("Starcoder2", "Starcoder2ForCausalLM", "Starcoder2Config", {**_GROUPED, "sliding_window": 7}),
    TinyModel("GPT-BigCode", "GPTBigCodeForCausalLM", "GPTBigCodeConfig", {**_GPT2, "multi_query": True}),
    TinyModel(
        "Mixtral",
        "MixtralForCausalLM",
        "MixtralConfig",
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 7},
    ),
    TinyModel(
        "Qwen3-MoE",
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {**_GROUPED, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    TinyModel(
        "DeepSeek-V3",
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        {
            **_WIDE,
            "num_key_value_heads": 4,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 12,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
        },
    ),
    TinyModel(
        "Llama 4",
        "Llama4ForCausalLM",
        "Llama4TextConfig",
        {
            **_GROUPED,
            "head_dim": 8,
            "attention_chunk_size": 8,
            "num_local_experts": 2,
            "intermediate_size_mlp": 40,
            "moe_layers": [],
            "no_rope_layers": [1, 0],
        },
    ),
    TinyModel("Nemotron", "NemotronForCausalLM", "NemotronConfig", _GROUPED),
    TinyModel("Persimmon", "PersimmonForCausalLM", "PersimmonConfig", _WIDE),
    TinyModel("BioGPT", "BioGptForCausalLM", "BioGptConfig", _WIDE),
    TinyModel(
        "CTRL",
        "CTRLLMHeadModel",
        "CTRLConfig",
        {"vocab_size": VOCABULARY, "n_embd": 32, "dff": 40, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    TinyModel(
        "XGLM",
        "XGLMForCausalLM",
        "XGLMConfig",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "ffn_dim": 40,
            "num_layers": 2,
            "attention_heads": 4,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
        },
    ),
    TinyModel(
        "XLNet",
        "XLNetModel",
        "XLNetConfig",
        {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 40},
        "encoder",
    ),
    TinyModel("ELECTRA", "ElectraModel", "ElectraConfig", {**_WIDE, "embedding_size": 16}, "encoder"),
    TinyModel("ALBERT", "AlbertModel", "AlbertConfig", {**_WIDE, "embedding_size": 16}, "encoder"),
    TinyModel("MPNet", "MPNetModel", "MPNetConfig", _WIDE, "encoder"),
    TinyModel("Longformer", "LongformerModel", "LongformerConfig", {**_WIDE, "attention_window": 4}, "encoder"),
    TinyModel("BigBird", "BigBirdModel", "BigBirdConfig", {**_WIDE, "attention_type": "original_full"}, "encoder"),
    TinyModel("FNet", "FNetModel", "FNetConfig", _WIDE, "encoder"),
    TinyModel(
        "ConvBERT", "ConvBertModel", "ConvBertConfig", {**_WIDE, "embedding_size": 16, "head_ratio": 1}, "encoder"
    ),
    TinyModel("ESM", "EsmModel", "EsmConfig", {**_WIDE, "position_embedding_type": "rotary"}, "encoder"),
    TinyModel("EuroBERT", "EuroBertModel", "EuroBertConfig", _GROUPED, "encoder"),
    TinyModel("mT5", "MT5ForConditionalGeneration", "MT5Config", _T5, "encoder-decoder"),
    TinyModel(
        "LongT5", "LongT5ForConditionalGeneration", "LongT5Config", {**_T5, "local_radius": 4}, "encoder-decoder"
    ),
    TinyModel("Pegasus", "PegasusForConditionalGeneration", "PegasusConfig", _SEQ2SEQ, "encoder-decoder"),
    TinyModel("Marian", "MarianMTModel", "MarianConfig", {**_SEQ2SEQ, "decoder_start_token_id": 0}, "encoder-decoder"),
    TinyModel("M2M-100", "M2M100ForConditionalGeneration", "M2M100Config", _SEQ2SEQ, "encoder-decoder"),
    TinyModel(
        "LED",
        "LEDForConditionalGeneration",
        "LEDConfig",
        {
            **{k: v for k, v in _SEQ2SEQ.items() if k != "max_position_embeddings"},
            "attention_window": 4,
            "max_encoder_position_embeddings": 64,
            "max_decoder_position_embeddings": 64,
        },
        "encoder-decoder",
    ),
    TinyModel(
        "DINOv2", "Dinov2Model", "Dinov2Config", {k: v for k, v in _IMAGE.items() if k != "intermediate_size"}, "images"
    ),
    TinyModel("DeiT", "DeiTModel", "DeiTConfig", _IMAGE, "images"),
    TinyModel("BEiT", "BeitModel", "BeitConfig", {**_IMAGE, "use_relative_position_bias": True}, "images"),
    TinyModel(
        "SigLIP",
        "SiglipModel",
        "SiglipConfig",
        {"text_config": {**_WIDE, "projection_size": 32}, "vision_config": _IMAGE},
        "images and text",
    ),
    TinyModel(
        "Swin",
        "SwinModel",
        "SwinConfig",
        {"image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
        "images",
    ),
    TinyModel(
        "wav2vec 2.0",
        "Wav2Vec2Model",
        "Wav2Vec2Config",
        {
            **_WIDE,
            "conv_dim": (16, 16),
            "conv_stride": (4, 4),
            "conv_kernel": (8, 4),
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
        },
        "sound",
    ),
    TinyModel(
        "Mamba",
        "MambaForCausalLM",
        "MambaConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    ),
    TinyModel(
        "Qwen3-Next",
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        {
            **_GROUPED,
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
)
