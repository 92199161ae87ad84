"""From the records of a tiny model to what a page shows."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from attlas.errors import ArgumentError
from attlas.heads import HeadTable, RoleScores
from attlas.heads.role_table import Prediction
from attlas.heads.roles import BY_NAME
from attlas.projections import Projections, projections
from attlas.projections.table import ProjectionTable, projection_table
from attlas.results import Provenance
from attlas.view import cards_of, projections_html
from attlas.view.collecting import EDGES

LAYERS, HEADS = 3, 4


@cache
def found() -> tuple[Projections, ProjectionTable]:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        vocab_size=64,
    )
    views = projections(LlamaForCausalLM(config).eval())
    return views, projection_table(views)


def roles() -> HeadTable:
    count = LAYERS * HEADS
    score = torch.linspace(0, 1, count, dtype=torch.float64)

    def scores(name: str, choice: torch.Tensor | None = None) -> RoleScores:
        passes = score > 0.9
        return RoleScores(
            BY_NAME[name], score, score - 0.1, score + 0.1, score * 0, score - 0.1, passes, 10, choice=choice
        )

    return HeadTable(
        heads=tuple((layer, head) for layer in range(LAYERS) for head in range(HEADS)),
        scores={"induction": scores("induction"), "offset": scores("offset", torch.full((count,), 3))},
        provenance=Provenance("0", "tiny"),
        predictions=(Prediction("copy_z", "induction", 0.9, 0.8, 0.95, 2, 0.5),),
    )


def test_a_table_becomes_cards() -> None:
    _, table = found()
    cards = cards_of(table)
    assert list(cards.heads) == list(table.heads)
    rows = table.rows()
    names = {column.name for column in cards.columns}
    assert {"qk_effective_rank", "ov_effective_rank", "feeds", "k_from", "copy_effective"} <= names
    assert all(column.label for column in cards.columns)
    for name in ("qk_effective_rank", "ov_norm", "copy_raw", "feeds_z"):
        assert list(cards.values[name]) == [row[name] for row in rows]
    assert cards.chance["qk_effective_rank"] == [row["qk_effective_rank_chance"] for row in rows]
    assert str(cards.chance["copy_raw"][0]).startswith("0 ± ")
    at = 5  # layer 1, head 1
    assert cards.values["k_from"][at] == f"{rows[at]['k_from_layer']}.{rows[at]['k_from_head']}"
    assert cards.values["feeds"][at] == (
        f"{rows[at]['feeds_layer']}.{rows[at]['feeds_head']} {rows[at]['feeds_kind'].upper()}"
    )
    assert cards.values["feeds"][-1] is None, "the last layer feeds nobody"


def test_spectra_stand_beside_those_of_random_heads() -> None:
    views, table = found()
    tracks = cards_of(table).tracks
    wanted = views[1, 2].ov.svdvals()
    folded = table.spectra.layers[1].ov.singular_values[2]
    torch.testing.assert_close(tracks["ov"][6], folded)
    assert len(wanted) == tracks["ov"].shape[1]
    chance = tracks["qk_chance"]
    assert chance.shape == (1, 8)
    assert float(chance[0, 0]) == 1
    assert (chance.diff() < 0).all()
    # These weights are random themselves.
    shape = tracks["ov"] / tracks["ov"].amax(-1, keepdim=True)
    torch.testing.assert_close(shape.mean(0, keepdim=True), chance.double(), atol=0.1, rtol=0)


def test_the_strongest_compositions_of_all_kinds_are_edges() -> None:
    _, table = found()
    cards = cards_of(table)
    zs = [edge.z for edge in cards.edges]
    assert zs == sorted(zs, reverse=True)
    assert len(zs) == min(EDGES, 3 * HEADS * HEADS * 3)
    assert {edge.kind for edge in cards.edges} == {"q", "k", "v"}
    best = cards.edges[0]
    row = table.row(*best.target)
    assert row[f"{best.kind}_from_z"] == pytest.approx(best.z)
    assert cards.level == pytest.approx(1 / 32**0.5)


def test_roles_become_cards_in_the_tables_order() -> None:
    cards = cards_of(found()[1], roles())
    induction, offset = cards.roles
    assert induction.score[-1] == 1
    assert induction.telling
    assert offset.notes == ["3"] * 12
    assert list(cards.role[:-1]) == [None] * (len(cards.heads) - 2) + [cards.role[-2]]
    assert cards.role[-1] in ("induction", "fixed offset")
    assert cards.predictions[0].predictor == "copy z"
    assert cards.predictions[0].role == "induction"


def test_roles_alone_are_enough_and_nothing_is_not() -> None:
    cards = cards_of(roles=roles())
    assert len(cards.heads) == 12
    assert cards.columns == ()
    with pytest.raises(ArgumentError, match="table: wanted a table of projections or of roles"):
        cards_of()


def test_the_page_tells_the_models_shape() -> None:
    views, table = found()
    text = projections_html(views, table, roles(), error=1e-7)
    assert '"layers":3,"heads":4,"kvHeads":2,"dim":8,"width":32' in text
    assert '["query",3072],["key",1536],["value",1536],["output",3072]' in text
    assert '"model.layers.2.self_attn"' in text


def test_an_encoder_without_rotation_or_vocabulary_has_a_page() -> None:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=64)
    views = projections(BertModel(config).eval())
    table = projection_table(views)
    cards = cards_of(table)
    names = {column.name for column in cards.columns}
    assert "copy_raw" not in names
    assert "qk_effective_rank" in names
    assert projections_html(views, table).startswith("<!DOCTYPE html>")
