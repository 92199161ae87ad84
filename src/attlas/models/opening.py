"""Open a model and its tokenizer from a bundled name, a local folder or a Hugging Face id.

All three end as a folder on this machine, and nothing in that folder decides which code runs: its configuration is
scrubbed, only safetensors weights are read, its own Python files stay unread unless the caller asks for them, and what
computes attention is set by the caller and verified in every part of the model afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from attlas.errors import ArgumentError, ModelNotFound, StoreError, UnsupportedModelError, complaint
from attlas.models import bundled, hub
from attlas.models.attention import check_choice, requested, verify_choice
from attlas.models.configuration import CONFIG, read_config
from attlas.models.facts import Facts, gather_facts
from attlas.models.families import model_class
from attlas.models.progress import Progress
from attlas.models.weights import fingerprint, weight_files

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
)


@dataclass(frozen=True)
class Opened:
    """A model that is ready to run.

    Parameters
    ----------
    model : PreTrainedModel
        In evaluation mode, on the device and in the dtype that were asked for.
    tokenizer : PreTrainedTokenizerBase or None
        None if the folder has none, as with models of images.
    facts : Facts
        What the model is made of.
    attention : str
        What computes its attention, as verified in every part: "sdpa", "eager" …
    """

    model: PreTrainedModel
    tokenizer: Any
    facts: Facts
    attention: str


def open_model(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype | str = torch.float32,
    device: torch.device | str = "cpu",
    attention: str = "sdpa",
    remote_code: bool = False,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Opened:
    """Open a model and its tokenizer.

    Parameters
    ----------
    name : str or path
        A bundled name (``"smollm2-135m"``), a local folder, or a Hugging Face id (``"organisation/name"``), tried in
        this order; write ``./NAME`` for a folder that is called like a bundled model.
    dtype : torch.dtype or str, optional
        What the weights are turned into: float32, bfloat16, float16 or float64.
    device : torch.device or str, optional
        Where the model runs.
    attention : str, optional
        What computes attention. "sdpa" is PyTorch's fused kernel, and "eager" in those parts of a model whose class
        cannot use it; `Opened.attention` says what it came to. Any other name that is registered with transformers on
        this machine is taken at its word.
    remote_code : bool, optional
        Run the Python files that come with the model. Only for a model whose code you have read.
    revision : str, optional
        A branch, tag or commit of a hub id.
    progress : callable, optional
        Called as ``progress(done, total, what)``.

    Returns
    -------
    Opened
        The model, its tokenizer, its facts.

    Raises
    ------
    ArgumentError
        If `dtype`, `device`, `attention` or `revision` is not one that exists here.
    ModelNotFound
        If there is no such model, or it has no safetensors weights; the message says what to do.
    StoreError
        If its files are damaged or incomplete.
    UnsupportedModelError
        If transformers does not know its kind.
    CaptureError
        If something in the model overrules the choice of `attention`.
    """
    wanted_dtype, place = _dtype(dtype), _device(device)
    check_choice(attention)
    folder = _folder(os.fspath(name), revision, remote_code=remote_code, progress=progress)
    config = read_config(folder, remote_code=remote_code)
    files = weight_files(folder)
    print_of_it = fingerprint((folder / CONFIG).read_bytes(), files)
    if progress is not None:
        progress(0, 1, "loading the model")
    with quiet():
        model: Any = _load(folder, config, wanted_dtype, attention, remote_code=remote_code)
        tokenizer = _tokenizer(folder, config, remote_code=remote_code)
    used = verify_choice(model, attention)
    if progress is not None:
        progress(1, 1, "loading the model")
    model.to(place).eval()
    return Opened(model, tokenizer, gather_facts(os.fspath(name), model, print_of_it), used)


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in _DTYPES.values():
        raise ArgumentError(complaint("dtype", wanted=f"one of {', '.join(_DTYPES)}", got=repr(dtype)))
    return found


def _device(device: torch.device | str) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ArgumentError(
            complaint("device", wanted="a device of this machine", got=f"{device!r} ({reason})")
        ) from error
    return place


def _folder(name: str, revision: str | None, *, remote_code: bool, progress: Progress | None) -> Path:
    names = [model.name for model in bundled.catalogue()]
    path = Path(name).expanduser()
    local = name in names or path.is_dir()
    if revision is not None and local:
        raise ArgumentError(
            complaint("revision", wanted="None for a bundled model or a local folder", got=repr(revision))
        )
    if name in names:
        return bundled.ensure(name)
    if path.is_dir():
        return path
    if path.exists():
        raise ModelNotFound(f"{name}: wanted a model's folder, got a file; give the folder that holds {CONFIG}")
    if hub.looks_like_id(name) and not name.startswith("."):
        return hub.fetch(name, revision, remote_code=remote_code, progress=progress)
    raise ModelNotFound(
        complaint(
            "model",
            wanted=f"a bundled model ({', '.join(names)}), a local folder or a Hugging Face id (organisation/name)",
            got=repr(name) + bundled.close_match(name),
        )
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing its own bars and lists; what matters in them is checked in `_load`."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _load(
    folder: Path, config: PreTrainedConfig, dtype: torch.dtype, attention: str, *, remote_code: bool
) -> PreTrainedModel:
    options = {"dtype": dtype, "use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    opener: Any = _remote_class(config) if remote_code and getattr(config, "auto_map", None) else model_class(config)
    try:
        model, report = opener.from_pretrained(
            folder, config=config, attn_implementation=requested(attention), trust_remote_code=remote_code, **options
        )
    except (OSError, RuntimeError, KeyError, SafetensorError) as error:
        raise StoreError(f"{folder}: its weights cannot be loaded ({_first_line(error)})") from error
    except (ValueError, ImportError) as error:
        raise UnsupportedModelError(f"{folder}: transformers cannot open it as asked ({_first_line(error)})") from error
    # A pooler sits behind the last layer, has no part in attention, and is left out of many checkpoints.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise StoreError(
            f"{folder}: the weights lack {len(missing)} tensor{'s' if len(missing) > 1 else ''} that the model needs, "
            f"such as {missing[0]}; they would be random numbers"
        )
    return model


def _remote_class(config: PreTrainedConfig) -> Any:
    import transformers

    for name in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModel"):
        if name in config.auto_map:
            return getattr(transformers, name)
    raise UnsupportedModelError(
        f"{config.name_or_path}: its auto_map names no class that opens it, only {', '.join(config.auto_map)}"
    )


def _tokenizer(folder: Path, config: PreTrainedConfig, *, remote_code: bool) -> Any:
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        return None
    try:
        return AutoTokenizer.from_pretrained(
            folder, config=config, trust_remote_code=remote_code, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise StoreError(f"{folder}: its tokenizer cannot be opened ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
