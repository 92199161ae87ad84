"""Which parts of a text made the model say that, by many methods, each with how far it can be trusted.

The room is also the verb: ``attlas.explain(lm, text)``.
"""

from attlas._rooms import make_callable
from attlas.explain.attribution import Attribution, Span
from attlas.explain.explaining import explain
from attlas.explain.faithfulness import Faithfulness, PatternTests, pattern_tests
from attlas.explain.methods import METHODS, Method
from attlas.explain.spans import spans_of
from attlas.explain.targets import Target

__all__ = [
    "METHODS",
    "Attribution",
    "Faithfulness",
    "Method",
    "PatternTests",
    "Span",
    "Target",
    "explain",
    "pattern_tests",
    "spans_of",
]

make_callable(__name__, explain)
