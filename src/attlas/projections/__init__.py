"""The projection matrices of a model, head by head: what each head looks for, what it passes on, and the proof."""

from attlas._rooms import make_callable
from attlas.projections.counting import ParameterCounts
from attlas.projections.low_rank import LowRank
from attlas.projections.rotation import Rotation
from attlas.projections.views import HeadNorm, HeadProjections, LayerProjections, Norm
from attlas.projections.whole import Projections, projections

__all__ = [
    "HeadNorm",
    "HeadProjections",
    "LayerProjections",
    "LowRank",
    "Norm",
    "ParameterCounts",
    "Projections",
    "Rotation",
    "projections",
]

make_callable(__name__, projections)
