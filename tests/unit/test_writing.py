from __future__ import annotations

import errno
from pathlib import Path

import pytest

from attlas._writing import write_together
from attlas.errors import StoreError


def test_files_appear_together(tmp_path: Path) -> None:
    files = {tmp_path / "new" / "deep" / "a": b"1", tmp_path / "new" / "b": b"2"}
    write_together(files)
    assert {path: path.read_bytes() for path in files} == files
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a", "b"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_failure_leaves_nothing_new_and_nothing_lost(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"before")
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise failure

    monkeypatch.setattr("os.fsync", full)
    wanted = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else StoreError
    with pytest.raises(wanted):
        write_together({old: b"after", tmp_path / "fresh" / "b": b"2"})
    assert old.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"file.*cannot be written"):
        write_together({tmp_path / "file" / "a": b"1"})
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"folder: cannot be written \(it is a folder\)"):
        write_together({tmp_path / "folder": b"1"})
