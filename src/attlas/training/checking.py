"""What cannot be adapted, or not like that, and why: found out before anything is changed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, UnsupportedModelError, complaint
from attlas.projections.weights import is_turned
from attlas.training.settings import LoraSettings
from attlas.training.sites import Site

_ZERO_AT_FIRST = ("default", "gaussian", "eva", "mica", "orthogonal")
"""Initialisations whose product is zero, also where rows of B or columns of A are left out."""

_APART = ("default", "gaussian", "mica")
"""Initialisations that mean the same for the slices of a module as for the module."""


def check_causal(lm: LanguageModel) -> None:
    """Refuse a model that does not predict the next token.

    Raises
    ------
    UnsupportedModelError
    """
    model: Any = lm.model
    if lm.facts.kind != "decoder" or model.get_output_embeddings() is None:
        raise UnsupportedModelError(
            f"{lm.name}: wanted a model that predicts the next token, got {type(model).__name__}; adapters of other "
            "models can be made with attlas.training.adapt and trained in a loop of your own"
        )


def check_plain(model: nn.Module) -> None:
    """Refuse a model that has an adapter already.

    Raises
    ------
    ArgumentError
    """
    for name, module in model.named_modules():
        if hasattr(module, "base_layer"):
            way_out = "merge it first, or take it away (PEFT: model.merge_and_unload() or model.unload())"
            raise ArgumentError(complaint("lm", wanted="no adapter", got=f"one at {name}", way_out=way_out))


def ranks_of(sites: Sequence[Site], lora: LoraSettings) -> dict[Site, int]:
    """Return the rank of each module that is adapted; with separate slices, of each slice.

    Raises
    ------
    ArgumentError
        A rank is larger than its matrix, or names a module that is not adapted.
    """
    given: Mapping[str, int] = lora.ranks or {}
    names = [site.name for site in sites]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
            wanted = "whole names of modules that are adapted"
            raise ArgumentError(
                complaint("ranks", wanted=wanted, got=repr(name), way_out=f"near it are {', '.join(near)}")
            )
    found = {site: given.get(site.name, lora.rank) for site in sites}
    found = {site: rank for site, rank in found.items() if rank}
    if not found:
        raise ArgumentError(complaint("ranks", wanted="at least one above 0", got="none"))
    for site, rank in found.items():
        largest, why = _largest(site, lora)
        if rank > largest:
            raise ArgumentError(complaint("rank", wanted=f"at most {largest} for {site.name}{why}", got=rank))
    return found


def _largest(site: Site, lora: LoraSettings) -> tuple[int, str]:
    """Return the largest rank that a product can have at a site, and what bounds it."""
    rows = [int(part.sum()) for part in site.slices or ((site.rows,) if site.rows is not None else ())]
    out = min(rows, default=site.shape[0])
    into = site.shape[1] if site.columns is None else int(site.columns.sum())
    if lora.changes_base:
        # Its first values are saved beside its last ones, and have as many rows.
        return min(out, into) // 2, f" ({out} × {into}; twice the rank is saved with {lora.init})"
    return min(out, into), f" ({out} × {into})"


def check_combination(model: nn.Module, sites: Sequence[Site], lora: LoraSettings) -> None:
    """Refuse an initialisation or a variant that would change what was not meant.

    Raises
    ------
    ArgumentError
    """
    narrowed = next((site for site in sites if site.narrowed), None)
    apart = next((site for site in sites if site.slices), None)
    if narrowed is not None and lora.init not in _ZERO_AT_FIRST:
        _refuse(
            lora.init, f"changes the whole weight of {narrowed.name}, of which only a part is meant", _ZERO_AT_FIRST
        )
    if apart is not None and lora.init not in _APART:
        _refuse(lora.init, f"does not know that the slices of {apart.name} have a matrix each", _APART)
    if lora.init == "olora":
        turned = [site.name for site in sites if is_turned(model.get_submodule(site.name))]
        if turned:
            _refuse(lora.init, f"reads the weight of {turned[0]}, a Conv1D, the wrong way round in PEFT", ("pissa",))
    if lora.variant == "dora":
        wide = next((site for site in sites if site.columns is not None), None)
        if wide is not None:
            raise ArgumentError(
                complaint(
                    "variant",
                    wanted="lora or rslora for some heads of an output projection",
                    got="'dora'",
                    way_out=f"it scales whole rows of {wide.name}, and so the output of every head",
                )
            )
        if lora.init == "mica":
            _refuse(lora.init, "cannot be combined with dora in PEFT", ("default",))
    if lora.changes_base:
        for site in sites:
            weight = model.get_submodule(site.name).weight
            if weight.dtype not in (torch.float32, torch.float16, torch.bfloat16):
                kind = str(weight.dtype).removeprefix("torch.")
                _refuse(lora.init, f"cannot read weights of {kind} in PEFT", ("default",))
    if lora.init == "orthogonal" and any(rank % 2 for rank in ranks_of(sites, lora).values()):
        raise ArgumentError(complaint("rank", wanted="even ranks, for orthogonal", got="an odd one"))


def _refuse(init: str, reason: str, instead: Sequence[str]) -> None:
    raise ArgumentError(complaint("init", wanted=f"one of {', '.join(instead)}", got=f"{init!r}, which {reason}"))
