"""What attlas tests itself with, for those who write a kind of matrix of their own."""

from attlas.testing.contract import check_operator
from attlas.testing.guards import DenseAllocationError, no_dense
from attlas.testing.tolerances import assert_as_exact_as

__all__ = ["DenseAllocationError", "assert_as_exact_as", "check_operator", "no_dense"]
