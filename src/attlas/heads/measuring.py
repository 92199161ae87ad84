"""`attlas.heads`: which heads have which roles, measured on what the model does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from attlas import __version__
from attlas._intervals import FEWEST, LEVEL, RESAMPLES, check_resamples
from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, DocumentError, UnsupportedModelError, complaint
from attlas.heads.needles import measure_needles, needles
from attlas.heads.predictions import predict_roles
from attlas.heads.relations.grammar import RELATIONS
from attlas.heads.relations.labelled import LabelledPairs
from attlas.heads.relations.labelled import sentences as made_sentences
from attlas.heads.relations.measuring import relation_scores
from attlas.heads.relations.reading import DIRECTIONS
from attlas.heads.relations.scoring import MARGIN as RELATION_MARGIN
from attlas.heads.repeats import frame_of, measure_repeats, offsets_of, repeats
from attlas.heads.role_table import HeadTable, RoleScores, Sample, score_role
from attlas.heads.roles import BY_NAME, FAR, MARGIN, REACH, ROLES, Role
from attlas.heads.texts import measure_text, stretches
from attlas.models.progress import Progress
from attlas.results import Provenance

if TYPE_CHECKING:
    from attlas.heads.relations.table import RelationScores
    from attlas.projections.whole import Projections

SENTENCES = 400
"""Sentences of the library's own in which relations between words are measured."""

PLANTED = ("long_range", "delimiter", "retrieval", "needle")
UNPREDICTING = "this model predicts no next token"
NOT_IN_TEXTS = "it needs sequences that are made for it: leave the text out"


def heads(
    lm: LanguageModel,
    text: str | None = None,
    *,
    seed: int = 0,
    sentences: LabelledPairs | Iterable[LabelledPairs] | None = None,
    resamples: int = RESAMPLES,
    progress: Progress | None = None,
) -> HeadTable:
    """Find out which heads have which roles.

    Parameters
    ----------
    lm : LanguageModel
        What `attlas.load` returned.
    text : str, optional
        Measure on this text, of at least 264 tokens. By default on sequences that the library makes: random tokens
        that repeat themselves, documents with planted sentences, and sentences in which it is known which words belong
        together.
    seed : int
        Of everything that is drawn.
    sentences : LabelledPairs, or several, optional
        Sentences with known pairs, for relations between words; the library's own by default, none with a text. An
        empty list leaves relations out.
    resamples : int
        Of the bootstrap; from 100.
    progress : callable, optional
        Called as ``progress(done, total, what)`` during each of several parts.

    Returns
    -------
    HeadTable
        A row a head: for each role its score, an interval that holds for all heads at once, what it is compared with
        and whether it passes. `HeadTable.best` names heads that were chosen on one half of the examples and are
        reported on the other.

    Raises
    ------
    ArgumentError
        An argument does not fit.
    DocumentError
        The text is empty, too short or too long.
    UnsupportedModelError
        The model's attention cannot be captured, or no role can be measured on it.

    Notes
    -----
    Scores are shares of attention unless the role says otherwise; see `ROLES`. A head passes a role if the lower end of
    the simultaneous interval of its score minus each baseline lies above 0.1. The examples behind an interval are whole
    sequences, or stretches of the text.

    With a text, at most 1,920 queries are asked about single keys, and 480 about sets of keys, whatever its length: no
    n × n is made, and the time beyond reading is a small part of a forward pass. Without one, about 150 short sequences
    are read.

    Examples
    --------
    >>> table = attlas.heads(attlas.load("smollm2-135m"))  # doctest: +SKIP
    >>> table.best("induction")[0].layer  # doctest: +SKIP
    18
    """
    if not isinstance(lm, LanguageModel):
        wanted = "a model that attlas.load returned"
        raise ArgumentError(complaint("lm", wanted=wanted, got=f"a {type(lm).__name__}"))
    check_resamples(resamples)
    measured = _on_probes(lm, seed, progress) if text is None else _on_text(lm, text, seed, progress)
    samples, found_heads, missing, projections, facts = measured
    scores = {
        role.name: score_role(role, samples[role.name], seed=seed, resamples=resamples)
        for role in ROLES
        if role.name in samples
    }
    relations = _relations(lm, text, sentences, seed, resamples, missing, progress)
    if relations is not None:
        scores |= _relation_roles(relations, found_heads)
    if not scores:
        reasons = "; ".join(f"{name}: {why}" for name, why in missing.items())
        raise UnsupportedModelError(f"{lm.name}: no role can be measured ({reasons})")
    settings = {
        **facts,
        "seed": seed,
        "resamples": resamples,
        "level": LEVEL,
        "margin": MARGIN,
        "near": REACH,
        "far": FAR,
    }
    provenance = Provenance(__version__, lm.name, lm.facts.fingerprint, settings)
    table = HeadTable(tuple(found_heads), scores, provenance, missing, relations=relations)
    if projections is None:
        return table
    predictions = predict_roles(projections, table, seed=seed, resamples=resamples, progress=progress)
    return replace(table, predictions=predictions)


class _Measured(NamedTuple):
    """What was measured, before any statistics."""

    samples: dict[str, Sample]
    heads: list[tuple[int, int]]
    missing: dict[str, str]
    projections: Projections | None
    facts: dict[str, Any]


def _on_text(lm: LanguageModel, text: str, seed: int, progress: Progress | None) -> _Measured:
    document = lm.tokenize(text)
    asked = stretches(len(document))
    cap = lm.read(text, progress=progress)
    causal = lm.facts.kind == "decoder"
    samples, found = measure_text(cap, document, offsets_of(lm), causal=causal, seed=seed, progress=progress)
    missing: dict[str, str] = dict.fromkeys(("retrieval", "needle", "copying"), NOT_IN_TEXTS)
    for name, sample in list(samples.items()):
        known = int((~sample.score.isnan().any(1)).sum())
        if known < 2 * FEWEST:
            del samples[name]
            missing[name] = f"only {known} of {asked.examples} stretches of the text have a place for it"
    facts = {"measured on": "text", "tokens": len(document), "examples": asked.examples}
    return _Measured(samples, found, missing, None, facts)


def _on_probes(lm: LanguageModel, seed: int, progress: Progress | None) -> _Measured:
    projections, missing = None, {}
    try:
        projections = _projections(lm)
    except (ArgumentError, UnsupportedModelError) as error:
        missing["copying"] = str(error)
    frame = frame_of(lm)
    twice = repeats(frame, seed=seed)
    samples, found, unmeasured = measure_repeats(lm, twice, projections, seed=seed, progress=progress)
    missing = {**unmeasured, **missing}
    facts: dict[str, Any] = {
        "measured on": "repeats",
        "repeats": sum(len(probe.ids) for probe in twice),
        "distances": [probe.distance for probe in twice],
        "first tokens": list(frame.front),
    }
    try:
        planted = needles(lm, frame, seed=seed)
    except (ArgumentError, DocumentError) as error:
        missing |= dict.fromkeys(PLANTED, str(error))
    else:
        more, _ = measure_needles(lm, planted, seed=seed, progress=progress)
        samples |= more
        missing |= {name: UNPREDICTING for name in PLANTED if name not in more}
        facts |= {"measured on": "repeats and planted sentences", "planted": len(planted)}
    return _Measured(samples, found, missing, projections, facts)


def _projections(lm: LanguageModel) -> Projections:
    from attlas.projections.whole import projections

    return projections(lm)


def _relations(
    lm: LanguageModel,
    text: str | None,
    sentences: LabelledPairs | Iterable[LabelledPairs] | None,
    seed: int,
    resamples: int,
    missing: dict[str, str],
    progress: Progress | None,
) -> RelationScores | None:
    """Measure relations between words, if that was asked for, or can be done with the library's own sentences."""
    if sentences is not None:
        given = sentences if isinstance(sentences, LabelledPairs) else list(sentences)
        return relation_scores(lm, given, seed=seed, resamples=resamples, progress=progress) if given else None
    if text is not None:
        return None
    try:
        own = made_sentences(count=SENTENCES, seed=seed)
        return relation_scores(lm, own, seed=seed, resamples=resamples, progress=progress)
    except (ArgumentError, DocumentError) as error:
        missing["relations"] = str(error)
        return None


def _relation_roles(relations: RelationScores, heads: list[tuple[int, int]]) -> dict[str, RoleScores]:
    """Return relations as roles: for each head the direction that was better on the sentences that heads are chosen on.

    Parameters
    ----------
    relations : RelationScores
    heads : list of (layer, head)
        The table's; those of `relations` are the same.
    """
    order = torch.tensor([relations.heads.index(head) for head in heads])
    known = {r.name: r for r in RELATIONS}
    roles = {}
    for r, name in enumerate(relations.relations):
        guesses = [relations.baselines.get((name, direction)) for direction in DIRECTIONS]
        if not any(guesses):
            continue
        baseline = torch.tensor([torch.nan if g is None else g.best for g in guesses]).double().unsqueeze(1)
        values = {key: tensor[r][:, order].double() for key, tensor in relations.values.items()}
        chosen_by = (values["selection_accuracy"] - baseline).nan_to_num(-torch.inf)
        direction = chosen_by.argmax(0)

        def of(both: Tensor, direction: Tensor = direction) -> Tensor:
            return both.gather(0, direction.unsqueeze(0))[0]

        relation = known.get(name)
        role = Role(
            # A user's own relation may be called like a role.
            name if name not in BY_NAME else f"{name} relation",
            name if relation is None else f"{relation.dependent} → {relation.head}",
            (f"The relation {name!r} between two words." if relation is None else relation.meaning)
            + " The score is how often the head's most attended word is the right one.",
            "The best of three guesses without attention: a fixed offset, a fixed position, any word.",
            "Clark et al. 2019, arXiv 1906.04341, section 5",
            unit="accuracy",
            margin=RELATION_MARGIN,
        )
        guess = next(g for g in guesses if g is not None)
        roles[role.name] = RoleScores(
            role=role,
            score=of(values["accuracy"]),
            low=of(values["low"]),
            high=of(values["high"]),
            baseline=of(baseline.expand_as(values["accuracy"])),
            excess=of(values["lead_low"]),
            passes=of(relations.passes[r][:, order]),
            examples=guess.sentences,
            choice=direction,
            choices=tuple(DIRECTIONS),
            selection=of(chosen_by),
        )
    return roles
