"""The table of projections: every number is that of the record it comes from, and what is missing is None."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from pyarrow import parquet

import attlas
from attlas.errors import CaptureError
from attlas.projections.table import COLUMNS, projection_table
from circuits import BY_FAMILY, viewed

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

NAMES = {column.name for column in COLUMNS}


def captured(model, family: str) -> attlas.Capture:
    with attlas.capture(model) as cap, torch.no_grad():
        model(**BY_FAMILY[family].inputs())
    return cap


def test_a_row_a_head_with_every_column() -> None:
    model, P = viewed("Qwen2")
    table = projection_table(P, captured(model, "Qwen2"), tokens=40)
    rows = table.rows()
    assert [(row["layer"], row["head"]) for row in rows] == list(P.heads) == list(table.heads)
    assert len(table) == len(rows) == 8
    for row in rows:
        assert NAMES <= set(row)
        # The first layer has nothing before it, the last one nothing behind it; the rest is all there.
        expected = {"q_from", "k_from", "v_from"} if row["layer"] == 0 else {"feeds"}
        missing = {name for name in NAMES if row[name] is None}
        if row["preferred_offset"] >= 19:  # further than the text is long
            missing -= {"kernel_measured", "kernel_even"}
        assert missing == {name for name in NAMES if name.rsplit("_", 1)[0] in expected}
    assert table.reasons == {}
    assert table.row(1, 2) == rows[6]
    spectral = table.spectra.layers[1]
    assert rows[6]["ov_effective_rank"] == float(spectral.ov.numbers["effective_rank"][2])
    assert rows[6]["qk_stable_rank_chance"] == spectral.qk.chance.mean["stable_rank"]
    assert table.copying is not None
    assert rows[6]["copy_effective"] == table.copying.rows()[6]["effective"]
    assert table.chance["copy_raw"] == table.copying.chance["raw"].deviation
    assert table.kernel is not None
    assert rows[6]["preferred_offset"] == table.kernel.rows()[6]["preferred_offset"]
    measured = table.kernel.layers[1].measured
    assert measured is not None
    assert rows[6]["previous_measured"] == float(measured[2, 1])


def test_parameters_add_up_to_the_projections() -> None:
    model, P = viewed("Qwen2")
    rows = projection_table(P, copies=False, compositions=False).rows()
    attention = model.model.layers[0].self_attn
    counted = sum(row["parameters"] + row["shared_parameters"] / 2 for row in rows if row["layer"] == 0)
    assert counted == sum(p.numel() for p in attention.parameters())


def test_the_strongest_partners_are_the_largest_z() -> None:
    _, P = viewed("Llama")
    table = projection_table(P, copies=False)
    for one in table.compositions:
        for head in range(4):
            into = one.z[0, :, 1, head]
            row = table.row(1, head)
            assert (row[f"{one.kind}_from_layer"], row[f"{one.kind}_from_head"]) == (0, int(into.argmax()))
            assert row[f"{one.kind}_from_z"] == float(into.max())
            assert row[f"{one.kind}_from_score"] == float(one[0, int(into.argmax()), 1, head])
    for head in range(4):
        row = table.row(0, head)
        assert row["feeds_z"] == max(float(one.z[0, head].max()) for one in table.compositions)
        kind = next(one for one in table.compositions if one.kind == row["feeds_kind"])
        assert row["feeds_score"] == float(kind[0, head, row["feeds_layer"], row["feeds_head"]])


def test_what_a_model_lacks_is_none_and_said() -> None:
    model, P = viewed("BERT")
    table = projection_table(P, captured(model, "BERT"))
    assert table.copying is None
    assert "has no output layer over the vocabulary" in table.reasons["copying"]
    assert "not turned by their positions" in table.reasons["kernel"]
    assert "composition" not in table.reasons
    for row in table.rows():
        assert all(row[name] is None for name in NAMES if name.startswith("copy_"))
        assert row["preferred_offset"] is None
        assert row["kernel_share"] is None
        assert row["previous_share"] is None
        assert row["previous_measured"] is not None
        assert row["ov_positivity"] is not None
    bare = projection_table(P, copies=False, compositions=False)
    assert set(bare.reasons) == {"copying", "composition", "kernel"}
    assert bare.compositions == ()


def test_streams_of_several_widths_have_no_composition() -> None:
    _, P = viewed("Swin")
    table = projection_table(P)
    assert "composition" in table.reasons
    assert all(row["feeds_z"] is None and row["qk_norm"] > 0 for row in table.rows())


def test_parquet_says_what_its_columns_mean(tmp_path: Path) -> None:
    model, P = viewed("Llama")
    table = projection_table(P, captured(model, "Llama"), tokens=40)
    path = table.to_parquet(tmp_path / "deep" / "table.parquet")
    read = parquet.read_table(path)
    assert read.to_pylist() == table.rows()
    about = read.schema.metadata
    columns = json.loads(about[b"columns"])
    assert set(columns) == NAMES
    assert columns["copy_eigenvalue"]["source"] == "Elhage et al. 2021"
    assert all(column["meaning"] for column in columns.values())
    assert json.loads(about[b"chance"]) == dict(table.chance)
    assert json.loads(about[b"attlas"])["settings"]["tokens"] == 40
    again = projection_table(P, captured(model, "Llama"), tokens=40).parquet()
    assert parquet.read_table(io.BytesIO(again)).equals(read)


def test_a_wrong_capture_is_refused_before_anything_is_computed() -> None:
    _, P = viewed("Llama")
    other, _ = viewed("GPT-2")
    with pytest.raises(CaptureError, match="wanted a capture of LlamaForCausalLM"):
        projection_table(P, captured(other, "GPT-2"))


def test_progress_names_each_part() -> None:
    model, P = viewed("Llama")
    seen = []
    projection_table(P, captured(model, "Llama"), tokens=30, progress=lambda *at: seen.append(at))
    parts = list(dict.fromkeys(what for _, _, what in seen))
    assert parts == ["offset kernels", "spectra", "copying scores", "q-composition", "k-composition", "v-composition"]
    for part in parts:
        last = [(done, total) for done, total, what in seen if what == part][-1]
        assert last[0] == last[1]
