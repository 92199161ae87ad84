"""Random tokens that stand twice: what they look like, and what they say of heads whose roles are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attlas
from attlas.errors import ArgumentError, UnsupportedModelError
from attlas.heads.repeats import Frame, frame_of, measure_repeats, offsets_of, repeats
from attlas.heads.role_table import score_role
from attlas.heads.roles import BY_NAME
from attlas.projections import projections
from labelled import decoder, encoder, tokenizer
from planted import ROLES, planted

FRAME = Frame((1,), (2,), torch.arange(5, 400), 512)


def test_a_part_stands_twice_and_has_no_token_twice() -> None:
    made = repeats(FRAME, seed=3)
    assert [probe.distance for probe in made] == list(range(24, 47, 2))
    for probe in made:
        assert len(probe.ids) == 4
        assert len(probe) == 2 * probe.distance + 2
        for ids, part in zip(probe.ids, probe.parts.tolist(), strict=True):
            assert ids == (1, *part, *part, 2)
            assert len(set(part)) == probe.distance
            assert min(part) >= 5
        ids = torch.tensor(probe.ids)
        assert torch.equal(ids[:, probe.second], ids[:, probe.second - probe.distance])
    assert repeats(FRAME, seed=3)[5].ids == made[5].ids
    assert repeats(FRAME, seed=4)[5].ids != made[5].ids


def test_short_models_get_shorter_parts_and_as_many_sequences() -> None:
    made = repeats(Frame((), (), torch.arange(5, 400), 64))
    distances = [probe.distance for probe in made]
    assert distances == list(range(12, 33, 2))
    assert sum(len(probe.ids) for probe in made) >= 48


@pytest.mark.parametrize("frame", [Frame((), (), torch.arange(400), 30), Frame((), (), torch.arange(14), 512)])
def test_models_with_too_little_room_are_refused(frame: Frame) -> None:
    with pytest.raises(ArgumentError, match="model: wanted at least 32 positions and 16 ordinary tokens, got"):
        repeats(frame)


def test_distances_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ArgumentError, match="distances: wanted numbers from 1 to 255, got 300"):
        repeats(FRAME, [300])


def test_what_stands_around_a_text() -> None:
    frame = frame_of(encoder())
    assert (frame.front, frame.behind, frame.positions) == ((1,), (2,), 160)
    assert not {0, 1, 2} & set(frame.ordinary.tolist())
    # This tokenizer adds nothing, but knows a first token.
    frame = frame_of(decoder())
    assert (frame.front, frame.behind) == ((3,), ())
    assert 3 not in frame.ordinary.tolist()
    frame = frame_of(planted())
    assert (frame.front, frame.behind, len(frame.ordinary)) == ((), (), 420)


def test_a_model_without_tokens_is_refused() -> None:
    lm = planted()
    blind = attlas.LanguageModel(lm.model, None, lm.facts.__class__(**{**lm.facts.as_dict(), "vocabulary": None}))
    with pytest.raises(UnsupportedModelError, match="has no vocabulary"):
        frame_of(blind)


def test_planted_heads_are_found_and_others_are_not() -> None:
    lm = planted(tokenizer(frame=False))
    samples, heads, missing = measure_repeats(lm, repeats(frame_of(lm)))
    assert heads == [(0, h) for h in range(len(ROLES))]
    assert missing == {"copying": "the model's projections cannot be viewed"}
    found = {name: score_role(BY_NAME[name], sample) for name, sample in samples.items()}
    passing = {name: {ROLES[i] for i in scores.passes.nonzero().flatten()} for name, scores in found.items()}
    assert passing["previous_token"] == {"previous_token"}
    assert passing["offset"] == {"previous_token", "two_back"}
    assert passing["duplicate_token"] == {"duplicate_token"}
    assert passing["induction"] == {"induction"}
    assert passing["first_token"] == {"first_token"}
    assert passing["local"] >= {"local", "previous_token", "two_back"}
    assert not passing["local"] & {"even", "first_token"}
    choice = found["offset"].choice
    assert choice is not None
    assert choice[:2].tolist() == [1, 2]
    assert float(found["induction"].score[3]) > 0.7


def test_shuffled_targets_lie_where_another_distance_would_have_put_them() -> None:
    lm = decoder()
    probes = repeats(frame_of(lm), [14, 16, 20], sequences=2)
    samples, heads, _ = measure_repeats(lm, probes)
    with torch.no_grad(), attlas.capture(lm.model) as cap:
        lm.model(input_ids=torch.tensor(probes[1].ids))
    for name, behind in (("duplicate_token", 0), ("induction", 1)):
        sample = samples[name]
        for h in (0, 7):
            layer, head = heads[h]
            A = cap[layer].to_dense()[:, head].double()
            i = probes[1].second
            torch.testing.assert_close(sample.score[2:4, h], A[:, i, i - 16 + behind].mean(-1))
            # Where the part was 20 tokens long, the first ones would be in front of it.
            pairs = [(int(q), int(q) - d + behind) for d in (14, 20) for q in i if int(q) - d + behind >= 1]
            shuffled = torch.stack([A[:, q, k] for q, k in pairs], -1).mean(-1)
            torch.testing.assert_close(sample.baselines["shuffled targets"][2:4, h], shuffled)


def test_copying_is_what_a_head_adds_to_the_right_logit() -> None:
    lm = decoder()
    viewed = projections(lm)
    probe = repeats(frame_of(lm), [12, 14], sequences=3)
    samples, heads, missing = measure_repeats(lm, probe, viewed)
    assert not missing
    assert samples["copying"].score.shape == (6, len(heads))
    ids = torch.tensor(probe[0].ids)
    with torch.no_grad(), attlas.capture(lm.model, output=True) as cap:
        lm.model(input_ids=ids)
    layer, head = heads[6]
    assert (layer, head) == (1, 2)
    model: Any = lm.model
    output = model.model.layers[1].self_attn.o_proj.weight.detach().T.view(4, 8, 32)[head]
    written = cap.output(1)[:, head] @ output * model.model.norm.weight.detach()
    logits = written @ model.lm_head.weight.detach().T
    for sequence in range(3):
        part = probe[0].parts[sequence]
        wins = []
        for m in range(11):
            at = logits[sequence, 1 + 12 + m]
            right = at[part[m + 1]]
            wins += [float(right > at[other]) for k, other in enumerate(part) if k != m + 1]
        assert abs(sum(wins) / len(wins) - float(samples["copying"].score[sequence, 6])) < 1e-9


def test_encoders_see_what_comes_and_predict_nothing() -> None:
    lm = encoder()
    assert offsets_of(lm) == list(range(-8, 9))
    samples, _, missing = measure_repeats(lm, repeats(frame_of(lm), [12, 14], sequences=2), projections(lm))
    assert missing == {"copying": "this model predicts no next token"}
    assert "copying" not in samples
    assert samples["local"].score.shape == (4, 12)
    assert samples["offset"].choice is not None


def test_progress_counts_sequences() -> None:
    calls: list[tuple[int, int, str]] = []
    lm = planted(tokenizer(frame=False))
    measure_repeats(lm, repeats(frame_of(lm), [12, 14], sequences=2), progress=lambda *call: calls.append(call))
    assert calls == [(2, 4, "reading repeats"), (4, 4, "reading repeats")]


@pytest.mark.bundled
def test_the_bundled_decoders_best_known_heads() -> None:
    lm = attlas.load("smollm2-135m")
    frame = frame_of(lm)
    # The first token of its training documents, before it was made to chat.
    frame = Frame((0,), (), torch.arange(lm.facts.vocabulary or 0), frame.positions)
    samples, heads, _ = measure_repeats(lm, repeats(frame, [48, 50, 52], sequences=6))
    found = {name: score_role(BY_NAME[name], sample) for name, sample in samples.items()}
    previous, induction = found["previous_token"], found["induction"]
    at = {head: i for i, head in enumerate(heads)}
    assert heads[int(previous.score.argmax())] == (16, 0)
    assert float(previous.score[at[16, 0]]) == pytest.approx(0.88, abs=0.03)
    assert float(previous.score[at[11, 1]]) == pytest.approx(0.82, abs=0.03)
    assert float(previous.score[at[19, 3]]) == pytest.approx(0.68, abs=0.04)
    assert heads[int(induction.score.argmax())] == (18, 6)
    # Between batches of four sequences this varies from 0.75 to 0.89.
    assert float(induction.score[at[18, 6]]) == pytest.approx(0.82, abs=0.07)
    assert bool(induction.passes[at[17, 3]])
    assert bool(found["duplicate_token"].passes[at[14, 3]])
    assert float(found["first_token"].score.mean()) == pytest.approx(0.47, abs=0.02)
