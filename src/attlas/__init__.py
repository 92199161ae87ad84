"""attlas, an atlas of attention: the two kinds of matrices in a transformer, held lazily and asked exactly.

Every public name is listed here and resolved on first use, so that `import attlas` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attlas import nn as nn
    from attlas import patterns as patterns
    from attlas import training as training
    from attlas.capture import Capture as Capture
    from attlas.capture import LanguageModel as LanguageModel
    from attlas.capture import ablate as ablate
    from attlas.capture import capture as capture
    from attlas.capture import load as load
    from attlas.capture import open_capture as open_capture
    from attlas.compare import Comparison as Comparison
    from attlas.compare import compare as compare
    from attlas.errors import ArgumentError as ArgumentError
    from attlas.errors import AttlasError as AttlasError
    from attlas.errors import CaptureError as CaptureError
    from attlas.errors import DocumentError as DocumentError
    from attlas.errors import MissingPackageError as MissingPackageError
    from attlas.errors import ModelNotFound as ModelNotFound
    from attlas.errors import NonFiniteError as NonFiniteError
    from attlas.errors import StoreError as StoreError
    from attlas.errors import TooDense as TooDense
    from attlas.errors import UnsupportedModelError as UnsupportedModelError
    from attlas.explain import Attribution as Attribution
    from attlas.explain import Target as Target
    from attlas.explain import explain as explain
    from attlas.explain.faithfulness import Faithfulness as Faithfulness
    from attlas.explain.faithfulness import faithfulness as faithfulness
    from attlas.heads import HeadTable as HeadTable
    from attlas.heads import heads as heads
    from attlas.matrix import AttentionMatrix as AttentionMatrix
    from attlas.matrix import AttentionOperator as AttentionOperator
    from attlas.planning import Plan as Plan
    from attlas.planning import open_plan as open_plan
    from attlas.planning.evaluating import evaluate as evaluate
    from attlas.planning.evaluation import Evaluation as Evaluation
    from attlas.planning.profile import Profile as Profile
    from attlas.planning.profile_file import open_profile as open_profile
    from attlas.planning.profiling import profile as profile
    from attlas.projections import LowRank as LowRank
    from attlas.projections import Projections as Projections
    from attlas.projections import projections as projections

__version__ = "0.1.0"

# public name -> the module that holds it
_HOMES = {
    "AttentionMatrix": "attlas.matrix",
    "AttentionOperator": "attlas.matrix",
    "Capture": "attlas.capture",
    "LanguageModel": "attlas.capture",
    "ablate": "attlas.capture",
    "capture": "attlas.capture",
    "load": "attlas.capture",
    "open_capture": "attlas.capture",
    "Comparison": "attlas.compare",
    "compare": "attlas.compare",
    "Attribution": "attlas.explain",
    "Target": "attlas.explain",
    "explain": "attlas.explain",
    "Faithfulness": "attlas.explain.faithfulness",
    "faithfulness": "attlas.explain.faithfulness",
    "HeadTable": "attlas.heads",
    "heads": "attlas.heads",
    "nn": "attlas.nn",
    "patterns": "attlas.patterns",
    "Evaluation": "attlas.planning.evaluation",
    "Plan": "attlas.planning",
    "Profile": "attlas.planning.profile",
    "evaluate": "attlas.planning.evaluating",
    "open_plan": "attlas.planning",
    "open_profile": "attlas.planning.profile_file",
    "profile": "attlas.planning.profiling",
    "LowRank": "attlas.projections",
    "Projections": "attlas.projections",
    "projections": "attlas.projections",
    "training": "attlas.training",
    "ArgumentError": "attlas.errors",
    "AttlasError": "attlas.errors",
    "CaptureError": "attlas.errors",
    "DocumentError": "attlas.errors",
    "MissingPackageError": "attlas.errors",
    "ModelNotFound": "attlas.errors",
    "NonFiniteError": "attlas.errors",
    "StoreError": "attlas.errors",
    "TooDense": "attlas.errors",
    "UnsupportedModelError": "attlas.errors",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'attlas' has no attribute {name!r}; its public names are {', '.join(sorted(_HOMES))}"
        )
    home = import_module(_HOMES[name])
    # A room (attlas.patterns) has just bound itself as the attribute; one that is also a verb can be called as it is.
    value = globals().get(name) or getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
