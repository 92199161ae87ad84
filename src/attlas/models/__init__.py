"""Open a model and its tokenizer, safely, and know what is in it; read a text and cut it into tokens.

Nothing in a model's folder decides which code runs: configurations are scrubbed, weights are safetensors, and what
computes attention is set by the caller and checked afterwards (`opening`). Names are resolved on first use, because the
command line lists models without needing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attlas.models.document import Document as Document
    from attlas.models.document import check_length as check_length
    from attlas.models.document import chunks as chunks
    from attlas.models.document import read_text as read_text
    from attlas.models.document import tokenize as tokenize
    from attlas.models.facts import Facts as Facts
    from attlas.models.opening import Opened as Opened
    from attlas.models.opening import open_model as open_model

# public name -> the module that holds it
_HOMES = {
    "Document": "attlas.models.document",
    "check_length": "attlas.models.document",
    "chunks": "attlas.models.document",
    "read_text": "attlas.models.document",
    "tokenize": "attlas.models.document",
    "Facts": "attlas.models.facts",
    "Opened": "attlas.models.opening",
    "open_model": "attlas.models.opening",
}

__all__ = ["Document", "Facts", "Opened", "check_length", "chunks", "open_model", "read_text", "tokenize"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'attlas.models' has no attribute {name!r}; its names are {', '.join(sorted(_HOMES))}"
        )
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
