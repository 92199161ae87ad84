"""What a fine-tune or an adapter changed: in the weights, in the attention matrices on a text, and which heads matter.

The room is also the verb: ``attlas.compare(base, tuned, text)``.
"""

from attlas._rooms import make_callable
from attlas.compare.columns import HEAD_COLUMNS, MODULE_COLUMNS, PLACES
from attlas.compare.comparing import compare
from attlas.compare.comparison import Comparison
from attlas.compare.records import CircuitChange, LayerChange, LayerMoved, ModuleTable, Moved, Restored

__all__ = [
    "HEAD_COLUMNS",
    "MODULE_COLUMNS",
    "PLACES",
    "CircuitChange",
    "Comparison",
    "LayerChange",
    "LayerMoved",
    "ModuleTable",
    "Moved",
    "Restored",
    "compare",
]

make_callable(__name__, compare)
