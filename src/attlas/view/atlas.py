"""Writes the atlas of a capture: ``atlas.html``, ``atlas.png`` and ``heads.parquet``, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from attlas._writing import write_together
from attlas.capture import Capture
from attlas.heads import HeadStatistics, head_statistics
from attlas.models.progress import Progress
from attlas.view.collecting import cards_of
from attlas.view.page import page
from attlas.view.picture import picture

if TYPE_CHECKING:
    from attlas.heads.role_table import HeadTable
    from attlas.projections.table import ProjectionTable


@dataclass(frozen=True)
class AtlasFiles:
    """What was written.

    Parameters
    ----------
    page, picture, table : Path
        ``atlas.html``, ``atlas.png``, ``heads.parquet``.
    """

    page: Path
    picture: Path
    table: Path

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file, by its path."""
        return {str(path): path.stat().st_size for path in (self.page, self.picture, self.table)}


def write_atlas(
    source: Capture | HeadStatistics,
    folder: str | PathLike[str],
    *,
    title: str = "document",
    error: float | None = None,
    roles: HeadTable | None = None,
    table: ProjectionTable | None = None,
    progress: Progress | None = None,
) -> AtlasFiles:
    """Draw every head of a capture.

    Parameters
    ----------
    source : Capture or HeadStatistics
        A capture, or its statistics if they are known already.
    folder : path
        Where the files go; made if it is missing.
    title : str
        The document's name, for the heading.
    error : float, optional
        The worst relative error that `Capture.verify` found; the page shows it.
    roles : HeadTable, optional
        What `attlas.heads` measured: each head's card shows it.
    table : ProjectionTable, optional
        What `attlas.projections.table.projection_table` computed; likewise.
    progress : callable, optional
        Called as ``progress(done, total, what)``.

    Returns
    -------
    AtlasFiles

    Raises
    ------
    StoreError
        The folder cannot be written; nothing is left behind, and older files stay as they were.

    Notes
    -----
    The time is that of `head_statistics`, and a few seconds for packing.
    """
    statistics = source if isinstance(source, HeadStatistics) else head_statistics(source, progress=progress)
    place = Path(folder)
    files = AtlasFiles(place / "atlas.html", place / "atlas.png", place / "heads.parquet")
    cards = None if roles is None and table is None else cards_of(table, roles)
    contents: dict[Path, bytes] = {}
    steps = (
        (files.page, lambda: page(statistics, title=title, error=error, cards=cards).encode("utf-8")),
        (files.picture, lambda: picture(statistics, title=title)),
        (files.table, statistics.parquet),
    )
    for done, (path, make) in enumerate(steps):
        if progress is not None:
            progress(done, len(steps), "drawing")
        contents[path] = make()
    write_together(contents)
    if progress is not None:
        progress(len(steps), len(steps), "drawing")
    return files
