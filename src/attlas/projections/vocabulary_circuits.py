"""A head in words: which tokens it would look for, and which it would write, by its weights alone.

Both are rows of matrices that are as large as the vocabulary squared. Neither is made: one row is streamed over the
vocabulary in blocks, and the largest entries of the whole are found through its two thin factors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attlas.errors import ArgumentError, UnsupportedModelError, complaint
from attlas.models.progress import Progress
from attlas.projections.token_states import (
    Vocabulary,
    in_first_block,
    shown,
    token_id,
    token_states,
    vocabulary_of,
)
from attlas.results import Provenance

if TYPE_CHECKING:
    from attlas.projections.views import LayerProjections
    from attlas.projections.whole import Projections

BLOCK = 2048
"""Rows and columns of a block of the vocabulary squared."""


@dataclass(frozen=True)
class TokenScores:
    """Some tokens and their scores, best first.

    Parameters
    ----------
    ids : tuple of int
        Token ids.
    tokens : tuple of str
        What they stand for.
    scores : tuple of float
        The attention score, or the direct effect on the logit.
    z : tuple of float
        How many standard deviations that is above the mean over the vocabulary.
    """

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    z: tuple[float, ...]


@dataclass(frozen=True)
class Standing:
    """How a token itself fares among all others.

    Parameters
    ----------
    score, z : float
        As in `TokenScores`.
    rank : int
        How many tokens score higher.
    """

    score: float
    z: float
    rank: int


@dataclass(frozen=True)
class VocabularyCircuit:
    """What one head would do with one token.

    Parameters
    ----------
    layer, head : int
        Where the head is.
    id, token : int, str
        The token.
    looks_for : TokenScores
        The keys that score highest when this token asks.
    looks_away : TokenScores
        Those that score lowest, lowest first.
    writes : TokenScores
        The tokens whose logits rise most when the head attends to this token alone.
    suppresses : TokenScores
        Those whose logits fall most, lowest first.
    itself_sought, itself_written : Standing
        How the token itself fares in both.
    chance : float
        The z that the best of so many independent Gaussian scores reaches in half of all cases.
    vocabulary : int
        Over how many tokens.
    offset : int
        How far before the asking token the keys stand; 0 is no rotation at all.
    with_mlp : bool
        Whether tokens are taken as the first MLP leaves them.
    provenance : Provenance
        How it was made.
    """

    layer: int
    head: int
    id: int
    token: str
    looks_for: TokenScores
    looks_away: TokenScores
    writes: TokenScores
    suppresses: TokenScores
    itself_sought: Standing
    itself_written: Standing
    chance: float
    vocabulary: int
    offset: int
    with_mlp: bool
    provenance: Provenance

    def rows(self) -> list[dict[str, Any]]:
        """Return one record a listed token."""
        lists = ("looks_for", "looks_away", "writes", "suppresses")
        return [
            {"list": name, "place": place, "id": token, "token": text, "score": score, "z": z}
            for name in lists
            for place, (token, text, score, z) in enumerate(_entries(getattr(self, name)))
        ]


@dataclass(frozen=True)
class TopPairs:
    """The largest entries of a head's vocabulary × vocabulary matrix.

    Parameters
    ----------
    layer, head : int
        Where the head is.
    kind : {"qk", "ov"}
        Asking token → sought token, or attended token → written token.
    first, second : tuple of int
        Token ids of each pair.
    tokens : tuple of (str, str)
        What they stand for.
    scores : tuple of float
        The entries, largest first.
    z : tuple of float
        How many standard deviations they are above the mean of all entries; both are exact.
    chance : float
        The z that the best of so many independent Gaussian scores reaches in half of all cases.
    provenance : Provenance
        How it was made.
    """

    layer: int
    head: int
    kind: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    tokens: tuple[tuple[str, str], ...]
    scores: tuple[float, ...]
    z: tuple[float, ...]
    chance: float
    provenance: Provenance


def vocabulary(
    projections: Projections,
    layer: int,
    head: int,
    token: int | str,
    *,
    top: int = 20,
    offset: int = 0,
    with_mlp: bool = False,
    progress: Progress | None = None,
) -> VocabularyCircuit:
    """Return which tokens a head would look for when a token asks, and which it would write on attending to it.

    Parameters
    ----------
    projections : Projections
        What `attlas.projections` gave.
    layer, head : int
        The head.
    token : int or str
        A token id, or the text of exactly one token; mind the space in front.
    top : int
        How many tokens each list has.
    offset : int
        How many tokens before the asking one the keys stand, under rotary encoding.
    with_mlp : bool
        Take tokens as the first MLP leaves them, which is nearer to what later heads are given; costs a run of the
        first block over the whole vocabulary. In the first block itself it changes nothing.
    progress : callable, optional
        Called as ``progress(done, total, "tokens")``.

    Returns
    -------
    VocabularyCircuit

    Raises
    ------
    UnsupportedModelError
        The model has no token embedding or no unembedding, or the layer does not read this stream.
    ArgumentError
        The token is not one token, or a number does not fit.

    Notes
    -----
    Scores are those of the direct path: token states, normalised as the layer does, through the head's weights, biases
    and query-key norms; for writing, through the final norm's gain and the unembedding. What the layers between do to
    the states is not in them. Sources: Elhage et al. 2021 (both circuits); Dar et al. 2023, "Analyzing transformers in
    embedding space". Time: one product of the vocabulary with W_K and one with the written vector; memory: a block.
    """
    ends, view = _ready(projections, layer, head, top)
    if isinstance(offset, bool) or not isinstance(offset, int):
        raise ArgumentError(complaint("offset", wanted="a whole number", got=repr(offset)))
    asked = token_id(projections, token)
    mlp = with_mlp and not in_first_block(view)
    state = _states(projections, ends, view, torch.tensor([asked]), mlp)
    query = view.queries(state).detach()[head, 0]
    if view.rotation is not None and offset:
        query = view.rotation.relative(query, offset)
    written = view.values(state).detach()[head // view.group, 0] @ ends.writer(view)[head]
    heard = ends.heard(written)
    sought, logits = [], []
    for block in ends.blocks():
        ids = torch.arange(block.start, block.stop)
        keys = _one_head(view, head, "key", _states(projections, ends, view, ids, mlp))
        sought.append(keys @ query * view.scale)
        logits.append(ends.unembedding[block].detach().to(heard) @ heard)
        if progress is not None:
            progress(block.stop, ends.size, "tokens")
    looked, wrote = torch.cat(sought), torch.cat(logits)
    settings = {"layer": layer, "head": head, "token": asked, "top": top, "offset": offset, "with_mlp": mlp}
    return VocabularyCircuit(
        layer=layer,
        head=head,
        id=asked,
        token=shown(projections, [asked])[0],
        looks_for=_best(projections, looked, top, largest=True),
        looks_away=_best(projections, looked, top, largest=False),
        writes=_best(projections, wrote, top, largest=True),
        suppresses=_best(projections, wrote, top, largest=False),
        itself_sought=_standing(looked, asked),
        itself_written=_standing(wrote, asked),
        chance=largest_of(ends.size),
        vocabulary=ends.size,
        offset=offset,
        with_mlp=mlp,
        provenance=replace(projections.provenance, settings={**projections.provenance.settings, **settings}),
    )


def top_pairs(
    projections: Projections,
    layer: int,
    head: int,
    kind: str = "ov",
    *,
    top: int = 20,
    offset: int = 0,
    with_mlp: bool = False,
    progress: Progress | None = None,
) -> TopPairs:
    """Return the strongest pairs of tokens of a head, over the whole vocabulary squared.

    Parameters
    ----------
    projections : Projections
        What `attlas.projections` gave.
    layer, head : int
        The head.
    kind : {"ov", "qk"}
        "ov": attended token → written token. "qk": asking token → sought token.
    top, offset, with_mlp, progress
        As for `vocabulary`; `offset` only matters for "qk".

    Returns
    -------
    TopPairs
        Exact: no pair is left out. Long rows win, and so rare tokens may; `vocabulary` scores within one row.

    Raises
    ------
    UnsupportedModelError, ArgumentError
        As `vocabulary`.

    Notes
    -----
    E QK Eᵀ and E OV U are products of two factors of (vocabulary, dim). Their rows are ordered by length; by the
    inequality of Cauchy and Schwarz a block of pairs cannot hold more than the product of its longest rows, and blocks
    that cannot reach the list are skipped. At worst vocabulary² · dim, in blocks of 16 MB. The mean and the spread of
    all entries come from the moments of the factors.
    """
    if kind not in ("qk", "ov"):
        raise ArgumentError(complaint("kind", wanted='"qk" or "ov"', got=repr(kind)))
    ends, view = _ready(projections, layer, head, top)
    mlp = with_mlp and not in_first_block(view)
    writer = ends.writer(view)[head]
    left, right = [], []
    for block in ends.blocks():
        states = _states(projections, ends, view, torch.arange(block.start, block.stop), mlp)
        if kind == "qk":
            queries = _one_head(view, head, "query", states) * view.scale
            left.append(queries if view.rotation is None else view.rotation.relative(queries, offset))
            right.append(_one_head(view, head, "key", states))
        else:
            left.append(_one_head(view, head, "value", states))
            right.append(ends.folded(ends.unembedding[block]) @ writer.mT)

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total, "pairs of tokens")

    first, second = torch.cat(left), torch.cat(right)
    scores, rows, cols = largest_entries(first, second, top, tell)
    mean, deviation = entry_moments(first, second)
    ids = [(int(row), int(col)) for row, col in zip(rows, cols, strict=True)]
    texts = shown(projections, [token for pair in ids for token in pair])
    settings = {"layer": layer, "head": head, "kind": kind, "top": top, "offset": offset, "with_mlp": mlp}
    return TopPairs(
        layer=layer,
        head=head,
        kind=kind,
        first=tuple(row for row, _ in ids),
        second=tuple(col for _, col in ids),
        tokens=tuple(zip(texts[::2], texts[1::2], strict=True)),
        scores=tuple(scores.tolist()),
        z=tuple(((scores.double() - mean) / (deviation or 1.0)).tolist()),
        chance=largest_of(ends.size**2),
        provenance=replace(projections.provenance, settings={**projections.provenance.settings, **settings}),
    )


def largest_entries(
    left: Tensor, right: Tensor, top: int, tell: Callable[[int, int], None] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest entries of ``left @ rightᵀ`` with their rows and columns, largest first; each (top,).

    Parameters
    ----------
    left, right : Tensor, (rows, dim) and (cols, dim)
        The factors.
    top : int
        How many.
    tell : callable, optional
        Called as ``tell(done, total)`` in rows.
    """
    rows, cols = (factor.norm(dim=-1).sort(descending=True) for factor in (left, right))
    left, right = left[rows.indices], right[cols.indices]
    best = left.new_full((min(top, len(left) * len(right)),), float("-inf"))
    where = torch.zeros(len(best), 2, dtype=torch.int64, device=left.device)
    for start in range(0, len(left), BLOCK):
        part = left[start : start + BLOCK]
        for begin in range(0, len(right), BLOCK):
            # Rounding may lift a product a little above the bound.
            if rows.values[start] * cols.values[begin] * (1 + 1e-4) < best[-1]:
                break
            product = part @ right[begin : begin + BLOCK].mT
            if product.max() <= best[-1]:
                continue
            found = product.flatten().topk(min(len(best), product.numel()))
            place = torch.stack(
                (start + found.indices // product.shape[1], begin + found.indices % product.shape[1]), 1
            )
            order = torch.cat((best, found.values)).sort(descending=True, stable=True).indices[: len(best)]
            best, where = torch.cat((best, found.values))[order], torch.cat((where, place))[order]
        if tell is not None:
            tell(min(start + BLOCK, len(left)), len(left))
    return best, rows.indices[where[:, 0]], cols.indices[where[:, 1]]


def entry_moments(left: Tensor, right: Tensor) -> tuple[float, float]:
    """Return the mean and the standard deviation of all entries of ``left @ rightᵀ``, exactly, without the product."""
    left, right = left.double(), right.double()
    first, second = left.mean(0), right.mean(0)
    a, b = left - first, right - second
    covariances = (a.mT @ a / len(a), b.mT @ b / len(b))
    # Of (a + ā)(b + b̄)ᵀ the entry's variance is that of abᵀ, of a b̄ᵀ and of ā bᵀ, which do not vary together.
    variance = (
        (covariances[0] * covariances[1].mT).sum() + second @ covariances[0] @ second + first @ covariances[1] @ first
    )
    return float(first @ second), float(variance.clamp(min=0).sqrt())


def largest_of(count: int) -> float:
    """Return the median of the largest of `count` independent standard Gaussian numbers."""
    # 0.5^(1/count) is so near to 1 that its distance from 1 has to be computed by itself.
    below = -torch.expm1(torch.log(torch.tensor(0.5, dtype=torch.float64)) / count)
    return float(-torch.special.ndtri(below))


def _ready(projections: Projections, layer: int, head: int, top: int) -> tuple[Vocabulary, LayerProjections]:
    view = projections[layer, head].of
    ends = vocabulary_of(projections)
    if view.layer not in ends.layers:
        raise UnsupportedModelError(
            f"{view.name}: it does not read the residual stream that ends in the vocabulary; "
            f"layers that do: {', '.join(map(str, ends.layers))}"
        )
    if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= ends.size:
        raise ArgumentError(complaint("top", wanted=f"a whole number from 1 to {ends.size}", got=repr(top)))
    return ends, view


def _states(projections: Projections, ends: Vocabulary, view: LayerProjections, ids: Tensor, mlp: bool) -> Tensor:
    """Return tokens as the layer's attention would be given them, (token, d_model)."""
    x = token_states(projections, ends, ids, with_mlp=mlp).to(ends.dtype)
    return x if view.input_norm is None else view.input_norm(x).detach()


def _one_head(view: LayerProjections, head: int, what: str, states: Tensor) -> Tensor:
    """Return one head's queries, keys or values of all states, (token, dim)."""
    own = head if what == "query" else head // view.group
    norm = getattr(view, f"{what}_norm")
    if norm is not None:
        # A norm may be taken over all heads together.
        make = {"query": view.queries, "key": view.keys, "value": view.values}[what]
        return make(states).detach()[own]
    bias = getattr(view, f"{what}_bias")
    made = states @ getattr(view, what)[own].detach().to(states.dtype)
    return made if bias is None else made + bias[own].detach().to(states.dtype)


def _best(projections: Projections, scores: Tensor, top: int, *, largest: bool) -> TokenScores:
    values, ids = scores.topk(top, largest=largest)
    z = _standard(scores, values)
    found = ids.tolist()
    return TokenScores(tuple(found), tuple(shown(projections, found)), tuple(values.tolist()), tuple(z.tolist()))


def _standing(scores: Tensor, token: int) -> Standing:
    own = scores[token]
    return Standing(float(own), float(_standard(scores, own)), int((scores > own).sum()))


def _standard(scores: Tensor, values: Tensor) -> Tensor:
    mean, deviation = scores.double().mean(), scores.double().std(correction=0)
    return (values.double() - mean) / torch.where(deviation > 0, deviation, 1.0)


def _entries(found: TokenScores) -> list[tuple[int, str, float, float]]:
    return list(zip(found.ids, found.tokens, found.scores, found.z, strict=True))
