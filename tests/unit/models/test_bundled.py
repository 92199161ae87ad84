from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors import safe_open

from attlas.errors import ModelNotFound, StoreError
from attlas.models import bundled, open_model

SOURCE_CODE = Path(subprocess.__file__).read_text(encoding="utf-8")
UNICODE = "naïve 日本語 🦜🏴\u200d☠️ e\u0301 \u202e\u200b\x07 2024  15\n\n\t x ، שלום"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("ATTLAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def carrier(save_model, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put a tiny model in the catalogue whose package is a folder of this test; count how often it is fetched."""
    folder = save_model("BertModel", transformers.BertConfig(**small))
    (folder / "tokenizer.json").write_text(json.dumps({"truncation": {"max_length": 4}, "padding": {"pad_id": 0}}))
    files = {f"tiny/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    model = dataclasses.replace(bundled.find("minilm-l6"), name="tiny-bert", package="tiny==1.0", files=files)
    fetched: list[int] = []

    def take(requirement: str, wanted: dict[str, str], target: Path, **options: object) -> None:
        assert (requirement, wanted) == ("tiny==1.0", files)
        fetched.append(1)
        for path in folder.iterdir():
            (target / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr(bundled, "_CATALOGUE", (model,))
    monkeypatch.setattr(bundled, "take_files", take)
    return fetched


def test_every_entry_of_the_catalogue_is_pinned_and_hashed() -> None:
    names = [model.name for model in bundled.catalogue()]
    assert names == ["smollm2-135m", "minilm-l6"]
    for model in bundled.catalogue():
        assert model.package.count("==") == 1
        assert model.files
        assert all(len(digest) == 64 for digest in model.files.values())


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ATTLAS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert bundled.cache_folder() == tmp_path / ".cache" / "attlas"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert bundled.cache_folder() == Path("/elsewhere/attlas")
    monkeypatch.setenv("ATTLAS_CACHE", "~/mine")
    assert bundled.cache_folder() == tmp_path / "mine"


@pytest.mark.usefixtures("cache")
def test_an_unknown_name_is_refused_with_the_closest() -> None:
    with pytest.raises(
        ModelNotFound,
        match=r"wanted a bundled model \(smollm2-135m, minilm-l6\), got 'minilm'; did you mean minilm-l6\?",
    ):
        bundled.add("minilm")


def test_a_model_is_absent_then_added_then_ready(cache: Path, carrier: list[int]) -> None:
    with pytest.raises(ModelNotFound, match=r"tiny-bert: .* run: attlas models add tiny-bert$"):
        bundled.ensure("tiny-bert")
    assert not bundled.installed("tiny-bert")
    folder = bundled.add("tiny-bert")
    assert folder == cache / "models" / "tiny-bert" == bundled.ensure("tiny-bert", full=True)
    assert bundled.installed("tiny-bert")
    assert os.listdir(cache / "models") == ["tiny-bert"]


def test_adding_again_fetches_nothing(cache: Path, carrier: list[int]) -> None:
    bundled.add("tiny-bert")
    bundled.add("tiny-bert")
    assert len(carrier) == 1


def test_a_damaged_copy_is_refused_and_made_anew(cache: Path, carrier: list[int]) -> None:
    folder = bundled.add("tiny-bert")
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelNotFound, match=r"config\.json is not what was written; run: attlas models add tiny-bert"):
        bundled.ensure("tiny-bert")
    bundled.add("tiny-bert")
    assert bundled.installed("tiny-bert")
    assert len(carrier) == 2


def test_a_copy_of_another_version_is_made_anew(cache: Path, carrier: list[int]) -> None:
    manifest = bundled.add("tiny-bert") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 0'))
    with pytest.raises(ModelNotFound, match="made by another version"):
        bundled.ensure("tiny-bert")


def test_a_tokenizer_that_cuts_and_pads_stops_doing_so(cache: Path, carrier: list[int]) -> None:
    tokenizer = json.loads((bundled.add("tiny-bert") / "tokenizer.json").read_text())
    assert tokenizer == {"truncation": None, "padding": None}


@pytest.mark.usefixtures("carrier")
def test_a_failure_on_the_way_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundled, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bundled.add("tiny-bert")
    assert os.listdir(cache / "models") == []


@pytest.mark.usefixtures("carrier")
def test_a_full_disk_says_what_is_needed_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundled, "seal", full)
    with pytest.raises(
        StoreError, match=r"cannot be written \(No space left on device\); tiny-bert needs about 175 MB"
    ):
        bundled.add("tiny-bert")
    assert os.listdir(cache / "models") == []


@pytest.mark.usefixtures("carrier")
def test_a_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    cache.write_text("a file where a folder should be")
    with pytest.raises(StoreError, match=f"cache folder {cache}: cannot be written"):
        bundled.add("tiny-bert")


def test_listing_models_needs_no_torch() -> None:
    code = "import sys; from attlas.models.bundled import catalogue; catalogue(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the real ones ---------------------------------------------------------------------------------------------------


@pytest.mark.bundled
def test_the_language_model_is_stored_in_full_precision() -> None:
    with safe_open(bundled.ensure("smollm2-135m") / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F32"}
        assert "lm_head.weight" not in file.keys()


@pytest.mark.bundled
@pytest.mark.parametrize("text", [SOURCE_CODE, UNICODE], ids=["source code", "Unicode"])
def test_the_language_models_tokenizer_gives_back_every_text(text: str) -> None:
    tokenizer = open_model("smollm2-135m").tokenizer
    assert tokenizer.decode(tokenizer(text, verbose=False).input_ids) == text


@pytest.mark.bundled
def test_the_language_models_special_tokens_are_its_own() -> None:
    tokenizer = open_model("smollm2-135m").tokenizer
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)) == (1, 2, 49_152)
    assert tokenizer("<|im_start|>").input_ids == [1]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.bundled
def test_digits_stand_alone_in_the_language_model() -> None:
    tokens = open_model("smollm2-135m").tokenizer.tokenize("a  2024")
    assert tokens == ["a", "ĠĠ", "2", "0", "2", "4"]


@pytest.mark.bundled
def test_the_encoder_reads_long_texts_whole() -> None:
    tokenizer = open_model("minilm-l6").tokenizer
    assert len(tokenizer("word " * 300).input_ids) == 302
