"""The result: a table that says what it holds, and difference maps that are those of dense matrices."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

import attlas
import tuning
from attlas.compare import HEAD_COLUMNS, MODULE_COLUMNS

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    base = tuning.tiny("Llama", torch.float32)
    wrapped = tuning.adapted(base, "Llama")
    return base, wrapped, tuning.saved(wrapped, tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def found(adapter: tuple[Any, Any, Path]) -> attlas.Comparison:
    return attlas.compare(tuning.language_model(adapter[0], "the base"), adapter[2], tuning.IDS, restore=2)


def test_every_column_is_there_and_explained(found: attlas.Comparison) -> None:
    where = {"layer", "head", "kv_head", "module"}
    for row in found.rows():
        assert set(row) == where | {column.name for column in HEAD_COLUMNS}
    filled = {name for row in found.rows() for name, value in row.items() if value is not None}
    assert filled == where | {column.name for column in HEAD_COLUMNS}
    for row in found.modules.rows():
        assert set(row) == {"module"} | {column.name for column in MODULE_COLUMNS}
    assert all(column.meaning for column in (*HEAD_COLUMNS, *MODULE_COLUMNS))


def test_the_files_say_how_they_were_made(
    found: attlas.Comparison, adapter: tuple[Any, Any, Path], tmp_path: Path
) -> None:
    found.to_parquet(tmp_path / "heads.parquet")
    found.modules.to_parquet(tmp_path / "modules.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "heads.parquet")
    about = {key.decode(): json.loads(value) for key, value in table.schema.metadata.items() if key != b"ARROW:schema"}
    assert about["attlas"]["model"] == "the base"
    assert about["attlas"]["settings"]["tuned"] == str(adapter[2])
    assert about["moved"] == {"tokens": len(tuning.IDS), "rows": len(tuning.IDS)}
    assert about["columns"]["qk_amplification"]["source"].startswith("Hu et al. 2021")
    assert table.num_rows == len(found) == 8
    assert pyarrow.parquet.read_table(tmp_path / "modules.parquet").num_rows == len(found.modules)


def test_heads_are_ranked(found: attlas.Comparison) -> None:
    ranked = found.ranked("moved", 3)
    values = [found.row(*at)["moved"] for at in found.ranked("moved")]
    assert values == sorted(values, reverse=True)
    assert len(ranked) == 3
    with pytest.raises(attlas.ArgumentError, match="column: wanted one of"):
        found.ranked("movd")


def test_difference_maps_are_those_of_dense_matrices(found: attlas.Comparison, adapter: tuple[Any, Any, Path]) -> None:
    base, wrapped, _ = adapter
    heads = [(1, 2), (0, 3), (1, 0)]
    maps = found.differences(heads, (500, 500))
    ids = torch.tensor([tuning.IDS])
    dense = []
    for model in (base, wrapped.get_base_model()):
        with attlas.capture(model) as cap, torch.no_grad():
            model(ids)
        dense.append(cap)
    assert list(maps) == heads
    for layer, head in heads:
        expected = dense[1][layer].to_dense()[0, head] - dense[0][layer].to_dense()[0, head]
        assert torch.allclose(maps[layer, head], expected, atol=1e-5)
    small = found.difference(1, 2, (4, 4))
    pooled = [cap[1][0, [2]].pool((4, 4))[0, 0] for cap in dense]
    assert torch.allclose(small, pooled[1] - pooled[0], atol=1e-6)


def test_maps_that_cannot_be_drawn_are_refused(found: attlas.Comparison, adapter: tuple[Any, Any, Path]) -> None:
    with pytest.raises(attlas.ArgumentError, match=r"head: wanted one of the 8 heads.*got \(2, 0\)"):
        found.difference(2, 0)
    weights_only = attlas.compare(adapter[0], adapter[2])
    assert weights_only.moved is None
    assert weights_only.restored is None
    assert weights_only.reasons["moved"] == "it needs a text"
    with pytest.raises(attlas.ArgumentError, match="differences: wanted a comparison on a text"):
        weights_only.difference(0, 0)


def test_progress_is_told(adapter: tuple[Any, Any, Path]) -> None:
    told: dict[str, tuple[int, int]] = {}

    def progress(done: int, total: int, what: str) -> None:
        told[what] = (done, total)

    lm = tuning.language_model(adapter[0])
    attlas.compare(lm, adapter[2], tuning.IDS, restore=2, progress=progress)
    ends = {what: done for what, done in told.items() if not what.startswith("prov")}
    assert set(ends) == {
        "comparing heads",
        "comparing weights",
        f"comparing attention on {len(tuning.IDS)} tokens",
        "putting heads back",
    }
    assert all(done == total for done, total in ends.values())


def test_a_base_in_bfloat16_is_compared_too(adapter: tuple[Any, Any, Path]) -> None:
    base = tuning.tiny("Llama", torch.bfloat16)
    found = attlas.compare(tuning.language_model(base), adapter[2], tuning.IDS)
    row = found.modules.rows()[0]
    assert row["merge_loss"] == pytest.approx(row["merge_loss_rounded"])
    assert found.moved is not None


def test_a_text_is_compared_by_its_tokens(adapter: tuple[Any, Any, Path]) -> None:
    lm = tuning.language_model(adapter[0])
    with pytest.raises(attlas.DocumentError, match="at least two tokens"):
        attlas.compare(lm, adapter[2], [7])
    with pytest.raises(attlas.DocumentError, match="64"):
        attlas.compare(lm, adapter[2], [7] * 65)
