"""Every benchmark runs, at sizes whose figures mean nothing; no test asserts on time."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("part", "rows"),
    [
        ("matrix", 4),
        pytest.param("model", 5, marks=pytest.mark.bundled),
        pytest.param("projections", 4, marks=pytest.mark.bundled),
        pytest.param("heads", 3, marks=pytest.mark.bundled),
        pytest.param("explain", 10, marks=pytest.mark.bundled),
    ],
)
def test_benchmarks_run_and_print_a_table(part, rows):
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--rounds", "1", "--only", part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + rows
    assert f"Measured with `./scripts/bench --only {part}` on" in done.stdout


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
