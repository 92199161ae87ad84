"""Teach a model something new by small matrices beside its weights (LoRA), aimed at projections, layers and heads.

The adapters are PEFT's: this room is the only one that knows PEFT, an optional extra (``pip install 'attlas[lora]'``),
and what it saves is a standard adapter. Names are resolved on first use, because the command line shows its help
without needing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attlas.training.adapter_files import save_adapter as save_adapter
    from attlas.training.adapting import Adapted as Adapted
    from attlas.training.adapting import adapt as adapt
    from attlas.training.advice import Advice as Advice
    from attlas.training.advice_file import open_advice as open_advice
    from attlas.training.advising import advise as advise
    from attlas.training.examples import Example as Example
    from attlas.training.examples import Examples as Examples
    from attlas.training.examples import examples_of as examples_of
    from attlas.training.fitting import Course as Course
    from attlas.training.fitting import fit as fit
    from attlas.training.merging import Merged as Merged
    from attlas.training.merging import MergedModule as MergedModule
    from attlas.training.merging import Unmerged as Unmerged
    from attlas.training.merging import UnmergedModule as UnmergedModule
    from attlas.training.merging import merge as merge
    from attlas.training.merging import unmerge as unmerge
    from attlas.training.settings import LoraSettings as LoraSettings
    from attlas.training.settings import Targets as Targets
    from attlas.training.settings import TrainingSettings as TrainingSettings
    from attlas.training.sites import Site as Site
    from attlas.training.training import Trained as Trained
    from attlas.training.training import train as train

# public name -> the module that holds it
_HOMES = {
    "save_adapter": "attlas.training.adapter_files",
    "Adapted": "attlas.training.adapting",
    "adapt": "attlas.training.adapting",
    "Advice": "attlas.training.advice",
    "open_advice": "attlas.training.advice_file",
    "advise": "attlas.training.advising",
    "Example": "attlas.training.examples",
    "Examples": "attlas.training.examples",
    "examples_of": "attlas.training.examples",
    "Course": "attlas.training.fitting",
    "fit": "attlas.training.fitting",
    "Merged": "attlas.training.merging",
    "MergedModule": "attlas.training.merging",
    "Unmerged": "attlas.training.merging",
    "UnmergedModule": "attlas.training.merging",
    "merge": "attlas.training.merging",
    "unmerge": "attlas.training.merging",
    "LoraSettings": "attlas.training.settings",
    "Targets": "attlas.training.settings",
    "TrainingSettings": "attlas.training.settings",
    "Site": "attlas.training.sites",
    "Trained": "attlas.training.training",
    "train": "attlas.training.training",
}

__all__ = [
    "Adapted",
    "Advice",
    "Course",
    "Example",
    "Examples",
    "LoraSettings",
    "Merged",
    "MergedModule",
    "Site",
    "Targets",
    "Trained",
    "TrainingSettings",
    "Unmerged",
    "UnmergedModule",
    "adapt",
    "advise",
    "examples_of",
    "fit",
    "merge",
    "open_advice",
    "save_adapter",
    "train",
    "unmerge",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'attlas.training' has no attribute {name!r}; its names are {', '.join(sorted(_HOMES))}"
        )
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
