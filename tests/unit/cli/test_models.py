from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
from typer.testing import CliRunner

from attlas.cli.app import app
from attlas.errors import ModelNotFound
from attlas.models import bundled


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTLAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _out(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


@pytest.mark.usefixtures("cache")
def test_the_list_says_what_each_is_and_how_to_get_it() -> None:
    shown = _out("models")
    assert "smollm2-135m  (not added; fetch it with: attlas models add smollm2-135m)" in shown
    assert "30 layers × 9 heads" in shown
    assert "Apache-2.0, 84 MB to fetch, 92 MB on disk" in shown


@pytest.mark.usefixtures("cache")
def test_the_list_for_machines() -> None:
    rows = json.loads(_out("models", "--json"))
    assert [row["name"] for row in rows] == ["smollm2-135m", "minilm-l6"]
    assert {row["added"] for row in rows} == {False}


def test_adding_says_where_the_model_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def add(name: str, progress: object) -> Path:
        assert callable(progress)
        return tmp_path / name

    monkeypatch.setattr(bundled, "add", add)
    assert _out("models", "add", "minilm-l6") == f"minilm-l6 is in {tmp_path / 'minilm-l6'}\n"


@pytest.mark.usefixtures("cache")
def test_adding_what_there_is_not_is_an_error() -> None:
    done = CliRunner().invoke(app, ["models", "add", "gpt-7"])
    assert isinstance(done.exception, ModelNotFound)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=1064,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_showing_a_model_lists_its_facts(folder: Path) -> None:
    lines = dict(line.split(maxsplit=1) for line in _out("models", "show", str(folder)).splitlines())
    assert lines["family"] == "llama"
    assert lines["kv_heads"] == "2"
    assert lines["vocabulary"] == "1,064"
    assert lines["attention"] == "sdpa"


def test_showing_a_model_to_machines(folder: Path) -> None:
    facts = json.loads(_out("models", "show", str(folder), "--json"))
    assert facts["heads"] == 4
    assert facts["positions"] == 2048
    assert len(facts["fingerprint"]) == 16


@pytest.mark.parametrize("verb", [[], ["models"], ["models", "add"], ["models", "show"]])
def test_every_help_teaches_by_example(verb: list[str]) -> None:
    shown = _out(*verb, "--help")
    assert "attlas models add smollm2-135m" in shown or "Example: attlas models" in shown
