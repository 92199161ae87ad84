"""Feature maps: what turns the exponential of a score into a product of two short positive vectors.

Every map is given by the *logarithms* of its features. All of them are positive, so nothing is lost, and what reads
them may subtract whatever it likes from the logarithms before it takes exponentials: ratios stay what they are, and no
norm of a query or key is too large. Queries and keys are taken as they come, so rotary positions are already in them.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attlas.errors import ArgumentError, NonFiniteError, complaint
from attlas.matrix.softmax import AttentionMatrix
from attlas.matrix.visibility import Indices, take

if TYPE_CHECKING:
    from typing import Self


class Features(ABC):
    """A pair of positive feature maps, ``φ(q) · φ(k)`` in place of ``exp(scale · q·k)``.

    Feature maps are frozen records: two that are equal do the same.
    """

    @abstractmethod
    def log_query(self, query: Tensor, scale: float) -> Tensor:
        """Return the logarithms of queries' features.

        Parameters
        ----------
        query : Tensor, (batch, head, n, dim)
        scale : float
            What the exact matrix multiplies scores with.

        Returns
        -------
        Tensor, (batch, head, n, features)
            Finite, in the dtype of `query`; differentiable.
        """

    @abstractmethod
    def log_key(self, key: Tensor, heads: int, scale: float) -> Tensor:
        """Return the logarithms of keys' features; (batch, heads, n, features).

        `key` is (batch, kv_head, n, dim), where `kv_head` divides `heads`.
        """

    @abstractmethod
    def count(self, dim: int) -> int:
        """Return how many features there are, for heads of this width."""

    @abstractmethod
    def settings(self) -> str | dict[str, Any]:
        """Return what names it in a plan's file, as plain JSON."""

    def narrow(self, head: Indices) -> Features:
        """Return the maps of some heads."""
        del head
        return self

    def check(self, exact: AttentionMatrix) -> None:
        """Raise `ArgumentError` if the map does not fit these heads."""
        del exact


@dataclass(frozen=True)
class Elu(Features):
    """``φ(x) = elu(x) + 1``, as many features as the head is wide.

    References
    ----------
    Katharopoulos et al. (2020), "Transformers are RNNs", arXiv 2006.16236, equation 7.
    """

    def log_query(self, query: Tensor, scale: float) -> Tensor:
        del scale
        return torch.where(query > 0, query.clamp(min=0).log1p(), query)

    def log_key(self, key: Tensor, heads: int, scale: float) -> Tensor:
        return shared(self.log_query(key, scale), heads)

    def count(self, dim: int) -> int:
        return dim

    def settings(self) -> str:
        return "elu"


@dataclass(frozen=True)
class Favor(Features):
    """Positive orthogonal random features (FAVOR+): an unbiased estimate of ``exp(scale · q·k)``.

    Parameters
    ----------
    features : int
        How many.
    seed : int
        Which ones; the same for all heads, on every machine.

    Notes
    -----
    ``φ(x)_r = exp(w_r·x' − ‖x'‖²/2) / √features`` with ``x' = √scale · x`` and normal, orthogonal directions w_r. The
    estimate's variance grows with ``exp(‖q' + k'‖²)``, so heads with sharp rows need very many.

    References
    ----------
    Choromanski et al. (2021), "Rethinking attention with Performers", arXiv 2009.14794, lemma 1 and section 2.4.
    """

    features: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (("features", self.features, 1), ("seed", self.seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ArgumentError(complaint(name, wanted=f"a whole number of at least {least}", got=value))

    def log_query(self, query: Tensor, scale: float) -> Tensor:
        x = query * math.sqrt(scale)
        directions = self.directions(query.shape[-1]).to(query)
        norms = x.square().sum(-1, keepdim=True) + math.log(self.features)
        return x @ directions - norms / 2

    def log_key(self, key: Tensor, heads: int, scale: float) -> Tensor:
        return shared(self.log_query(key, scale), heads)

    def count(self, dim: int) -> int:
        return self.features

    def directions(self, dim: int) -> Tensor:
        """Return the random directions w, in float64; (dim, features)."""
        return _orthogonal(dim, self.features, self.seed)

    def settings(self) -> dict[str, Any]:
        return {"favor": {"features": self.features, "seed": self.seed}}

    def check(self, exact: AttentionMatrix) -> None:
        if exact.scale < 0:
            raise ArgumentError(
                complaint("scale", wanted="at least 0, for random features", got=exact.scale, way_out='use "elu"')
            )
        if exact.softcap is not None:
            raise ArgumentError(
                complaint(
                    "softcap",
                    wanted="none, for random features estimate scores without a cap",
                    got=exact.softcap,
                    way_out="fit a FeatureMap to these heads with `fit_features`",
                )
            )


@dataclass(frozen=True, eq=False)
class FeatureMap(Features):
    """Learned feature maps, one a head; `fit_features` makes them.

    Parameters
    ----------
    query : Tensor, (head, dim + 1, features)
        ``log φ(q) = log_softmax([q, 1] · query)``: each query shares a weight of 1 among the features. `head` may be 1:
        one map for all heads.
    key : Tensor, (head, dim + 1, features)
        ``log φ(k) = [k, 1] · key``; the last row is an offset.

    Raises
    ------
    ArgumentError
        The two do not fit together; `NonFiniteError` for NaN or infinity.

    Notes
    -----
    A query's row is a mixture of a few rows, ``Σ_r P(r | q) exp(u_r · k + c_r)``, each of which belongs to a feature as
    to a typical query. It is Hedgehog's softmax feature map with two differences: queries and keys have weights of
    their own in place of ``[W, −W]``, and the key's side is not divided by its sum, so that a key may count for little
    or for much, and features keep their proportion to the exact scores of a window. Two maps are equal if all their
    numbers are.

    References
    ----------
    Zhang et al. (2024), "The Hedgehog & the Porcupine", arXiv 2402.04347, section 4.2.
    """

    query: Tensor
    key: Tensor

    def __post_init__(self) -> None:
        for name, weights in (("query", self.query), ("key", self.key)):
            if not isinstance(weights, Tensor) or not weights.is_floating_point():
                got = getattr(weights, "dtype", type(weights).__name__)
                raise ArgumentError(complaint(name, wanted="a tensor of floats", got=got))
            if weights.ndim != 3 or 0 in weights.shape or weights.shape[1] < 2:
                got = f"shape {tuple(weights.shape)}"
                raise ArgumentError(complaint(name, wanted="shape (head, dim + 1, features)", got=got))
            if not bool(weights.isfinite().all()):
                raise NonFiniteError(complaint(name, wanted="finite numbers", got="NaN or infinity"))
        if self.query.shape != self.key.shape:
            got = f"shape {tuple(self.key.shape)}"
            raise ArgumentError(complaint("key", wanted=f"the query's shape {tuple(self.query.shape)}", got=got))
        if self.query.device != self.key.device:
            raise ArgumentError(complaint("key", wanted=f"the query's device {self.query.device}", got=self.key.device))
        # Weights are float32 wherever they come from, so that a map read from a file is equal to the one written.
        object.__setattr__(self, "query", self.query.detach().to(torch.float32))
        object.__setattr__(self, "key", self.key.detach().to(torch.float32))

    @property
    def heads(self) -> int:
        """How many heads have a map of their own."""
        return self.query.shape[0]

    @cached_property
    def digest(self) -> str:
        """A hash of all weights: what stands for them in a plan's file."""
        content = hashlib.sha256(str(tuple(self.query.shape)).encode())
        for weights in (self.query, self.key):
            content.update(weights.cpu().contiguous().numpy().tobytes())
        return content.hexdigest()[:32]

    def log_query(self, query: Tensor, scale: float) -> Tensor:
        del scale
        return learned_log_query(query, self.query)

    def log_key(self, key: Tensor, heads: int, scale: float) -> Tensor:
        del scale
        if self.heads == 1:
            return shared(learned_log_key(key, self.key), heads)
        return learned_log_key(shared(key, heads), self.key)

    def count(self, dim: int) -> int:
        return self.query.shape[2]

    def settings(self) -> dict[str, Any]:
        return {"learned": self.digest}

    def narrow(self, head: Indices) -> FeatureMap:
        return FeatureMap(take(self.query, 0, head), take(self.key, 0, head))

    def check(self, exact: AttentionMatrix) -> None:
        if self.heads not in (1, exact.shape[1]):
            raise ArgumentError(
                complaint(
                    "features",
                    wanted=f"maps for the matrix' {exact.shape[1]} heads",
                    got=f"maps for {self.heads}",
                    way_out="narrow the maps to the heads that are attended",
                )
            )
        dim = exact.query.shape[3]
        if self.query.shape[1] != dim + 1:
            raise ArgumentError(
                complaint("features", wanted=f"maps for a dim of {dim}", got=f"for {self.query.shape[1] - 1}")
            )

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights by name, to be kept in a file beside a plan; `from_tensors` is the way back."""
        return {"query": self.query, "key": self.key}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Make a map from what `tensors` gave."""
        missing = {"query", "key"} - set(tensors)
        if missing:
            raise ArgumentError(complaint("tensors", wanted="query and key", got=f"no {' and no '.join(missing)}"))
        return cls(tensors["query"], tensors["key"])

    @classmethod
    def joined(cls, maps: Sequence[FeatureMap]) -> Self:
        """Put the maps of several heads side by side, so that the heads can run together."""
        if not maps:
            raise ArgumentError(complaint("maps", wanted="at least one", got="none"))
        return cls(torch.cat([one.query for one in maps]), torch.cat([one.key for one in maps]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureMap) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        heads, width, features = self.query.shape
        return f"FeatureMap(heads={heads}, dim={width - 1}, features={features}, {self.digest})"


def named(features: Features | str | Mapping[str, Any], maps: Mapping[str, FeatureMap] | None = None) -> Features:
    """Return feature maps by their name or their settings; maps themselves are handed back.

    Parameters
    ----------
    features : Features, str or mapping
        ``"elu"``, ``"favor"``, or what a map's `settings` gave, also after a way through JSON.
    maps : mapping, optional
        Learned maps by their digest, among which settings may name one.

    Raises
    ------
    ArgumentError
        There is no such map.
    """
    if isinstance(features, Features):
        return features
    if isinstance(features, Mapping):
        return _from_settings(features, maps or {})
    known = {"elu": Elu, "favor": Favor}
    if not isinstance(features, str) or features not in known:
        raise ArgumentError(complaint("features", wanted='"elu", "favor" or feature maps', got=repr(features)))
    return known[features]()


def _from_settings(settings: Mapping[str, Any], maps: Mapping[str, FeatureMap]) -> Features:
    if set(settings) == {"favor"} and isinstance(settings["favor"], Mapping):
        return Favor(**settings["favor"])
    if set(settings) != {"learned"}:
        got = " and ".join(map(str, settings)) or "none"
        raise ArgumentError(complaint("features", wanted="the settings of elu, favor or learned maps", got=got))
    digest = settings["learned"]
    if digest not in maps:
        raise ArgumentError(
            complaint(
                "maps",
                wanted=f"the learned feature map {digest}",
                got=f"{len(maps)} others",
                way_out="keep the file of learned maps beside the plan that names them",
            )
        )
    if maps[digest].digest != digest:
        raise ArgumentError(complaint("maps", wanted=f"weights with the hash {digest}", got=maps[digest].digest))
    return maps[digest]


def shared(tensor: Tensor, heads: int) -> Tensor:
    """Give each of `heads` heads its own copy of what groups of them share: (batch, kv_head, ...)."""
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1) if tensor.shape[1] != heads else tensor


def learned_log_query(query: Tensor, weights: Tensor) -> Tensor:
    """Return the logarithms of queries' learned features; see `FeatureMap`."""
    return _affine(query, weights).log_softmax(-1)


def learned_log_key(key: Tensor, weights: Tensor) -> Tensor:
    """Return the logarithms of keys' learned features; see `FeatureMap`."""
    return _affine(key, weights)


def _affine(x: Tensor, weights: Tensor) -> Tensor:
    weights = weights.to(x)
    return x @ weights[:, :-1] + weights[:, -1:]


@lru_cache(maxsize=32)
def _orthogonal(dim: int, features: int, seed: int) -> Tensor:
    """Return normal directions, orthogonal within each block of `dim`; (dim, features), float64."""
    generator = torch.Generator().manual_seed(seed)
    blocks = -(-features // dim)
    normal = torch.randn(blocks, dim, dim, generator=generator, dtype=torch.float64)
    basis, upper = torch.linalg.qr(normal)
    # A QR decomposition is unique, and its basis evenly distributed, once the diagonal is positive.
    basis = basis * torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).unsqueeze(-2)
    lengths = torch.randn(blocks, dim, dim, generator=generator, dtype=torch.float64).norm(dim=-1)
    return (basis * lengths.unsqueeze(-2)).movedim(0, 1).flatten(1)[:, :features]
