"""Which code computes a model's attention, checked in every part of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attlas.errors import ArgumentError, CaptureError, complaint

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def check_choice(attention: str) -> None:
    """Refuse what is not an implementation that is registered on this machine, such as a kernel to be fetched.

    Raises
    ------
    ArgumentError
        Naming the registered ones.
    """
    from transformers import AttentionInterface

    known = ["eager", *AttentionInterface().valid_keys()]
    if attention not in known:
        raise ArgumentError(complaint("attention", wanted=f"one of {', '.join(sorted(known))}", got=repr(attention)))


def requested(attention: str) -> str | None:
    """Return what to ask transformers for.

    "sdpa" is asked for as None, which each part of a model reads as "sdpa, or eager if this class has no use for it":
    Gemma 2 and gpt-oss have none, and of a model of text and images one half may have it and the other not.
    """
    return None if attention == "sdpa" else attention


def verify_choice(model: PreTrainedModel, attention: str) -> str:
    """Make sure that every part of a model computes attention with what was asked for.

    Parameters
    ----------
    model : PreTrainedModel
        A model that has been loaded.
    attention : str
        What was asked for. "sdpa" also allows "eager" in a part whose class cannot use it.

    Returns
    -------
    str
        What the model uses: the name, or several joined by ``"+"``.

    Raises
    ------
    CaptureError
        Naming the part that uses something else.
    """
    used = set()
    for part, config, supports_sdpa in _parts(model):
        wanted = "eager" if attention == "sdpa" and not supports_sdpa else attention
        got = config._attn_implementation
        if got != wanted:
            raise CaptureError(
                f"{part}: wanted its attention computed by {wanted!r}, but it uses {got!r}; "
                "something in the model overrules the caller"
            )
        used.add(got)
    return "+".join(sorted(used))


def _parts(model: PreTrainedModel) -> Iterator[tuple[str, PreTrainedConfig, bool]]:
    """Yield every module that has a configuration, with it and whether the module's class can use sdpa."""
    from transformers import PreTrainedConfig, PreTrainedModel

    supports_sdpa = bool(model._supports_sdpa)
    by_config: dict[int, bool] = {}
    for name, module in model.named_modules():
        config = getattr(module, "config", None)
        if not isinstance(config, PreTrainedConfig):
            continue
        if isinstance(module, PreTrainedModel):
            # Modules that share a configuration also share what it says: all of them must be able to use it.
            by_config[id(config)] = by_config.get(id(config), True) and bool(module._supports_sdpa)
        yield name or type(model).__name__, config, by_config.get(id(config), supports_sdpa)
