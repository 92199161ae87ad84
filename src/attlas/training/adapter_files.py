"""An adapter as PEFT keeps it: two files that plain PEFT puts beside the weights of the base model."""

from __future__ import annotations

import copy
import json
import tempfile
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attlas._writing import write_together
from attlas.models.adapter_file import CONFIG, WEIGHTS
from attlas.training._peft import the_peft
from attlas.training.adapting import NAME, Adapted


def save_adapter(adapted: Adapted, folder: str | PathLike[str]) -> Path:
    """Write an adapter so that ``peft.PeftModel.from_pretrained(base, folder)`` opens it; the old one stays until then.

    Parameters
    ----------
    adapted : Adapted
        What `adapt` returned.
    folder : path
        Made where it is missing.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    StoreError
        It cannot be written; an older adapter is whole then.
    """
    target = Path(folder)
    write_together({target / name: content for name, content in adapter_files(adapted).items()})
    return target


def adapter_files(adapted: Adapted) -> dict[str, bytes]:
    """Return the files of an adapter: name -> content.

    Where the initialisation took the adapter's first values, A₀ and B₀, out of the base weights, the difference to the
    original weights is written, B·A − B₀·A₀ = [B, −B₀]·[A; A₀], whose rank is twice as large.
    """
    from safetensors.torch import save

    state: dict[str, Tensor] = the_peft().get_peft_model_state_dict(
        adapted.model, adapter_name=NAME, save_embedding_layers=False
    )
    config = copy.deepcopy(adapted.config)
    config.init_lora_weights = True  # on opening there is nothing to initialise
    config.eva_config = config.lora_ga_config = None
    if adapted.first:
        first = {name.replace(f".{NAME}.", "."): one for name, one in adapted.first.items()}
        state = {name: _difference(name, one, first.get(name)) for name, one in state.items()}
        _double(config)
    tensors = {name: one.detach().cpu().contiguous() for name, one in sorted(state.items())}
    return {WEIGHTS: save(tensors, metadata={"format": "pt"}), CONFIG: _text(config)}


def _difference(name: str, last: Tensor, first: Tensor | None) -> Tensor:
    if first is None:
        return last  # DoRA's lengths, which are those of the whole sum
    return torch.cat([last, -first], dim=1) if "lora_B" in name else torch.cat([last, first])


def _double(config: Any) -> None:
    """Double the ranks, and leave what the products are multiplied with as it is."""
    factor = 2**0.5 if config.use_rslora else 2
    config.r, config.lora_alpha = 2 * config.r, factor * config.lora_alpha
    config.rank_pattern = {name: 2 * rank for name, rank in config.rank_pattern.items()}
    config.alpha_pattern = {name: factor * alpha for name, alpha in config.alpha_pattern.items()}


def _text(config: Any) -> bytes:
    config.inference_mode = True
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        entries = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    # PEFT keeps a set, whose order differs from one process to the next.
    entries["target_modules"] = sorted(entries["target_modules"])
    return (json.dumps(entries, indent=2, sort_keys=True) + "\n").encode()
