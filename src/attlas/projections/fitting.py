"""Finding how a projected state became the query or key that the kernel was given: a factor, and a rotation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attlas.projections.rotation import Rotation, pairings

_ROUNDINGS = 16
_BETTER = 3


def tolerance_of(dtype: torch.dtype) -> float:
    """Return how far a reproduced tensor may be from the recorded one, relative to its norm.

    A projection in this dtype and a rotation after it round a few times; a wrong convention is off by about 1. Models
    take the angles' sines in float32 whatever their dtype.
    """
    return _ROUNDINGS * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)


def error_of(made: Tensor, recorded: Tensor) -> float:
    """Return ``‖made − recorded‖ / ‖recorded‖``, Frobenius; infinity for NaN or another shape."""
    if made.shape != recorded.shape:
        return float("inf")
    size, difference = float(recorded.norm()), float((made - recorded).norm())
    error = difference / size if size > 0 else difference
    return error if error == error else float("inf")


def error_by_head(made: Tensor, recorded: Tensor) -> float:
    """Return the worst head's `error_of`, for tensors (batch, head, n, dim)."""
    if made.shape != recorded.shape:
        return float("inf")
    return max(error_of(made[:, head], recorded[:, head]) for head in range(recorded.shape[1]))


@dataclass(frozen=True, eq=False)
class Fit:
    """How a tensor became another: times a factor, then rotated.

    Parameters
    ----------
    factor : float
    rotation : Rotation, optional
        With whatever rotated pairs are multiplied with besides, as its amplitude.
    error : float
        What is left, relative.
    """

    factor: float
    rotation: Rotation | None
    error: float


@dataclass(frozen=True, eq=False)
class Rotary:
    """What a model says about its rotary encodings.

    Parameters
    ----------
    frequencies : sequence of Tensor
        Every set of inverse frequencies among its buffers.
    dims : sequence of int
        How many dimensions may turn, from its attributes.
    amplitudes : sequence of float
        What rotated pairs may be multiplied with besides.
    precision : float
        A factor that is this near to a known one, relatively, is taken for it.
    """

    frequencies: Sequence[Tensor]
    dims: Sequence[int]
    amplitudes: Sequence[float] = ()
    precision: float = 1e-6

    def rounded(self, factor: float) -> float:
        """Take a known amplitude, or 1, for a factor that differs from it by rounding only."""
        near = [a for a in (1.0, *self.amplitudes) if abs(factor - a) <= self.precision * a]
        return min(near, key=lambda a: abs(factor - a)) if near else factor


def fit(
    made: Tensor,
    recorded: Tensor,
    positions: Tensor | None,
    rotary: Rotary,
    known: Rotation | None,
    allowed: float,
) -> Fit | None:
    """Find the factor and the rotation that turn `made` into `recorded`; None if there are none.

    Parameters
    ----------
    made, recorded : Tensor, (batch, head, n, dim)
        float64.
    positions : Tensor, (batch, n), optional
        Without them no rotation is tried.
    rotary : Rotary
    known : Rotation, optional
        The only rotation to try, with any amplitude.
    allowed : float
        An error that rounding explains: the first way that comes so near is taken.
    """
    if made.shape != recorded.shape:
        return None
    plain = Fit(factor := _factor(made, recorded, rotary), None, error_by_head(made * factor, recorded))
    best = plain
    # A rotation by very small angles is almost none: it has to explain most of what a mere factor leaves.
    if positions is not None:
        for rotation, turned in _rotations(made, recorded, positions, rotary, known):
            error = error_by_head(rotation.rotate(made, positions.unsqueeze(-2)) * turned, recorded)
            if error < best.error / (_BETTER if best is plain else 1):
                best = Fit(turned, rotation, error)
            if best is not plain and best.error <= allowed:
                break
    return best


def _factor(made: Tensor, recorded: Tensor, rotary: Rotary) -> float:
    size = float(made.square().sum())
    return rotary.rounded(float((made * recorded).sum()) / size) if size else 1.0


def _rotations(
    made: Tensor, recorded: Tensor, positions: Tensor, rotary: Rotary, known: Rotation | None
) -> Iterator[tuple[Rotation, float]]:
    dim = made.shape[-1]
    if known is not None:
        found = _pair(made, recorded, known.first, known.second)
        factor = _rest(made, recorded, known.first, known.second, rotary)
        yield replace(known, amplitude=rotary.rounded(_amplitude(found) / factor)), factor
        return
    for dims in _widths(made, recorded, rotary, dim):
        for first, second in pairings(dims, dim):
            found = _pair(made, recorded, first, second)
            if not bool(torch.isfinite(found).all()):
                continue
            factor = _rest(made, recorded, first, second, rotary)
            amplitude = rotary.rounded(_amplitude(found) / factor)
            estimated = _estimated(found, positions)
            for frequencies in _nearest(rotary.frequencies, estimated, dims // 2):
                rotation = Rotation(frequencies.double(), first, second, amplitude, dim)
                yield rotation, factor


def _widths(made: Tensor, recorded: Tensor, rotary: Rotary, dim: int) -> Iterable[int]:
    changed = ((made - recorded).abs().amax((0, 1, 2)) > 1e-4 * recorded.abs().max()).nonzero()
    seen = int(changed.max()) + 1 if changed.numel() else 0
    widths = [*(2 * f.shape[0] for f in rotary.frequencies), *rotary.dims, dim, seen + seen % 2]
    return dict.fromkeys(width for width in widths if 0 < width <= dim and width % 2 == 0)


def _pair(made: Tensor, recorded: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the complex factor of each pair at each position, (batch, n, pair), by least squares over heads."""
    before, after = (torch.complex(t[..., first.to(t.device)], t[..., second.to(t.device)]) for t in (made, recorded))
    return (after * before.conj()).sum(1) / before.abs().square().sum(1)


def _amplitude(factors: Tensor) -> float:
    return float(factors.abs().median())


def _rest(made: Tensor, recorded: Tensor, first: Tensor, second: Tensor, rotary: Rotary) -> float:
    """Return the factor of the dimensions that do not turn; 1 if all do."""
    still = torch.ones(made.shape[-1], dtype=torch.bool).index_fill(0, torch.cat([first, second]), False)
    return (_factor(made[..., still], recorded[..., still], rotary) if bool(still.any()) else 1.0) or 1.0


def _estimated(factors: Tensor, positions: Tensor) -> Tensor | None:
    """Return the frequencies that the phases show, where positions are 0, 1, 2 …; the last position refines them."""
    n = factors.shape[1]
    if n < 2 or not torch.equal(positions[0].cpu(), torch.arange(n)):
        return None
    phase = factors[0].angle()
    frequency = phase[1]
    for step in range(2, n):
        turns = torch.round((step * frequency - phase[step]) / (2 * torch.pi))
        frequency = (phase[step] + 2 * torch.pi * turns) / step
    return frequency


def _nearest(known: Sequence[Tensor], estimated: Tensor | None, pairs: int) -> Iterator[Tensor]:
    """Go through the model's own frequencies, those nearest to the estimate first, then the estimate itself."""
    fitting = [f for f in known if f.shape == (pairs,)]
    if estimated is None:
        yield from fitting
        return
    yield from sorted(fitting, key=lambda f: float((f.double().to(estimated.device) - estimated).abs().max()))
    yield estimated
