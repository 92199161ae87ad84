"""Merge an adapter into its base model, or take it out again, with what rounding loses stated for each module."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attlas import __version__
from attlas._tables import Table
from attlas.capture import LanguageModel, load
from attlas.errors import ArgumentError, StoreError, UnsupportedModelError, complaint
from attlas.models.adapter_file import AdapterFile, open_adapter
from attlas.models.progress import Progress
from attlas.models.saving import check_new, save_model
from attlas.projections.weights import as_kept, is_turned
from attlas.results import Provenance
from attlas.training.sites import is_linear, shape_of

RECORD = "attlas_merge.json"
"""What a merged model's folder says about its making."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}

Model = LanguageModel | str | PathLike[str]


@dataclass(frozen=True)
class MergedModule:
    """One module of a merged model.

    Parameters
    ----------
    name : str
    rank : int
        The adapter's.
    change : float
        ``‖ΔW‖ / ‖W‖``, Frobenius: how large the change is.
    loss : float
        ``‖cast(W + ΔW) − (W + ΔW)‖ / ‖ΔW‖``: how much of the change rounding lost; 0 where there is no change.
    """

    name: str
    rank: int
    change: float
    loss: float


@dataclass(frozen=True)
class Merged(Table):
    """What came of merging an adapter.

    Parameters
    ----------
    folder : str
        Where the merged model is.
    dtype : str
        Of its weights.
    modules : tuple of MergedModule
    provenance : Provenance
    """

    folder: str
    dtype: str
    modules: tuple[MergedModule, ...]
    provenance: Provenance

    @property
    def worst(self) -> MergedModule:
        """The module of which rounding lost most."""
        return max(self.modules, key=lambda one: one.loss)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each module, as plain types."""
        return [vars(one) for one in self.modules]

    def __repr__(self) -> str:
        return f"Merged({self.folder}, {len(self.modules)} modules, at most {self.worst.loss:.1e} of a change lost)"


@dataclass(frozen=True)
class UnmergedModule:
    """One module of a model from which an adapter was taken out.

    Parameters
    ----------
    name : str
    rank : int
        The adapter's.
    change : float
        ``‖ΔW‖ / ‖W‖``, Frobenius.
    off : float, optional
        ``‖W − W_base‖ / ‖ΔW‖``: how far the weight is from the base model's, as a share of the change; None where the
        base is not known.
    """

    name: str
    rank: int
    change: float
    off: float | None


@dataclass(frozen=True)
class Unmerged(Table):
    """What came of taking an adapter out of a merged model.

    Parameters
    ----------
    folder : str
        Where the model is.
    dtype : str
        Of its weights.
    modules : tuple of UnmergedModule
    provenance : Provenance
    """

    folder: str
    dtype: str
    modules: tuple[UnmergedModule, ...]
    provenance: Provenance

    @property
    def worst(self) -> float | None:
        """The largest of `UnmergedModule.off`; None where the base is not known."""
        known = [one.off for one in self.modules if one.off is not None]
        return max(known) if known else None

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each module, as plain types."""
        return [vars(one) for one in self.modules]

    def __repr__(self) -> str:
        off = "distance from the base not known" if self.worst is None else f"at most {self.worst:.1e} of a change off"
        return f"Unmerged({self.folder}, {len(self.modules)} modules, {off})"


def merge(
    base: Model,
    adapter: str | PathLike[str],
    out: str | PathLike[str],
    *,
    dtype: torch.dtype | str | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Add an adapter to its base model's weights and write the model that comes of it.

    Parameters
    ----------
    base : LanguageModel, str or path
        The model, or its name. It stays as it is.
    adapter : path
        A folder with ``adapter_config.json`` and ``adapter_model.safetensors``, of LoRA, rsLoRA or DoRA.
    out : path
        A new folder; `attlas.load` and transformers open it.
    dtype : torch.dtype or str, optional
        Of the weights that are written: float32, bfloat16, float16 or float64; by default that of `base` as it is
        loaded, which is float32 for a name.
    progress : callable, optional
        Called as ``progress(done, total, what)``.

    Returns
    -------
    Merged
        With the loss of precision of each module. A change is small beside its weight, so rounding takes a larger share
        of the change than of the weight; in bfloat16, with 8 bits, that can be much of it.

    Raises
    ------
    ArgumentError
        The adapter is another model's: the first module that does not fit; or `out` is taken.
    ModelNotFound, StoreError, UnsupportedModelError, NonFiniteError
        The model or the adapter cannot be opened, is damaged, or is more than LoRA; a pickle is never opened.
    StoreError
        The folder cannot be written; nothing is left behind.

    Notes
    -----
    W + ΔW is computed in float64 and rounded once.
    """
    target, wanted = Path(out), _dtype(dtype)
    check_new(target)
    file = open_adapter(adapter)
    lm = _opened(base, progress)
    modules = dict(fitting(lm.model, file))
    kept = wanted or next(lm.model.parameters()).dtype
    weights, rows = {}, []
    for done, (name, module) in enumerate(modules.items(), start=1):
        weight = _weight(module).double()
        change = file.parts[name].change(weight)
        merged = (weight + change).to(kept)
        size = float(change.norm())
        loss = float((merged.double() - weight - change).norm()) / size if size else 0.0
        rows.append(MergedModule(name, file.parts[name].rank, size / float(weight.norm()), loss))
        weights[f"{name}.weight"] = as_kept(module, merged)
        if progress is not None:
            progress(done, len(modules), "merging")
    settings = {"adapter": file.fingerprint, "variant": file.variant, "dtype": _name(kept), "torch": torch.__version__}
    provenance = Provenance(__version__, lm.name, lm.facts.fingerprint, settings)
    record = {"merged": provenance.as_dict(), "modules": [vars(one) for one in rows]}
    save_model(target, lm.model, lm.tokenizer, weights=weights, dtype=kept, notes={RECORD: record})
    return Merged(str(target), _name(kept), tuple(rows), provenance)


def unmerge(
    merged: Model,
    adapter: str | PathLike[str],
    out: str | PathLike[str],
    *,
    base: Model | None = None,
    dtype: torch.dtype | str | None = None,
    progress: Progress | None = None,
) -> Unmerged:
    """Take an adapter out of a model that it was merged into, and write the model that is left.

    What merging lost to rounding does not come back: where the base model is still at hand, it is the better one.

    Parameters
    ----------
    merged : LanguageModel, str or path
        The merged model, or its folder.
    adapter : path
        The adapter's folder; LoRA or rsLoRA. DoRA does not merely add, and cannot be taken out.
    out : path
        A new folder.
    base : LanguageModel, str or path, optional
        To say how far the result is from it.
    dtype : torch.dtype or str, optional
        Of the weights that are written; by default that of `merged` as it is loaded.
    progress : callable, optional
        Called as ``progress(done, total, what)``.

    Returns
    -------
    Unmerged

    Raises
    ------
    ArgumentError
        The adapter is another model's, or not the one that was merged; or `out` is taken.
    UnsupportedModelError
        The adapter is DoRA's, or more than LoRA.
    ModelNotFound, StoreError, NonFiniteError
        As `merge`.
    """
    target, wanted = Path(out), _dtype(dtype)
    check_new(target)
    file = open_adapter(adapter)
    if file.variant == "dora":
        raise UnsupportedModelError(
            f"{file.name}: wanted LoRA or rsLoRA, got DoRA, which also scales the weights' rows to lengths of its own, "
            "so that the lengths before are lost; keep the base model instead"
        )
    if not isinstance(merged, LanguageModel):
        _check_record(Path(merged) / RECORD, file)
    lm = _opened(merged, progress)
    modules = dict(fitting(lm.model, file))
    known = None if base is None else dict(fitting(_opened(base, progress).model, file))
    kept = wanted or next(lm.model.parameters()).dtype
    weights, rows = {}, []
    for done, (name, module) in enumerate(modules.items(), start=1):
        weight = _weight(module).double()
        change = file.parts[name].change(weight)
        left = (weight - change).to(kept)
        size, off = float(change.norm()), None
        if known is not None:
            distance = float((left.double() - _weight(known[name]).double()).norm())
            off = distance / size if size else distance
        rows.append(UnmergedModule(name, file.parts[name].rank, size / float(left.double().norm()), off))
        weights[f"{name}.weight"] = as_kept(module, left)
        if progress is not None:
            progress(done, len(modules), "taking the adapter out")
    settings = {"adapter": file.fingerprint, "dtype": _name(kept), "torch": torch.__version__}
    provenance = Provenance(__version__, lm.name, lm.facts.fingerprint, settings)
    save_model(target, lm.model, lm.tokenizer, weights=weights, dtype=kept, notes={})
    return Unmerged(str(target), _name(kept), tuple(rows), provenance)


def fitting(model: nn.Module, file: AdapterFile) -> Iterator[tuple[str, nn.Module]]:
    """Go through the modules of a model that an adapter goes beside.

    Raises
    ------
    ArgumentError
        Naming the first module that does not fit.
    """
    modules = dict(model.named_modules())
    for name, part in file.parts.items():
        module = modules.get(name)
        if module is None or not is_linear(module):
            what = "no such module" if module is None else f"a {type(module).__name__}"
            got = f"one for {name}, where {type(model).__name__} has {what}"
        elif shape_of(module) != part.shape:
            (out, into), (has_out, has_into) = part.shape, shape_of(module)
            got = f"one for {name} of {out} × {into}, where it is {has_out} × {has_into}"
        else:
            yield name, module
            continue
        says = (
            f"it says that it was trained on {file.base_name}" if file.base_name else "take the model it was trained on"
        )
        raise ArgumentError(complaint("adapter", wanted="one of this model", got=got, way_out=says))


def _opened(model: Model, progress: Progress | None) -> LanguageModel:
    return model if isinstance(model, LanguageModel) else load(model, progress=progress)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if (found is None and dtype is not None) or (found is not None and found not in _DTYPES.values()):
        raise ArgumentError(complaint("dtype", wanted=f"one of {', '.join(_DTYPES)}", got=repr(dtype)))
    return found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _weight(module: Any) -> Tensor:
    """Return a module's weight as (out, in)."""
    weight = module.weight.detach()
    return weight.T if is_turned(module) else weight


def _check_record(path: Path, file: AdapterFile) -> None:
    """Refuse an adapter that is not the one that a merged model's folder says it was made with."""
    if not path.is_file():
        return
    try:
        known: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["merged"]["settings"]
        adapter = known["adapter"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: wanted the record of a merge, which it is not ({error})") from error
    if adapter != file.fingerprint:
        got = f"{file.name} ({file.fingerprint})"
        raise ArgumentError(complaint("adapter", wanted=f"the one that was merged ({adapter})", got=got))
