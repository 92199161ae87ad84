"""Choosing plans from a profile: errors, costs, groups, what it says of itself, and its file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import parquet

import attlas
from attlas.patterns import FeatureMap, Full, Linear, Pattern, SlidingWindow
from attlas.planning.costs import CostModel, Timed
from attlas.planning.effects import Effects, Head, TextRead
from attlas.planning.losses import NAMES
from attlas.planning.plan import Plan
from attlas.planning.profile import Check, Profile, seconds
from attlas.planning.profile_file import open_profile
from attlas.planning.subject import Subject
from attlas.results import Provenance

NARROW, WIDE = SlidingWindow(8, sinks=1), SlidingWindow(128)
N = 1024
LAYERS, HEADS = 2, 4


def made(lost: Any = None, checks: tuple[Check, ...] = (), window: int | None = None) -> Profile:
    """Return a profile with known predictions, (text, head, pattern); costs are pairs."""
    heads = tuple(Head(layer, head, head // 2, True, window) for layer in range(LAYERS) for head in range(HEADS))
    if lost is None:
        lost = torch.arange(1.0, 9).view(1, 8, 1) * torch.tensor([0.01, 0.001])
    second = torch.as_tensor(lost, dtype=torch.float64).expand(2, 8, 2).clone()
    zeros = torch.zeros_like(second)
    values = dict.fromkeys(NAMES, zeros) | {"second": second, "error": zeros + second.isnan() * second}
    texts = (TextRead(N, 4 * N, 2.0), TextRead(N, N, 3.0))
    run = Timed("full", "full", 2, Full().work(2, 2, causal=True), 3.0)
    model = CostModel(0, 0, {"full": 1}, 0, 0, "here", 1, "2", "float32", 8, True, (run,))
    subject = Subject("tiny", "f00d", "llama", 1000)
    provenance = Provenance("0", "tiny", "f00d", {"length": N})
    return Profile(Effects(heads, (NARROW, WIDE), texts, values), model, checks, subject, ("a", "b"), provenance)


def checked(*points: tuple[float, float]) -> tuple[Check, ...]:
    return tuple(Check(predicted, (0, 1), predicted, (rise, rise), (0.0, 0.0), 0.5, 0.5) for predicted, rise in points)


def test_an_error_is_kept_by_what_was_measured() -> None:
    # What was measured is twice what was predicted.
    found = made(checks=checked((0.01, 0.02), (0.2, 0.4)))
    previous = 1.0
    for error in (0.003, 0.01, 0.05, 0.2, 0.4):
        chosen = found.choose(error)
        assert chosen.rise is not None
        assert chosen.rise <= math.log1p(error)
        assert chosen.rise == pytest.approx(2 * chosen.predicted)
        assert chosen.error == pytest.approx(math.expm1(chosen.rise))
        assert chosen.cost <= previous
        previous = chosen.cost
        assert not chosen.notes
    lost = found.effects.loss.mean(0)
    for (layer, head), pattern in chosen.patterns.items():
        assert pattern in (NARROW, WIDE)
        assert lost[layer * HEADS + head].isfinite().all()
    assert chosen.predicted == pytest.approx(
        sum(float(lost[layer * HEADS + head, (NARROW, WIDE).index(p)]) for (layer, head), p in chosen.patterns.items())
    )
    assert chosen.full == 1 - len(chosen.patterns) / 8


def test_what_was_run_on_some_texts_is_scaled_to_all() -> None:
    # There twice as much was predicted as on all texts, and half of that came.
    check = Check(0.1, (1,), 0.2, (0.12,), (0.02,), 0.5, 0.5)
    assert check.rise == pytest.approx(0.05)
    assert made(checks=(check,)).curve.rise(0.1) == pytest.approx(0.05)


def test_an_error_beyond_what_was_measured_is_not_extrapolated() -> None:
    found = made(checks=checked((0.01, 0.02)))
    chosen = found.choose(error=5.0)
    assert chosen.predicted <= 0.01
    assert chosen.rise is not None
    assert chosen.rise <= 0.02
    assert "Plans were run up to 2.02 % of perplexity" in chosen.notes[0]


def test_an_error_that_no_plan_can_meet() -> None:
    found = made(checks=checked((0.01, 0.02)))
    for error in (0.0, 1e-6):
        plan = found.plan(error)
        assert not plan.patterns
        assert plan.provenance.settings["notes"] == [
            f"No pattern keeps perplexity within {'0' if error == 0 else '0.0001'} %: all heads stay exact."
        ]
        assert (plan.expected["error"].value, plan.expected["cost"].value) == (0.0, 1.0)


def test_without_plans_that_were_run_predictions_are_all_there_is() -> None:
    chosen = made().choose(error=0.05)
    assert chosen.rise == chosen.predicted <= math.log1p(0.05)
    assert chosen.notes == ("What it does to the loss is predicted; no plan was run.",)


def test_a_cost() -> None:
    found = made(checks=checked((0.3, 0.3)))
    chosen = found.choose(cost=0.6)
    assert chosen.cost <= 0.6
    assert chosen.rise is not None
    assert not chosen.notes
    # Costs are pairs here, so a share can be counted.
    table = seconds(found.costs, found.effects.heads, (NARROW, WIDE), N)
    options = [(None, NARROW, WIDE).index(chosen.patterns.get((h.layer, h.head))) for h in found.effects.heads]
    taken = sum(float(row[option]) for row, option in zip(table, options, strict=True))
    assert chosen.cost == pytest.approx(taken / float(table[:, 0].sum()))
    low = found.choose(cost=0.0)
    assert "No plan costs as little as 0 %: this is the cheapest that there is." in low.notes
    assert set(low.patterns.values()) == {NARROW}
    unknown = made(checks=checked((0.001, 0.002))).choose(cost=0.2)
    assert unknown.rise is None
    assert unknown.error is None
    assert "not known: plans were run up to 0.2 % of perplexity; evaluate it." in unknown.notes[-1]
    assert "error" not in made(checks=checked((0.001, 0.002))).plan(cost=0.2).expected


def test_groups_share_a_pattern() -> None:
    found = made(checks=checked((1.0, 1.0)))
    for error in (0.01, 0.05, 0.1):
        chosen = found.choose(error, by="kv_head")
        for layer in range(LAYERS):
            for first in (0, 2):
                assert chosen.patterns.get((layer, first)) == chosen.patterns.get((layer, first + 1))
        assert chosen.predicted <= math.log1p(error)


def test_what_one_head_cannot_have_its_group_cannot() -> None:
    lost = torch.full((2, 8, 2), 1e-6)
    lost[:, 3, :] = torch.nan
    found = made(lost, checked((1.0, 1.0)))
    assert set(found.choose(error=0.5).patterns) == {(0, 0), (0, 1), (0, 2), *((1, h) for h in range(4))}
    assert set(found.choose(error=0.5, by="kv_head").patterns) == {(0, 0), (0, 1), *((1, h) for h in range(4))}


def test_costs_depend_on_the_length() -> None:
    found = made(checks=checked((1.0, 1.0)))
    assert found.choose(error=0.05, length=64 * N).cost < found.choose(error=0.05).cost
    # A text that every window sees whole is not cheaper under any.
    assert not found.choose(error=0.05, length=64).patterns


def test_what_is_hardly_cheaper_is_not_worth_it() -> None:
    lost = torch.full((2, 8, 2), 1e-6)
    lost[..., 0] = torch.nan
    # Only the wide window is possible, and takes a quarter of the last row's time.
    found = made(lost, checked((1.0, 1.0)))
    share = found.choose(cost=0.0, worth=1).cost
    assert 0.25 < share < 0.3
    assert found.choose(cost=0.0, worth=share).cost == share
    cases: list[dict[str, Any]] = [{"cost": 0.0, "worth": 0.2}, {"error": 0.5, "worth": 0.2}]
    for options in cases:
        chosen = found.choose(**options)
        assert not chosen.patterns
        assert chosen.cost == 1
        assert "takes at most 20 % of exact attention" in chosen.notes[0]
    assert found.plan(error=0.5, worth=0.3).provenance.settings["worth"] == 0.3


def test_what_is_worth_it_is_asked_of_heads_that_share_keys_together() -> None:
    found = made(torch.full((2, 8, 2), 1e-6), checked((1.0, 1.0)))
    for by in ("head", "kv_head"):
        assert set(found.choose(error=0.5, by=by, worth=0.1).patterns.values()) == {NARROW}


def test_a_head_with_a_window_of_its_own_costs_no_more_than_that() -> None:
    plain, windowed = made(), made(window=64)
    with_window = seconds(windowed.costs, windowed.effects.heads, (NARROW, WIDE), N)
    without = seconds(plain.costs, plain.effects.heads, (NARROW, WIDE), N)
    assert bool((with_window[:, 0] < without[:, 0]).all())
    assert torch.equal(with_window[:, 1:], without[:, 1:])
    # A wider window than its own saves nothing.
    assert WIDE not in windowed.choose(error=0.5).patterns.values()


def test_the_plan_knows_what_it_is_of() -> None:
    plan = made(checks=checked((0.2, 0.4))).plan(error=0.05)
    assert plan.subject == Subject("tiny", "f00d", "llama", 1000)
    assert plan.layers == ("a", "b")
    assert plan.sizes == (4, 4)
    assert set(plan.expected) == {"error", "cost", "full"}
    assert plan.provenance.settings["error"] == 0.05
    assert plan.provenance.settings["by"] == "head"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "error, cost: wanted one of the two, got neither"),
        ({"error": 0.1, "cost": 0.5}, "error, cost: wanted one of the two, got both"),
        ({"error": -0.1}, "error: wanted a share from 0"),
        ({"error": math.nan}, "error: wanted a share from 0"),
        ({"error": True}, "error: wanted a share from 0"),
        ({"cost": "half"}, "cost: wanted a share from 0"),
        ({"error": 0.1, "worth": -1}, "worth: wanted a share from 0"),
        ({"error": 0.1, "by": "layer"}, 'by: wanted "head" or "kv_head"'),
        ({"error": 0.1, "length": 0}, "length: wanted a whole number of tokens from 1"),
    ],
)
def test_what_makes_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(attlas.ArgumentError, match=message):
        made().plan(**options)


# ---- its file


def test_it_opens_as_it_was_saved(tmp_path: Path) -> None:
    lost = torch.rand(2, 8, 2, dtype=torch.float64)
    lost[:, 2, 1] = torch.nan
    found = made(lost, checked((0.01, 0.02), (0.1, 0.3)), window=40)
    again = open_profile(found.save(tmp_path / "tiny.profile"))
    assert again.effects.heads == found.effects.heads
    assert again.effects.patterns == found.effects.patterns
    assert again.effects.texts == found.effects.texts
    for name in NAMES:
        torch.testing.assert_close(
            again.effects.values[name], found.effects.values[name], rtol=0, atol=0, equal_nan=True
        )
    assert (again.costs, again.checks, again.subject, again.layers) == (
        found.costs,
        found.checks,
        found.subject,
        found.layers,
    )
    assert again.provenance == found.provenance
    assert again.choose(error=0.05) == found.choose(error=0.05)
    table = parquet.read_table(tmp_path / "tiny.profile")
    assert table.num_rows == 2 * 8 * 2
    assert json.loads(table.schema.metadata[b"columns"])["second"]["unit"] == "nats"


def test_a_plan_of_the_same_name_has_maps_of_its_own(tmp_path: Path) -> None:
    linear = [Linear(FeatureMap(torch.randn(1, 4, 6), torch.randn(1, 4, 6))) for _ in range(2)]
    found = made()
    found = replace(found, effects=replace(found.effects, patterns=(linear[0], WIDE)))
    found.save(tmp_path / "same.parquet")
    Plan(found.subject, {(0, 0): linear[1]}).save(tmp_path / "same.json")
    assert open_profile(tmp_path / "same.parquet").effects.patterns == (linear[0], WIDE)
    assert attlas.open_plan(tmp_path / "same.json").pattern(0, 0) == linear[1]


def rewritten(path: Path, change: Any) -> Path:
    """Write a profile's file again, with its metadata or rows changed."""
    table = parquet.read_table(path)
    about = json.loads(table.schema.metadata[b"profile"])
    rows = table.to_pylist()
    changed = change(about, rows) or (about, rows)
    metadata = {**table.schema.metadata, b"profile": json.dumps(changed[0]).encode()}
    parquet.write_table(
        pyarrow.Table.from_pylist(changed[1], schema=table.schema).replace_schema_metadata(metadata), path
    )
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about, rows: ({"format": "other"}, rows), "got a table of another kind"),
        (lambda about, rows: ({**about, "version": 2}, rows), "format version 1, got version 2"),
        (lambda about, rows: (about, rows[:-1]), "wanted a row for every text, head and pattern"),
        (lambda about, rows: (about, rows[::-1]), "in order, got others"),
        (lambda about, rows: ({**about, "heads": []}, rows), "wanted a row for every text, head and pattern"),
        (lambda about, rows: ({**about, "heads": [[0]] * 8}, rows), "wanted a whole profile"),
        (lambda about, rows: ({**about, "patterns": [{"kind": "os.system"}] * 2}, rows), "wanted a whole profile"),
        (lambda about, rows: ({k: v for k, v in about.items() if k != "costs"}, rows), "wanted a whole profile"),
        (lambda about, rows: ({**about, "checks": [{"predicted": 1}]}, rows), "wanted a whole profile"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = rewritten(made().save(tmp_path / "tiny.profile"), change)
    with pytest.raises(attlas.StoreError, match=message):
        open_profile(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(attlas.StoreError, match="there is no such file"):
        open_profile(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(attlas.StoreError, match="wanted a profile that attlas wrote, got another file"):
        open_profile(tmp_path / "text")
    with pytest.raises(attlas.StoreError, match="wanted a profile that attlas wrote"):
        open_profile(tmp_path)
    parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "table")
    with pytest.raises(attlas.StoreError, match="got a table of another kind"):
        open_profile(tmp_path / "table")


# ---- its picture


def test_the_picture_shows_every_head(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    found = made(checks=checked((1.0, 1.0)))
    found = replace(found, provenance=replace(found.provenance, model="<b>&tiny"))
    path = found.picture(tmp_path / "tiny.svg", error=0.05)
    root = ElementTree.fromstring(path.read_text())  # noqa: S314 - our own file, parsed to prove that it is whole
    space = {"svg": "http://www.w3.org/2000/svg"}
    titles = [title.text for title in root.findall("svg:rect/svg:title", space)]
    assert len(titles) == 8
    chosen = found.choose(error=0.05)
    names: dict[Pattern | None, str] = {
        None: "exact",
        NARROW: "sliding window: width 8, sinks 1",
        WIDE: "sliding window: width 128, sinks 0",
    }
    for head in found.effects.heads:
        called = names[chosen.patterns.get((head.layer, head.head))]
        assert f"layer {head.layer}, head {head.head}: {called}" in titles
    words = [text.text for text in root.findall("svg:text", space)]
    assert f"exact  ({8 - len(chosen.patterns)})" in words
    assert "<b>&tiny: the cheapest pattern of each head with perplexity within 5 %" in words
    assert found._repr_html_().startswith("<svg")
