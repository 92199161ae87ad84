"""The page of a comparison holds the numbers that were found, and maps of what moved."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import attlas
from attlas.compare import HEAD_COLUMNS, Comparison
from attlas.view.comparison_page import comparison_page, write_comparison
from attlas.view.encoding import AGAINST, from_codes, rounded, signed_codes
from viewing import compared


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compared()


def content(page: str) -> dict[str, Any]:
    match = re.search(r'id="content">(.*?)</script>', page, re.DOTALL)
    assert match
    return json.loads(match[1])


def numbers(held: dict[str, Any], name: str) -> list[np.ndarray[Any, Any]]:
    """Return the tables of a kind, as the page's script reads them."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(held["codes"])), np.uint8).astype(np.uint16)
    codes = planes[: len(planes) // 2] | (planes[len(planes) // 2 :] << 8)
    at, tables = 0, {}
    for kind in ("received", "moved", "maps"):
        for i, table in enumerate(held["text"]["tables"][kind]):
            part = codes[at : at + table["count"]]
            at += table["count"]
            sign = np.where(part & AGAINST, -1, 1)
            tables[kind, i] = sign * from_codes((part & (AGAINST - 1)).astype(np.uint16)) * table["most"]
    assert at == len(codes)
    return [values for (kind, _), values in tables.items() if kind == name]


def close(found: np.ndarray[Any, Any], expected: torch.Tensor) -> None:
    np.testing.assert_allclose(found, expected.double().numpy(), rtol=7e-3, atol=1e-9)


def test_every_number_of_every_head_is_there(found: Comparison) -> None:
    held = content(comparison_page(found, maps=0))
    rows = found.rows()
    assert held["heads"] == [[row["layer"], row["head"]] for row in rows]
    assert {column["name"] for column in held["columns"]} == {column.name for column in HEAD_COLUMNS} | {"intruders"}
    for column in HEAD_COLUMNS:
        expected = [row[column.name] for row in rows]
        for value, right in zip(held["values"][column.name], expected, strict=True):
            assert value == (rounded(right) if isinstance(right, float) else right)
    for number, layer in enumerate(found.layers):
        wanted = sum(row["intruders"] for row in found.modules.rows() if row["layer"] == layer.layer and row["role"])
        assert held["values"]["intruders"][number * layer.heads] == wanted
        spectrum = held["spectra"]["ov"][number * layer.heads + 1]
        assert spectrum == [rounded(float(value)) for value in layer.ov.singular[1]]
    assert held["modules"]["names"] == [row["module"] for row in found.modules.rows()]
    assert held["codes"] is not None, "the mean of all heads colours the text"


def test_maps_and_tracks_are_what_moved(found: Comparison) -> None:
    assert found.moved is not None
    held = content(comparison_page(found, maps=3))
    chosen = [found.heads[index] for index in held["text"]["chosen"]]
    assert chosen[:2] == found.ranked("restored"), "heads that were put back come first"
    assert chosen[2] == next(head for head in found.ranked("moved") if head not in chosen[:2])
    n = found.moved.n
    assert held["text"]["size"] == n
    for head, drawn in zip(chosen, numbers(held, "maps"), strict=True):
        close(drawn.reshape(n, n), found.difference(head[0], head[1], (n, n)))
    layers = {layer.layer: layer for layer in found.moved.layers}
    received = numbers(held, "received")
    close(received[0], torch.cat([layer.received.double() for layer in found.moved.layers]).mean(0))
    for (layer, head), gained, rows in zip(chosen, received[1:], numbers(held, "moved"), strict=True):
        close(gained, layers[layer].received[head])
        close(rows, layers[layer].moved[head])


def test_without_a_text_there_are_weights_alone() -> None:
    held = content(comparison_page(compared(text=False)))
    assert held["text"] is None
    assert held["codes"] is None
    assert set(held["colours"]) == {"weights"}
    assert held["facts"]["tokens"] is None
    assert set(held["reasons"]) == {"moved", "restored"}


def test_models_that_are_gone_are_needed_for_maps_alone(found: Comparison) -> None:
    gone = replace(found, _maps=None)
    assert content(comparison_page(gone, maps=0))["text"]["chosen"] == []
    with pytest.raises(attlas.ArgumentError, match="differences"):
        comparison_page(gone, maps=1)


@pytest.mark.parametrize("maps", [-1, 1.5, True, "3"])
def test_a_count_that_is_none_is_refused(found: Comparison, maps: Any) -> None:
    with pytest.raises(attlas.ArgumentError, match="maps: wanted a whole number from 0"):
        comparison_page(found, maps=maps)


def test_it_is_written_whole_or_not_at_all(found: Comparison, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    path = write_comparison(found, tmp_path / "new" / "c.html", maps=1, progress=lambda *call: told.append(call))
    assert path.read_text("utf-8") == comparison_page(found, maps=1)
    assert told[-1] == (1, 1, "drawing")
    with pytest.raises(attlas.StoreError):
        write_comparison(found, path / "c.html", maps=0)


def test_signed_numbers_come_back() -> None:
    values = torch.tensor([0.0, -1.0, 0.5, 1e-9, -3e-4, float("nan")])
    codes, most = signed_codes(values)
    sign = np.where(codes & AGAINST, -1, 1)
    close(sign * from_codes((codes & (AGAINST - 1)).astype(np.uint16)) * most, values.nan_to_num(0.0))
    assert signed_codes(torch.zeros(3))[1] == 0.0
