"""Put an adapter beside a model's weights, hold it to the heads and slices that were meant, and take it away again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, complaint
from attlas.projections.weights import is_turned
from attlas.training._peft import the_peft
from attlas.training.before import Before
from attlas.training.checking import check_combination, check_plain, ranks_of
from attlas.training.initialising import Batch, after_adapting, before_adapting, settings_for
from attlas.training.settings import LoraSettings, Targets
from attlas.training.sites import Site, find_sites

NAME = "default"
"""What PEFT calls the only adapter of a model."""


@dataclass(frozen=True, eq=False, repr=False)
class Adapted:
    """A model with an adapter beside its weights; a context manager that takes the adapter away at its end.

    The model is the one that was given, changed in place: it computes with the adapter until `remove`.

    Parameters
    ----------
    model : PeftModel
        PEFT's wrapper; the model inside it can be called as always.
    of : torch.nn.Module
        The model that was given.
    sites : tuple of Site
        Where the adapter lies.
    ranks : mapping
        Name of a module -> the rank of its product; with `Targets.separate`, of all of its slices together.
    targets : Targets
    lora : LoraSettings
    masks : mapping
        Name of a parameter in `model` -> which of its entries are trained, where that is not all of them.
    first : mapping
        Name of a parameter in `model` -> its first values, where the initialisation took them out of the base weights.
    """

    model: Any
    of: nn.Module
    sites: tuple[Site, ...]
    ranks: Mapping[str, int]
    targets: Targets
    lora: LoraSettings
    masks: Mapping[str, Tensor]
    first: Mapping[str, Tensor]
    _before: Before

    @property
    def config(self) -> Any:
        """PEFT's LoraConfig of the adapter."""
        return self.model.peft_config[NAME]

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by its name in `model`."""
        return {name: one for name, one in self.model.named_parameters() if one.requires_grad}

    @property
    def trainable(self) -> int:
        """How many numbers are trained; those that a mask holds do not count."""
        masks = {name: int(mask.sum()) for name, mask in self.masks.items()}
        return sum(masks.get(name, one.numel()) for name, one in self.parameters.items())

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return the groups of parameters that an optimiser of PyTorch takes.

        Weight decay is for matrices alone: it would pull DoRA's lengths away from those of the base weights, also where
        they are held.
        """
        matrices = [one for name, one in self.parameters.items() if "magnitude" not in name]
        lengths = [one for name, one in self.parameters.items() if "magnitude" in name]
        groups = [{"params": matrices, "weight_decay": weight_decay}]
        return [*groups, {"params": lengths, "weight_decay": 0.0}] if lengths else groups

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all of the adapter's tensors, on the CPU, by their names in `model`."""
        return {name: one.detach().cpu().clone() for name, one in _adapter_of(self.model).items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the adapter the values that `tensors` returned.

        Raises
        ------
        ArgumentError
            They are another adapter's.
        """
        own = _adapter_of(self.model)
        if {name: one.shape for name, one in own.items()} != {name: one.shape for name, one in tensors.items()}:
            raise ArgumentError(complaint("tensors", wanted="those of this adapter", got="those of another"))
        with torch.no_grad():
            for name, one in own.items():
                one.copy_(tensors[name])

    def remove(self) -> nn.Module:
        """Take the adapter away and return the model as it was before."""
        self._before.restore()
        return self.of

    def __enter__(self) -> Adapted:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"Adapted({type(self.of).__name__}, {len(self.sites)} modules, {self.trainable:,} trained numbers)"


def adapt(
    lm: LanguageModel | nn.Module,
    targets: Targets | None = None,
    lora: LoraSettings | None = None,
    *,
    seed: int = 0,
    batches: Sequence[Batch] = (),
) -> Adapted:
    """Put a LoRA adapter beside chosen weights of a model, through PEFT.

    What lies outside of the chosen heads and slices stays exactly zero: rows of B for queries, keys and values, columns
    of A for the output projection. So the adapter is a standard one, and plain PEFT computes the same with it.

    Parameters
    ----------
    lm : LanguageModel or torch.nn.Module
        The model. It is changed in place until `Adapted.remove`.
    targets : Targets, optional
        Which weights; queries and values of all layers by default.
    lora : LoraSettings, optional
        Which adapter.
    seed : int
        Of the adapter's first values; the global random numbers are left as they are.
    batches : sequence of mapping
        For the initialisations that look at data: dictionaries of ``input_ids`` and ``labels``, int64, (batch, n).

    Returns
    -------
    Adapted

    Raises
    ------
    ArgumentError
        A name matches nothing, a rank is larger than its matrix, the model has an adapter already, or a choice cannot
        be combined with another.
    UnsupportedModelError
        A weight that was asked for is not one that an adapter can go beside.
    MissingPackageError
        PEFT is not installed.

    Examples
    --------
    >>> lm = attlas.load("smollm2-135m")  # doctest: +SKIP
    >>> with adapt(lm, Targets(("query", "value"), heads=[(16, 0)])) as adapted:  # doctest: +SKIP
    ...     optimizer = torch.optim.AdamW(adapted.groups(weight_decay=0.0), lr=2e-4)
    """
    peft = the_peft()
    targets, lora = targets or Targets(), lora or LoraSettings()
    model = lm.model if isinstance(lm, LanguageModel) else lm
    check_plain(model)
    if lora.needs_data and not batches:
        raise ArgumentError(complaint("batches", wanted=f"data, for the initialisation {lora.init}", got="none"))
    ranks = ranks_of(find_sites(lm, targets), lora)
    sites = tuple(ranks)
    check_combination(model, sites, lora)
    config = _config(peft, lm, ranks, lora)
    before = Before.of(model, [site.name for site in sites], weights=lora.changes_base)
    try:
        with _seeded(seed, model), _quiet():
            before_adapting(model, config, batches)
            wrapped = _wrapped(peft, model, config)
            after_adapting(wrapped, config, batches)
        if isinstance(lm, LanguageModel):  # PEFT writes down the folder that it was opened from
            wrapped.peft_config[NAME].base_model_name_or_path = lm.name
        sites = tuple(site for site in sites if hasattr(model.get_submodule(site.name), "lora_A"))
        _check_injected(model, sites, ranks, config)
        masks = _hold(wrapped, sites, lora)
        before.set_modes()
    except BaseException:
        before.restore()
        raise
    first = {name: one.detach().clone() for name, one in _adapter_of(wrapped).items()} if lora.changes_base else {}
    modules: dict[str, Any] = {site.name: model.get_submodule(site.name) for site in sites}
    found = {name: module.r[NAME] for name, module in modules.items()}
    return Adapted(wrapped, model, sites, found, targets, lora, masks, first, before)


def _config(peft: Any, lm: LanguageModel | nn.Module, ranks: Mapping[Site, int], lora: LoraSettings) -> Any:
    """Return PEFT's LoraConfig; every product is multiplied with the same number, whatever its rank."""
    whole = {site.name: rank * max(1, len(site.slices)) for site, rank in ranks.items()}
    power = 0.5 if lora.variant == "rslora" else 1.0
    alphas = {name: lora.alpha * (rank / lora.rank) ** power for name, rank in whole.items()}
    model: Any = lm.model if isinstance(lm, LanguageModel) else lm
    causal = hasattr(model, "prepare_inputs_for_generation") and not model.config.is_encoder_decoder
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.variant == "rslora",
        use_dora=lora.variant == "dora",
        init_lora_weights=True if lora.init == "default" else lora.init,
        target_modules=list(whole),
        rank_pattern={name: rank for name, rank in whole.items() if rank != lora.rank},
        alpha_pattern={name: alpha for name, alpha in alphas.items() if alpha != lora.alpha},
        fan_in_fan_out=all(is_turned(model.get_submodule(name)) for name in whole),
        task_type="CAUSAL_LM" if causal else None,
        **settings_for(lora.init, peft),
    )


def _wrapped(peft: Any, model: nn.Module, config: Any) -> Any:
    try:
        # EVA makes the matrices itself, once it knows their ranks.
        late = {"low_cpu_mem_usage": True} if config.init_lora_weights == "eva" else {}
        return peft.get_peft_model(model, config, adapter_name=NAME, **late)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArgumentError(f"lora: PEFT cannot make this adapter ({reason})") from error


def _check_injected(model: nn.Module, sites: Sequence[Site], ranks: Mapping[Site, int], config: Any) -> None:
    """See that PEFT, which matches names by their ends and by regular expressions, did what was meant."""
    adapted = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    if odd := sorted(adapted ^ {site.name for site in sites}):
        raise ArgumentError(f"projections: PEFT takes {odd[0]} for another module, as their names end alike")
    for site in sites:
        module: Any = model.get_submodule(site.name)
        wanted = ranks[site] * max(1, len(site.slices))
        if module.r[NAME] != wanted and config.init_lora_weights != "eva":
            raise ArgumentError(f"ranks: PEFT takes {site.name} for another module, as their names end alike")


def _hold(wrapped: Any, sites: Sequence[Site], lora: LoraSettings) -> dict[str, Tensor]:
    """Set to zero what lies outside of the heads and slices that were meant, and keep gradients away from it."""
    masks: dict[str, Tensor] = {}
    names = {id(one): name for name, one in wrapped.named_parameters()}
    for site in sites:
        module: Any = wrapped.get_base_model().get_submodule(site.name)
        down, up = module.lora_A[NAME].weight, module.lora_B[NAME].weight
        if lora.init == "gaussian" and site.slices:
            with torch.no_grad():  # its spread is 1 / rank, and PEFT knows only the rank of all slices together
                down *= len(site.slices)
        if site.columns is not None:
            masks[names[id(down)]] = _held(down, site.columns.expand(down.shape), zero=True)
        if site.slices:
            masks[names[id(up)]] = _held(up, _blocks(site.slices, up.shape[1]), zero=True)
        elif site.rows is not None:
            masks[names[id(up)]] = _held(up, site.rows[:, None].expand(up.shape), zero=True)
        if site.rows is not None and lora.variant == "dora":
            length = module.lora_magnitude_vector[NAME].weight
            masks[names[id(length)]] = _held(length, site.rows, zero=False)
    return masks


def _blocks(slices: Sequence[Tensor], width: int) -> Tensor:
    """Return which entries of B belong to a slice's own rows and its own part of the rank."""
    each = width // len(slices)
    return torch.cat([rows[:, None].expand(-1, each) for rows in slices], dim=1)


def _held(parameter: nn.Parameter, mask: Tensor, *, zero: bool) -> Tensor:
    mask = mask.to(parameter.device).contiguous()
    if zero:
        with torch.no_grad():
            parameter.masked_fill_(~mask, 0)
    if parameter.requires_grad:
        parameter.register_hook(lambda gradient: gradient.masked_fill(~mask, 0))
    return mask


def _adapter_of(wrapped: Any) -> dict[str, nn.Parameter]:
    return {name: one for name, one in wrapped.named_parameters() if ".lora_" in name}


@contextmanager
def _seeded(seed: int, model: nn.Module) -> Iterator[None]:
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # PEFT asks transformers for something by its older name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        # It sees by itself which modules keep their weights as (in, out), where a model has both kinds.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)
        yield
