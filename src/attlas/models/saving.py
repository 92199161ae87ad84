"""Write a model with other weights as a folder that `attlas.load`, and transformers, open."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from attlas.errors import ArgumentError, StoreError, UnsupportedModelError, complaint
from attlas.models.configuration import CONFIG
from attlas.models.folders import appearing
from attlas.models.opening import quiet


def check_new(folder: Path) -> None:
    """Refuse a place that is taken.

    Raises
    ------
    ArgumentError
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise ArgumentError(complaint("out", wanted="a new folder", got=f"{folder}, where something is already"))


def save_model(
    folder: Path,
    model: Any,
    tokenizer: Any,
    *,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype,
    notes: Mapping[str, Any],
) -> None:
    """Write a model whole or not at all: safetensors, configuration, tokenizer, and a file of notes for each name.

    Parameters
    ----------
    folder : Path
        A new one.
    model : PreTrainedModel
        It stays as it is.
    tokenizer : PreTrainedTokenizerBase or None
    weights : mapping
        Name in the model's state dict -> what is written in the place of its own.
    dtype : torch.dtype
        Of all weights in the files.
    notes : mapping
        Name of a file -> what JSON can hold.

    Raises
    ------
    StoreError
        It cannot be written; nothing is left behind.
    ArgumentError
        The place is taken.
    UnsupportedModelError
        transformers refuses to write such a model.
    """
    check_new(folder)
    state = _state(model, weights, dtype)
    if folder.is_dir():
        folder.rmdir()
    _written(folder, lambda place: _fill(place, model, tokenizer, state, dtype, notes))


def _fill(
    place: Path,
    model: Any,
    tokenizer: Any,
    state: Mapping[str, Tensor],
    dtype: torch.dtype,
    notes: Mapping[str, Any],
) -> None:
    # transformers writes what it saves into the model's own configuration.
    kept = {name: getattr(model.config, name) for name in ("dtype", "architectures")}
    with quiet():
        try:
            model.save_pretrained(place, state_dict=dict(state))
        finally:
            for name, value in kept.items():
                setattr(model.config, name, value)
        if tokenizer is not None:
            tokenizer.save_pretrained(place)
    config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    for name, content in {CONFIG: config, **notes}.items():
        (place / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _written(folder: Path, fill: Callable[[Path], None]) -> None:
    try:
        with appearing(folder) as place:
            fill(place)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or (str(error).strip().splitlines() or ["no reason given"])[0]
        way_out = "free some space there, or choose another folder"
        raise StoreError(f"{folder}: cannot be written ({reason}); {way_out}") from error
    except (ValueError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnsupportedModelError(f"{folder}: transformers cannot write this model ({reason})") from error


def _state(model: nn.Module, weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a model's state with other weights, in a dtype; tensors that are one in the model stay one."""
    made: dict[tuple[int, torch.Size], Tensor] = {}
    state = {}
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape)
        if name in weights:
            made[key] = weights[name].to(dtype)
        elif key not in made:
            made[key] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        state[name] = made[key]
    return state
