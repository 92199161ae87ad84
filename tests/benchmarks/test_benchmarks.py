"""Every benchmark runs, at sizes whose figures mean nothing; no test asserts on time."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import attlas

ROOT = Path(__file__).parents[2]
# as for all tests that need a browser; without the variable, one that is missing is an error
WITH_BROWSER = pytest.mark.skipif(
    os.environ.get("ATTLAS_SKIP_BROWSER") == "1", reason="ATTLAS_SKIP_BROWSER=1 is set, until it is unset"
)


@pytest.fixture(scope="module")
def short_model(tmp_path_factory):
    """Write the bundled decoder with the first two of its layers: what takes half an hour with all takes moments."""
    lm = attlas.load("smollm2-135m")
    model: Any = lm.model
    del model.model.layers[2:]
    model.config.num_hidden_layers = 2
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:2]
    folder = tmp_path_factory.mktemp("short")
    model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("part", "rows"),
    [
        ("matrix", 4),
        pytest.param("model", 5, marks=pytest.mark.bundled),
        pytest.param("projections", 4, marks=pytest.mark.bundled),
        pytest.param("heads", 3, marks=pytest.mark.bundled),
        pytest.param("explain", 8, marks=pytest.mark.bundled),
        ("patterns", 4),
        pytest.param("linear", 5, marks=pytest.mark.bundled),
        pytest.param("plans", 12, marks=pytest.mark.bundled),
        ("stock", 3),
        ("training", 4),
        pytest.param("lora", 7, marks=pytest.mark.bundled),
        pytest.param("ranks", 3, marks=pytest.mark.bundled),
        pytest.param("advice", 1, marks=pytest.mark.bundled),
        pytest.param("compare", 4, marks=pytest.mark.bundled),
        pytest.param("view", 15, marks=[pytest.mark.bundled, WITH_BROWSER]),
    ],
)
def test_benchmarks_run_and_print_a_table(part, rows, request):
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--rounds", "1", "--only", part]
    bundled = request.node.get_closest_marker("bundled") is not None
    environment = {"ATTLAS_BENCH_TEXT": str(ROOT / "README.md")}
    if bundled:
        environment["ATTLAS_BENCH_MODEL"] = str(request.getfixturevalue("short_model"))
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Tables of other forms come before it.
    table = done.stdout[done.stdout.index("| what | against") :].splitlines()
    assert len([line for line in table if line.startswith("|")]) == 2 + rows
    assert f"Measured with `./scripts/bench --only {part}` on" in done.stdout


def test_what_is_measured_has_its_place_in_the_documentation(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    main = importlib.import_module("benchmarks.__main__")
    for name, table in main.TABLES.items():
        for page in table.pages:
            text = (ROOT / page).read_text(encoding="utf-8")
            assert text.count(f"<!-- bench:{name}:begin -->") == text.count(f"<!-- bench:{name}:end -->") == 1


def test_a_table_of_its_own_form_goes_to_its_marks_with_its_pictures(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT))
    main, measuring = (importlib.import_module(f"benchmarks.{name}") for name in ("__main__", "measuring"))
    page, picture = tmp_path / "page.md", tmp_path / "cost.png"
    page.write_text("a\n<!-- own:begin -->\nold\n<!-- own:end -->\nb\n", encoding="utf-8")
    monkeypatch.setattr(main, "REFERENCE", page)
    sheet = measuring.Sheet("own", "| new |", {picture: b"drawn"})
    main.shown(sheet, "Measured.", write=False)
    assert "old" in page.read_text(encoding="utf-8")
    assert not picture.exists()
    main.shown(sheet, "Measured.", write=True)
    expected = "a\n<!-- own:begin -->\n| new |\n\nMeasured.\n<!-- own:end -->\nb\n"
    assert page.read_text(encoding="utf-8") == expected
    assert picture.read_bytes() == b"drawn"


def test_tiny_figures_never_reach_the_documentation():
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--write"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "wanted the real sizes" in done.stderr


def test_half_a_table_never_replaces_a_whole_one(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "heads", "--write"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("benchmarks.__main__").main()
    assert ended.value.code == 2
    assert "all parts of a table" in capsys.readouterr().err
