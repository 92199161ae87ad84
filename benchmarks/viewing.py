"""What the page of `attlas view` costs a person, in headless Chromium: the demo document, and one far longer."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import attlas
from attlas.view.serving.assets import BUILT
from attlas.view.tiles.grid import Grid
from attlas.view.tiles.pyramid import REDUCERS
from benchmarks.explaining import FAR
from benchmarks.measuring import Row, in_fresh_process, megabytes, seconds
from benchmarks.model import LONGEST, MODEL

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZE = (1280, 800)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
AGAIN = 40
"""Tiles that are asked for a second time: as many as somebody has seen a moment ago."""

_WATCH = """
window.watched = {tasks: [], frames: []};
new PerformanceObserver((list) => {
    for (const {startTime, duration} of list.getEntries()) watched.tasks.push([startTime, duration]);
}).observe({type: 'longtask', buffered: true});
const tick = (now) => { if (watched.frames.push(now) && !watched.over) requestAnimationFrame(tick); };
requestAnimationFrame(tick);
performance.setResourceTimingBufferSize(5000);
"""

_PAINTED = """() => {
    const canvas = document.querySelector('.grid canvas');
    if (!canvas || canvas.width < 2) return 0;
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size > 16 && performance.timeOrigin + performance.now();
}"""

_ASK = """async (paths) => {
    const taken = [];
    for (const path of paths) {
        const begun = performance.now();
        const answer = await fetch(path);
        await answer.arrayBuffer();
        if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
        taken.push(performance.now() - begun);
    }
    return taken;
}"""

_TILE_TIMES = """(since) => performance.getEntriesByType('resource')
    .filter(({name, startTime}) => name.includes('/api/tiles/') && startTime >= since)
    .map(({duration}) => duration)"""


@dataclass(frozen=True)
class Sizes:
    """How much is done.

    Parameters
    ----------
    near : int
        Tokens of the demo document.
    far : int
        Tokens of the longer one, which is read with random weights.
    layers : int
        Of the model that reads it.
    tiles : int
        Tiles that are asked for, evenly over levels and reducers.
    cells : int
        Entries that are compared with those of the matrix.
    steps : int
        Turns of the wheel from a whole matrix to its entries.
    """

    near: int = LONGEST
    far: int = FAR
    layers: int = 4
    tiles: int = 240
    cells: int = 300
    steps: int = 48


TINY = Sizes(near=60, far=600, layers=1, tiles=10, cells=10, steps=8)


@dataclass(frozen=True)
class Zoom:
    """What a person waited for in going from the atlas to single entries.

    Parameters
    ----------
    longest : float
        The longest task of the page, in milliseconds; 0 if none took longer than 50.
    frames : float
        Frames a second.
    pause : float
        The longest time between two frames, in milliseconds.
    tiles : sequence of float
        How long each tile took, in milliseconds.
    """

    longest: float
    frames: float
    pause: float
    tiles: Sequence[float]


def rows(*, tiny: bool) -> Iterator[Row]:
    """Measure the page."""
    sizes = TINY if tiny else Sizes()
    with tempfile.TemporaryDirectory() as name, _browser() as browser:
        yield _page_size()
        near, far = Path(name) / "demo.attlas", Path(name) / "far.attlas"
        (tokens,) = in_fresh_process("read_demo", str(sizes.near), str(near))
        text = f"{MODEL}, {int(tokens):,} tokens"
        yield from _one(browser, near, text, sizes, first_within="≤ 2 s", memory="≤ 300 MB")
        (tokens,) = in_fresh_process("read_far", str(sizes.far), str(sizes.layers), str(far))
        yield from _one(browser, far, f"random weights, {int(tokens):,} tokens", sizes)


def _page_size() -> Row:
    """How large the page is, as it is built."""
    files = [path for path in BUILT.rglob("*") if path.suffix in {".html", ".js", ".css"} and path.name != "widget.js"]
    size = sum(len(gzip.compress(path.read_bytes(), 9)) for path in files)
    whole = sum(path.stat().st_size for path in files)
    return Row("the page itself, compressed", "–", megabytes(size), "≤ 1 MB", f"gzip; {megabytes(whole)} unpacked")


def _one(
    browser: Browser, file: Path, text: str, sizes: Sizes, *, first_within: str = "–", memory: str = "–"
) -> Iterator[Row]:
    """Measure the page on one capture; two of its figures have aims for the demo document alone."""
    cap = attlas.open_capture(file)
    heads = [(layer, head) for layer in cap.layers for head in cap.heads(layer)]
    page = _blank(browser)
    with _served(file) as (ready, address, peak):
        page.goto(address)
        first = _painted(page) / 1000 - ready
        early = _zoomed(page, *heads[0], sizes.steps)
        whole = _measured(page) - ready
        detail = (
            f"from the capture's being there to a map on the screen; all {len(heads)} heads measured after "
            f"{seconds(whole)}, a zoom in between included"
        )
        yield Row(f"first picture ({text})", "–", seconds(first), first_within, detail)
        yield from _tile_rows(page, cap, heads, sizes.tiles)
        page.goto(address)
        _painted(page)
        yield _zoom_row(
            _zoomed(page, *heads[-1], sizes.steps), "the longest task in a zoom from the atlas to single entries"
        )
        yield _zoom_row(early, "the same while the heads are still being measured")
        yield _same(page, cap, heads, sizes.cells)
        used = peak()
    page.close()
    yield Row("memory of the server beyond the capture", "–", megabytes(used), memory, "peak, after all of the above")


def _painted(page: Page) -> float:
    """Wait until a map is on the screen; return when that was, in milliseconds."""
    while not (found := page.evaluate(_PAINTED)):
        page.wait_for_timeout(20)
    return found


def _measured(page: Page) -> float:
    """Wait until the server has measured all heads; return when that was."""
    while True:
        found = json.loads(page.evaluate("async () => (await fetch('/api/statistics/a')).text()"))
        if found["done"] == found["of"]:
            return time.time()
        page.wait_for_timeout(250)


def _tile_rows(page: Page, cap: attlas.Capture, heads: Sequence[tuple[int, int]], count: int) -> Iterator[Row]:
    """Ask for tiles of all levels, of heads that nobody has opened, and for the same once more."""
    draw = np.random.default_rng(0)
    others = heads[1:]
    shape = cap[heads[0][0]].shape
    grid = Grid(shape[2], shape[3])
    levels = range(grid.levels + 1)
    paths, levels_of = [], []
    for i in range(count):
        level = levels[i % len(levels)]
        layer, head = others[_below(len(others), draw)]
        down, across = grid.tiles(level)
        row = _below(down, draw)
        col = _below(min(row + 1, across), draw)
        reduce = REDUCERS[_below(len(REDUCERS), draw)]
        paths.append(f"/api/tiles/a.{layer}.{head}/{level}/{row}/{col}?reduce={reduce}&as=f16")
        levels_of.append(level)
    cold = page.evaluate(_ASK, paths)
    warm = page.evaluate(_ASK, paths[-AGAIN:])
    by_level = (
        f"{grid.cell(level)}: {_percentile([t for t, at in zip(cold, levels_of, strict=True) if at == level], 95):.0f}"
        for level in levels
    )
    sides = f"95 % within, by the side of a cell in entries: {', '.join(by_level)} ms"
    detail = f"median {_percentile(cold, 50):.0f} ms; {sides}"
    yield Row(f"a tile, cold, 95 % of {len(paths)}", "–", f"{_percentile(cold, 95):.0f} ms", "≤ 100 ms", detail)
    detail = f"median {_percentile(warm, 50):.0f} ms; the last {len(warm)} once more"
    yield Row("a tile, warm, 95 %", "–", f"{_percentile(warm, 95):.0f} ms", "≤ 30 ms", detail)


def _zoomed(page: Page, layer: int, head: int, steps: int) -> Zoom:
    """Open a head and turn the wheel until single entries fill the screen."""
    page.locator(".cell").first.wait_for()
    begun = page.evaluate("performance.now()")
    page.locator(f'.cell[data-head="{layer}.{head}"]').click()
    canvas = page.locator(".map-zoom canvas").first
    canvas.wait_for()
    box = canvas.bounding_box()
    if box is None:
        raise RuntimeError("the matrix is not on the screen")
    # A point below the diagonal, where something is to be seen at every depth.
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.75)
    since = page.evaluate("performance.now()")
    for _ in range(steps):
        page.mouse.wheel(0, -240)
        page.wait_for_timeout(60)
    page.locator(".map-readout .number").first.wait_for()
    page.wait_for_load_state("networkidle")
    until = page.evaluate("performance.now()")
    watched = page.evaluate("() => { watched.over = true; return watched; }")
    frames = [now for now in watched["frames"] if since <= now <= until]
    pauses = [b - a for a, b in pairwise(frames)]
    tasks = [duration for start, duration in watched["tasks"] if begun <= start <= until]
    tiles = page.evaluate(_TILE_TIMES, begun)
    return Zoom(max(tasks, default=0.0), 1000 * len(frames) / (until - since), max(pauses), tiles)


def _zoom_row(zoom: Zoom, what: str) -> Row:
    """Say how smooth a zoom was."""
    longest = "none over 50 ms" if zoom.longest == 0 else f"{zoom.longest:.0f} ms"
    tiles = (
        f"{len(zoom.tiles)} tiles on the way, 95 % within {_percentile(zoom.tiles, 95):.0f} ms"
        if zoom.tiles
        else "no tiles"
    )
    detail = f"{zoom.frames:.0f} frames a second, at most {zoom.pause:.0f} ms between two; {tiles}; drawn in software"
    return Row(what, "–", longest, "≤ 100 ms", detail)


def _same(page: Page, cap: attlas.Capture, heads: Sequence[tuple[int, int]], count: int) -> Row:
    """Compare entries, as the page reads them, with those of the matrix."""
    draw = np.random.default_rng(1)
    same = 0
    for _ in range(count):
        layer, head = heads[_below(len(heads), draw)]
        matrix = cap[layer]
        row = _below(matrix.shape[2], draw)
        col = _below(row + 1, draw)
        path = f"/api/cells/a.{layer}.{head}/{row}/{col}"
        told = json.loads(page.evaluate("async (path) => (await fetch(path)).text()", path))
        index = cap.heads(layer).index(head)
        same += float(told["exact"]) == float(matrix[0, index, row, col])
    return Row(
        "entries that are `A[b, h, i, j]` to the last bit",
        "–",
        f"{same} of {count}",
        "all",
        "drawn evenly from all heads",
    )


def _below(count: int, draw: np.random.Generator) -> int:
    return int(draw.integers(count))


def _percentile(values: Sequence[float], share: int) -> float:
    """Return the smallest value that so many per cent are within."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


@contextmanager
def _browser() -> Iterator[Browser]:
    """Start Chromium as it is on the machine, before anything is timed."""
    from playwright.sync_api import sync_playwright

    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        raise FileNotFoundError("no Chromium found; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def _blank(browser: Browser) -> Page:
    page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
    page.set_default_timeout(120_000)
    page.add_init_script(_WATCH)
    return page


@contextmanager
def _served(file: Path) -> Iterator[tuple[float, str, Any]]:
    """Serve a capture from a process of its own; give when it was there, its address, and what tells the memory."""
    command = [sys.executable, "-m", "benchmarks.tasks", "serve", str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the server has no pipes")
        ready, address = process.stdout.readline().split()

        def peak() -> int:
            print(file=process.stdin, flush=True)
            return int(process.stdout.readline()) if process.stdout else 0

        yield float(ready), address, peak
        process.stdin.close()
