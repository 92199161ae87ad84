"""A folder that appears whole or not at all, and can prove that it is unchanged.

A folder is filled under a temporary name in the same place, every file is flushed to the disk, and one rename makes it
visible: a kill at any moment leaves the old state. Its `manifest.json`, written last, holds the size and the hashes of
every file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attlas.errors import StoreError

MANIFEST = "manifest.json"
_BLOCK = 2**20
_HEAD = 2**23  # how much of a file the quick check reads: all of a tokenizer, the whole header of a weights file
_DEAD_AFTER = 3600.0  # seconds without a write, after which a temporary folder was left behind by a kill


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; on leaving without an exception it becomes `folder`, replacing what was there.

    Parameters
    ----------
    folder : Path
        The folder that shall appear. Its parent is made.

    Raises
    ------
    OSError
        If the place cannot be written or is full; nothing is left behind then.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        filling = partial / folder.name
        filling.mkdir()
        yield filling
        _flush(filling)
        if folder.exists():
            folder.rename(partial / "replaced")
        filling.rename(folder)
        _flush_entry(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what killed processes left behind."""
    for partial in parent.glob(".partial-*"):
        try:
            newest = max(path.stat().st_mtime for path in [partial, *partial.rglob("*")])
        except FileNotFoundError:  # its owner is removing it right now
            continue
        if time.time() - newest > _DEAD_AFTER:
            shutil.rmtree(partial, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    _flush_entry(folder)


def _flush_entry(folder: Path) -> None:
    if os.name != "posix":  # only there can a folder be opened and flushed
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path, limit: int | None = None) -> str:
    """Return the sha256 of a file's first `limit` bytes, or of all of it, in hex."""
    digest = hashlib.sha256()
    left = path.stat().st_size if limit is None else limit
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest: `facts`, and size, hash and head hash of every file in the folder."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path), "head": sha256(path, _HEAD)}
        for path in sorted(folder.iterdir())
    }
    text = json.dumps({**facts, "files": files}, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder.

    Raises
    ------
    StoreError
        If there is none, or it is no manifest.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder}: its {MANIFEST} cannot be read ({error})") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise StoreError(f"{folder}: its {MANIFEST} is no manifest")
    return manifest


def check_unchanged(folder: Path, manifest: Mapping[str, Any], *, full: bool = False) -> None:
    """Compare every file with the manifest.

    Parameters
    ----------
    folder : Path
        The sealed folder.
    manifest : mapping
        What `read_manifest` returned.
    full : bool, optional
        Hash every byte (a second or so per GB) instead of sizes and the first 8 MiB of each file.

    Raises
    ------
    StoreError
        Naming the first file that is missing, extra or changed.
    """
    sealed = manifest["files"]
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    if odd := sorted(present ^ set(sealed)):
        raise StoreError(f"{folder}: the file {odd[0]} {'is missing' if odd[0] in sealed else 'does not belong there'}")
    key, limit = ("sha256", None) if full else ("head", _HEAD)
    for name, facts in sealed.items():
        path = folder / name
        if path.stat().st_size != facts.get("bytes") or sha256(path, limit) != facts.get(key):
            raise StoreError(f"{folder}: the file {name} is not what was written")
