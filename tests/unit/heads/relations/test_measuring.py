from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pyarrow import parquet
from torch import Tensor

import attlas
from attlas.errors import ArgumentError, DocumentError
from attlas.heads.relations.labelled import LabelledPairs, Pair, sentences
from attlas.heads.relations.measuring import relation_scores
from attlas.heads.relations.reading import DIRECTIONS, NOWHERE, Readings, read_pairs
from attlas.heads.relations.scoring import LEAST, MARGIN, score, second_half
from attlas.heads.relations.table import COLUMNS, RelationScores
from attlas.heads.relations.words import pieces
from attlas.results import Provenance
from labelled import decoder, encoder

MADE = sentences(count=400, seed=1)
HEADS = 40
OFFSET, GOOD, LUCKY = 3, 5, 7  # what the planted heads do


# ---- what heads are read to say


def by_hand(lm: attlas.LanguageModel, labelled: LabelledPairs, pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Return prediction, attention and rival's attention of one pair, (direction, head), from the sentence alone."""
    found = pieces(lm, labelled.text(pair.sentence), labelled.spans(pair.sentence))
    with attlas.capture(lm.model) as cap, torch.no_grad():
        lm.model(input_ids=torch.tensor([found.ids]))
    count = len(labelled.sentences[pair.sentence])
    own = [[i for i, word in enumerate(found.words) if word == number] for number in range(count)]
    predicted, attention, rivals = [], [], []
    for matrix in cap:
        dense = matrix.to_dense()[0].double()
        between = torch.stack(
            [torch.stack([dense[:, rows][:, :, cols].sum(-1).mean(-1) for cols in own], -1) for rows in own], -2
        )
        for head in between:
            for line in (head[pair.dependent].clone(), head[:, pair.dependent].clone()):
                attention.append(line[pair.head])
                rivals.append(max((line[rival] for rival in pair.rivals), default=line[0] * 0))
                line[pair.dependent] = 0
                predicted.append(line.argmax() if line.max() > 0 else torch.tensor(NOWHERE))
    both = (torch.stack(part).view(-1, 2).T for part in (predicted, attention, rivals))
    first, second, third = both
    return first, second, third


@pytest.mark.parametrize("lm", [decoder(), encoder()], ids=["decoder", "encoder"])
def test_what_a_head_says_is_what_its_dense_matrix_says(lm: attlas.LanguageModel) -> None:
    made = sentences(count=12, seed=4)
    readings = read_pairs(lm, made, size=5)
    assert sorted(readings.pairs, key=str) == sorted(made.pairs, key=str)
    assert readings.heads == tuple((layer, head) for layer in range(3) for head in range(4))
    assert readings.causal == (lm.facts.kind == "decoder")
    for number in range(0, len(readings.pairs), 7):
        predicted, attention, rival = by_hand(lm, made, readings.pairs[number])
        torch.testing.assert_close(readings.attention[number].double(), attention, rtol=2e-3, atol=1e-6)
        torch.testing.assert_close(readings.rival[number].double(), rival, rtol=2e-3, atol=1e-6)
        assert torch.equal(readings.predicted[number].long(), predicted)


def test_later_words_are_never_predicted_by_a_decoder() -> None:
    made = sentences(count=12, seed=4)
    readings = read_pairs(decoder(), made, size=5)
    for number, pair in enumerate(readings.pairs):
        assert bool((readings.predicted[number, 0] < pair.dependent).all())
        backwards = readings.predicted[number, 1]
        assert bool(((backwards > pair.dependent) | (backwards == NOWHERE)).all())


@pytest.mark.parametrize("build", [decoder, encoder])
def test_even_attention_is_what_a_model_without_preferences_has(build) -> None:
    made = sentences(count=40, seed=4)
    readings = read_pairs(build(spread=1e-3), made, size=8)
    heads = torch.tensor([pair.head for pair in readings.pairs]).view(-1, 1, 1)
    right = (readings.predicted == heads).float().mean(-1)
    sure = (readings.even == 0) | (readings.even == 1)
    assert bool(sure[:, 0].any())
    torch.testing.assert_close(right[sure], readings.even[sure], rtol=0, atol=0.35)
    torch.testing.assert_close(right.mean(0), readings.even.mean(0), rtol=0, atol=0.03)


# ---- what scores are made of that


def planted(labelled: LabelledPairs, seed: int = 0) -> Readings:
    """Return heads that guess at random, but for one that looks at an offset, a good one, and one that was lucky."""
    pairs = labelled.pairs
    generator = torch.Generator().manual_seed(seed)
    length = torch.tensor([len(labelled.sentences[pair.sentence]) for pair in pairs]).view(-1, 1, 1)
    predicted = (torch.rand(len(pairs), 2, HEADS, generator=generator) * length).long()
    head, dependent = (torch.tensor([getattr(pair, name) for pair in pairs]) for name in ("head", "dependent"))
    predicted[:, 0, OFFSET] = dependent + 1
    luck = torch.rand(len(pairs), generator=generator) < 0.8
    predicted[:, 0, GOOD] = torch.where(luck, head, predicted[:, 0, GOOD])
    second = second_half(labelled, 0)[torch.tensor([pair.sentence for pair in pairs])]
    predicted[:, 0, LUCKY] = torch.where(~second, head, predicted[:, 0, LUCKY])
    share = torch.full((len(pairs), 2, HEADS), 0.25, dtype=torch.float16)
    heads = tuple((number // 4, number % 4) for number in range(HEADS))
    return Readings(
        pairs, heads, False, predicted.to(torch.int16), share, share / 2, torch.zeros(len(pairs), 2), {}, {}
    )


def scored(labelled: LabelledPairs, readings: Readings | None = None) -> RelationScores:
    return score(readings or planted(labelled), labelled, seed=0, resamples=300, provenance=Provenance("0", "planted"))


@pytest.fixture(scope="module")
def found() -> RelationScores:
    return scored(MADE)


def test_only_the_head_that_is_good_on_other_sentences_passes(found: RelationScores) -> None:
    passing = {(r, d, h) for r, d, h in found.passes.nonzero().tolist()}
    assert passing == {(r, 0, GOOD) for r in range(len(found.relations))}
    for number, relation in enumerate(found.relations):
        assert found.values["selection_accuracy"][number, 0, LUCKY] == 1
        assert found.values["accuracy"][number, 0, LUCKY] < 0.3
        best = found.best(relation)
        assert best is not None
        assert (best.layer, best.head) == found.heads[LUCKY], "it is the one that the first half shows"
        assert not best.passes
        assert best.selection_accuracy == 1


def test_numbers_are_those_of_the_measured_half(found: RelationScores) -> None:
    readings = planted(MADE)
    second = second_half(MADE, 0)
    for number, relation in enumerate(found.relations):
        chosen = [i for i, p in enumerate(MADE.pairs) if p.relation == relation and second[p.sentence]]
        heads = torch.tensor([MADE.pairs[i].head for i in chosen])
        right = (readings.predicted[chosen] == heads.view(-1, 1, 1)).float()
        torch.testing.assert_close(found.values["accuracy"][number], right.mean(0))
        baseline = found.baselines[relation, DIRECTIONS[0]]
        assert baseline.pairs == len(chosen)
        offsets = [p.offset for p in MADE.pairs if p.relation == relation and not second[p.sentence]]
        assert offsets.count(baseline.offset) == max(map(offsets.count, offsets)), "the best one of the other half"
        share = sum(MADE.pairs[i].offset == baseline.offset for i in chosen) / len(chosen)
        assert baseline.offset_accuracy == pytest.approx(share)
        words = [len(MADE.sentences[MADE.pairs[i].sentence]) - 1 for i in chosen]
        assert baseline.uniform == pytest.approx(sum(1 / n for n in words) / len(words))
        low, high, mean = (found.values[name][number, 0, GOOD] for name in ("low", "high", "accuracy"))
        assert low < mean < high
        assert found.values["lead_low"][number, 0, GOOD] < low - baseline.best, "it holds for all heads at once"


def test_a_head_that_looks_at_an_offset_is_as_good_as_that_offset(found: RelationScores) -> None:
    number = found.relations.index("amod")
    baseline = found.baselines["amod", DIRECTIONS[0]]
    assert baseline.offset == 1
    assert float(found.values["accuracy"][number, 0, OFFSET]) == pytest.approx(baseline.offset_accuracy)
    assert float(found.values["shuffled"][number, 0, OFFSET]) == pytest.approx(baseline.offset_accuracy)
    assert float(found.values["lead"][number, 0, OFFSET]) == pytest.approx(0, abs=1e-6)


def test_shuffled_is_what_dealing_out_gives(found: RelationScores) -> None:
    readings, second = planted(MADE), second_half(MADE, 0)
    number = found.relations.index("det")
    chosen = [i for i, p in enumerate(MADE.pairs) if p.relation == "det" and second[p.sentence]]
    dependent = torch.tensor([MADE.pairs[i].dependent for i in chosen])
    offsets = torch.tensor([MADE.pairs[i].offset for i in chosen])
    guessed = readings.predicted[chosen, 0, GOOD] - dependent
    generator = torch.Generator().manual_seed(0)
    dealt = torch.stack(
        [(offsets[torch.randperm(len(chosen), generator=generator)] == guessed).float().mean() for _ in range(2000)]
    )
    assert float(found.values["shuffled"][number, 0, GOOD]) == pytest.approx(float(dealt.mean()), abs=0.01)


def test_a_relation_with_too_few_sentences_is_left_open() -> None:
    few = LabelledPairs(
        MADE.sentences,
        (*MADE.only("det").pairs, *MADE.only("agreement").pairs[: LEAST - 1]),
        MADE.spaces,
        MADE.halves,
    )
    found = scored(few)
    assert found.best("agreement") is None
    assert found.best("det") is not None
    assert bool(found.values["accuracy"][1].isnan().all())
    assert {row["relation"] for row in found.rows()} == {"det"}


def test_no_head_surely_leads_when_all_guess_as_well_as_the_baseline() -> None:
    readings = planted(MADE)
    baselines = scored(MADE, readings).baselines
    level = torch.tensor([baselines[p.relation, DIRECTIONS[0]].best for p in MADE.pairs]).view(-1, 1, 1)
    head = torch.tensor([p.head for p in MADE.pairs]).view(-1, 1, 1)
    shape = (len(MADE.pairs), 2, HEADS)
    for seed in range(10):
        lucky = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < level
        guesses = torch.where(lucky, head, NOWHERE).to(torch.int16)
        found = scored(MADE, replace(readings, predicted=guesses))
        assert float(found.values["lead_low"].nan_to_num(-1).max()) < 0
        assert float(found.values["lead"].nan_to_num(-1).max()) > 0.04, "some lead all the same"


def test_rivals_and_distances(found: RelationScores) -> None:
    agreement, det = found.best("agreement"), found.best("det")
    assert agreement is not None
    assert det is not None
    assert (agreement.attention, agreement.rival_attention, agreement.above_rival) == (0.25, 0.125, 1.0)
    assert (det.rival_attention, det.above_rival) == (None, None)
    assert sum(pairs for _, pairs, _ in det.by_distance) == det.baseline.pairs
    weighted = sum(pairs * accuracy for _, pairs, accuracy in det.by_distance) / det.baseline.pairs
    assert weighted == pytest.approx(det.accuracy)
    assert [name for name, _, _ in det.by_distance][:4] == ["1", "2", "3–4", "5–8"]


def test_rows_are_plain_and_go_to_parquet(found: RelationScores, tmp_path: Path) -> None:
    rows = found.rows()
    assert len(rows) == len(found.relations) * 2 * HEADS
    assert json.loads(json.dumps(rows)) == rows
    assert {column.name for column in COLUMNS} < set(rows[0])
    path = found.to_parquet(tmp_path / "relations.parquet")
    table = parquet.read_table(path)
    assert table.to_pylist() == rows
    assert json.loads(table.schema.metadata[b"attlas"])["model"] == "planted"
    assert set(json.loads(table.schema.metadata[b"best"])) == set(found.relations)
    det = [row for row in rows if row["relation"] == "det"]
    assert all(row["rival_attention"] is None for row in det), "no number where there is none"


# ---- all of it


@pytest.mark.parametrize("build", [decoder, encoder])
@pytest.mark.parametrize("spread", [0.02, 0.3])
def test_an_untrained_model_passes_nothing(build, spread: float) -> None:
    found = relation_scores(build(seed=5, spread=spread), sentences(count=160, seed=2), resamples=300)
    assert not bool(found.passes.any())
    assert [best.relation for best in found.bests.values() if best.passes] == []
    assert float(found.values["lead_low"].nan_to_num(-1).max()) < MARGIN


def test_a_decoders_pairs_have_one_direction() -> None:
    found = relation_scores(decoder(), sentences(["det", "agreement"], count=60), resamples=100)
    assert set(found.baselines) == {("det", DIRECTIONS[1]), ("agreement", DIRECTIONS[0])}
    assert math.isnan(float(found.values["accuracy"][found.relations.index("det"), 0, 0]))
    assert all(row["direction"] == DIRECTIONS[1] for row in found.rows() if row["relation"] == "det")


def test_provenance_progress_and_repeats() -> None:
    told: list[tuple[int, int, str]] = []
    made = sentences("det", count=40)
    lm = decoder()
    one = relation_scores(lm, made, resamples=100, progress=lambda *news: told.append(news))
    settings = one.provenance.settings
    assert (one.provenance.model, one.provenance.fingerprint) == ("tiny", "f00d")
    assert settings["labelled"] == "sentences('det', count=40, seed=0)"
    assert settings["labelled_fingerprint"] == made.fingerprint
    assert json.dumps(one.provenance.as_dict())
    assert told[-1] == (40, 40, "reading sequences")
    two = relation_scores(lm, [made], resamples=100, size=7)
    torch.testing.assert_close(one.values["accuracy"], two.values["accuracy"], equal_nan=True)


def test_own_pairs_are_halved_by_seed() -> None:
    own = LabelledPairs.from_pairs([(f"the {word} sleeps", 0, 1, "det") for word in "abcdefghijklmnopqrstuvwxyz"])
    found = relation_scores(encoder(), own, resamples=100)
    assert found.baselines["det", DIRECTIONS[0]].sentences == 13
    assert found.baselines["det", DIRECTIONS[0]].offset_accuracy == 1
    assert not bool(found.passes.any()), "nothing leads where an offset is always right"
    assert not torch.equal(second_half(own, 0), second_half(own, 1))


def test_sentences_that_cannot_be_read_are_counted_or_refused() -> None:
    long = LabelledPairs.from_pairs([(["dog"] * 200, 0, 1, "det")])
    with pytest.raises(DocumentError, match="longer than the model's positions \\(1 sentences\\)"):
        relation_scores(decoder(), long)
    some = LabelledPairs.from_pairs(
        [(["dog"] * 200, 0, 1, "det"), *((f"the {word} sleeps", 0, 1, "det") for word in "abcdefghijklmnopqrstuvwxyz")]
    )
    assert relation_scores(encoder(), some, resamples=100).skipped == {"longer than the model's positions": 1}


def test_options_that_do_not_fit() -> None:
    with pytest.raises(ArgumentError, match="resamples: wanted a whole number from 100, got 5"):
        relation_scores(decoder(), MADE, resamples=5)
    with pytest.raises(ArgumentError, match="labelled: wanted LabelledPairs, or several, got str"):
        relation_scores(decoder(), ["text"])  # pyright: ignore[reportArgumentType]  the mistake is the test


@pytest.mark.bundled
def test_the_bundled_encoder_has_a_head_for_determiners_and_one_for_subjects() -> None:
    found = relation_scores(attlas.load("minilm-l6"), sentences(["det", "nsubj"], count=400))
    det, nsubj = found.best("det"), found.best("nsubj")
    assert det is not None
    assert nsubj is not None
    assert (det.layer, det.head, det.direction) == (3, 1, DIRECTIONS[0])
    assert det.passes
    assert (nsubj.layer, nsubj.head, nsubj.direction) == (2, 3, DIRECTIONS[0])
    assert nsubj.passes
