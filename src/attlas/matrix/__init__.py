"""The attention matrix as a lazy operator: exact in every entry, linear in memory, asked and not held."""

from attlas.matrix.bias import ALiBi, RelativeBias
from attlas.matrix.blends import HeadMean, RowNormalised, Scaled, WithIdentity
from attlas.matrix.chain import Chain
from attlas.matrix.columns import Received
from attlas.matrix.comparing import Compare
from attlas.matrix.contributions import Contributions
from attlas.matrix.elementwise import Difference, Positive, Product
from attlas.matrix.gradient import AttentionGradient
from attlas.matrix.gram import GramNorm
from attlas.matrix.operator import AttentionOperator, Reader, Tile
from attlas.matrix.pausing import Pause
from attlas.matrix.pooling import Pool, PoolCells
from attlas.matrix.products import Apply, ApplyTransposed
from attlas.matrix.proximity import Proximity
from attlas.matrix.questions import Question, ask
from attlas.matrix.rows import Distance, Entropy, Mass, TopK
from attlas.matrix.sharing import ReceivedOfProducts
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.transposed import Transposed
from attlas.matrix.visibility import Selection, Visibility
from attlas.matrix.withholding import without_keys

__all__ = [
    "ALiBi",
    "Apply",
    "ApplyTransposed",
    "AttentionGradient",
    "AttentionMatrix",
    "AttentionOperator",
    "Chain",
    "Compare",
    "Contributions",
    "Difference",
    "Distance",
    "Entropy",
    "GramNorm",
    "HeadMean",
    "Mass",
    "Pause",
    "Pool",
    "PoolCells",
    "Positive",
    "Product",
    "Proximity",
    "Question",
    "Reader",
    "Received",
    "ReceivedOfProducts",
    "RelativeBias",
    "RowNormalised",
    "Scaled",
    "Selection",
    "Tile",
    "TopK",
    "Transposed",
    "Visibility",
    "WithIdentity",
    "ask",
    "without_keys",
]
