"""Every example runs as a reader would run it: as a script, in an empty folder, and without a warning."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"


def loads_a_bundled_model(path: Path) -> bool:
    return any(name in path.read_text("utf-8") for name in ("smollm2-135m", "minilm-l6"))


FEWER = {"reach_of_patterns": ["50"]}
"""Of what takes minutes of all cores: fewer steps."""

EXAMPLES = [
    pytest.param(path, id=path.stem, marks=pytest.mark.bundled if loads_a_bundled_model(path) else ())
    for path in sorted(FOLDER.glob("*.py"))
]


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_runs_and_says_something(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, path, *FEWER.get(path.stem, ())]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    assert "Warning" not in result.stderr
