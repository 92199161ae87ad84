"""The scripts are what people and continuous integration run: they parse, may be executed, and say what they do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [ROOT / ".ci" / "run", *sorted((ROOT / "scripts").iterdir())]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_says_what_it_does(script: Path) -> None:
    first, second, *_ = script.read_text(encoding="utf-8").splitlines()
    assert first == "#!/usr/bin/env bash"
    assert second.startswith("# ")
    assert os.access(script, os.X_OK)
    bash = shutil.which("bash")
    assert bash
    result = subprocess.run([bash, "-n", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def run_bootstrap(folder: Path, *arguments: str, path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script in a copy of the little that it reads, with nothing on the path but what the test puts there."""
    (folder / "scripts").mkdir()
    for name in ("scripts/bootstrap", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    return subprocess.run(
        [folder / "scripts" / "bootstrap", *arguments],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Give a folder with the few commands that the script needs, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "env", "cat", "cksum", "dirname"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def pretend(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def test_without_python_bootstrap_names_the_packages(tools: Path, tmp_path: Path) -> None:
    result = run_bootstrap(tmp_path, path=str(tools))
    assert result.returncode == 2
    assert "no Python >= 3.11" in result.stderr
    assert "python3-venv" in result.stderr


@pytest.mark.parametrize(("name", "package"), [("python3", "python3-venv"), ("python3.12", "python3.12-venv")])
def test_without_venv_bootstrap_names_the_package(tools: Path, tmp_path: Path, name: str, package: str) -> None:
    pretend(tools, name, 'case "$*" in *ensurepip*) exit 1 ;; esac')
    result = run_bootstrap(tmp_path, path=str(tools))
    assert result.returncode == 2
    assert result.stderr.strip().endswith(f"apt-get install {package}")


def test_a_python_that_is_named_is_not_replaced_by_another(tools: Path, tmp_path: Path) -> None:
    pretend(tools, "python3", "exit 0")
    pretend(tools, "too-old", "exit 1")
    result = run_bootstrap(tmp_path, path=str(tools), PYTHON="too-old")
    assert result.returncode == 2
    assert "PYTHON: wanted a Python >= 3.11, got 'too-old'" in result.stderr


def test_an_unknown_purpose_is_refused(tools: Path, tmp_path: Path) -> None:
    result = run_bootstrap(tmp_path, "deploy", path=str(tools))
    assert result.returncode == 2
    assert "got 'deploy'" in result.stderr
