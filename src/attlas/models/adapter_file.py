"""An adapter's folder, read without PEFT and without running anything from it.

Only two files are opened: `adapter_config.json`, of which a few entries are understood, and
`adapter_model.safetensors`, which holds nothing but numbers. What would change a model's output in a way that is not
understood is refused by its name, because leaving it out in silence would describe another model.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from attlas.errors import ModelNotFound, NonFiniteError, StoreError, UnsupportedModelError, complaint

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

LARGEST_CONFIG = 2**20
"""Bytes of a configuration."""
LARGEST_WEIGHTS = 2**34
"""Bytes of the weights: more than LoRA of the largest models takes."""
MOST_TENSORS = 100_000
LARGEST_SIDE = 2**20
"""Rows or columns of a factor."""

_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "pytorch_model.bin")
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(?P<module>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_magnitude_vector(?:\.weight)?)")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

_NEUTRAL = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
"""Entries that say how an adapter was trained or placed, which its tensors say better."""
_UNDERSTOOD = frozenset(
    {
        "alpha_pattern",
        "bias",
        "fan_in_fan_out",
        "init_lora_weights",
        "lora_alpha",
        "peft_type",
        "r",
        "rank_pattern",
        "use_dora",
        "use_rslora",
    }
)
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that take a part of the base's own weights away, so that the adapter is none for the base itself."""


@dataclass(frozen=True, eq=False)
class AdapterPart:
    """What an adapter adds to one module's weight W, as an (out, in) matrix whatever way the module keeps it.

    LoRA adds ``scaling · up @ down`` (Hu et al. 2021). With a magnitude m (DoRA, Liu et al. 2024) the tuned weight is
    ``m · V / ‖V‖`` with ``V = W + scaling · up @ down``, the norm being that of each row.

    Parameters
    ----------
    name : str
        The module in the base.
    down : Tensor, (rank, in)
    up : Tensor, (out, rank)
    scaling : float
    magnitude : Tensor, (out,), optional
    """

    name: str
    down: Tensor
    up: Tensor
    scaling: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        """The rank that it was trained with."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight that it changes."""
        return self.up.shape[0], self.down.shape[1]

    def change(self, weight: Tensor) -> Tensor:
        """Return ΔW, (out, in), of a weight W; in its dtype, which should be float64, and on its device."""
        added = (self.up.to(weight) * self.scaling) @ self.down.to(weight)
        if self.magnitude is None:
            return added
        moved = weight + added
        factor = self.magnitude.to(weight) / moved.norm(dim=1)
        return factor[:, None] * moved - weight


@dataclass(frozen=True, eq=False)
class AdapterFile:
    """A LoRA adapter as it lies in a folder.

    Parameters
    ----------
    name : str
        The folder.
    base_name : str
        The model that it says it was trained on; empty if it does not say.
    variant : {"lora", "rslora", "dora"}
        Whether scalings are ``alpha / rank`` or ``alpha / √rank``, and whether there are magnitudes.
    parts : mapping
        Module -> what is added to its weight.
    fingerprint : str
        16 hex digits of both files' content.
    """

    name: str
    base_name: str
    variant: str
    parts: Mapping[str, AdapterPart] = field(repr=False)
    fingerprint: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", MappingProxyType(dict(self.parts)))

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that occur, ascending."""
        return tuple(sorted({part.rank for part in self.parts.values()}))


def is_adapter(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder holds an adapter's configuration."""
    return (Path(folder).expanduser() / CONFIG).is_file()


def open_adapter(folder: str | os.PathLike[str]) -> AdapterFile:
    """Read a LoRA adapter from its folder, as PEFT saves it.

    Parameters
    ----------
    folder : str or path

    Returns
    -------
    AdapterFile
        With its factors on the CPU, in the dtype in which they are kept.

    Raises
    ------
    ModelNotFound
        The folder, its configuration or its safetensors weights are not there. A pickle is named and never opened.
    StoreError
        A file is damaged, too large, or does not fit the other.
    UnsupportedModelError
        The adapter does something that is not understood: it is named.
    NonFiniteError
        A factor holds NaN or infinity.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ModelNotFound(complaint("adapter", wanted=f"a folder with {CONFIG} and {WEIGHTS}", got=str(path)))
    raw, config = _config(path)
    _check_config(path, config)
    weights = _weights(path)
    tensors, digest = _tensors(weights)
    dora = bool(config.get("use_dora"))
    parts = {}
    for name, found in sorted(tensors.items()):
        parts[name] = _part(path, name, found, config, dora)
    variant = "dora" if dora else "rslora" if config.get("use_rslora") else "lora"
    base = config.get("base_model_name_or_path")
    fingerprint = hashlib.sha256(raw + digest).hexdigest()[:16]
    return AdapterFile(str(path), base if isinstance(base, str) else "", variant, parts, fingerprint)


# ---- the configuration


def _config(folder: Path) -> tuple[bytes, dict[str, Any]]:
    path = folder / CONFIG
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_CONFIG + 1)
    except FileNotFoundError as error:
        raise ModelNotFound(f"{folder}: wanted an adapter's folder with {CONFIG}, found no such file in it") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    if len(raw) > LARGEST_CONFIG:
        raise StoreError(f"{path}: wanted at most {LARGEST_CONFIG:,} bytes, got more; it is no adapter's configuration")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: wanted JSON, which it is not ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: wanted a JSON object, got a {type(content).__name__}")
    return raw, content


def _check_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what is not understood, by its name."""
    path = folder / CONFIG
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedModelError(
            f"{path}: peft_type: wanted LORA (LoRA, rsLoRA or DoRA), got {_shown(kind)}; "
            "merge the adapter into its base with PEFT, and compare that as a model"
        )
    if config.get("bias", "none") != "none":
        raise _unknown(path, "bias", config["bias"], "trains biases beside its factors")
    if config.get("modules_to_save"):
        raise _unknown(path, "modules_to_save", config["modules_to_save"], "replaces whole modules")
    for name, value in config.items():
        if name not in _NEUTRAL and name not in _UNDERSTOOD and value:
            raise _unknown(path, name, value, "may change what the adapter computes")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise UnsupportedModelError(
            f"{path}: init_lora_weights={_shown(start)} takes a part out of the base's weights, so this adapter is "
            "none for the base as it is; save it with PEFT's path_initial_model_for_weight_conversion"
        )


def _unknown(path: Path, name: str, value: object, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{path}: {_shown(name)}: wanted an adapter without it, got {_shown(value)}, which {why}; "
        "merge the adapter into its base with PEFT, and compare that as a model"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


# ---- the weights


def _weights(folder: Path) -> Path:
    path = folder / WEIGHTS
    if not path.is_file():
        pickles = [name for name in _PICKLES if (folder / name).is_file()]
        if pickles:
            raise ModelNotFound(
                f"{folder}: wanted {WEIGHTS}, found only {pickles[0]}, whose format can run code when it is opened; "
                "save it with safetensors where you trust it (PEFT: safe_serialization=True)"
            )
        raise ModelNotFound(f"{folder}: wanted {WEIGHTS}, found no such file in it")
    size = path.stat().st_size
    if size > LARGEST_WEIGHTS:
        raise StoreError(f"{path}: wanted at most {LARGEST_WEIGHTS:,} bytes of an adapter, got {size:,}")
    return path


def _tensors(path: Path) -> tuple[dict[str, dict[str, Tensor]], bytes]:
    """Return each module's tensors, and a digest of all of them."""
    found: dict[str, dict[str, Tensor]] = {}
    digest = hashlib.sha256()
    try:
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
            if not names:
                raise StoreError(f"{path}: wanted an adapter's tensors, found none")
            if len(names) > MOST_TENSORS:
                raise StoreError(f"{path}: wanted at most {MOST_TENSORS:,} tensors, got {len(names):,}")
            for name in names:
                module, part = _place(path, name)
                shape = file.get_slice(name).get_shape()
                _check_shape(path, name, part, shape)
                tensor = file.get_tensor(name)
                digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
                found.setdefault(module, {})[part] = _checked(path, name, tensor)
    except SafetensorError as error:
        raise StoreError(f"{path}: not a whole safetensors file ({_first_line(error)})") from error
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
    return found, digest.digest()


def _place(path: Path, name: str) -> tuple[str, str]:
    """Return which module a tensor belongs to, and as what."""
    at = _TENSOR.fullmatch(name.removeprefix(_PREFIX))
    if at is None:
        what = "LoRA of an embedding" if "lora_embedding" in name else "no factor of a linear map"
        raise UnsupportedModelError(
            f"{path}: {_shown(name)} is {what}; wanted lora_A.weight, lora_B.weight and magnitude vectors only; "
            "merge the adapter into its base with PEFT, and compare that as a model"
        )
    part = {"lora_A.weight": "down", "lora_B.weight": "up"}.get(at["part"], "magnitude")
    return at["module"], part


def _check_shape(path: Path, name: str, part: str, shape: list[int]) -> None:
    if part == "magnitude":
        # PEFT keeps it as one row in some versions.
        fits = len(shape) in (1, 2) and math.prod(shape) == max(shape)
    else:
        fits = len(shape) == 2
    if not fits or not all(1 <= side <= LARGEST_SIDE for side in shape):
        wanted = "a vector" if part == "magnitude" else f"two axes of 1 to {LARGEST_SIDE:,}"
        raise UnsupportedModelError(f"{path}: {_shown(name)}: wanted {wanted}, got shape {tuple(shape)}")


def _checked(path: Path, name: str, tensor: Tensor) -> Tensor:
    if tensor.dtype not in _FLOATS:
        raise UnsupportedModelError(f"{path}: {_shown(name)}: wanted floating-point numbers, got {tensor.dtype}")
    if not bool(torch.isfinite(tensor).all()):
        raise NonFiniteError(f"{path}: {_shown(name)}: wanted finite numbers, got NaN or infinity")
    return tensor


def _part(folder: Path, name: str, found: Mapping[str, Tensor], config: Mapping[str, Any], dora: bool) -> AdapterPart:
    wanted = ("down", "up", "magnitude") if dora else ("down", "up")
    missing = [part for part in wanted if part not in found]
    if missing or (not dora and "magnitude" in found):
        what = f"no {missing[0]} factor" if missing else "a magnitude although use_dora is off"
        raise StoreError(f"{folder}: {name}: wanted {' and '.join(wanted)}, got {what}; its two files do not fit")
    down, up, magnitude = found["down"], found["up"], found.get("magnitude")
    rank = down.shape[0]
    if up.shape[1] != rank:
        raise StoreError(f"{folder}: {name}: wanted factors of one rank, got {rank} and {up.shape[1]}")
    if rank > min(up.shape[0], down.shape[1]):
        raise StoreError(
            f"{folder}: {name}: wanted a rank of at most {min(up.shape[0], down.shape[1])}, the smaller side of its "
            f"{up.shape[0]} × {down.shape[1]} matrix, got {rank}"
        )
    if magnitude is not None:
        magnitude = magnitude.flatten()
        if len(magnitude) != up.shape[0]:
            raise StoreError(f"{folder}: {name}: wanted {up.shape[0]} magnitudes, got {len(magnitude)}")
    stated = _of_pattern(folder, config, "rank_pattern", name, config.get("r", rank))
    if stated != rank:
        raise StoreError(f"{folder}: {name}: wanted rank {stated}, as {CONFIG} says, got {rank} in {WEIGHTS}")
    alpha = _of_pattern(folder, config, "alpha_pattern", name, config.get("lora_alpha", rank))
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return AdapterPart(name, down, up, scaling, magnitude)


def _of_pattern(folder: Path, config: Mapping[str, Any], entry: str, name: str, default: object) -> float:
    """Return a module's own rank or alpha, or the one that holds for all."""
    patterns = config.get(entry) or {}
    if not isinstance(patterns, dict):
        raise StoreError(f"{folder / CONFIG}: {entry}: wanted an object, got a {type(patterns).__name__}")
    value = default
    for pattern, own in patterns.items():
        if _matches(folder, entry, pattern, name):
            value = own
            break
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StoreError(f"{folder / CONFIG}: {entry} of {name}: wanted a number, got {_shown(value)}")
    return value


_LONGEST_PATTERN = 512


def _matches(folder: Path, entry: str, pattern: str, name: str) -> bool:
    """Tell whether a pattern means a module, as PEFT does: at the end of its name, behind a dot or nothing."""
    plain = pattern.removeprefix("^")
    if re.fullmatch(r"[\w.\-]*", plain, re.ASCII):
        # By far the most: a name, whose dots mean dots.
        return name == plain or (plain == pattern and name.endswith(f".{plain}"))
    # Nested repetitions can take forever, and the file is a stranger's.
    repeated = len(re.findall(r"[*+{]", pattern))
    if len(pattern) > _LONGEST_PATTERN or repeated > 2 or re.search(r"\)\s*[*+{]", pattern):
        raise UnsupportedModelError(
            f"{folder / CONFIG}: {entry}: wanted names of modules, or patterns with at most two repetitions, none of "
            f"them of a group, got {_shown(pattern)}"
        )
    try:
        return re.match(rf"(?:.*\.)?(?:{pattern})$", name) is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise StoreError(f"{folder / CONFIG}: {entry}: {_shown(pattern)} is no pattern ({error})") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
