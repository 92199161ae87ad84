"""What is adapted, how, and for how long: three records of choices, each of which refuses what cannot be meant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from attlas.errors import ArgumentError, complaint

ATTENTION = ("query", "key", "value", "output")
MLP = ("gate", "up", "down")
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"attention": ATTENTION, "mlp": ("mlp",), "all": (*ATTENTION, "mlp")}
)
VARIANTS = ("lora", "rslora", "dora")
DECAYS = ("cosine", "linear", "constant")

INITS = ("default", "gaussian", "orthogonal", "mica", "eva", "pissa", "olora", "lora_ga")
"""Initialisations by PEFT's names; ``pissa_niter_N`` is one too."""

CHANGING_INITS = ("pissa", "olora", "lora_ga")
"""Those that take out of the base weights what they put into the adapter."""

DATA_INITS = ("eva", "lora_ga")
"""Those that look at data first."""

_NOT_HERE = {
    "loftq": "makes up for a quantised model's error, and here models are not quantised",
    "corda": "needs covariances of a second set of texts, which are not gathered here",
}


@dataclass(frozen=True)
class Targets:
    """Which of a model's weights are adapted.

    Parameters
    ----------
    projections : sequence of str
        Of query, key, value, output, gate, up and down; groups of them (attention, mlp, all); or names of modules,
        whole (``"model.layers.3.self_attn.q_proj"``) or their last parts (``"q_proj"``). Where a module holds several
        projections, only the rows of those named are adapted. ``mlp`` is every linear module of a block outside of its
        attention.
    layers : sequence of int, optional
        Only these, by a capture's numbers; all by default.
    heads : sequence of (layer, head), optional
        Of the attention's projections, only these query heads, with the key and value heads that they use; all by
        default. The modules of the MLP, and modules named by themselves, have no heads and are not narrowed by it.
    separate : bool
        Whether queries, keys and values that share a module get a matrix A each, rather than one for all.

    Raises
    ------
    ArgumentError
        One of them is not of its kind.
    """

    projections: Sequence[str] = ("query", "value")
    layers: Sequence[int] | None = None
    heads: Sequence[tuple[int, int]] | None = None
    separate: bool = False

    def __post_init__(self) -> None:
        given: Any = self.projections
        names = (given,) if isinstance(given, str) else tuple(given)
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ArgumentError(complaint("projections", wanted="names, such as query and value", got=repr(given)))
        object.__setattr__(self, "projections", names)
        if self.layers is not None:
            layers = tuple(self.layers)
            if not layers or not all(_natural(layer) for layer in layers):
                raise ArgumentError(complaint("layers", wanted="numbers from 0 on", got=repr(self.layers)))
            object.__setattr__(self, "layers", tuple(sorted(set(layers))))
        if self.heads is not None:
            object.__setattr__(self, "heads", _pairs(self.heads, self.layers))

    def as_dict(self) -> dict[str, Any]:
        """Return the choices as plain types that JSON can hold."""
        return {
            "projections": list(self.projections),
            "layers": None if self.layers is None else list(self.layers),
            "heads": None if self.heads is None else [list(pair) for pair in self.heads],
            "separate": self.separate,
        }


@dataclass(frozen=True)
class LoraSettings:
    """What is put beside each weight.

    A weight W, (out, in), becomes W + (alpha / rank)·B·A with A (rank, in) and B (out, rank) [1]_.

    Parameters
    ----------
    rank : int
        Of each product B·A; with `Targets.separate`, of each slice's.
    alpha : float
        The product is multiplied with alpha / rank. Where `ranks` gives a module another rank, its alpha is changed in
        proportion, so that what it is multiplied with stays that of the others.
    dropout : float
        Share of a module's inputs that the adapter does not see in a step of training.
    variant : {"lora", "rslora", "dora"}
        "rslora" multiplies with alpha / √rank [2]_; "dora" learns the length of each row of the sum beside it [3]_.
    init : str
        One of PEFT's: default, gaussian, orthogonal, mica, eva, pissa, pissa_niter_N, olora, lora_ga.
    ranks : mapping of str to int, optional
        Whole name of a module -> its rank in the place of `rank`; 0 leaves the module out.

    Raises
    ------
    ArgumentError
        One of them is not of its kind.

    References
    ----------
    .. [1] Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685.
    .. [2] Kalajdzievski 2023, A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA, arXiv:2312.03732.
    .. [3] Liu et al. 2024, DoRA: Weight-Decomposed Low-Rank Adaptation, arXiv:2402.09353.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    variant: str = "lora"
    init: str = "default"
    ranks: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        _check("rank", _natural(self.rank) and self.rank > 0, "a whole number from 1 on", self.rank)
        _check("alpha", _number(self.alpha) and self.alpha > 0, "a number above 0", self.alpha)
        _check("dropout", _number(self.dropout) and 0 <= self.dropout < 1, "a share from 0 to below 1", self.dropout)
        _check("variant", self.variant in VARIANTS, f"one of {', '.join(VARIANTS)}", self.variant)
        if self.init in _NOT_HERE:
            raise ArgumentError(
                complaint(
                    "init", wanted=f"one of {', '.join(INITS)}", got=f"{self.init!r}, which {_NOT_HERE[self.init]}"
                )
            )
        _check("init", self.init in INITS or _fast_pissa(self.init), f"one of {', '.join(INITS)}", self.init)
        if self.ranks is not None:
            for name, rank in self.ranks.items():
                _check(f"ranks[{name!r}]", _natural(rank), "a whole number from 0 on", rank)
            object.__setattr__(self, "ranks", MappingProxyType(dict(self.ranks)))

    @property
    def changes_base(self) -> bool:
        """Whether the initialisation takes out of the base weights what it puts into the adapter."""
        return self.init.startswith(CHANGING_INITS)

    @property
    def needs_data(self) -> bool:
        """Whether the initialisation looks at data first."""
        return self.init in DATA_INITS

    def as_dict(self) -> dict[str, Any]:
        """Return the choices as plain types that JSON can hold."""
        return {
            "rank": self.rank,
            "alpha": self.alpha,
            "dropout": self.dropout,
            "variant": self.variant,
            "init": self.init,
            "ranks": None if self.ranks is None else dict(self.ranks),
        }


@dataclass(frozen=True)
class TrainingSettings:
    """How an adapter is trained: AdamW, a warm-up and a decay of the learning rate, gradients cut to a norm.

    Parameters
    ----------
    steps : int
        Of the optimiser.
    batch : int
        Examples a step.
    learning_rate : float
        The highest.
    warmup : float
        The share of the steps in which the learning rate grows, in a straight line.
    decay : {"cosine", "linear", "constant"}
        How it falls afterwards, to 0 at the end.
    weight_decay : float
        AdamW's; of the matrices, not of DoRA's lengths.
    clip : float
        The norm that all gradients together may have.
    length : int
        Tokens of an example at most.
    evaluate_every, save_every : int
        Steps between two looks at the loss on held-out examples, and between two checkpoints; 0 for the end only.
    held_out : float or str
        The share of the examples that are kept for evaluation, drawn by the seed, or a file of them; 0 for none.
    seed : int
        Of everything that is drawn: the split, the order, the adapter's first values, dropout.

    Raises
    ------
    ArgumentError
        One of them is not of its kind.
    """

    steps: int = 200
    batch: int = 8
    learning_rate: float = 2e-4
    warmup: float = 0.05
    decay: str = "cosine"
    weight_decay: float = 0.0
    clip: float = 1.0
    length: int = 512
    evaluate_every: int = 50
    save_every: int = 50
    held_out: float | str = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            value = getattr(self, name)
            _check(name, _natural(value) and value > 0, "a whole number from 1 on", value)
        for name in ("evaluate_every", "save_every", "seed"):
            value = getattr(self, name)
            _check(name, _natural(value), "a whole number from 0 on", value)
        _check("length", _natural(self.length) and self.length > 1, "2 tokens at least", self.length)
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            _check(name, _number(value) and value > 0, "a number above 0", value)
        decays = _number(self.weight_decay) and self.weight_decay >= 0
        _check("weight_decay", decays, "a number from 0 on", self.weight_decay)
        _check("warmup", _number(self.warmup) and 0 <= self.warmup <= 1, "a share from 0 to 1", self.warmup)
        _check("decay", self.decay in DECAYS, f"one of {', '.join(DECAYS)}", self.decay)
        held: Any = self.held_out
        share = _number(held) and 0 <= held < 1
        _check("held_out", share or (isinstance(held, str) and held), "a share from 0 to below 1, or a file", held)

    def as_dict(self) -> dict[str, Any]:
        """Return the choices as plain types that JSON can hold."""
        return asdict(self)


def _pairs(heads: Any, layers: Sequence[int] | None) -> tuple[tuple[int, int], ...]:
    found = []
    for pair in heads:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(_natural(number) for number in pair)):
            raise ArgumentError(complaint("heads", wanted="pairs (layer, head) of numbers from 0 on", got=repr(pair)))
        if layers is not None and pair[0] not in layers:
            raise ArgumentError(
                complaint("heads", wanted=f"heads of the layers {', '.join(map(str, layers))}", got=tuple(pair))
            )
        found.append((pair[0], pair[1]))
    if not found:
        raise ArgumentError(complaint("heads", wanted="at least one pair (layer, head), or None", got="none"))
    return tuple(sorted(set(found)))


def _check(name: str, right: object, wanted: str, got: object) -> None:
    if not right:
        raise ArgumentError(complaint(name, wanted=wanted, got=repr(got)))


def _natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _fast_pissa(init: str) -> bool:
    return init.startswith("pissa_niter_") and init.removeprefix("pissa_niter_").isdecimal()
