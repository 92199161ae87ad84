"""``A[b, h]`` and ``A[b, h, rows, cols]``: what an index means, for every kind of matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import SupportsIndex

import torch
from torch import Tensor

from attlas.errors import ArgumentError, TooDense, complaint
from attlas.matrix.operator import DENSE_LIMIT, AttentionOperator
from attlas.matrix.questions import ask
from attlas.matrix.rows import Rows
from attlas.matrix.visibility import Indices

AXES = ("batch", "head", "query", "key")


def select(operator: AttentionOperator, index: object) -> AttentionOperator | Tensor:
    """Return ``operator[index]``; see `AttentionOperator.__getitem__`."""
    named = _spread(index)
    batch, head = (_along(axis, named[axis], operator.shape[axis])[0] for axis in (0, 1))
    heads = (
        operator
        if _is_all(batch, operator.shape[0]) and _is_all(head, operator.shape[1])
        else operator.narrow(batch, head)
    )
    if named[2] is None and named[3] is None:
        return heads
    (rows, _), (cols, _) = (_along(axis, named[axis], operator.shape[axis]) for axis in (2, 3))
    _refuse_large(
        (*heads.shape[:2], _length(rows), _length(cols)), DENSE_LIMIT, "ask for fewer rows or columns, or for pool(...)"
    )
    heads.prepare()
    with torch.no_grad():
        tile = heads.reader().tile(rows, cols).values
    dropped = [axis for axis in range(4) if isinstance(named[axis], int)]
    # The tile's memory belongs to a reader that ends here, so it can be given away without a copy.
    return tile[tuple(0 if axis in dropped else slice(None) for axis in range(4))]


def dense(operator: AttentionOperator, limit: int | None) -> Tensor:
    """Return ``operator.to_dense(limit)``."""
    if limit is not None:
        all_of_it = math.prod(operator.shape)
        way_out = f"pass limit={all_of_it} if you have the memory, or ask for tiles or pool(...)"
        _refuse_large(operator.shape, limit, way_out)
    return ask(operator, Rows())[0]


def _refuse_large(shape: tuple[int, ...], limit: int, way_out: str) -> None:
    entries = math.prod(shape)
    if entries > limit:
        got = f"{entries:,} ({' × '.join(map(str, shape))}, {entries * 4 / 1e9:.3g} GB in float32)"
        raise TooDense(complaint("limit", wanted=f"at most {limit:,} dense entries", got=got, way_out=way_out))


def _spread(index: object) -> list[int | slice | Sequence[int] | Tensor | None]:
    """Give each axis its part of the index; None for an axis that is not named."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if sum(part is Ellipsis for part in parts) > 1:
        raise ArgumentError(complaint("index", wanted="at most one '...'", got=index))
    if Ellipsis in parts:
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [None] * (4 - (len(parts) - 1))
    if len(parts) > 4:
        raise ArgumentError(
            complaint("index", wanted="at most four parts (batch, head, query, key)", got=f"{len(parts)}")
        )
    parts += [None] * (4 - len(parts))
    return [_as_int(part) for part in parts]


def _as_int(part: object) -> int | slice | Sequence[int] | Tensor | None:
    if part is None or isinstance(part, slice | list | range):
        return part
    if isinstance(part, Tensor) and part.ndim == 1:
        return part
    if isinstance(part, SupportsIndex) and not isinstance(part, bool):
        return part.__index__()
    raise ArgumentError(
        complaint("index", wanted="integers, slices, lists or 1-D tensors of integers", got=type(part).__name__)
    )


def _along(axis: int, part: int | slice | Sequence[int] | Tensor | None, length: int) -> tuple[Indices, int]:
    """Turn one axis' part of an index into a slice with bounds, or a tensor of indices."""
    name = AXES[axis]
    if part is None:
        return slice(0, length), length
    if isinstance(part, slice):
        start, stop, step = part.indices(length)
        if step != 1:
            part = range(start, stop, step)
        elif stop <= start:
            raise ArgumentError(
                complaint(f"index of {name}", wanted="at least one", got=f"the empty slice {part.start}:{part.stop}")
            )
        else:
            return slice(start, stop), stop - start
    if isinstance(part, int):
        at = _one(name, part, length)
        return slice(at, at + 1), 1
    if isinstance(part, Tensor):
        if part.dtype == torch.bool or part.is_floating_point():
            raise ArgumentError(complaint(f"index of {name}", wanted="integers", got=part.dtype))
        part = part.tolist()
    if any(isinstance(i, bool) or not isinstance(i, SupportsIndex) for i in part):
        raise ArgumentError(complaint(f"index of {name}", wanted="integers", got=list(part)))
    picked = [_one(name, i.__index__(), length) for i in part]
    if not picked:
        raise ArgumentError(complaint(f"index of {name}", wanted="at least one", got="none"))
    return torch.tensor(picked), len(picked)


def _one(name: str, at: int, length: int) -> int:
    if not -length <= at < length:
        raise IndexOutOfRange(complaint(f"index of {name}", wanted=f"{-length} to {length - 1}", got=at))
    return at % length


class IndexOutOfRange(ArgumentError, IndexError):  # noqa: N818 - named for what it says
    """An index points outside of its axis; also an IndexError, which ends a for loop over ``A[i]``."""


def _is_all(indices: Indices, length: int) -> bool:
    return isinstance(indices, slice) and indices.start == 0 and indices.stop == length


def _length(indices: Indices) -> int:
    return indices.stop - indices.start if isinstance(indices, slice) else len(indices)
