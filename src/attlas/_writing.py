"""Files that appear whole or not at all, alone or together, and durably."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from attlas.errors import StoreError

Content = bytes | Callable[[BinaryIO], None]
"""A file's bytes, or what writes them into an open file."""


def write_together(files: Mapping[Path, Content], *, make_folders: bool = True) -> None:
    """Write files so that each is, at any moment, the old one or the new one, whole.

    All are written under temporary names first and take their own names when the last one is on the disk. An error or
    Ctrl-C before that leaves nothing behind and every older file as it was.

    Parameters
    ----------
    files : mapping
        Path -> content.
    make_folders : bool
        Make the folders that are missing; otherwise a missing folder is an error.

    Raises
    ------
    StoreError
        A file cannot be written.
    """
    staged: dict[Path, Path] = {}
    made: list[Path] = []
    at = next(iter(files))
    try:
        for path, content in files.items():
            at = path
            made += _make_folder(path.parent) if make_folders else []
            staged[path] = _staged(path, content)
        for path, temporary in staged.items():
            os.replace(temporary, path)
        for folder in {path.parent for path in staged}:
            _sync_folder(folder)
    except BaseException as error:
        _clear(staged.values(), made)
        if isinstance(error, OSError):
            raise _refusal(error, at) from error
        raise


def _staged(path: Path, content: Content) -> Path:
    """Write a file under a temporary name beside its own, and see that it is on the disk."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    """See that the folder's new entries are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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


def _refusal(error: OSError, path: Path) -> StoreError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    way_out = "free some space there, or choose another folder" if full else "choose a folder that can be written"
    return StoreError(f"{path}: cannot be written ({error.strerror or error}); {way_out}")
