from __future__ import annotations

import inspect
import json
import math
from pathlib import Path

import pytest
from pyarrow import parquet
from transformers import LlamaForCausalLM
from typer.testing import CliRunner

from attlas.cli import compare as command
from attlas.cli.app import app
from attlas.compare import comparing
from attlas.errors import ArgumentError, DocumentError, ModelNotFound, StoreError
from attlas.view import comparison_page
from tuning import adapted, saved

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["compare", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: object) -> BaseException:
    done = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    assert done.exception is not None
    return done.exception


@pytest.fixture(scope="module")
def adapter(reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter for the tiny reader."""
    wrapped = adapted(LlamaForCausalLM.from_pretrained(reader), "Llama")
    return saved(wrapped, tmp_path_factory.mktemp("adapter"))


def test_weights_alone(reader: Path, adapter: Path) -> None:
    said = run(reader, adapter, "--top", 3)
    assert "(adapter): 12 heads, 15 weight matrices" in " ".join(said.split())
    for title in ("Query-key changed most", "Output-value changed most", "Modules changed most"):
        assert title in said
    assert "Attention moved most" not in said
    assert "no attention: it needs a text" in said


def test_with_a_text(reader: Path, adapter: Path, document: Path) -> None:
    said = " ".join(run(reader, adapter, document, "--restore", 2, "--rows", "all", "--window", 16).split())
    assert "attention matrices of 44 tokens, every row" in said
    assert "mean of the 16 tokens from 28 on; 2 of 12 heads were put back" in said
    assert "Heads that explain the changed output" in said
    assert "Attention moved most" in said


def test_for_machines(reader: Path, adapter: Path, document: Path) -> None:
    found = json.loads(run(reader, adapter, document, "--json", "--restore", 1, "--rows", 10))
    assert [(row["layer"], row["head"]) for row in found["heads"]] == [(i, h) for i in range(3) for h in range(4)]
    assert all(0 < row["moved"] <= 1 for row in found["heads"])
    assert sum(row["restored"] is not None for row in found["heads"]) == 1
    assert {row["module"] for row in found["modules"]} >= {"model.layers.0.self_attn.q_proj"}
    assert found["moved"] == {"tokens": 44, "rows": 10}
    assert found["restored"]["divergence"] > 0
    assert found["provenance"]["settings"]["kind"] == "adapter"


def test_a_model_is_not_changed_by_itself(reader: Path) -> None:
    found = json.loads(run(reader, reader, "--json", "--intruders", 0))
    assert all(row["qk_change"] == 0 and row["ov_change"] == 0 for row in found["heads"])


def test_tables_are_written(reader: Path, adapter: Path, tmp_path: Path) -> None:
    heads, modules = tmp_path / "heads.parquet", tmp_path / "modules.parquet"
    said = run(reader, adapter, "--out", heads, "--modules", modules)
    assert str(heads) in said.replace("\n", "")
    assert parquet.read_table(heads).num_rows == 12
    assert parquet.read_table(modules).num_rows == 15
    assert b"attlas" in parquet.read_table(modules).schema.metadata


def test_heads_are_ranked_by_a_column(reader: Path, adapter: Path) -> None:
    said = run(reader, adapter, "--by", "ov_effective_rank", "--top", 12)
    assert "By ov_effective_rank" in said
    assert "Modules changed most" not in said
    rows = [line.split() for line in said.splitlines() if line.strip()[:1].isdigit()]
    values = [float(row[2]) for row in rows]
    assert len(values) == 12
    assert values == sorted(values, reverse=True)
    assert all(math.isfinite(value) for value in values)


def test_bad_input_is_refused_by_name(reader: Path, adapter: Path, document: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="--rows: wanted a whole number from 1, or all, got 'few'"):
        raise refused(reader, adapter, document, "--rows", "few")
    with pytest.raises(ArgumentError, match=r"--by: wanted one of qk_base, .*, got 'fame'"):
        raise refused(reader, adapter, "--by", "fame")
    with pytest.raises(ArgumentError, match="--by moved: wanted a text"):
        raise refused(reader, adapter, "--by", "moved")
    with pytest.raises(ArgumentError, match=r"--out: wanted a \.parquet file"):
        raise refused(reader, adapter, "--out", tmp_path / "heads.csv")
    with pytest.raises(StoreError, match="--modules: wanted a file's name, got the folder"):
        raise refused(reader, adapter, "--modules", tmp_path)
    with pytest.raises(DocumentError):
        raise refused(reader, adapter, tmp_path / "none.txt")
    with pytest.raises(ModelNotFound):
        raise refused(tmp_path / "none", adapter)
    with pytest.raises(ModelNotFound):
        raise refused(reader, tmp_path / "none")
    with pytest.raises(ModelNotFound, match="this is an adapter, not a model"):
        raise refused(adapter, reader)


def test_an_adapter_for_another_model_is_refused(long_reader: Path, adapter: Path) -> None:
    with pytest.raises(ArgumentError, match=r"model\.layers\.2\."):
        raise refused(long_reader, adapter)


def test_a_page_is_written(reader: Path, adapter: Path, document: Path, tmp_path: Path) -> None:
    said = run(reader, adapter, document, "--page", tmp_path / "pages", "--maps", 2, "--restore", 0)
    page = tmp_path / "pages" / command.PAGE_NAME
    assert str(page) in said.replace("\n", "")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_its_defaults_are_the_librarys() -> None:
    known = {name: one.default for name, one in inspect.signature(comparing.compare).parameters.items()}
    own = (command.ROWS, command.RESTORE, command.WINDOW, command.INTRUDERS, command.THRESHOLD)
    assert own == tuple(known[name] for name in ("rows", "restore", "window", "intruders", "threshold"))
    assert command.MAPS == inspect.signature(comparison_page).parameters["maps"].default
