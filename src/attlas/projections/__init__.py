"""The projection matrices of a model, head by head: what it looks for, what it passes on, and the proof."""

from attlas._rooms import make_callable
from attlas.projections.composing import Composition, CompositionGraph, composition, composition_graph
from attlas.projections.copy_scores import Copying, copying
from attlas.projections.counting import ParameterCounts
from attlas.projections.kernel import OffsetKernel, offset_kernel
from attlas.projections.low_rank import LowRank
from attlas.projections.rotation import Rotation
from attlas.projections.singular_spectra import Spectra, spectra
from attlas.projections.table import ProjectionTable, projection_table
from attlas.projections.views import HeadNorm, HeadProjections, LayerProjections, Norm
from attlas.projections.vocabulary_circuits import VocabularyCircuit, top_pairs, vocabulary
from attlas.projections.whole import Projections, projections

__all__ = [
    "Composition",
    "CompositionGraph",
    "Copying",
    "HeadNorm",
    "HeadProjections",
    "LayerProjections",
    "LowRank",
    "Norm",
    "OffsetKernel",
    "ParameterCounts",
    "ProjectionTable",
    "Projections",
    "Rotation",
    "Spectra",
    "VocabularyCircuit",
    "composition",
    "composition_graph",
    "copying",
    "offset_kernel",
    "projection_table",
    "projections",
    "spectra",
    "top_pairs",
    "vocabulary",
]

make_callable(__name__, projections)
