from __future__ import annotations

import pytest
import torch

import attlas
from answering import decoder
from attlas.models.facts import gather_facts
from attlas.planning.answers import answers, difference
from attlas.testing.guards import no_dense
from attlas.testing.tiny_models import TINY_MODELS


def ids_of(count: int, vocabulary: int, seed: int = 0) -> list[int]:
    return torch.randint(5, vocabulary - 5, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def read(name: str) -> attlas.LanguageModel:
    [tiny] = [one for one in TINY_MODELS if one.family == name]
    model = tiny.build()
    return attlas.LanguageModel(model, None, gather_facts(name, model, "f00d"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["Llama", "Gemma 2", "GPT-2"])
def test_what_is_held_gives_the_models_own_logits(name: str) -> None:
    lm = read(name)
    ids = ids_of(40, 96)
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    found = answers(lm, ids)
    capped = getattr(lm.model.config, "final_logit_softcapping", None) is not None
    assert (found.head is None) == capped
    assert len(found) == 40
    for rows in (slice(0, 7), slice(30, 40)):
        wanted = logits[rows].double().log_softmax(-1)
        assert torch.allclose(found.chances(rows), wanted, rtol=0, atol=1e-5)


def test_logits_of_a_whole_text_are_never_made() -> None:
    lm = decoder()
    vocabulary = lm.facts.vocabulary or 0
    ids = ids_of(128, vocabulary)
    with no_dense(128 * vocabulary):
        found = answers(lm, ids)
        difference(found, found, ids)
    assert not lm.model.get_output_embeddings()._forward_pre_hooks  # pyright: ignore[reportCallIssue]


def test_the_differences_are_those_of_the_formulas() -> None:
    one, other = decoder(seed=0), decoder(seed=1)
    ids = ids_of(100, one.facts.vocabulary or 0)
    found = difference(answers(one, ids), answers(other, ids), ids)
    with torch.no_grad():
        p, q = (lm.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1) for lm in (one, other))
    following = torch.tensor(ids[1:])
    steps = torch.arange(99)
    assert torch.allclose(found.exact, -p[steps, following], atol=1e-5)
    assert torch.allclose(found.planned, -q[steps, following], atol=1e-5)
    assert torch.allclose(found.divergence, (p.exp() * (p - q)).sum(-1), atol=1e-5)
    assert torch.equal(found.same, p.argmax(-1) == q.argmax(-1))
    assert found.exact.dtype == torch.float64


def test_two_equal_runs_do_not_differ() -> None:
    lm = decoder()
    ids = ids_of(70, lm.facts.vocabulary or 0)
    found = difference(answers(lm, ids), answers(lm, ids), ids)
    assert torch.equal(found.exact, found.planned)
    assert not found.divergence.any()
    assert bool(found.same.all())
