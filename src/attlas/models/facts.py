"""What a model is made of, in numbers that hold for every family."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from attlas.models.families import Kind, kind_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Facts:
    """What a model is made of. A number is None where the family has none, or has several.

    Parameters
    ----------
    name : str
        The name or folder it was asked for by.
    family : str
        transformers' name for its kind, such as ``"llama"``.
    kind : str
        ``"decoder"``, ``"encoder"`` or ``"encoder-decoder"``.
    layers : int or None
        Blocks in its stack; of encoder and decoder together where it has both.
    heads : int or None
        Query heads per layer.
    kv_heads : int or None
        Key-value heads per layer; fewer than `heads` when queries share them.
    dim : int or None
        Width of one head.
    positions : int or None
        Tokens it can read at once; None where its positions have no end.
    vocabulary : int or None
        Entries of its token embedding.
    parameters : int
        Numbers that were learnt; shared ones count once.
    fingerprint : str
        16 hex digits that change with the configuration or the weights.
    """

    name: str
    family: str
    kind: Kind
    layers: int | None
    heads: int | None
    kv_heads: int | None
    dim: int | None
    positions: int | None
    vocabulary: int | None
    parameters: int
    fingerprint: str

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as plain types that JSON can hold."""
        return asdict(self)


def gather_facts(name: str, model: PreTrainedModel, fingerprint: str) -> Facts:
    """Read the facts off a model and its configuration.

    A model of text and something else (CLIP) is described by its text side.
    """
    config = model.config
    text = config.get_text_config()
    heads = _number(text, "num_attention_heads", "decoder_attention_heads", "n_head", "num_heads", "n_heads")
    return Facts(
        name=name,
        family=config.model_type,
        kind=kind_of(config),
        layers=_layers(config, text),
        heads=heads,
        kv_heads=_number(text, "num_key_value_heads") or heads,
        dim=_dim(text, heads),
        positions=_positions(text, model),
        vocabulary=_number(text, "vocab_size"),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        fingerprint=fingerprint,
    )


def _number(config: PreTrainedConfig, *names: str) -> int | None:
    """Return the first of the named entries that is one number; families call the same thing by different names."""
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _layers(config: PreTrainedConfig, text: PreTrainedConfig) -> int | None:
    if kind_of(config) == "encoder-decoder":
        encoder = _number(config, "encoder_layers", "num_layers", "num_encoder_layers")
        decoder = _number(config, "decoder_layers", "num_decoder_layers")
        if encoder is not None and decoder is not None:
            return encoder + decoder
    return _number(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers")


def _dim(text: PreTrainedConfig, heads: int | None) -> int | None:
    stated = _number(text, "head_dim", "d_kv")
    width = _number(text, "hidden_size", "d_model", "n_embd", "dim")
    if stated is not None or width is None or heads is None:
        return stated
    return width // heads


def _positions(text: PreTrainedConfig, model: PreTrainedModel) -> int | None:
    from torch.nn import Embedding

    for name, module in model.named_modules():
        is_table = name.endswith("position_embeddings")
        if is_table and isinstance(module, Embedding) and module.padding_idx is not None:
            # RoBERTa and its kin number positions from just after the padding index, so the table's first rows are
            # never a position.
            return module.num_embeddings - module.padding_idx - 1
    return _number(text, "max_position_embeddings", "n_positions", "max_target_positions")
