"""Chosen rows of four attention matrices at once, and how they differ; never more than a few rows are dense.

The four are made by old and new weights of old and new states. A strip of rows of one head is scored against the keys
that it may see, in all four ways, and everything that is asked is taken from it before the next strip: total
variations, where the mass went, entropies and distances. Strips and heads are shared out to threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attlas.capture.visibility import Rule
from attlas.compare.columns import NEAR, PLACES
from attlas.compare.records import LayerMoved
from attlas.matrix import AttentionMatrix, RelativeBias
from attlas.matrix.scores import HIDDEN, LOG2E, Scores
from attlas.matrix.threads import each

STRIP = 64
"""Rows that are dense at a time: with some thousand keys they fit a core's cache."""
_HEADS_TOGETHER = 2**18
"""Entries up to which all heads share a strip: for a short text, a step costs more than its sums."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What makes one of the matrices.

    Parameters
    ----------
    query : Tensor, (1, head, row, dim)
        Of the chosen rows only.
    key : Tensor, (1, kv_head, n_key, dim)
        Of all tokens.
    """

    query: Tensor
    key: Tensor


@dataclass(frozen=True, eq=False)
class Seen:
    """What the matrices of a layer have in common.

    Parameters
    ----------
    rule : Rule
        Who sees whom.
    scale : float
    bias : Tensor or RelativeBias, optional
    softcap : float, optional
    sinks : Tensor, (head,), optional
    n : int
        How many tokens there are.
    """

    rule: Rule
    scale: float
    bias: Tensor | RelativeBias | None
    softcap: float | None
    sinks: Tensor | None
    n: int


@dataclass(frozen=True, eq=False)
class Strip:
    """Some rows, and where each of them has which keys; the same for all heads and layers.

    Parameters
    ----------
    rows : Tensor, (row,)
        Positions, ascending.
    at : slice
        Which of the chosen rows they are.
    width : int
        How many keys are scored: no row sees one behind.
    near, same, after : (Tensor, Tensor)
        Row numbers and keys of the pairs that count as near, as the same token, and as just after one.
    """

    rows: Tensor
    at: slice
    width: int
    near: tuple[Tensor, Tensor]
    same: tuple[Tensor, Tensor]
    after: tuple[Tensor, Tensor]


def strips_of(rows: Tensor, ids: Tensor, causal: bool) -> list[Strip]:
    """Cut the chosen rows into strips, and find the keys of each set of `PLACES` once for all heads."""
    found = []
    n = len(ids)
    for first in range(0, len(rows), STRIP):
        here = rows[first : first + STRIP]
        width = int(here.max()) + 1 if causal else n
        ahead = here[:, None] - torch.arange(width)
        same = (ids[here][:, None] == ids[:width]) & (ahead > 0)
        after = torch.zeros_like(same)
        after[:, 1:] = same[:, :-1] & (ahead[:, 1:] >= 0)
        near = (ahead.abs() < NEAR) & (ahead != 0) & (ahead != 1)
        near[:, 0] = False
        found.append(Strip(here, slice(first, first + len(here)), width, _pairs(near), _pairs(same), _pairs(after)))
    return found


def _pairs(mask: Tensor) -> tuple[Tensor, Tensor]:
    rows, keys = mask.nonzero(as_tuple=True)
    return rows, keys


_Job = tuple[slice, Strip, list[AttentionMatrix], Tensor | None]
"""Heads, rows, the four matrices, and what a causal rule hides of them."""


def measure_layer(
    layer: int,
    name: str,
    seen: Seen,
    matrices: tuple[Asked, Asked, Asked, Asked],
    strips: list[Strip],
) -> LayerMoved:
    """Measure how the chosen rows of one layer moved.

    Parameters
    ----------
    layer, name
        Which.
    seen : Seen
    matrices : (Asked, Asked, Asked, Asked)
        Old weights on old states, new on old, old on new, new on new. Where two are the same object, they are computed
        once.
    strips : list of Strip

    Notes
    -----
    Cost: for each different matrix one product and one exponential of rows × keys, a head; five passes for the total
    variations. Memory: a strip of rows × keys for each matrix and thread.
    """
    heads, rows, n = matrices[0].query.shape[1], matrices[0].query.shape[2], seen.n
    dtype = torch.float64 if matrices[0].query.dtype == torch.float64 else torch.float32
    device = matrices[0].query.device
    out = {what: torch.zeros(heads, rows, dtype=dtype, device=device) for what in _ROWS}
    received = torch.zeros(heads, n, dtype=torch.float64, device=device)
    jobs: list[_Job] = []
    for strip in strips:
        made, hidden = _strip_matrices(seen, matrices, strip), _hidden(seen.rule, strip, device)
        step = heads if strip.width * STRIP * heads <= _HEADS_TOGETHER else 1
        jobs += [(slice(h, min(h + step, heads)), strip, made, hidden) for h in range(0, heads, step)]
    # The longest strips first, so that no thread is left with one at the end.
    jobs.sort(key=lambda job: -job[1].width)

    def work(job: _Job) -> Tensor:
        head, strip, made, hidden = job
        dense = _dense(made, hidden, head, dtype)
        for what, value in _numbers(dense, strip).items():
            out[what][head, strip.at] = value
        return (dense[3].values - dense[0].values).sum(1)

    for (head, strip, _, _), part in zip(jobs, each(work, jobs, device), strict=True):
        received[head, : strip.width] += part
    here = {name: values.cpu() for name, values in out.items()}
    return LayerMoved(
        layer=layer,
        name=name,
        moved=here["moved"],
        own=here["own"],
        upstream=here["upstream"],
        own_after=here["own_after"],
        upstream_after=here["upstream_after"],
        entropy=here["entropy"],
        distance=here["distance"],
        gained={place: here[place] for place in PLACES},
        received=(received / rows).to(dtype).cpu(),
    )


_VARIATIONS = {"moved": (0, 3), "own": (0, 1), "upstream": (0, 2), "own_after": (2, 3), "upstream_after": (1, 3)}
"""Total variation -> which two of the matrices."""
_ROWS = (*_VARIATIONS, "entropy", "distance", *PLACES)


@dataclass(frozen=True, eq=False)
class _Dense:
    """A strip of a matrix.

    Parameters
    ----------
    values : Tensor, (head, row, key)
    entropy : Tensor, (head, row), in nats; None where it is not asked for
    """

    values: Tensor
    entropy: Tensor | None


def _dense(made: list[AttentionMatrix], hidden: Tensor | None, head: slice, dtype: torch.dtype) -> list[_Dense]:
    known: dict[int, _Dense] = {}
    ends = (id(made[0]), id(made[3]))
    for matrix in made:
        if id(matrix) not in known:
            # Entropies are told of the first and of the last only.
            narrow = matrix.narrow(slice(0, 1), head)
            known[id(matrix)] = _softmax(narrow, hidden, dtype, entropy=id(matrix) in ends)
    return [known[id(matrix)] for matrix in made]


def _only_causal(rule: Rule) -> bool:
    return rule.causal and rule.window is None and rule.mask is None


def _hidden(rule: Rule, strip: Strip, device: torch.device) -> Tensor | None:
    """Return what a causal rule hides among a strip's last keys, (row, key); before its first row all is seen."""
    if not _only_causal(rule):
        return None
    rows = strip.rows.to(device)
    return torch.arange(int(rows[0]) + 1, strip.width, device=device) > rows[:, None]


def _strip_matrices(seen: Seen, matrices: tuple[Asked, Asked, Asked, Asked], strip: Strip) -> list[AttentionMatrix]:
    """Return the four matrices of a strip's rows, of all heads; the same object where they are the same."""
    device = matrices[0].query.device
    rows = strip.rows.to(device)
    mask = None if _only_causal(seen.rule) else seen.rule.seen(rows, seen.n, seen.n)[..., : strip.width]
    bias = seen.bias
    if isinstance(bias, RelativeBias):
        heads = torch.arange(matrices[0].query.shape[1], device=device).view(1, -1, 1, 1)
        bias = bias(heads, heads, rows.view(1, 1, -1, 1), torch.arange(strip.width, device=device).view(1, 1, 1, -1))
    elif bias is not None:
        bias = (bias[:, :, rows] if bias.shape[2] > 1 else bias)[..., : strip.width]
    known: dict[int, AttentionMatrix] = {}
    for asked in matrices:
        if id(asked) not in known:
            known[id(asked)] = AttentionMatrix(
                asked.query[:, :, strip.at],
                asked.key[:, :, : strip.width],
                seen.scale,
                mask=mask,
                bias=bias,
                softcap=seen.softcap,
                sinks=seen.sinks,
            )
    return [known[id(asked)] for asked in matrices]


def _softmax(matrix: AttentionMatrix, hidden: Tensor | None, dtype: torch.dtype, *, entropy: bool) -> _Dense:
    _, _, rows, width = matrix.shape
    scores = Scores(matrix, dtype).tile(slice(0, rows), slice(0, width))[0]
    if hidden is not None:
        scores[..., width - hidden.shape[-1] :].masked_fill_(hidden, HIDDEN)
    top = scores.amax(-1, keepdim=True)
    blind = top <= HIDDEN / 2
    sinks = None if matrix.sinks is None else matrix.sinks.to(dtype).view(-1, 1, 1) * LOG2E
    if sinks is not None:
        top = torch.maximum(top, sinks)
    scores.sub_(top)
    values = scores.exp2() if entropy else scores.exp2_()
    total = values.sum(-1, keepdim=True)
    if sinks is not None:
        total += (sinks - top).exp2()
    values.div_(total)
    if bool(blind.any()):
        # A row that sees nothing is all zeros.
        values.masked_fill_(blind, 0)
    if not entropy:
        return _Dense(values, None)
    # What is hidden counts for nothing: its score is finite, and it is multiplied with 0.
    expected = torch.einsum("hrk,hrk->hr", values, scores)
    return _Dense(values, (values.sum(-1) * total[..., 0].log2() - expected) * math.log(2))


def _numbers(dense: list[_Dense], strip: Strip) -> dict[str, Tensor]:
    """Return everything that is asked of a strip, each (head, row)."""
    found: dict[str, Tensor] = {}
    known: dict[tuple[int, int], Tensor] = {}
    for name, (i, j) in _VARIATIONS.items():
        pair = (id(dense[i]), id(dense[j]))
        if pair not in known:
            known[pair] = torch.linalg.vector_norm(dense[j].values - dense[i].values, 1, dim=-1) / 2
        found[name] = known[pair]
    first, last = dense[0], dense[3]
    if first.entropy is not None and last.entropy is not None:
        found["entropy"] = last.entropy - first.entropy
    gained = last.values - first.values
    device = gained.device
    rows = strip.rows.to(device)
    gap = (rows[:, None] - torch.arange(gained.shape[-1], device=device)).abs().to(gained.dtype)
    found["distance"] = (gained * gap).sum(-1)
    return found | _places(gained, strip, rows)


def _places(gained: Tensor, strip: Strip, rows: Tensor) -> dict[str, Tensor]:
    here = torch.arange(len(rows), device=rows.device)
    found = {"first": gained[..., 0].clone()}
    # The first token counts as the first even for itself and for the one after it.
    found["itself"] = gained[:, here, rows] * (rows > 0)
    found["previous"] = gained[:, here, (rows - 1).clamp(min=0)] * (rows > 1)
    for name, pairs in (("near", strip.near), ("same token", strip.same), ("after same token", strip.after)):
        at, keys = (part.to(rows.device) for part in pairs)
        found[name] = gained.new_zeros(gained.shape[:2]).index_add_(1, at, gained[:, at, keys])
    counted = found["first"] + found["itself"] + found["previous"] + found["near"]
    found["far"] = gained.sum(-1) - counted
    return found
