from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM
from typer.testing import CliRunner

import attlas
from attlas.capture import LanguageModel
from attlas.capture.layer import Layer
from attlas.cli.app import app
from attlas.cli.view import PORT, is_capture
from attlas.errors import (
    ArgumentError,
    AttlasError,
    CaptureError,
    DocumentError,
    ModelNotFound,
    StoreError,
)
from attlas.view.serving.assets import NOT_BUILT
from attlas.view.serving.running import PREFERRED, Server, listening_at
from serving import asked, request
from tuning import adapted, saved
from viewing import role_table


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was served: the atlas of each desk, instead of serving until Ctrl-C."""
    found: list[Any] = []

    def run(server: Server, ready: Callable[[], None] | None = None) -> None:
        with server:
            found.append({**asked(server._desk, "/api/atlas"), "browser": ready is not None, "port": server.port})
            assert request(server, "/api/atlas")[0] == 200

    monkeypatch.setattr(Server, "run", run)
    return found


def view(*arguments: object, text: str | None = None) -> Any:
    done = CliRunner().invoke(app, ["view", *map(str, arguments), "--port", "0"], input=text, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def refused(*arguments: object) -> BaseException:
    done = CliRunner().invoke(app, ["view", *map(str, arguments), "--port", "0"])
    assert done.exception is not None
    return done.exception


@pytest.fixture
def capture_file(reader: Path, tmp_path: Path) -> Path:
    return attlas.load(reader).read("a saved text").save(tmp_path / "saved.attlas")


def test_a_text_is_read_and_shown(reader: Path, document: Path, seen: list[Any]) -> None:
    done = view(document, "--model", reader, "--layers", "0,2", "--heads", "1-2")
    (shown,) = seen
    (cap,) = shown["captures"]
    assert (cap["title"], cap["tokens"], cap["text"]) == ("document.txt", 44, True)
    assert cap["error"] < 1e-4
    assert [(layer["layer"], layer["heads"]) for layer in cap["layers"]] == [(0, [1, 2]), (2, [1, 2])]
    assert done.stdout.startswith("http://127.0.0.1:")
    assert "/?token=" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert "Ctrl-C ends" in done.stderr


def test_standard_input(reader: Path, seen: list[Any]) -> None:
    view("-", "--model", reader, text="from a pipe")
    assert seen[0]["captures"][0]["title"] == "standard input"


def test_a_capture_is_opened_without_its_model(capture_file: Path, seen: list[Any]) -> None:
    view(capture_file)
    (cap,) = seen[0]["captures"]
    assert (cap["title"], cap["tokens"]) == ("saved.attlas", 12)


def test_a_capture_is_known_by_how_it_begins(capture_file: Path, document: Path, tmp_path: Path) -> None:
    other = capture_file.rename(tmp_path / "saved")
    assert is_capture(str(other))
    assert not is_capture(str(document))
    assert not is_capture("-")
    assert is_capture("missing.attlas")
    assert not is_capture(str(tmp_path))
    (tmp_path / "short").write_bytes(b"{")
    assert not is_capture(str(tmp_path / "short"))


def test_parts_are_captures_of_their_own(reader: Path, document: Path, seen: list[Any]) -> None:
    document.write_text("abcdefghij" * 13, encoding="utf-8")
    view(document, "--model", reader, "--window", 64)
    titles = [cap["title"] for cap in seen[0]["captures"]]
    assert titles == [f"document.txt, part {i} of 3" for i in (1, 2, 3)]


def test_another_capture_stands_beside(reader: Path, document: Path, capture_file: Path, seen: list[Any]) -> None:
    view(document, "--model", reader, "--against", capture_file)
    assert [(cap["id"], cap["title"]) for cap in seen[0]["captures"]] == [("a", "document.txt"), ("b", "saved.attlas")]


def test_another_model_reads_the_same_text(long_reader: Path, capture_file: Path, seen: list[Any]) -> None:
    view(capture_file, "--against", long_reader)
    first, second = seen[0]["captures"]
    assert first["tokens"] == second["tokens"] == 12
    assert len(second["layers"]) == 2
    assert second["title"] == f"{long_reader.name}: saved.attlas"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_reads_the_same_text(reader: Path, document: Path, tmp_path: Path, seen: list[Any]) -> None:
    saved(adapted(LlamaForCausalLM.from_pretrained(reader), "Llama", target_modules=["q_proj"]), tmp_path / "adapter")
    captured: list[attlas.Capture] = []
    read = LanguageModel.read

    def noted(model: LanguageModel, *given: Any, **options: Any) -> Any:
        captured.append(read(model, *given, **options))
        return captured[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageModel, "read", noted)
        view(document, "--model", reader, "--against", tmp_path / "adapter")
    assert [cap["title"] for cap in seen[0]["captures"]] == ["document.txt", "adapter: document.txt"]
    # What is measured of the model must not be shown as the adapter's.
    assert [cap["model"] for cap in seen[0]["captures"]] == [str(reader), f"{reader} with adapter"]
    first, second = captured
    assert not torch.allclose(first[0].query, second[0].query)
    torch.testing.assert_close(first[0].key, second[0].key)


@pytest.mark.parametrize(
    ("arguments", "kind", "wanted"),
    [
        (["DOCUMENT"], ArgumentError, "--model: wanted a model that reads the text, got none"),
        (["no-such.txt"], DocumentError, "no-such.txt"),
        (["-"], ArgumentError, "--model: wanted a model that reads the text, got none; name one, such as"),
        (["SAVED", "--roles"], ArgumentError, "--roles: wanted the model that was captured, got none; name it with"),
        (["missing.attlas"], StoreError, "missing.attlas"),
        (["FOREIGN"], StoreError, "foreign.attlas"),
        (["no-such.txt", "--model", "READER"], DocumentError, "no-such.txt"),
        (["DOCUMENT", "--model", "no-such-model"], ModelNotFound, "no-such-model"),
        (["DOCUMENT", "--model", "READER", "--layers", "0-3"], ArgumentError, "--layers: wanted numbers from 0 to 2"),
        (["SAVED", "--layers", "0"], ArgumentError, "--layers: wanted a text to read, got a capture"),
        (["SAVED", "--heads", "0"], ArgumentError, "--heads: wanted a text to read, got a capture"),
        (["SAVED", "--window", "4"], ArgumentError, "--window: wanted a text to read, got a capture"),
        (["SAVED", "--model", "LONG"], ArgumentError, "--model: wanted the model that was captured"),
        (["SAVED", "--against", "missing.attlas"], StoreError, "missing.attlas"),
        (["SAVED", "--against", "no-such-model"], ModelNotFound, "no-such-model"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(
    arguments: list[str],
    kind: type[AttlasError],
    wanted: str,
    reader: Path,
    long_reader: Path,
    document: Path,
    capture_file: Path,
    tmp_path: Path,
    seen: list[Any],
) -> None:
    (tmp_path / "foreign.attlas").write_text("not one of ours")
    places = {"DOCUMENT": document, "READER": reader, "LONG": long_reader, "SAVED": capture_file}
    places["FOREIGN"] = tmp_path / "foreign.attlas"
    with pytest.raises(kind, match=wanted):
        raise refused(*[places.get(argument, argument) for argument in arguments])
    assert seen == []


def test_a_capture_that_would_mislead_is_not_shown(
    reader: Path, document: Path, seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Layer, "error", lambda layer, rows: (0.3, 1e-4))
    with pytest.raises(CaptureError, match=r"3\.0e-01"):
        raise refused(document, "--model", reader)
    assert seen == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    ],
)
def test_when_memory_is_short_it_says_what_to_choose(
    error: Exception, reader: Path, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(LanguageModel, "read", fail)
    with pytest.raises(CaptureError, match=r"out of memory while reading.*--layers.*--heads.*--window"):
        raise refused(document, "--model", reader)


def test_another_failure_is_not_taken_for_a_lack_of_memory(
    reader: Path, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(LanguageModel, "read", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        raise refused(document, "--model", reader)


def test_a_port_in_use_is_said(capture_file: Path, seen: list[Any]) -> None:
    with listening_at(0) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(app, ["view", str(capture_file), "--port", str(port)], catch_exceptions=False)
    assert done.exit_code == 0
    assert seen[0]["port"] != port
    assert f"port {port} is in use; {seen[0]['port']} is taken instead" in done.stderr


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--model", "READER", "--against", "SAVED", "--roles"], True),
        (["--against", "READER", "--roles"], True),
        (["--model", "READER", "--against", "SAVED"], False),
    ],
    ids=["of the model", "of the model beside it", "unwanted"],
)
def test_roles_are_measured_where_they_are_wanted(
    options: list[str], wanted: bool, reader: Path, capture_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"READER": reader, "SAVED": capture_file}
    measured: list[str] = []

    def heads(lm: LanguageModel, *, progress: Any) -> Any:
        measured.append(lm.facts.fingerprint)
        return role_table(lm.read("a saved text"))

    def run(server: Server, ready: Callable[[], None] | None = None) -> None:
        desk = server._desk
        with server:
            over = threading.Event()
            desk.listen(lambda event: over.set() if event["type"] == ("roles" if wanted else "done") else None)
            assert over.wait(60)
            roles = asked(desk, "/api/statistics/a")["roles"]
            assert bool(roles) is wanted
            # A capture of the same model, which is not open a second time.
            assert asked(desk, "/api/statistics/b")["roles"] == roles

    monkeypatch.setattr("attlas.heads.measuring.heads", heads)
    monkeypatch.setattr(Server, "run", run)
    view(capture_file, *(places.get(option, option) for option in options))
    assert measured == ([attlas.load(reader).facts.fingerprint] if wanted else [])


def test_a_browser_is_not_opened_if_not_wanted(capture_file: Path, seen: list[Any]) -> None:
    view(capture_file)
    view(capture_file, "--no-browser")
    assert [shown["browser"] for shown in seen] == [True, False]


def test_a_page_that_is_not_built_is_said(capture_file: Path, seen: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attlas.view.serving.assets.assets_in", dict)
    assert NOT_BUILT in view(capture_file).stderr


def test_the_usual_port_is_the_servers() -> None:
    assert PORT == PREFERRED


def test_help_teaches_by_example() -> None:
    assert "attlas view paper.txt --model smollm2-135m" in CliRunner().invoke(app, ["view", "--help"]).output
