"""A layer's views, each proved: the convention that reproduces the recorded queries, keys and values is the one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attlas.errors import UnsupportedModelError
from attlas.projections.finding import (
    Following,
    Source,
    input_norm_of,
    notes_of,
    output_of,
    positions_of,
    sources,
)
from attlas.projections.fitting import Fit, Rotary, error_by_head, error_of, fit, tolerance_of
from attlas.projections.layouts import Heads, Slot, slots
from attlas.projections.low_rank import LowRank
from attlas.projections.norms import head_norm_of, is_norm
from attlas.projections.rotation import Rotation
from attlas.projections.tracing import Run, Trace
from attlas.projections.views import HeadNorm, LayerProjections
from attlas.projections.weights import Weights

_NO_ROTARY = Rotary((), ())


@dataclass(frozen=True, eq=False)
class Proof:
    """Where a role's heads lie, and how a projected state becomes what the kernel is given.

    Parameters
    ----------
    source : Source
    slot : Slot
    norm : HeadNorm, optional
    fit : Fit
    """

    source: Source
    slot: Slot
    norm: HeadNorm | None
    fit: Fit


def prove_layer(model: nn.Module, trace: Trace, layer: int, rotary: Rotary) -> LayerProjections:
    """Return a layer's views.

    Raises
    ------
    UnsupportedModelError
        No known convention reproduces what was recorded; the message names the module and says why.
    NonFiniteError
        A weight holds NaN or infinity.
    """
    at = trace.attention(layer)
    if at is None:
        name = trace.captured.names[trace.captured.layers.index(layer)].partition(" (turn ")[0]
        raise UnsupportedModelError(
            f"{name}: attends several times in one run, so its weights have no layer of their own"
        )
    run, turn = at
    matrix = trace.captured[layer]
    query, key, value, heads = trace.recorded(layer, run.device)
    batch, n_query = query.shape[0], query.shape[2]
    inside = sources(run, batch)
    key, value = _unrepeated(query, key, value)
    shape = Heads(query.shape[1], key.shape[1], query.shape[3], value.shape[3])
    positions = positions_of(run, batch, n_query)
    prove = _Prover(run, inside, shape, heads)
    asks = prove("query", query, positions, rotary, None)
    cross = key.shape[2] != n_query
    key_positions = None if cross else positions
    seeks = prove("key", key, key_positions, rotary, asks.fit.rotation)
    gives = prove("value", value, None, _NO_ROTARY, None)
    cross = cross or not _equal(asks.source.states, seeks.source.states)
    rotation, factors = _joined(run.name, asks.fit, seeks.fit)
    if gives.fit.factor != 1:
        raise UnsupportedModelError(
            f"{run.name}: multiplies its values with {gives.fit.factor:.6g}, outside its weights"
        )
    proofs = {"query": asks, "key": seeks, "value": gives}
    follows, gate = _output(run, heads, inside, proofs, shape)
    causal = not cross and n_query > 1 and not bool(matrix.to_dense().triu(1).any())
    views: dict[str, Any] = {}
    shared, modules, rows = set(), {"attention": run.name}, {}
    for role, proof in proofs.items():
        views[role], views[f"{role}_bias"] = _taken(proof.source.weights, proof.slot)
        modules[role], rows[role] = proof.source.weights.name, _rows(proof.source, proof.slot)
        if proof.source.weights.shared and _shares(views[role], proof.source.weights.weight):
            shared.add(role)
    if gate is not None:
        views["gate"], views["gate_bias"] = _taken(gate[0].weights, gate[1])
        modules["gate"], rows["gate"] = gate[0].weights.name, _rows(*gate)
    out = follows.weights
    # (out, head · value_dim) -> (head, value_dim, out)
    views["output"] = out.weight.unflatten(1, (shape.heads, shape.value_dim)).permute(1, 2, 0)
    if out.shared:
        shared.add("output")
    found = LayerProjections(
        layer=layer,
        name=run.name,
        kind="cross" if cross else "self",
        causal=causal,
        **views,
        output_bias=out.bias,
        scale=matrix.scale * factors[0] * factors[1],
        rotation=rotation,
        query_norm=asks.norm,
        key_norm=seeks.norm,
        value_norm=gives.norm,
        input_norm=input_norm_of(run, asks.source.states, follows.made),
        adapters=_adapters(proofs, rows, out, shape),
        factors=factors,
        modules={**modules, "output": out.name},
        rows=rows,
        shared=frozenset(shared),
        notes=notes_of(run.module, model, rotation is not None),
        turn=turn,
    )
    error = layer_error(trace, found)
    if error > tolerance_of(query.dtype):
        raise UnsupportedModelError(
            f"{run.name}: its projections do not reproduce what the kernel was given (relative error {error:.1e})"
        )
    return found


def _output(
    run: Run, heads: Tensor, inside: list[Source], proofs: dict[str, Proof], shape: Heads
) -> tuple[Following, tuple[Source, Slot] | None]:
    """Find the output projection, and the gate in front of it if there is one, beside the queries or on its own."""
    used = {proof.source.weights.name for proof in proofs.values()}
    asks = proofs["query"]
    gates: list[tuple[Source, Slot]] = []
    if asks.slot.gate is not None:
        gates.append((asks.source, asks.slot.gate))
    width = shape.heads * shape.value_dim
    for source in inside:
        own = source.weights.name not in used and source.weights.weight.shape[0] == width
        if own and source.direct and _equal(source.states, asks.source.states):
            gates.append((source, Slot("its own", 0, (shape.heads, shape.value_dim), (slice(None),))))
    if (found := output_of(run, heads, used)) is not None:
        return found, None
    for source, slot in gates:
        gated = heads * torch.sigmoid(_projected(source, slot)).to(heads.dtype)
        if (found := output_of(run, gated, used)) is not None:
            return found, (source, slot)
    raise UnsupportedModelError(
        f"{run.name}: no projection takes up just what its heads give, so there is no one W_O for each head"
    )


class _Prover:
    """Tries every projection of an attention module as the source of a role."""

    def __init__(self, run: Run, inside: list[Source], shape: Heads, heads: Tensor) -> None:
        after = heads.transpose(1, 2).flatten(2)
        self._run, self._shape = run, shape
        self._inside = [source for source in inside if not _equal(source.states, after)]
        self._norms = [inner for inner in run.inside() if is_norm(inner)]

    def __call__(
        self, role: str, recorded: Tensor, positions: Tensor | None, rotary: Rotary, known: Rotation | None
    ) -> Proof:
        allowed = tolerance_of(recorded.dtype)
        target = recorded.double()
        # Some models scale their queries before the kernel, not in it.
        rotary = replace(
            rotary,
            amplitudes=(*rotary.amplitudes, self._shape.dim**-0.5),
            precision=max(rotary.precision, torch.finfo(recorded.dtype).eps),
        )
        best: Proof | None = None
        for source in sorted(self._inside, key=lambda source: not _hints(source.weights.name, role)):
            for slot in slots(role, source.weights.weight.shape[0], self._shape):
                if source.states.shape[1] != recorded.shape[2]:
                    continue
                made = _projected(source, slot)
                for norm, fitted in self._explanations(made, target, positions, rotary, known, allowed):
                    if best is None or fitted.error < best.fit.error:
                        best = Proof(source, slot, norm, fitted)
                if best is not None and best.fit.error <= allowed:
                    if not best.source.direct:
                        raise UnsupportedModelError(self._reason(role, recorded))
                    return best
        raise UnsupportedModelError(self._reason(role, recorded))

    def _explanations(
        self,
        made: Tensor,
        target: Tensor,
        positions: Tensor | None,
        rotary: Rotary,
        known: Rotation | None,
        allowed: float,
    ) -> Iterator[tuple[HeadNorm | None, Fit]]:
        """Every way from projected states to the recorded ones: as they are, normalised first, normalised after."""
        heads, dim = made.shape[1], made.shape[3]
        if (found := fit(made, target, positions, rotary, known, allowed)) is not None:
            yield None, found
        for run in self._norms:
            if run.first is None or run.output is None or run.first.numel() != made.numel():
                continue
            given = _as_heads(run.first.double(), made)
            if given is None:
                continue
            norm = head_norm_of(run, heads, dim)
            if norm is None:
                continue
            if error_of(given, made) <= tolerance_of(run.first.dtype):
                if (found := fit(norm(made), target, positions, rotary, known, allowed)) is not None:
                    yield norm, found
            elif not norm.centred and norm.bias is None and _uniform(norm.gain):
                # A normalisation after the rotation does the same before it, if it treats all dimensions alike.
                if (found := fit(norm(made), target, positions, rotary, known, allowed)) is not None:
                    yield norm, found

    def _reason(self, role: str, recorded: Tensor) -> str:
        name, plural = self._run.name, {"query": "queries", "key": "keys", "value": "values"}[role]
        if not self._inside:
            return f"{name}: runs no projection of its own, so it has no weights for {plural}"
        if not all(source.direct for source in self._inside if source.states.shape[1] == recorded.shape[2]):
            inner = [source.weights.name.removeprefix(f"{name}.") for source in self._inside if not source.direct]
            return (
                f"{name}: makes its {plural} in several steps ({', '.join(inner)} take an inner state, as in "
                "multi-head latent attention), so a head has no one matrix for them"
            )
        return (
            f"{name}: no known layout, normalisation and rotation of its projections "
            f"({', '.join(s.weights.name.removeprefix(f'{name}.') for s in self._inside)}) reproduces its {plural}"
        )


def layer_error(trace: Trace, views: LayerProjections) -> float:
    """Return the worst relative error of a layer's queries, keys, values and outputs against a trace.

    Everything is computed in float64 from the states that the projections were given in the trace.
    """
    at = trace.attention(views.layer)
    if at is None or at[0].name != views.name:
        raise UnsupportedModelError(f"{views.name}: did not run as layer {views.layer}")
    run = at[0]
    query, key, value, heads = trace.recorded(views.layer, run.device)
    key, value = _unrepeated(query, key, value)
    batch = query.shape[0]
    given = {source.weights.name: source.states for source in sources(run, batch)}
    if isinstance(run.module, nn.MultiheadAttention):
        given = {}
        states = dict(zip(("query", "key", "value"), (s.states for s in sources(run, batch)), strict=True))
    else:
        states = {role: given[views.modules[role]] for role in ("query", "key", "value")}
    states = {role: t.double() for role, t in states.items()}
    positions = positions_of(run, batch, query.shape[2])
    keyed = positions if key.shape[2] == query.shape[2] else None
    errors = [
        error_by_head(views.queries(states["query"], positions) * views.factors[0], query.double()),
        error_by_head(views.keys(states["key"], keyed) * views.factors[1], key.double()),
        error_by_head(views.values(states["value"]), value.double()),
    ]
    errors.append(_output_error(trace, views, run, states["query"], heads))
    return max(errors)


def _output_error(trace: Trace, views: LayerProjections, run: Run, states: Tensor, gathered: Tensor) -> float:
    heads = gathered.double()
    if isinstance(run.module, nn.MultiheadAttention):
        matrix, value = trace.captured[views.layer], trace.captured.values(views.layer)
        dense = matrix.to_dense().double() @ value.double().repeat_interleave(matrix.shape[1] // value.shape[1], 1)
        heads = dense.to(run.device)
    if views.gate is not None:
        gate = states.unsqueeze(-3) @ views.gate.double()
        heads = heads * torch.sigmoid(
            gate if views.gate_bias is None else gate + views.gate_bias.double().unsqueeze(-2)
        )
    names = {views.modules[role] for role in ("query", "key", "value")}
    given = gathered if views.gate is None else heads.to(views.output.dtype)
    follows = output_of(run, given, names)
    if follows is None:
        return float("inf")
    projected = views.outputs(heads)
    return error_of(projected, follows.made.double().reshape(projected.shape))


def _projected(source: Source, slot: Slot) -> Tensor:
    """Return (batch, head, n, width) in float64."""
    weight, bias = source.weights.weight.double(), source.weights.bias
    part = slot.take(weight).transpose(1, 2)
    made = source.states.double().unsqueeze(1) @ part
    return made if bias is None else made + slot.take(bias.double()).unsqueeze(1)


def _taken(weights: Weights, slot: Slot) -> tuple[Tensor, Tensor | None]:
    bias = None if weights.bias is None else slot.take(weights.bias)
    return slot.take(weights.weight).transpose(1, 2), bias


def _rows(source: Source, slot: Slot) -> Tensor:
    """Return which row of the weight each number of each head is made by, (head, width)."""
    return slot.take(torch.arange(source.weights.weight.shape[0]))


def _shares(view: Tensor, weight: Tensor) -> bool:
    return view.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _as_heads(given: Tensor, made: Tensor) -> Tensor | None:
    """Read what a normalisation was given as (batch, head, n, dim)."""
    batch, heads, n, dim = made.shape
    if given.shape == made.shape:
        return given
    if given.shape in ((batch, n, heads, dim), (batch, n, heads * dim)):
        return given.reshape(batch, n, heads, dim).transpose(1, 2)
    return None


def _uniform(gain: Tensor) -> bool:
    return bool((gain == gain.reshape(-1)[0]).all())


def _hints(name: str, role: str) -> bool:
    """Whether a module's name speaks of a role: the likeliest projections are tried first."""
    last = name.rsplit(".", 1)[-1].lower()
    return last.removeprefix("w").startswith(role[0]) or role in last


def _unrepeated(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values once each, where a model repeats them for each of its query heads before the kernel."""
    heads = query.shape[1]
    if key.shape[1] != heads or heads == 1:
        return key, value
    for kv in range(1, heads):
        if heads % kv == 0 and all(_repeats(t, kv) for t in (key, value)):
            return key[:, :: heads // kv], value[:, :: heads // kv]
    return key, value


def _repeats(t: Tensor, kv: int) -> bool:
    groups = t.unflatten(1, (kv, -1))
    return torch.equal(groups, groups[:, :, :1].expand_as(groups))


def _joined(name: str, asks: Fit, seeks: Fit) -> tuple[Rotation | None, tuple[float, float]]:
    """Return the one rotation of queries and keys, and what each is multiplied with outside of it."""
    q, k = asks.rotation, seeks.rotation
    if (q is None) != (k is None):
        raise UnsupportedModelError(f"{name}: rotates only its {'queries' if k is None else 'keys'} by their positions")
    factors = (asks.factor, seeks.factor)
    if q is None or k is None or q.amplitude == k.amplitude:
        return q, factors
    if q.dims == q.dim:  # everything turns: the queries' amplitude holds a factor of theirs
        return replace(q, amplitude=k.amplitude), (q.amplitude / k.amplitude, factors[1])
    raise UnsupportedModelError(f"{name}: multiplies the rotated parts of its queries and keys differently")


def _adapters(proofs: dict[str, Proof], rows: Mapping[str, Tensor], out: Weights, shape: Heads) -> dict[str, LowRank]:
    found = {}
    for role, proof in proofs.items():
        adapter = proof.source.weights.adapter
        if adapter is not None:
            found[role] = read_by(rows[role], adapter.down, adapter.up)
    if out.adapter is not None:
        found["output"] = written_by(shape.heads, out.adapter.down, out.adapter.up)
    return found


def read_by(rows: Tensor, down: Tensor, up: Tensor) -> LowRank:
    """Return what ``up @ down``, (out, in), says to the heads that have these rows of it, (head, width)."""
    return LowRank(down.T, up[rows].transpose(1, 2))


def written_by(heads: int, down: Tensor, up: Tensor) -> LowRank:
    """Return what ``up @ down``, (out, in), makes of each head's output, (head, value_dim, out)."""
    return LowRank(down.unflatten(1, (heads, -1)).permute(1, 2, 0), up.T)
