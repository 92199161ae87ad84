"""A model's configuration, without its power to choose what code runs.

A `config.json` comes from whoever published the model. transformers lets some of its keys decide how attention is
computed, even against the caller's own argument, up to fetching a kernel named ``organisation/name``; others name
Python files to import. None of these says what the model *is*, so they are dropped before transformers sees them, at
every depth.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attlas.errors import ModelNotFound, StoreError, UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CONFIG = "config.json"
CHOOSES_CODE = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_internal",
        "_attn_implementation_autoset",
        "attn_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
        "experts_implementation",
        "auto_map",
        "configuration_files",
        "custom_pipelines",
        "kernel_config",
        "output_attentions",  # would switch to the eager kernel
        "trust_remote_code",
        "use_kernels",
    }
)


def scrub(value: Any) -> Any:
    """Return a JSON value without any key that chooses code, at any depth."""
    if isinstance(value, dict):
        return {key: scrub(inner) for key, inner in value.items() if key not in CHOOSES_CODE}
    if isinstance(value, list):
        return [scrub(inner) for inner in value]
    return value


def read_config(folder: Path, *, remote_code: bool = False) -> PreTrainedConfig:
    """Return a folder's configuration with every choice of attention code removed.

    Parameters
    ----------
    folder : Path
        A folder with a ``config.json``.
    remote_code : bool, optional
        Let the folder's own Python files define the configuration and the model. What computes attention is still not
        theirs to choose by a key.

    Raises
    ------
    ModelNotFound
        If there is no ``config.json``, or it belongs to an adapter.
    StoreError
        If it is not a JSON object.
    UnsupportedModelError
        If it names no kind of model that the installed transformers knows.
    """
    from transformers import AutoConfig

    content = _read(folder)
    if remote_code:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True, local_files_only=True)
    else:
        kind = content.get("model_type")
        if not isinstance(kind, str):
            raise UnsupportedModelError(
                f"{folder / CONFIG}: wanted a model_type that says what kind of model this is, got {kind!r}"
            )
        with tempfile.TemporaryDirectory() as clean:
            # Through a file, so that transformers' own treatment of older configurations still applies.
            (Path(clean) / CONFIG).write_text(json.dumps(scrub(content)), encoding="utf-8")
            try:
                config = AutoConfig.from_pretrained(clean, trust_remote_code=False, local_files_only=True)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise UnsupportedModelError(_no_config(folder, kind, content, error)) from error
        config.name_or_path = str(folder)
    config._attn_implementation = None
    return config


def _read(folder: Path) -> dict[str, Any]:
    if (folder / "adapter_config.json").is_file():
        raise ModelNotFound(f"{folder}: this is an adapter, not a model; open the base model that it was trained on")
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFound(f"{folder}: wanted a model's folder with a {CONFIG}, found no such file in it") from error
    except ValueError as error:
        raise StoreError(f"{folder / CONFIG}: wanted JSON, which it is not ({error})") from error
    if not isinstance(content, dict):
        raise StoreError(f"{folder / CONFIG}: wanted a JSON object, got a {type(content).__name__}")
    return content


def _no_config(folder: Path, kind: str, content: dict[str, Any], error: Exception) -> str:
    import transformers

    if kind in transformers.CONFIG_MAPPING:
        return f"{folder / CONFIG}: not a configuration of kind {kind!r} ({_first_line(error)})"
    way_out = (
        "pass remote_code=True if you have read its code and trust it"
        if "auto_map" in content
        else "a newer transformers may know it"
    )
    return f"{folder / CONFIG}: transformers {transformers.__version__} knows no model of kind {kind!r}; {way_out}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
