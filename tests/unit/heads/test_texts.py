"""What heads do on a text: the right keys are asked about, and planted heads are found."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel

import attlas
from attlas.errors import DocumentError
from attlas.heads.role_table import score_role
from attlas.heads.roles import BY_NAME
from attlas.heads.texts import delimiters, measure_text, others_near, sets_of_text, stretches
from attlas.matrix import AttentionMatrix
from attlas.models import Document
from attlas.models.facts import gather_facts
from attlas.testing import no_dense
from planted import ROLES, planted


def test_stretches_are_even_and_start_behind_the_first_tokens() -> None:
    asked = stretches(4096)
    assert asked.examples == 48
    assert int(asked.lines.min()) == 8
    assert int(asked.lines.max()) == 4095
    assert len(asked.lines) == 48 * 40
    assert len(asked.rows) == 48 * 10
    for queries, example in ((asked.lines, asked.lines_of), (asked.rows, asked.rows_of)):
        assert bool((queries.diff() > 0).all())
        assert bool((example.diff() >= 0).all())
        assert len(example.unique()) == 48
    short = stretches(264)
    assert short.examples == 16
    assert short.lines.tolist() == list(range(8, 264))


def test_a_text_that_is_too_short_is_refused() -> None:
    with pytest.raises(DocumentError, match=r"text: wanted at least 264 tokens, .* got 263"):
        stretches(263)


def test_delimiters_are_punctuation_line_ends_and_what_the_tokenizer_added() -> None:
    tokens = ["[CLS]", " the", ",", " -", "\n", "  ", "a.", "...", "é", "[SEP]"]
    document = Document("", list(range(10)), tokens, None, added=(1, 1))
    assert delimiters(document).tolist() == [False, False, True, True, True, False, False, True, False, True]


@pytest.mark.parametrize("causal", [True, False])
def test_sets_of_keys_are_what_their_names_say(causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 9, (150,), generator=generator)
    marks = torch.rand(150, generator=generator) > 0.8
    marks[0] = False
    rows = torch.arange(10, 150, 7)
    both = marks, others_near(marks, 3)
    sets = sets_of_text(ids, both, rows, torch.zeros_like(rows), 1, causal=causal, seed=3, matching=True, width=160)
    at = {name: m for m, name in enumerate(sets.names)}
    assert not sets.sets[:, :, 150:].any()
    for r, i in enumerate(rows.tolist()):
        for j in range(150):
            away = i - j if causal else abs(i - j)
            asked = {name: bool(sets.sets[r, m, j]) for name, m in at.items()}
            assert asked["delimiter"] == bool(marks[j])
            assert asked["long_range"] == (away >= 64 and j > 0)
            near_enough = away >= 8 and j > 0
            assert asked["duplicate_token"] == (near_enough and bool(ids[j] == ids[i]))
            assert asked["induction"] == (near_enough and bool(ids[j - 1] == ids[i]))
            assert not (asked["delimiter"] and asked["delimiter shuffled"])
            for name in ("duplicate_token", "induction"):
                assert not (asked[name] and asked[f"{name} shuffled"])
    others = sets.sets[0, at["delimiter shuffled"]]
    assert abs(int(others.sum()) - int(marks.sum())) <= 3
    assert not others[0]
    # Rows count only where both sets have something in them.
    for name in ("duplicate_token", "induction"):
        both = sets.sets[:, at[name]].any(1) & sets.sets[:, at[f"{name} shuffled"]].any(1)
        assert torch.equal(sets.counts[:, at[name]], both)
        assert torch.equal(sets.counts[:, at[f"{name} shuffled"]], both)


def document(length: int, seed: int = 0) -> Document:
    ids = torch.randint(5, 60, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Document("", ids, [", " if i < 15 else f" word{i}" for i in ids], None)


def test_planted_heads_are_found_in_a_text() -> None:
    lm, text = planted(), document(800)
    with torch.no_grad(), attlas.capture(lm.model) as cap:
        lm.model(torch.tensor([text.ids]))
    samples, heads = measure_text(cap, text, range(9), causal=True)
    assert heads == [(0, h) for h in range(len(ROLES))]
    passing = {
        name: {ROLES[i] for i in score_role(BY_NAME[name], sample).passes.nonzero().flatten()}
        for name, sample in samples.items()
    }
    assert passing["previous_token"] == {"previous_token"}
    assert passing["offset"] == {"previous_token", "two_back"}
    assert passing["duplicate_token"] == {"duplicate_token"}
    assert passing["induction"] == {"induction"}
    assert passing["first_token"] == {"first_token"}
    assert passing["delimiter"] == set()
    assert passing["local"] == {"local", "previous_token", "two_back"}
    assert "far" in passing["long_range"]
    assert not passing["long_range"] & {"local", "previous_token", "two_back", "first_token"}


def test_nothing_dense_is_made() -> None:
    text = document(2600)
    matrix = AttentionMatrix(torch.randn(1, 4, 2600, 8), torch.randn(1, 2, 2600, 8), causal=True)

    class One:
        """A capture of one layer."""

        layers = (0,)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, number: int) -> AttentionMatrix:
            return matrix

    with no_dense(2600 * 2600):
        measure_text(One(), text, range(9), causal=True)  # pyright: ignore[reportArgumentType]  all it needs


def test_encoders_are_asked_about_both_sides() -> None:
    lm, read = _encoder(), document(320)
    with torch.no_grad(), attlas.capture(lm.model) as cap:
        lm.model(input_ids=torch.tensor([read.ids]))
    samples, heads = measure_text(cap, read, range(-8, 9), causal=False)
    layer, head = heads[5]
    A = cap[layer].to_dense()[0, head].double()
    near = (torch.arange(320).view(-1, 1) - torch.arange(320)).abs() < 8
    by_query = (A * near).sum(-1)[8:]
    # 312 queries in 19 stretches, all of which are asked.
    torch.testing.assert_close(
        (samples["local"].score[:, 5] * torch.bincount(stretches(320).lines_of)).sum() / 312, by_query.mean()
    )


def _encoder() -> attlas.LanguageModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=80,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=400,
    )
    model = BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    return attlas.LanguageModel(model, None, gather_facts("tiny", model, ""))
