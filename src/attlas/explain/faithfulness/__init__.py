"""How far an explanation can be trusted: measured by taking away what it marks, against chance and plain positions."""

from attlas.explain.faithfulness.measuring import faithfulness
from attlas.explain.faithfulness.patterns import PatternTests, pattern_tests
from attlas.explain.faithfulness.record import Curve, Faithfulness, Measured

__all__ = ["Curve", "Faithfulness", "Measured", "PatternTests", "faithfulness", "pattern_tests"]
