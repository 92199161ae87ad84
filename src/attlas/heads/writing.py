"""Several files that appear together or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from attlas.errors import StoreError


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files so that each is, at any moment, the old one or the new one, whole.

    All are written under temporary names first and take their own names when the last one is on the disk. An error or
    Ctrl-C before that leaves nothing behind and every older file as it was.

    Parameters
    ----------
    files : mapping
        Path -> content. Folders are made where they are missing.

    Raises
    ------
    StoreError
        A file cannot be written.
    """
    staged: dict[Path, Path] = {}
    made: list[Path] = []
    try:
        for path, content in files.items():
            made += _make_folder(path.parent)
            staged[path] = _staged(path, content)
        for path, temporary in staged.items():
            temporary.replace(path)
    except BaseException as error:
        _clear(staged.values(), made)
        if isinstance(error, OSError):
            raise _refusal(error, next(iter(files)).parent) from error
        raise


def _staged(path: Path, content: bytes) -> Path:
    """Write a file under a temporary name beside its own, and see that it is on the disk."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder; return those that were missing, outermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    missing.reverse()
    for one in missing:
        one.mkdir(exist_ok=True)
    return missing


def _clear(temporaries: Iterable[Path], made: Iterable[Path]) -> None:
    for temporary in temporaries:
        with contextlib.suppress(OSError):
            temporary.unlink()
    for folder in sorted(made, reverse=True):
        with contextlib.suppress(OSError):  # it is not empty: someone else uses it by now
            folder.rmdir()


def _refusal(error: OSError, folder: Path) -> StoreError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    way_out = "free some space there, or choose another folder" if full else "choose a folder that can be written"
    return StoreError(f"{error.filename or folder}: cannot be written ({error.strerror or error}); {way_out}")
