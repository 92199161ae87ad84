"""What is imported when, and by whom: checked in fresh processes, because this one has imported everything already."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import attlas

ROOT = Path(attlas.__file__).parent
HEAVY = ("torch", "transformers", "numpy", "pyarrow", "matplotlib", "safetensors", "huggingface_hub", "fastapi")


def heavy_after(code: str) -> list[str]:
    """Run `code` in a fresh Python and say which heavy packages it has imported."""
    script = f"import sys, json\n{code}\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "code",
    [
        "import attlas",
        "import attlas; dir(attlas); attlas.__version__; attlas.AttlasError; attlas.TooDense",
        "import attlas.errors, attlas.results",
    ],
)
def test_importing_attlas_is_cheap(code: str) -> None:
    assert heavy_after(code) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *([verb, "--help"] for verb in ("models", "map", "view", "heads", "explain")),
        *([verb, "--help"] for verb in ("profile", "plan", "evaluate", "bench")),
        ["bench", "patterns", "--help"],
        *(["lora", verb, "--help"] for verb in ("train", "merge", "unmerge")),
    ],
)
def test_the_command_line_answers_without_torch(arguments: list[str]) -> None:
    code = f"""
sys.argv = ["attlas", *{arguments}]
from attlas.cli.app import main
try:
    main()
except SystemExit as stop:
    if stop.code:
        raise
"""
    assert heavy_after(code) == []


def test_the_matrix_room_is_torch_alone() -> None:
    assert set(heavy_after("import attlas.matrix")) <= {"torch", "numpy"}  # torch imports numpy by itself
    allowed = {*sys.stdlib_module_names, "attlas", "torch"}
    for path in sorted((ROOT / "matrix").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
        assert {name.split(".")[0] for name in imported} <= allowed, path


def test_every_room_imports_only_what_lies_below_it() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT.parents[1], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
