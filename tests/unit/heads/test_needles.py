"""Documents with planted sentences, and the heads that fetch what is needed from them."""

from __future__ import annotations

import pytest
import torch

import attlas
from attlas.errors import ArgumentError
from attlas.heads.needles import TOKENS, measure_needles, needles
from attlas.heads.repeats import frame_of
from attlas.heads.role_table import score_role
from attlas.heads.roles import BY_NAME
from labelled import decoder, encoder, tokenizer
from planted import ROLES, planted


def test_the_answer_stands_in_one_sentence_and_not_in_the_other() -> None:
    lm = planted(tokenizer(frame=False))
    made = needles(lm, frame_of(lm), documents=12, seed=5)
    words = lm.tokenizer
    for needle in made:
        ids = torch.tensor(needle.ids)
        assert len(ids) == TOKENS
        assert ids[0] == 3
        # What comes next is what stands at the key.
        assert torch.equal(ids[needle.query + 1], ids[needle.key])
        assert not torch.equal(ids[needle.query + 1], ids[needle.decoy])
        text = words.decode(needle.ids)
        answer = words.decode(needle.ids[int(needle.query[0]) + 1 :])
        assert text.count(answer.strip()) == 2
        name = text[: text.rindex(" hid in the")].split()[-1]
        assert f"{name} hid in the" in text[: text.index(answer.strip())]
        assert {words.decode([i]).strip() for i, m in zip(needle.ids, needle.delimiters, strict=True) if m} <= {
            ".",
            ",",
        }
    assert needles(lm, frame_of(lm), documents=2, seed=5)[0].ids == made[0].ids
    assert {bool(needle.key[0] < needle.decoy[0]) for needle in made} == {True, False}


def test_planted_heads() -> None:
    lm = planted(tokenizer(frame=False))
    samples, heads = measure_needles(lm, needles(lm, frame_of(lm), documents=16))
    assert len(heads) == len(ROLES)
    found = {name: score_role(BY_NAME[name], sample) for name, sample in samples.items()}
    at = {name: i for i, name in enumerate(ROLES)}
    assert set(found) == {"long_range", "delimiter", "retrieval", "needle"}
    # Heads that look back at what stood behind the same token find planted answers too, if tokens in between are few.
    assert not found["retrieval"].passes[at["even"]]
    far = found["long_range"]
    assert bool(far.passes[at["far"]])
    assert not far.passes[[at["local"], at["previous_token"], at["first_token"]]].any()
    assert not found["delimiter"].passes[at["even"]]
    even = samples["needle"].baselines["even spread"]
    torch.testing.assert_close(samples["needle"].score[:, at["even"]], even[:, 0], rtol=1e-5, atol=1e-9)


def test_scores_are_those_of_the_dense_matrix() -> None:
    lm = decoder()
    made = needles(lm, frame_of(lm), documents=3)
    samples, heads = measure_needles(lm, made)
    with torch.no_grad(), attlas.capture(lm.model) as cap:
        lm.model(input_ids=torch.tensor([made[1].ids]))
    layer, head = heads[6]
    A = cap[layer].to_dense()[0, head].double()
    needle = made[1]
    wanted = A[needle.query, needle.key].mean()
    torch.testing.assert_close(samples["needle"].score[1, 6], wanted)
    torch.testing.assert_close(
        samples["needle"].baselines["the other sentence"][1, 6], A[needle.query, needle.decoy].mean()
    )
    hits = (A[needle.query].argmax(-1) == needle.key).double().mean()
    torch.testing.assert_close(samples["retrieval"].score[1, 6], hits)


def test_encoders_predict_nothing_but_have_delimiters() -> None:
    lm = encoder()
    samples, _ = measure_needles(lm, needles(lm, frame_of(lm), documents=2))
    assert set(samples) == {"long_range", "delimiter"}


def test_models_that_cannot_read_them_are_refused() -> None:
    with pytest.raises(ArgumentError, match="model: wanted a tokenizer that tells which characters"):
        needles(planted(), frame_of(planted()))
    short = planted(tokenizer(frame=False), positions=100)
    with pytest.raises(ArgumentError, match=f"model: wanted at least {TOKENS} positions, got 100"):
        needles(short, frame_of(short))
