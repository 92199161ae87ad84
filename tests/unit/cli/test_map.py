from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

import attlas
from attlas.capture.layer import Layer
from attlas.cli.app import app
from attlas.cli.map import size_of
from attlas.cli.reading import numbers
from attlas.errors import ArgumentError, AttlasError, CaptureError, DocumentError, ModelNotFound, StoreError

WRITTEN = ["atlas.html", "atlas.png", "heads.parquet"]


def run(*arguments: object, text: str | None = None) -> str:
    done = CliRunner().invoke(app, ["map", *map(str, arguments)], input=text, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: object) -> BaseException:
    done = CliRunner().invoke(app, ["map", *map(str, arguments)])
    assert done.exception is not None
    return done.exception


def test_it_writes_the_atlas_and_says_so(reader: Path, document: Path, tmp_path: Path) -> None:
    out = tmp_path / "atlas"
    said = run(document, "--model", reader, "--out", out)
    assert sorted(path.name for path in out.iterdir()) == WRITTEN
    assert "document.txt: 3 layers, 12 heads, 44 tokens" in said
    for name in WRITTEN:
        assert str(out / name) in said
    assert "worst relative error against the model's own output" in said


def test_for_machines(reader: Path, document: Path, tmp_path: Path) -> None:
    said = json.loads(run(document, "-m", reader, "-o", tmp_path / "atlas", "--json"))
    (part,) = said["parts"]
    assert part["matrices"] == 12
    assert part["dense_bytes"] == 12 * 44 * 44 * 4
    assert part["worst_relative_error"] < 1e-4
    for path, size in part["files"].items():
        assert Path(path).stat().st_size == size


def test_standard_input_and_chosen_layers_and_heads(reader: Path, tmp_path: Path) -> None:
    out = tmp_path / "atlas"
    said = run("-", "-m", reader, "-o", out, "--layers", "0,2", "--heads", "1-2", text="from a pipe")
    assert "standard input: 2 layers, 4 heads" in said
    rows = parquet.read_table(out / "heads.parquet").to_pylist()
    assert [(row["layer"], row["head"]) for row in rows] == [(0, 1), (0, 2), (2, 1), (2, 2)]


def test_roles_and_projections_reach_the_cards(long_reader: Path, document: Path, tmp_path: Path) -> None:
    run(document, "-m", long_reader, "-o", tmp_path / "atlas", "--roles")
    text = (tmp_path / "atlas" / "atlas.html").read_text(encoding="utf-8")
    assert '"label":"induction"' in text
    assert '"name":"qk_effective_rank"' in text
    run(document, "-m", long_reader, "-o", tmp_path / "plain")
    assert '"cards"' not in (tmp_path / "plain" / "atlas.html").read_text(encoding="utf-8")


def test_the_capture_is_written_when_asked(reader: Path, document: Path, tmp_path: Path) -> None:
    run(document, "-m", reader, "-o", tmp_path / "atlas", "--save-capture")
    opened = attlas.open_capture(tmp_path / "atlas" / "capture.attlas")
    assert opened.text == document.read_text(encoding="utf-8")


def test_a_long_text_is_refused_or_read_in_parts(reader: Path, document: Path, tmp_path: Path) -> None:
    document.write_text("abcdefghij" * 13, encoding="utf-8")
    out = tmp_path / "atlas"
    with pytest.raises(DocumentError, match=r"at most 64 tokens.*got 130.*--window 64"):
        raise refused(document, "-m", reader, "-o", out)
    assert not out.exists()
    run(document, "-m", reader, "-o", out, "--window", 64)
    assert sorted(path.name for path in out.iterdir()) == ["part-1", "part-2", "part-3"]
    assert "document.txt, part 3 of 3" in (out / "part-3" / "atlas.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [(b"", "got nothing"), (b" \n ", "only white space"), (b"a\0b", "binary file"), (b"caf\xe9", "0xe9 at offset 3")],
)
def test_a_file_that_is_no_text(content: bytes, wanted: str, reader: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DocumentError, match=wanted):
        raise refused(tmp_path / "file", "-m", reader, "-o", tmp_path / "atlas")
    assert not (tmp_path / "atlas").exists()


@pytest.mark.parametrize(
    ("options", "kind", "wanted"),
    [
        (["--layers", "0-3"], ArgumentError, "--layers: wanted numbers from 0 to 2, got 3"),
        (["--heads", "4"], ArgumentError, "--heads: wanted numbers from 0 to 3, got 4"),
        (["--layers", "2-1"], ArgumentError, "--layers: wanted numbers and spans"),
        (["--out", "FILE"], StoreError, "wanted a folder to write to, got a file"),
        (["--model", "no-such-model"], ModelNotFound, "no-such-model"),
    ],
)
def test_what_does_not_fit_is_named(
    options: list[str], kind: type[AttlasError], wanted: str, reader: Path, document: Path, tmp_path: Path
) -> None:
    options = [str(document) if option == "FILE" else option for option in options]
    with pytest.raises(kind, match=wanted):
        raise refused(document, "-m", reader, "-o", tmp_path / "atlas", *options)
    assert not (tmp_path / "atlas").exists()


def test_a_capture_that_would_mislead_is_refused(
    reader: Path, document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Layer, "error", lambda layer, rows: (0.3, 1e-4))
    with pytest.raises(CaptureError, match=r"layer 0 .*3\.0e-01.*nothing was written"):
        raise refused(document, "-m", reader, "-o", tmp_path / "atlas")
    assert not (tmp_path / "atlas").exists()


def test_ctrl_c_leaves_nothing(reader: Path, document: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, attlas.view.atlas as atlas\n"
        # A test run in the background of a shell inherits that Ctrl-C is ignored; a terminal's program does not.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def stop(*a, **k): os.kill(os.getpid(), signal.SIGINT)\n"
        "atlas.picture = stop\n"
        "from attlas.cli.app import main\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "map", document, "-m", reader, "-o", tmp_path / "atlas"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.splitlines()[-1] == "attlas: interrupted; nothing is left half-written"
    assert not (tmp_path / "atlas").exists()


def test_help_teaches_by_example() -> None:
    said = CliRunner().invoke(app, ["map", "--help"]).output
    assert "attlas map paper.txt --model smollm2-135m --out atlas --layers 0-5,7" in said


@pytest.mark.parametrize(
    ("text", "found"), [(None, None), ("3", [3]), ("0-2,7", [0, 1, 2, 7]), (" 7 , 1 - 2, 2", [1, 2, 7])]
)
def test_lists_of_numbers(text: str | None, found: list[int] | None) -> None:
    assert numbers("--layers", text) == found


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1,,2", "5-3", "99999", "1.5", "²"])
def test_what_is_no_list_of_numbers(text: str) -> None:
    with pytest.raises(ArgumentError, match="--layers: wanted numbers and spans"):
        numbers("--layers", text)


@pytest.mark.parametrize(
    ("count", "shown"), [(999, "999 bytes"), (31_900, "31.9 kB"), (7_766_000, "7.77 MB"), (60.9e9, "60.9 GB")]
)
def test_sizes_are_readable(count: float, shown: str) -> None:
    assert size_of(count) == shown
