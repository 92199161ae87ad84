"""The attention matrix as a lazy operator: exact in every entry, linear in memory, asked and not held."""

from attlas.matrix.bias import ALiBi, RelativeBias
from attlas.matrix.columns import Received
from attlas.matrix.comparing import Compare
from attlas.matrix.operator import AttentionOperator, Reader, Tile
from attlas.matrix.pooling import Pool
from attlas.matrix.products import Apply, ApplyTransposed
from attlas.matrix.questions import Question, ask
from attlas.matrix.rows import Distance, Entropy, Mass, TopK
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.transposed import Transposed
from attlas.matrix.visibility import Visibility

__all__ = [
    "ALiBi",
    "Apply",
    "ApplyTransposed",
    "AttentionMatrix",
    "AttentionOperator",
    "Compare",
    "Distance",
    "Entropy",
    "Mass",
    "Pool",
    "Question",
    "Reader",
    "Received",
    "RelativeBias",
    "Tile",
    "TopK",
    "Transposed",
    "Visibility",
    "ask",
]
