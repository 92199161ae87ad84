"""Does a head raise the token that it looks at? Eigenvalue scores, and a calibrated z-score, each beside chance.

The eigenvalue score of Elhage et al. 2021 asks whether the map from an attended token to the logits, through the head
alone, has positive eigenvalues. On real models it is often no better than a coin at finding heads that copy, because
the heads that do are not given token embeddings. So the same questions are also asked of tokens as the first MLP leaves
them, and of each token's own logit against the spread of all others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from attlas._resampling import times_drawn
from attlas.errors import ArgumentError, UnsupportedModelError, complaint
from attlas.matrix.threads import each
from attlas.models.progress import Progress
from attlas.projections.factors import positivity
from attlas.projections.reading import folded
from attlas.projections.token_states import Vocabulary, in_first_block, token_states, vocabulary_of
from attlas.results import Provenance

if TYPE_CHECKING:
    from attlas.projections.views import LayerProjections
    from attlas.projections.whole import Projections

DRAWS = 64
"""Heads turned at random behind a chance level."""


@dataclass(frozen=True)
class Spread:
    """What heads give whose output is turned at random: their singular values, and nothing else, stay.

    Parameters
    ----------
    deviation : float
        Standard deviation over the draws. The mean is 0 exactly, because turning by −1 changes the sign.
    low, high : float
        The range that holds the middle 95 % of them, made symmetric like the distribution itself.
    draws : int
        How many.
    """

    deviation: float
    low: float
    high: float
    draws: int


@dataclass(frozen=True, eq=False)
class Copying:
    """How far each head copies what it attends to; a row a head, all float64 on the CPU.

    Parameters
    ----------
    heads : tuple of (int, int)
        Layer and head of each row.
    eigenvalue_residual : Tensor, (row,)
        ``Σ Re λ / Σ |λ|`` of W_V W_O in the residual stream, input norm's gain folded in.
    eigenvalue : Tensor, (row,)
        The same of E W_V W_O U over the whole vocabulary (Elhage et al. 2021).
    eigenvalue_effective : Tensor, (row,)
        The same over the sampled tokens, as the first MLP leaves them, with both ends centred.
    raw, effective : Tensor, (row,)
        The mean z-score of a token's own logit, for tokens as they are embedded and as the first MLP leaves them.
    raw_low, raw_high, effective_low, effective_high : Tensor, (row,)
        95 % percentile bootstrap over the tokens.
    chance : dict
        For each of the five numbers that is there, by its name, what heads turned at random give.
    tokens : int
        How many tokens were sampled.
    reason : str
        Why the three numbers of the first MLP are None; empty where they are there.
    provenance : Provenance
        How it was made.
    """

    heads: tuple[tuple[int, int], ...]
    eigenvalue_residual: Tensor
    eigenvalue: Tensor
    eigenvalue_effective: Tensor | None
    raw: Tensor
    raw_low: Tensor
    raw_high: Tensor
    effective: Tensor | None
    effective_low: Tensor | None
    effective_high: Tensor | None
    chance: dict[str, Spread]
    tokens: int
    reason: str
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.heads)

    def rows(self) -> list[dict[str, Any]]:
        """Return one record a head."""
        names = (*NUMBERS, *(f"{name}_{side}" for name in ("raw", "effective") for side in ("low", "high")))
        values = {name: getattr(self, name) for name in names}
        return [
            {
                "layer": layer,
                "head": head,
                **{name: None if value is None else float(value[i]) for name, value in values.items()},
            }
            for i, (layer, head) in enumerate(self.heads)
        ]


NUMBERS = ("eigenvalue_residual", "eigenvalue", "eigenvalue_effective", "raw", "effective")
"""The numbers of `Copying` that have a chance level."""


def copying(
    projections: Projections,
    *,
    tokens: int = 400,
    seed: int = 0,
    resamples: int = 1000,
    progress: Progress | None = None,
) -> Copying:
    """Score how far each head raises the logit of the token that it attends to.

    Parameters
    ----------
    projections : Projections
        What `attlas.projections` gave.
    tokens : int
        How many tokens to sample from the vocabulary, special ones left out where the tokenizer names them.
    seed : int
        Of the sample, the bootstrap and the random heads.
    resamples : int
        Bootstrap samples of the tokens.
    progress : callable, optional
        Called as ``progress(done, total, "copying scores")`` after each layer.

    Returns
    -------
    Copying
        A row for each head that reads and writes the residual stream that ends in the vocabulary.

    Raises
    ------
    UnsupportedModelError
        The model has no token embedding or no unembedding.
    ArgumentError
        `tokens` or `resamples` does not fit.

    Notes
    -----
    For a sampled token t with state x_t (normalised as the layer's own norm does, with bias), the head that attends
    only to t writes y_t = (x_t W_V + b_V) W_O. With u the rows of the unembedding, the final norm's gain and centring
    folded in, of mean μ and covariance C over the whole vocabulary,

        z_t = y_t · (u_t − μ) / √(y_t C y_tᵀ)

    is how many standard deviations t's own logit stands above the mean logit. All tokens' logits are in it, yet none
    but t's is computed: O(tokens · d · dim + d² · dim) a head. What is not in it: later layers, the head's gate, the
    final norm's division. Layers of the first block are given the bare embedding; there both scores are the same.

    The eigenvalues of the V × V map E W_V W_O U are those of the dim × dim matrix W_O (U E) W_V, with one d × d Gram
    matrix U E of the whole vocabulary. Source: Elhage et al. 2021, "A mathematical framework for transformer circuits";
    the z-score, the effective eigenvalues and the chance levels are this library's own.
    """
    for name, value in (("tokens", tokens), ("resamples", resamples)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 2:
            raise ArgumentError(complaint(name, wanted="a whole number from 2", got=repr(value)))
    ends = vocabulary_of(projections)
    ids = sampled_tokens(projections, ends, tokens, torch.Generator().manual_seed(seed))
    measure = _Measure.of(projections, ends, ids)
    views = [projections[number] for number in ends.layers]
    draws = [_draw(views, ends, i, seed) for i in range(DRAWS)]

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total, "copying scores")

    jobs = [*((view, None) for view in views), *draws]
    found = each(lambda job: measure(*job), jobs, ends.embedding.device, tell)
    real = {name: torch.cat([part[name] for part in found[: len(views)]]) for name in found[0]}
    null = {name: torch.cat([part[name] for part in found[len(views) :]]) for name in found[0]}
    numbers: dict[str, Tensor | None] = dict.fromkeys((*NUMBERS, "effective_low", "effective_high"))
    numbers |= {name: value if value.dim() == 1 else value.mean(-1) for name, value in real.items()}
    for name in {"raw", "effective"} & set(real):
        numbers[f"{name}_low"], numbers[f"{name}_high"] = bootstrap(real[name], resamples, seed)
    settings = {"tokens": len(ids), "seed": seed, "resamples": resamples, "draws": DRAWS}
    return Copying(
        heads=tuple((view.layer, head) for view in views for head in range(view.heads)),
        **cast("dict[str, Any]", numbers),
        chance={name: _spread(value if value.dim() == 1 else value.mean(-1)) for name, value in null.items()},
        tokens=len(ids),
        reason=measure.reason,
        provenance=replace(projections.provenance, settings={**projections.provenance.settings, **settings}),
    )


def sampled_tokens(projections: Projections, ends: Vocabulary, count: int, generator: torch.Generator) -> Tensor:
    """Return different token ids at random, (at most `count`,), int64; none that the tokenizer calls special."""
    tokenizer = None if projections.lm is None else projections.lm.tokenizer
    special = set() if tokenizer is None else set(tokenizer.all_special_ids)
    order = torch.randperm(ends.size, generator=generator)
    kept = [int(token) for token in order[: count + len(special)] if int(token) not in special]
    return torch.tensor(kept[:count], dtype=torch.int64)


def moments(ends: Vocabulary) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean and covariance of the unembedding's rows, and their Gram matrix with those of the embedding.

    Returns
    -------
    Tensor, (d_model,), and two Tensors, (d_model, d_model)
        The final norm folded in. Two passes over the vocabulary, in blocks, summed in float64.
    """
    d, device = ends.unembedding.shape[1], ends.unembedding.device
    total = torch.zeros(d, dtype=torch.float64, device=device)
    for block in ends.blocks():
        total += ends.folded(ends.unembedding[block]).double().sum(0)
    mean = (total / ends.size).to(ends.dtype)
    covariance = torch.zeros(d, d, dtype=torch.float64, device=device)
    gram = torch.zeros(d, ends.embedding.shape[1], dtype=torch.float64, device=device)
    for block in ends.blocks():
        rows = ends.folded(ends.unembedding[block])
        gram += rows.mT @ ends.embedding[block].detach().to(rows)
        covariance += (rows - mean).mT @ (rows - mean)
    return mean, (covariance / ends.size).to(ends.dtype), gram.to(ends.dtype)


def z_scores(values: Tensor, output: Tensor, own: Tensor, covariance: Tensor) -> Tensor:
    """Return how many standard deviations each token's own logit stands above the mean logit of the vocabulary.

    Parameters
    ----------
    values : Tensor, (…, token, dim)
        What the head passes on of each token.
    output : Tensor, (…, dim, d_model)
        W_O.
    own : Tensor, (token, d_model)
        Each token's own row of the unembedding, less the mean row.
    covariance : Tensor, (d_model, d_model)
        Of the rows of the unembedding.

    Returns
    -------
    Tensor, (…, token), float64
        0 where the head writes nothing.
    """
    above = (values * (output @ own.mT).mT).sum(-1).double()
    spread = ((values @ (output @ covariance @ output.mT)) * values).sum(-1).double().clamp(min=0).sqrt()
    return torch.where(spread > 0, above / torch.where(spread > 0, spread, 1.0), 0.0)


def eigen_positivity(value: Tensor, output: Tensor, between: Tensor | None = None) -> Tensor:
    """Return ``Σ Re λ / Σ |λ|``, (…), of W_V W_O, or of E W_V W_O U with ``between`` = U E: of small W_O U E W_V."""
    inner = output @ value if between is None else output @ between @ value
    return positivity(torch.linalg.eigvals(inner.double()))


def bootstrap(values: Tensor, resamples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the 95 % percentile interval of the mean over the last axis: values (row, token) -> two of (row,)."""
    generator = torch.Generator().manual_seed(seed)
    count = values.shape[-1]
    means = values @ times_drawn(count, resamples, generator, values.dtype).T / count
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=values.dtype), dim=-1)
    return low, high


def turned(output: Tensor, generator: torch.Generator) -> Tensor:
    """Return W_O (dim, d) with what it writes turned at random: its singular values stay, its directions do not."""
    dim, d = output.shape
    triangle = torch.linalg.qr(output.double().mT, mode="r").R
    frame = torch.linalg.qr(torch.randn(d, min(dim, d), generator=generator, dtype=torch.float64)).Q
    return (triangle.mT @ frame.to(triangle).mT).to(output)


@dataclass(frozen=True, eq=False)
class _Measure:
    """What all layers share: the sampled tokens' states, and the moments of the vocabulary."""

    ends: Vocabulary
    gram: Tensor
    own: Tensor
    covariance: Tensor
    states: dict[str, Tensor]
    reason: str

    @staticmethod
    def of(projections: Projections, ends: Vocabulary, ids: Tensor) -> _Measure:
        mean, covariance, gram = moments(ends)
        states, reason = {"raw": token_states(projections, ends, ids).to(gram)}, ""
        try:
            states["effective"] = token_states(projections, ends, ids, with_mlp=True).to(gram)
        except UnsupportedModelError as error:
            reason = str(error)
        own = ends.folded(ends.unembedding[ids.to(gram.device)]) - mean
        return _Measure(ends, gram, own, covariance, states, reason)

    def __call__(self, view: LayerProjections, drawn: tuple[int, Tensor] | None) -> dict[str, Tensor]:
        """Score the heads of a layer, or, with a head's number and another W_O, that head with that."""
        output = self.ends.writer(view) if drawn is None else drawn[1][None]
        kept = slice(0, view.heads) if drawn is None else slice(drawn[0], drawn[0] + 1)
        spread = torch.arange(view.heads, device=output.device)[kept] // view.group
        weights = _folded_value(view, self.gram.dtype)[spread]
        found = {
            "eigenvalue_residual": eigen_positivity(weights, output),
            "eigenvalue": eigen_positivity(weights, output, self.gram),
        }
        for name in self.states:
            x = self.given(view, name)
            found[name] = z_scores(view.values(x).detach()[spread], output, self.own, self.covariance)
        if "effective" in self.states:
            x = self.given(view, "effective")
            values = ((x - x.mean(0)) @ view.value.detach().to(x))[spread]
            # W_O U E W_V over the sampled tokens: a product of two thin ones, no d × d.
            sampled = output @ (self.own - self.own.mean(0)).mT @ values
            found["eigenvalue_effective"] = positivity(torch.linalg.eigvals(sampled.double()))
        return {name: value.cpu() for name, value in found.items()}

    def given(self, view: LayerProjections, name: str) -> Tensor:
        """Return the sampled tokens as the layer's attention is given them, (token, d_model)."""
        x = self.states["raw" if in_first_block(view) else name]
        return x if view.input_norm is None else view.input_norm(x)


def _folded_value(view: LayerProjections, dtype: torch.dtype) -> Tensor:
    """Return W_V with the input norm's gain and centring folded in, (kv_head, d_model, dim)."""
    weights, norm = view.value.detach().to(dtype), view.input_norm
    return weights if norm is None else folded(weights, norm.gain.detach(), norm.centred)


def _draw(views: list[LayerProjections], ends: Vocabulary, i: int, seed: int) -> tuple[LayerProjections, Any]:
    """Return a head, the draws spread evenly over all, with its W_O turned at random."""
    heads = [(view, head) for view in views for head in range(view.heads)]
    view, head = heads[i * len(heads) // DRAWS % len(heads)]
    generator = torch.Generator().manual_seed(seed * DRAWS + i + 1)
    return view, (head, turned(ends.writer(view)[head], generator))


def _spread(draws: Tensor) -> Spread:
    size = torch.quantile(draws.abs(), 0.95)
    return Spread(float(draws.square().mean().sqrt()), -float(size), float(size), len(draws))
