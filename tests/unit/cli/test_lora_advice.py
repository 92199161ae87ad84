from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attlas.cli.app import app
from attlas.errors import ArgumentError, StoreError
from attlas.training import open_advice


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    lines = [{"prompt": f"the {word}", "completion": " is a fox"} for word in ("dog", "cat", "jug", "box") * 10]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["lora", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def refused(*arguments: object) -> BaseException:
    done = CliRunner().invoke(app, ["lora", *map(str, arguments)])
    assert done.exception is not None
    return done.exception


def test_an_advice_is_written_told_and_trained_with(reader: Path, data: Path, tmp_path: Path) -> None:
    out, adapter = tmp_path / "mine.json", tmp_path / "adapter"
    said = run("advise", reader, data, "--rank", 2, "--out", out)
    advice = open_advice(out)
    assert 0 < advice.parameters <= advice.budget
    for name in ("query", "key", "value", "output", "gate_proj", "up_proj", "down_proj"):
        assert f"\n{name} " in said
    flat = said.replace("\n", " ")
    assert "heads that brought most, as LAYER.HEAD: " in flat
    assert "compare before you rely on them" in flat
    told = json.loads(
        run("train", reader, data, "--advice", out, "--out", adapter, "--steps", 1, "--dropout", 0.1, "--json")
    )
    assert told["trainable"] == advice.parameters
    assert told["ranks"] == {name: rank for name, rank in advice.ranks.items() if rank}
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["lora_dropout"] == 0.1


def test_machines_get_modules_and_heads(reader: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    told = json.loads(
        run("advise", reader, data, "--budget", 300, "-p", "query,value", "--layers", "1-2", "--out", out, "--json")
    )
    assert told["parameters"] <= told["budget"] == 300
    assert {(row["layer"], row["role"]) for row in told["modules"]} == {
        (layer, role) for layer in (1, 2) for role in ("query", "value")
    }
    assert len(told["heads"]) == 2 * 4
    assert "evidence" in told


def test_an_advice_decides_alone(reader: Path, long_reader: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    run("advise", reader, data, "--rank", 1, "--out", out)
    for more in (("--rank", 4), ("--projections", "all"), ("--heads", "0.1"), ("--separate",)):
        error = refused("train", reader, data, "--advice", out, "--out", tmp_path / "adapter", *more)
        assert isinstance(error, ArgumentError)
        assert "--advice: wanted it alone" in str(error)
    error = refused("train", long_reader, data, "--advice", out, "--out", tmp_path / "adapter")
    assert isinstance(error, ArgumentError)
    assert "got one that was made for" in str(error)
    assert not (tmp_path / "adapter").exists()


def test_what_is_wrong_is_found_before_the_model_is_opened(reader: Path, data: Path, tmp_path: Path) -> None:
    error = refused("advise", "nowhere", data, "--out", tmp_path / "advice.txt")
    assert "--out: wanted a .json file" in str(error)
    error = refused("train", reader, data, "--advice", tmp_path / "none.json", "--out", tmp_path / "adapter")
    assert isinstance(error, StoreError)
    error = refused("advise", reader, data, "--budget", 300, "--rank", 2, "--out", tmp_path / "a.json")
    assert "budget, rank: wanted one of the two at most, got both" in str(error)
