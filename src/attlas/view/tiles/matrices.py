"""The names of matrices, and the matrices that they name.

A name is a term, or two of them with ``~`` between, for the difference of the first and the second. A term is
``capture.layer.head``, as in ``a.12.3``; the head ``mean`` is the mean over the layer's heads; and after a colon may
stand a pattern, as in ``a.12.3:sliding_window:width=256``, for what the pattern would make of it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor

from attlas.capture import Capture
from attlas.errors import ArgumentError, complaint
from attlas.matrix import AttentionMatrix, AttentionOperator, Difference, HeadMean
from attlas.matrix.even import even_cells, even_spread, only_by_position, seen_keys
from attlas.matrix.scores import HIDDEN, Scores
from attlas.patterns import Pattern
from attlas.patterns.spelling import spelt
from attlas.view.tiles.grid import Grid, Place

LONGEST_NAME = 512
LARGEST_SETTING = 2**17
"""No setting of a pattern that is asked for by name may be larger, but for the seed of its random numbers."""

MOST_FEATURES = 512
"""Of a pattern that holds as many numbers for each token."""

MOST_BLOCKS = 1024
"""Blocks of keys of a pattern that chooses among all pairs of them."""

REMEMBERED = 12
"""Matrices that are kept ready: what a pattern holds, and the sums of its rows, are not computed for each tile anew."""

_TERM = re.compile(r"([a-z]{1,3})\.([0-9]{1,5})\.([0-9]{1,5}|mean)(?::([^~]{1,200}))?")

Part = TypeVar("Part")


class UnknownMatrix(ArgumentError, LookupError):  # noqa: N818 - named for what it says
    """A name is that of no matrix here."""


@dataclass(frozen=True)
class Term:
    """One matrix of a head.

    Parameters
    ----------
    capture : str
        The capture's name.
    layer : int
    head : int, optional
        The head's number in the model; None for the mean over all that are here.
    pattern : str, optional
        A pattern's spelling.
    """

    capture: str
    layer: int
    head: int | None
    pattern: str | None

    @staticmethod
    def parsed(text: str) -> Term:
        """Return the term that a text is.

        Raises
        ------
        UnknownMatrix
            It is none.
        """
        found = _TERM.fullmatch(text)
        if found is None:
            wanted = "capture.layer.head, as in a.0.0, and if wanted a pattern after a colon"
            raise UnknownMatrix(complaint("matrix", wanted=wanted, got=ascii(text[:80])))
        capture, layer, head, pattern = found.groups()
        return Term(capture, int(layer), None if head == "mean" else int(head), pattern)


class Shown:
    """A matrix of one head, ready to be looked at.

    Parameters
    ----------
    name : str
        Its name, as it was asked for.
    operator : AttentionOperator, (1, 1, n_query, n_key)
    exact : AttentionMatrix, (1, 1, n_query, n_key), optional
        The same, where its entries are the softmax of scores.
    spread : Spread, optional
        What lift is relative to; None for a difference.
    """

    def __init__(
        self, name: str, operator: AttentionOperator, exact: AttentionMatrix | None, spread: Spread | None
    ) -> None:
        self.name = name
        self.operator = operator
        self.exact = exact
        self.spread = spread
        self.grid = Grid(*operator.shape[2:])


class Spread:
    """The even spread over the keys that the heads of a matrix may see, as one head.

    Parameters
    ----------
    matrix : AttentionMatrix, (1, head, n_query, n_key)
        The heads.
    known_as : hashable
        What tells it from others: heads that see the same have it in common.
    """

    def __init__(self, matrix: AttentionMatrix, known_as: tuple[object, ...]) -> None:
        self._even = even_spread(matrix)
        rules = self._even.visibility
        alike = (matrix.shape[2:], rules.causal, rules.window)
        self.known_as = alike if only_by_position(self._even) else known_as

    def cells(self, place: Place) -> Tensor:
        """Return what it puts into each cell of a tile; (cells down, cells across)."""
        return even_cells(self._even, place.cell, place.rows, place.cols)[0].mean(0)

    @cached_property
    def counts(self) -> Tensor:
        """How many keys each query sees, on average over the heads; (n_query,)."""
        return seen_keys(self._even)[0].mean(0)

    def sees(self, row: int, col: int) -> bool:
        """Tell whether a query may see a key, in any of the heads."""
        # An even spread's scores are 0 where a key may be seen: its rows' sums, which cost a pass, are not needed.
        scores = Scores(self._even, self._even.accumulator).tile(slice(row, row + 1), slice(col, col + 1))
        return bool((scores > HIDDEN / 2).any())


class Matrices:
    """Gives the matrices of captures by name.

    Parameters
    ----------
    captures : mapping
        Name -> Capture. Of a batch, the first element is shown.
    """

    def __init__(self, captures: Mapping[str, Capture]) -> None:
        self._captures = dict(captures)
        self._lock = Lock()
        self._known: OrderedDict[str, Shown] = OrderedDict()
        self._layers: dict[tuple[str, int], AttentionMatrix] = {}

    def layer(self, capture: str, number: int) -> AttentionMatrix:
        """Return all heads of a layer, of the first element of the batch.

        Raises
        ------
        UnknownMatrix
            There is no such capture, or no such layer in it.
        """
        cap = self._captures.get(capture)
        if cap is None:
            raise UnknownMatrix(complaint("capture", wanted=" or ".join(self._captures), got=ascii(capture)))
        if number not in cap.layers:
            raise UnknownMatrix(complaint("layer", wanted=f"one of the {len(cap)} captured ones", got=number))
        with self._lock:
            if (capture, number) not in self._layers:
                matrix = cap[number]
                every = slice(0, matrix.shape[1])
                self._layers[capture, number] = matrix if matrix.shape[0] == 1 else matrix.narrow(slice(0, 1), every)
            return self._layers[capture, number]

    def named(self, name: str) -> Shown:
        """Return the matrix of a name.

        Raises
        ------
        UnknownMatrix
            The name is none, or there is no such capture, layer or head.
        ArgumentError
            The pattern does not fit the matrix, or the two matrices of a difference do not fit each other.
        """
        if len(name) > LONGEST_NAME:
            raise UnknownMatrix(complaint("matrix", wanted=f"at most {LONGEST_NAME} characters", got=len(name)))
        with self._lock:
            if name in self._known:
                self._known.move_to_end(name)
                return self._known[name]
        terms = [Term.parsed(part) for part in name.split("~", 2)[:3]]
        if len(terms) > 2:
            raise UnknownMatrix(complaint("matrix", wanted="one term, or two with ~ between", got="more"))
        found = self._term(name, terms[0])
        if len(terms) == 2:
            second = self._term(name, terms[1])
            if found.operator.shape != second.operator.shape:
                sizes = " and ".join(str(one.operator.shape[2:]) for one in (found, second))
                raise ArgumentError(complaint("matrix", wanted="two of one size", got=sizes))
            found = Shown(name, Difference(found.operator, second.operator), None, None)
        with self._lock:
            # Another thread may have made it meanwhile; one of them has to be everyone's, for it learns its rows' sums.
            found = self._known.setdefault(name, found)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return found

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._known.clear()
            self._layers.clear()
            self._captures.clear()

    def terms(self, name: str) -> list[str]:
        """Return the names of the one or two terms of a name."""
        return name.split("~", 1)

    def _term(self, name: str, term: Term) -> Shown:
        layer = self.layer(term.capture, term.layer)
        if term.head is None:
            heads = slice(0, layer.shape[1])
        else:
            numbers = self._captures[term.capture].heads(term.layer)
            if term.head not in numbers:
                wanted = f"one of the layer's {len(numbers)} captured ones, or mean"
                raise UnknownMatrix(complaint("head", wanted=wanted, got=term.head))
            index = numbers.index(term.head)
            heads = slice(index, index + 1)
        exact = layer.narrow(slice(0, 1), heads)
        spread = Spread(exact, (term.capture, term.layer, term.head))
        operator: AttentionOperator = exact if term.pattern is None else _under(term.pattern, exact)
        if operator.shape[1] > 1:
            operator = HeadMean(operator)
        plain = term.pattern is None and exact.shape[1] == 1
        return Shown(name, operator, exact if plain else None, spread)


def _under(spelling: str, exact: AttentionMatrix) -> AttentionOperator:
    """Return what a pattern makes of a matrix."""
    return _fitting(spelling, lambda: _bounded(spelt(spelling), exact).matrix(exact))


def _bounded(pattern: Pattern, exact: AttentionMatrix) -> Pattern:
    """Return a pattern that can stand in for a matrix, within the memory and time that a page may ask for."""
    settings = pattern.settings()
    for name, value in settings.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if name != "seed" and any(isinstance(number, int) and number > LARGEST_SETTING for number in numbers):
            raise ArgumentError(complaint(name, wanted=f"at most {LARGEST_SETTING}", got="more"))
    if settings.get("rank", 0) > MOST_FEATURES:
        raise ArgumentError(complaint("rank", wanted=f"at most {MOST_FEATURES}", got=settings["rank"]))
    if "block" in settings and -(-exact.shape[3] // settings["block"]) > MOST_BLOCKS:
        least = -(-exact.shape[3] // MOST_BLOCKS)
        raise ArgumentError(complaint("block", wanted=f"at least {least}", got=settings["block"]))
    pattern.check(exact)
    return pattern


def _fitting(spelling: str, make: Callable[[], Part]) -> Part:
    try:
        return make()
    except ArgumentError:
        raise
    # Whatever a twisted spelling gets past a pattern's own checks ends in one of these.
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, torch.OutOfMemoryError) as error:
        wanted = "one that fits this matrix"
        raise ArgumentError(complaint("pattern", wanted=wanted, got=ascii(spelling[:80]))) from error
