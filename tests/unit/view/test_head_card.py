"""The card of a head: every part against what it is made from, and a reason for every part that is missing."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import attlas
from attlas.errors import ArgumentError
from attlas.heads import STATISTICS, head_statistics
from attlas.heads.statistics import one_head
from attlas.patterns import BlockSparse, Linear, SlidingWindow
from attlas.planning.menu import default_patterns
from attlas.projections import spectra
from attlas.view.head_card import PARTS, ROWS, HeadSources, head_card
from explained import TEXT, speaker
from viewing import captured, role_table

PATTERNS = (SlidingWindow(4, sinks=1), BlockSparse(4, top=2))


def test_the_statistics_of_one_head_are_those_of_the_table() -> None:
    cap = captured(40)
    table = head_statistics(cap)
    for layer in (0, 2):
        whole = table.layers[layer]
        one = one_head(cap, layer, 3)
        assert one.heads == (3,)
        assert one.name == whole.name
        for name in whole.values:
            torch.testing.assert_close(one.values[name][0], whole.values[name][3])
            torch.testing.assert_close(one.even[name][0], whole.even[name][0])
    with pytest.raises(ArgumentError, match="head: wanted one of 0, 1, 2, 3, got 9"):
        one_head(cap, 0, 9)


def test_a_card_of_a_run_whose_model_is_not_open() -> None:
    cap = captured(40)
    card = head_card(cap, 1, 2, HeadSources(patterns=PATTERNS))
    assert [one["name"] for one in card["statistics"]] == [one.name for one in STATISTICS]
    entropy = card["statistics"][0]
    expected = cap[1][0, 2].entropy().mean()
    assert entropy["value"] == pytest.approx(float(expected), rel=1e-4)
    assert entropy["even"] == pytest.approx(float(torch.arange(1, 41).log().mean()), rel=1e-4)
    assert entropy["unit"] == "nats"
    assert card["roles"] is None
    assert card["spectra"] is None
    # The page puts the name of the part in front.
    assert card["reasons"] == {
        "roles": "not measured",
        "spectra": "they are of the weights, and the model is not open",
    }


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("length", [40, ROWS + 40])
def test_what_a_pattern_drops_is_the_mass_that_it_hides(pattern: Any, length: int) -> None:
    cap = captured(length)
    card = head_card(cap, 0, 1, HeadSources(patterns=(pattern,)), parts=("patterns",))
    (row,) = card["patterns"]
    exact = cap[0][0, 1]
    hidden = (exact.to_dense() * (pattern.matrix(exact).to_dense() == 0)).sum(-1).double()[0, 0]
    assert row["label"] == str(pattern)
    assert row["of"] == length
    assert row["rows"] == min(length, ROWS)
    if length <= ROWS:
        assert row["mean"] == pytest.approx(float(hidden.mean()), abs=1e-5)
        assert row["max"] == pytest.approx(float(hidden.max()), abs=1e-5)
    else:
        # A mean over a drawn part of the rows lies near that of all of them, and no row is worse than the worst.
        assert row["mean"] == pytest.approx(float(hidden.mean()), abs=5 * float(hidden.std()) / ROWS**0.5)
        assert row["max"] <= float(hidden.max()) + 1e-5
    assert card["reasons"].keys() == set(PARTS) - {"patterns"}


def test_patterns_are_named_as_on_the_command_line() -> None:
    from attlas.cli.pattern_names import parsed_pattern

    cap = captured(20)
    several = (*default_patterns(), BlockSparse(4, local=2, stride=3), SlidingWindow(3), Linear("elu"))
    found = head_card(cap, 0, 0, HeadSources(patterns=several), parts=("patterns",))["patterns"]
    assert [parsed_pattern(row["spec"]) for row in found] == list(several)


def test_spectra_are_those_of_the_weights() -> None:
    lm = speaker()
    cap = lm.read(TEXT)
    P = attlas.projections(lm)
    card = head_card(cap, 1, 2, HeadSources(projections=lambda: P), parts=("spectra",))
    expected = spectra(P, normed=True).layers[1]
    for name in ("qk", "ov"):
        values = getattr(expected, name).singular_values[2]
        assert card["spectra"][name] == pytest.approx(values.tolist(), rel=1e-3)
    chance = card["spectra"]["chance"]
    assert chance[0] == 1
    assert chance == sorted(chance, reverse=True)
    assert len(chance) == len(card["spectra"]["qk"])


def test_roles_are_those_that_were_measured_of_this_model() -> None:
    cap = captured(20)
    table = role_table(cap)
    card = head_card(cap, 2, 1, HeadSources(roles=lambda _: table), parts=("roles",))
    at = table.heads.index((2, 1))
    for row, (name, scores) in zip(card["roles"], table.scores.items(), strict=True):
        assert row["name"] == name
        assert row["score"] == pytest.approx(float(scores.score[at]), rel=1e-4)
        assert row["passes"] == bool(scores.passes[at])
    assert card["roles"] is not None
    fewer = replace(table, heads=tuple((layer + 9, head) for layer, head in table.heads))
    assert "not measured of this head" in head_card(cap, 2, 1, HeadSources(roles=lambda _: fewer))["reasons"]["roles"]


def test_a_card_of_what_is_not_there() -> None:
    cap = captured(20)
    with pytest.raises(ArgumentError, match=r"a captured head of layer 0 \(0 to 3\), got 4"):
        head_card(cap, 0, 4, HeadSources())
    with pytest.raises(ArgumentError, match="a captured layer"):
        head_card(cap, 7, 0, HeadSources())
    with pytest.raises(ArgumentError, match="some of statistics, roles, spectra, patterns, got 'colour'"):
        head_card(cap, 0, 0, HeadSources(), parts=("colour",))


def test_work_for_nobody_ends() -> None:
    class GoneError(Exception):
        pass

    asked = []

    def check() -> None:
        asked.append(1)
        if len(asked) > 3:
            raise GoneError

    with pytest.raises(GoneError):
        head_card(captured(20), 0, 0, HeadSources(), check=check)
