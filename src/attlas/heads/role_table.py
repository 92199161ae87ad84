"""The table that says which heads have which roles: scores, baselines, intervals, and the verdict."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from attlas._intervals import RESAMPLES, Interval, halves, simultaneous
from attlas._tables import Table
from attlas.errors import ArgumentError, complaint
from attlas.heads.roles import NONE, Role
from attlas.results import Provenance

if TYPE_CHECKING:
    from attlas.heads.relations.table import RelationScores


class Sample(NamedTuple):
    """What was measured of one role, before any statistics; float64.

    Parameters
    ----------
    score : Tensor, (example, head)
    baselines : mapping
        Name -> Tensor, (example, head or 1): what the score has to exceed, each of them.
    choice : Tensor, (head,), int64, optional
        What was chosen for each head on half of the examples, which are not among these: the offset.
    """

    score: Tensor
    baselines: Mapping[str, Tensor]
    choice: Tensor | None = None


@dataclass(frozen=True, eq=False)
class RoleScores:
    """One role of all heads; tensors are float64 unless said otherwise.

    Parameters
    ----------
    role : Role
    score, low, high : Tensor, (head,)
        The mean over examples, and an interval that holds for all heads at once, with 95 % probability.
    baseline : Tensor, (head,)
        The largest of the role's baselines for each head.
    excess : Tensor, (head,)
        The lower end of the simultaneous interval of the score minus the baseline.
    passes : Tensor, (head,), bool
        Whether `excess` is above the role's margin.
    examples : int
        Independent examples: sequences, or stretches of a text.
    choice : Tensor, (head,), int64, optional
        The offset or direction that was chosen for each head, on examples that are not counted here.
    choices : tuple of str, optional
        What `choice` counts, where it is no offset.
    selection : Tensor, (head,), optional
        The excess on other examples, which are not counted here, where there were any to choose heads by.
    sample : Sample, optional
        What each example gave; without `selection`, `HeadTable.best` chooses on one half of it and reports the other.
    """

    role: Role
    score: Tensor
    low: Tensor
    high: Tensor
    baseline: Tensor
    excess: Tensor
    passes: Tensor
    examples: int
    choice: Tensor | None = None
    choices: tuple[str, ...] | None = None
    selection: Tensor | None = None
    sample: Sample | None = None


class Held(NamedTuple):
    """A head that was chosen on one half of the examples, and what the other half says of it."""

    layer: int
    head: int
    score: float
    low: float
    high: float
    baseline: float
    passes: bool


class Prediction(NamedTuple):
    """How well a number that is read off the weights tells the heads that have a role.

    Parameters
    ----------
    predictor : str
    role : str
    auc : float
        The probability that a head with the role has the larger number than one without; 0.5 is chance.
    low, high : float
        Its 95 % interval, by a bootstrap over heads.
    heads : int
        How many heads have the role.
    correlation : float
        Spearman's rank correlation of the number with the role's score, over all heads.
    """

    predictor: str
    role: str
    auc: float
    low: float
    high: float
    heads: int
    correlation: float


@dataclass(frozen=True, eq=False)
class HeadTable(Table):
    """A row for every head: what it does, how sure that is, and what it is compared with.

    Parameters
    ----------
    heads : tuple of (layer, head)
        In the order of the table's rows.
    scores : mapping
        Name of a role -> `RoleScores`.
    missing : mapping
        Name of a role -> why it could not be measured on this model.
    predictions : tuple of Prediction
        How far weights alone tell the roles that were measured.
    relations : RelationScores, optional
        Everything about the relations between words, where they were measured.
    provenance : Provenance
        How it was made.
    """

    heads: tuple[tuple[int, int], ...]
    scores: Mapping[str, RoleScores]
    provenance: Provenance
    missing: Mapping[str, str] = field(default_factory=dict)
    predictions: tuple[Prediction, ...] = ()
    relations: RelationScores | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", MappingProxyType(dict(self.scores)))
        object.__setattr__(self, "missing", MappingProxyType(dict(self.missing)))

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that were measured."""
        return tuple(found.role for found in self.scores.values())

    @property
    def counts(self) -> dict[str, int]:
        """How many heads pass each role."""
        return {name: int(found.passes.sum()) for name, found in self.scores.items()}

    def role_of(self, layer: int, head: int) -> str:
        """Return the name of a head's role, or "none"; see `names`."""
        return self.names[self._index(layer, head)]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Each head's role: of those that it passes, the most telling kind, and of that kind the largest effect.

        An effect is the excess over the baseline as a share of what is possible. A specific place comes before what is
        fetched or written, that before a region, and the first token last, because attention falls there when there is
        nothing to do.
        """
        return tuple(self._name(i) for i in range(len(self)))

    def best(self, role: str, k: int = 1, *, seed: int = 0) -> list[Held]:
        """Return the `k` best heads of a role, chosen on one half of the examples and reported on the other.

        Parameters
        ----------
        role : str
            The name of a role.
        k : int
            How many; from 1.
        seed : int
            How the examples are split.

        Returns
        -------
        list of Held
            The interval holds for all `k` at once, with 95 % probability; of a relation, it is each head's own.

        Raises
        ------
        ArgumentError
            There is no such role, or `k` does not fit.
        """
        found = self._found(role)
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= len(self):
            raise ArgumentError(complaint("k", wanted=f"a whole number from 1 to {len(self)}", got=repr(k)))
        if found.selection is not None or found.sample is None:
            by = found.score - found.baseline if found.selection is None else found.selection
            held = [self._held(found, int(i)) for i in by.argsort(descending=True, stable=True)[:k]]
            known = None if self.relations is None else self.relations.best(role)
            if k == 1 and known is not None and (known.layer, known.head) == held[0][:2]:
                # One head that was chosen on other sentences needs no correction for all the others.
                return [held[0]._replace(passes=known.passes)]
            return held
        chosen, reported = halves(len(found.sample.score), seed)
        first = _part(found.sample, chosen)
        worst = torch.stack([first.score.nanmean(0) - b.nanmean(0) for b in first.baselines.values()]).amin(0)
        order = worst.argsort(descending=True, stable=True)[:k]
        second = score_role(found.role, _heads(_part(found.sample, reported), order), seed=seed)
        return [self._held(second, j, int(i)) for j, i in enumerate(order)]

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as plain types: where the head is, its role, and every role's score beside its baseline."""
        columns = [(name, found, _plain(found)) for name, found in self.scores.items()]
        table = []
        for i, ((layer, head), name) in enumerate(zip(self.heads, self.names, strict=True)):
            row: dict[str, Any] = {"layer": layer, "head": head, "role": name}
            for role, found, plain in columns:
                if found.choice is not None:
                    row[f"{role}_chosen"] = plain["choice"][i]
                row |= {f"{role}_{part}": plain[part][i] for part in ("score", "low", "high", "baseline", "passes")}
            table.append(row)
        return table

    def about(self) -> dict[str, Any]:
        return {
            "roles": {role.name: _about(role) for role in self.roles},
            "missing": dict(self.missing),
            "predictions": [prediction._asdict() for prediction in self.predictions],
        }

    def __repr__(self) -> str:
        found = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        return f"HeadTable({self.provenance.model}, {len(self)} heads: {found or 'no role passes'})"

    def _repr_html_(self) -> str:
        """Show, for each role, how many heads have it and which is best."""
        lines = []
        for name, found in self.scores.items():
            (best,) = self.best(name)
            cells = [
                found.role.label,
                str(self.counts[name]),
                f"({best.layer}, {best.head})",
                f"{best.score:.3f}",
                f"{best.low:.3f} to {best.high:.3f}",
                f"{best.baseline:.3f}",
            ]
            lines.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
        head = "".join(f"<th>{c}</th>" for c in ("role", "heads", "best head", "score", "interval", "baseline"))
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        caption = html.escape(f"{self.provenance.model}: {len(self)} heads")
        return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _name(self, index: int) -> str:
        passed = [found for found in self.scores.values() if bool(found.passes[index])]
        if not passed:
            return NONE

        def effect(found: RoleScores) -> float:
            baseline = float(found.baseline[index])
            return (float(found.score[index]) - baseline) / max(1 - baseline, 1e-9)

        telling = min(found.role.kind for found in passed)
        best = max((found for found in passed if found.role.kind == telling), key=effect)
        alias = best.role.name == "offset" and best.choice is not None and int(best.choice[index]) == 1
        return "previous_token" if alias else best.role.name

    def _index(self, layer: int, head: int) -> int:
        if (layer, head) not in self.heads:
            raise ArgumentError(complaint("layer and head", wanted="a head of the table", got=f"({layer}, {head})"))
        return self.heads.index((layer, head))

    def _found(self, role: str) -> RoleScores:
        if role in self.scores:
            return self.scores[role]
        why = f"not measured: {self.missing[role]}" if role in self.missing else repr(role)
        raise ArgumentError(complaint("role", wanted=f"one of {', '.join(self.scores)}", got=why))

    def _held(self, found: RoleScores, at: int, index: int | None = None) -> Held:
        layer, head = self.heads[at if index is None else index]
        score, low, high, baseline = (float(t[at]) for t in (found.score, found.low, found.high, found.baseline))
        return Held(layer, head, score, low, high, baseline, bool(found.passes[at]))


def score_role(role: Role, sample: Sample, *, seed: int = 0, resamples: int = RESAMPLES) -> RoleScores:
    """Turn what each example gave into scores, intervals and a verdict.

    Parameters
    ----------
    role : Role
    sample : Sample
    seed, resamples : int
        Of the bootstrap over examples.

    Returns
    -------
    RoleScores
        A head passes if, for each of the role's baselines, the simultaneous interval of the difference to it lies above
        the role's margin: it has to beat all of them, so no further correction is needed.
    """
    hits = role.unit == "hits"
    options = {"seed": seed, "resamples": resamples, "hits": hits}
    found = simultaneous(sample.score, **options)
    differences = [simultaneous(sample.score - b, **options) for b in sample.baselines.values()]
    baselines = [_mean(b, sample.score) for b in sample.baselines.values()]
    excess = torch.stack([d.low for d in differences]).amin(0)
    low, high = _ends(found)
    return RoleScores(
        role=role,
        score=found.mean,
        low=low,
        high=high,
        baseline=torch.stack(baselines).amax(0),
        excess=excess,
        passes=excess > role.margin,
        examples=found.examples,
        choice=sample.choice,
        sample=sample,
    )


def _mean(baseline: Tensor, score: Tensor) -> Tensor:
    """Return a baseline's mean over the examples that count, for every head."""
    kept = ~(score - baseline).isnan().any(1)
    return baseline.expand_as(score)[kept].double().mean(0)


def _ends(found: Interval) -> tuple[Tensor, Tensor]:
    """Return an interval's ends, within what a score can be."""
    return found.low.clamp(min=0.0), found.high.clamp(max=1.0)


def _part(sample: Sample, examples: Tensor) -> Sample:
    return Sample(sample.score[examples], {n: b[examples] for n, b in sample.baselines.items()}, sample.choice)


def _heads(sample: Sample, heads: Tensor) -> Sample:
    narrowed = {n: b.expand_as(sample.score)[:, heads] for n, b in sample.baselines.items()}
    return Sample(sample.score[:, heads], narrowed, None if sample.choice is None else sample.choice[heads])


def _plain(found: RoleScores) -> dict[str, Sequence[Any]]:
    parts = ("score", "low", "high", "baseline", "passes", "choice")
    plain = {part: tensor.tolist() for part in parts if (tensor := getattr(found, part)) is not None}
    if found.choices is not None:
        plain["choice"] = [found.choices[i] for i in plain["choice"]]
    return plain


def _about(role: Role) -> dict[str, Any]:
    return {
        "label": role.label,
        "meaning": role.meaning,
        "baselines": role.baselines,
        "source": role.source,
        "unit": role.unit,
        "margin": role.margin,
    }
