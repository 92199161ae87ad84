from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from pyarrow import parquet

from attlas.errors import StoreError
from attlas.heads import HeadStatistics
from attlas.view import write_atlas
from attlas.view.picture import picture
from viewing import HEADS, LAYERS


def test_three_files_are_written(statistics: HeadStatistics, tmp_path: Path) -> None:
    files = write_atlas(statistics, tmp_path / "atlas", title="a text", error=1e-6)
    assert sorted(path.name for path in (tmp_path / "atlas").iterdir()) == ["atlas.html", "atlas.png", "heads.parquet"]
    assert files.page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert parquet.read_table(files.table).num_rows == LAYERS * HEADS
    assert imread(files.picture).shape[2] == 4
    assert set(files.sizes) == {str(path) for path in (files.page, files.picture, files.table)}


def test_writing_again_gives_the_same_bytes(statistics: HeadStatistics, tmp_path: Path) -> None:
    first, second = (write_atlas(statistics, tmp_path / name, title="t") for name in "ab")
    for one, other in ((first.page, second.page), (first.picture, second.picture), (first.table, second.table)):
        assert one.read_bytes() == other.read_bytes()


def test_an_interrupt_leaves_nothing(
    statistics: HeadStatistics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("attlas.view.atlas.picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atlas(statistics, tmp_path / "atlas")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file(statistics: HeadStatistics, tmp_path: Path) -> None:
    (tmp_path / "atlas").write_text("in the way")
    with pytest.raises(StoreError, match=r"atlas.*cannot be written"):
        write_atlas(statistics, tmp_path / "atlas")


def test_progress_reaches_its_end(statistics: HeadStatistics, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    write_atlas(statistics, tmp_path, progress=lambda *told: seen.append(told))
    assert seen[0] == (0, 3, "drawing")
    assert seen[-1] == (3, 3, "drawing")


def test_the_picture_shows_red_where_lift_is_high_and_paper_where_hidden(statistics: HeadStatistics) -> None:
    image = (imread(io.BytesIO(picture(statistics, title="t")))[..., :3] * 255).astype(int)
    red = (image[..., 0] > image[..., 2] + 60).sum()
    blue = (image[..., 2] > image[..., 0] + 60).sum()
    assert red > 500
    assert blue > 500
    assert (image == np.array([0xFB, 0xFA, 0xF7])).all(-1).mean() > 0.4


def test_a_title_is_no_formula(statistics: HeadStatistics) -> None:
    assert picture(statistics, title="$\\frac{$ <b>\n\u202e").startswith(b"\x89PNG")


def test_tensors_are_not_shared_with_the_picture(statistics: HeadStatistics) -> None:
    before = statistics.layers[0].mean.clone()
    picture(statistics, title="t")
    assert torch.equal(statistics.layers[0].mean, before)
