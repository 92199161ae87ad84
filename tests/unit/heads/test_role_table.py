"""What turns measurements into verdicts, and the table that holds them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pyarrow import parquet
from torch import Tensor

from attlas.errors import ArgumentError
from attlas.heads.role_table import HeadTable, Prediction, RoleScores, Sample, score_role
from attlas.heads.roles import BY_NAME, MARGIN, NONE, ROLES, Role
from attlas.results import Provenance

MADE = Provenance("0", "tiny", "f00d", {"seed": 0})
EXAMPLES = 40


def noisy(*means: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(means).double() + 0.02 * torch.randn(EXAMPLES, len(means), generator=generator).double()


def scored(role: str, *means: float, baseline: float = 0.05) -> RoleScores:
    sample = Sample(noisy(*means), {"even spread": torch.full((EXAMPLES, 1), baseline)})
    return score_role(BY_NAME[role], sample)


def test_a_head_passes_if_its_whole_interval_is_above_every_baseline_by_the_margin() -> None:
    score = noisy(0.5, 0.5, 0.5, 0.17, 0.15)
    other = torch.tensor([0.1, 0.45, 0.1, 0.0, 0.0]).expand(EXAMPLES, 5)
    found = score_role(
        BY_NAME["induction"], Sample(score, {"even": torch.full((EXAMPLES, 1), 0.05), "shuffled": other})
    )
    # The second is as good as shuffled targets; the last is above its baseline by the margin, but not surely.
    assert found.passes.tolist() == [True, False, True, True, False]
    torch.testing.assert_close(found.baseline, torch.tensor([0.1, 0.45, 0.1, 0.05, 0.05]).double())
    assert found.examples == EXAMPLES
    assert bool((found.low < found.score).all())
    assert bool((found.score < found.high).all())
    assert found.passes.tolist() == (found.excess > MARGIN).tolist()


def test_intervals_stay_where_scores_can_be() -> None:
    found = scored("first_token", 0.999, 0.001)
    assert float(found.high.max()) <= 1
    assert float(found.low.min()) >= 0


def table() -> HeadTable:
    return HeadTable(
        ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2)),
        {
            "previous_token": scored("previous_token", 0.9, 0.05, 0.3, 0.05, 0.05),
            "induction": scored("induction", 0.05, 0.5, 0.6, 0.05, 0.05),
            "local": scored("local", 0.95, 0.05, 0.9, 0.7, 0.05),
            "first_token": scored("first_token", 0.05, 0.95, 0.05, 0.8, 0.6),
        },
        MADE,
        {"copying": "this model predicts no next token"},
        (Prediction("a number", "induction", 0.9, 0.8, 1.0, 2, 0.5),),
    )


def test_a_head_is_called_by_the_most_telling_role_that_it_passes() -> None:
    found = table()
    assert found.names == ("previous_token", "induction", "induction", "local", "first_token")
    assert found.role_of(1, 1) == "local"
    assert found.counts == {"previous_token": 2, "induction": 2, "local": 3, "first_token": 3}
    assert repr(found) == "HeadTable(tiny, 5 heads: 2 previous_token, 2 induction, 3 local, 3 first_token)"
    with pytest.raises(ArgumentError, match=r"layer and head: wanted a head of the table, got \(2, 0\)"):
        found.role_of(2, 0)


def test_a_head_without_a_role_is_called_none() -> None:
    found = HeadTable(((0, 0),), {"induction": scored("induction", 0.06)}, MADE)
    assert found.names == (NONE,)
    assert "no role passes" in repr(found)


def test_the_fixed_offset_of_one_is_the_previous_token() -> None:
    sample = Sample(noisy(0.9, 0.9), {"even spread": torch.full((EXAMPLES, 1), 0.05)}, torch.tensor([1, 3]))
    found = HeadTable(((0, 0), (0, 1)), {"offset": score_role(BY_NAME["offset"], sample)}, MADE)
    assert found.names == ("previous_token", "offset")
    assert [row["offset_chosen"] for row in found.rows()] == [1, 3]


def test_the_best_head_is_chosen_on_one_half_and_reported_on_the_other() -> None:
    # 200 heads that are all alike: whichever is chosen was lucky, on the half that it was chosen on.
    generator = torch.Generator().manual_seed(0)
    score = 0.5 + 0.3 * torch.randn(EXAMPLES, 200, generator=generator).double()
    sample = Sample(score, {"even spread": torch.full((EXAMPLES, 1), 0.05)})
    heads = tuple((0, h) for h in range(200))
    found = HeadTable(heads, {"induction": score_role(BY_NAME["induction"], sample)}, MADE)
    assert float(found.scores["induction"].score.max()) > 0.6
    reported = [found.best("induction", seed=seed)[0].score for seed in range(20)]
    assert abs(sum(reported) / 20 - 0.5) < 0.06
    several = found.best("induction", 3)
    assert len({best.head for best in several}) == 3
    assert all(best.low < best.score < best.high for best in several)


def test_where_a_role_was_chosen_elsewhere_that_decides() -> None:
    found = replace(scored("induction", 0.5, 0.6), selection=torch.tensor([0.9, 0.1]), sample=None)
    (best,) = HeadTable(((0, 0), (0, 1)), {"induction": found}, MADE).best("induction")
    assert (best.layer, best.head) == (0, 0)


def test_roles_that_are_not_there_say_why() -> None:
    found = table()
    with pytest.raises(ArgumentError, match=r"role: wanted one of previous_token, .*, got not measured: this model"):
        found.best("copying")
    with pytest.raises(ArgumentError, match="got 'sink'"):
        found.best("sink")
    with pytest.raises(ArgumentError, match="k: wanted a whole number from 1 to 5, got 6"):
        found.best("induction", 6)


def test_rows_are_plain_and_survive_parquet(tmp_path: Path) -> None:
    found = table()
    rows = found.rows()
    assert len(rows) == len(found) == 5
    assert list(rows[0])[:5] == ["layer", "head", "role", "previous_token_score", "previous_token_low"]
    assert {type(value) for row in rows for value in row.values()} == {int, float, str, bool}
    assert json.loads(json.dumps(rows)) == rows
    written = parquet.read_table(found.to_parquet(tmp_path / "heads.parquet"))
    assert written.to_pylist() == rows
    about = written.schema.metadata
    assert json.loads(about[b"attlas"])["fingerprint"] == "f00d"
    assert json.loads(about[b"missing"]) == {"copying": "this model predicts no next token"}
    assert json.loads(about[b"predictions"])[0]["auc"] == 0.9
    roles = json.loads(about[b"roles"])
    assert list(roles) == ["previous_token", "induction", "local", "first_token"]
    assert roles["induction"]["margin"] == MARGIN


def test_a_notebook_shows_each_roles_best_head() -> None:
    shown = table()._repr_html_()
    assert shown.count("<tr>") == 5
    assert "<td>induction</td><td>2</td><td>(1, 0)</td>" in shown
    hostile = replace(table(), provenance=replace(MADE, model="<script>alert(1)</script>"))
    assert "<script>" not in hostile._repr_html_()


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_role_says_what_it_is_and_what_it_is_compared_with(role: Role) -> None:
    assert role.meaning.endswith(".")
    assert role.baselines.endswith(".")
    assert role.margin >= MARGIN
    assert role.unit in {"share", "hits", "AUC"}
