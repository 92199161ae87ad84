from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attlas.errors import StoreError
from attlas.models.folders import MANIFEST, appearing, check_unchanged, read_manifest, seal, sha256

FILL_AND_WAIT = """
import sys, time
from pathlib import Path
from attlas.models.folders import appearing
with appearing(Path(sys.argv[1])) as folder:
    (folder / "file").write_text("new")
    print("filled", flush=True)
    time.sleep(60)
"""


def _fill(folder: Path, text: str) -> None:
    with appearing(folder) as filling:
        (filling / "file").write_text(text)


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    _fill(tmp_path / "a" / "b", "one")
    assert (tmp_path / "a" / "b" / "file").read_text() == "one"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    _fill(tmp_path / "b", "one")
    (tmp_path / "b" / "extra").write_text("gone afterwards")
    _fill(tmp_path / "b", "two")
    assert os.listdir(tmp_path / "b") == ["file"]
    assert (tmp_path / "b" / "file").read_text() == "two"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_nothing_appears_after_a_failure(tmp_path: Path, failure: type[BaseException]) -> None:
    def fail_halfway() -> None:
        with appearing(tmp_path / "b") as filling:
            (filling / "file").write_text("half")
            raise failure

    with pytest.raises(failure):
        fail_halfway()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("before", [None, "old"])
def test_a_kill_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    if before is not None:
        _fill(tmp_path / "b", before)
    process = subprocess.Popen(
        [sys.executable, "-c", FILL_AND_WAIT, str(tmp_path / "b")], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "filled\n"
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "b").exists() == (before is not None)
    if before is not None:
        assert (tmp_path / "b" / "file").read_text() == before


def test_what_a_kill_left_behind_is_swept_only_when_it_is_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".partial-old", tmp_path / ".partial-young"
    for partial in (old, young):
        partial.mkdir()
        (partial / "file").write_text("half")
    for path in (old / "file", old):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    _fill(tmp_path / "b", "one")
    assert sorted(os.listdir(tmp_path)) == [".partial-young", "b"]


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "large").write_bytes(bytes(9 * 2**20))
    (tmp_path / "small").write_text("text")
    seal(tmp_path, {"name": "model"})
    return tmp_path


def test_a_sealed_folder_proves_itself(sealed: Path) -> None:
    manifest = read_manifest(sealed)
    assert manifest["name"] == "model"
    assert manifest["files"]["small"]["sha256"] == sha256(sealed / "small")
    check_unchanged(sealed, manifest)
    check_unchanged(sealed, manifest, full=True)


@pytest.mark.parametrize("full", [False, True])
def test_a_changed_file_is_named(sealed: Path, full: bool) -> None:
    (sealed / "small").write_text("TEXT")
    with pytest.raises(StoreError, match="the file small is not what was written"):
        check_unchanged(sealed, read_manifest(sealed), full=full)


def test_a_change_deep_in_a_large_file_shows_in_the_full_check(sealed: Path) -> None:
    with (sealed / "large").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    check_unchanged(sealed, read_manifest(sealed))
    with pytest.raises(StoreError, match="the file large is not what was written"):
        check_unchanged(sealed, read_manifest(sealed), full=True)


def test_a_missing_and_a_foreign_file_are_named(sealed: Path) -> None:
    manifest = read_manifest(sealed)
    (sealed / "foreign").touch()
    with pytest.raises(StoreError, match="the file foreign does not belong there"):
        check_unchanged(sealed, manifest)
    (sealed / "foreign").unlink()
    (sealed / "small").unlink()
    with pytest.raises(StoreError, match="the file small is missing"):
        check_unchanged(sealed, manifest)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(StoreError, match="manifest"):
        read_manifest(tmp_path)
